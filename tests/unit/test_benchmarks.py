"""Figures and charts of the benchmarks, and how they are shown."""

from dataclasses import replace
from xml.etree import ElementTree

import orjson
import pytest

from tests.benchmarks.alternatives.speed import AHEAD, ONE_PROCESS, Speed
from tests.benchmarks.beside import RIVALS, STRONGEST, compare
from tests.benchmarks.charts import Chart, Line, Point, added, middle, ratio
from tests.benchmarks.measure import Figure, Interval, Pairs, take_turns
from tests.benchmarks.plot import BOTTOM, HEIGHT, TOP, WIDTH, draw, upright
from tests.benchmarks.report import curve, document, table

KEPT = Figure("turn", "added", 1.25, "ms", 4.0, Interval(1.0, 1.5), floor=0.5)
BROKEN = Figure("turn", "ratio", 1.5, "", 1.1)
SHOWN = Figure("turn", "rate", 12345.6, "deltas/s")


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_a_figure_is_shown_with_its_floor_and_its_limit() -> None:
    head, rule, *body = rows(table([KEPT, BROKEN, SHOWN]))
    assert head == ["benchmark", "figure", "floor", "value", "95 % interval", "limit", "holds"]
    assert rule == ["---"] * len(head)
    assert body == [
        ["turn", "added", "0.5 ms", "1.25 ms", "1 to 1.5", "≤ 4 ms", "yes"],
        ["turn", "ratio", "", "1.5", "", "≤ 1.1", "**no**"],
        ["turn", "rate", "", "12,346 deltas/s", "", "", ""],
    ]


def test_a_rival_has_a_column_of_its_name() -> None:
    head, _, *body = rows(table([replace(SHOWN, rival=17.0), KEPT], "rival 1.0"))
    assert head[4:6] == ["95 % interval", "rival 1.0"]
    assert [row[5] for row in body] == ["17 deltas/s", ""]


def test_the_document_has_all_of_it() -> None:
    figures = orjson.loads(document([KEPT, SHOWN], [], "2.1"))["figures"]
    assert figures[0] == {
        "benchmark": "turn",
        "name": "added",
        "value": 1.25,
        "unit": "ms",
        "limit": 4.0,
        "interval": {"low": 1.0, "high": 1.5},
        "floor": 0.5,
        "rival": None,
        "holds": True,
    }
    assert (figures[1]["floor"], figures[1]["limit"], figures[1]["holds"]) == (None, None, True)


@pytest.mark.parametrize("count", [4, 5])
def test_noise_is_their_side_against_itself(count: int) -> None:
    noise = Pairs([0.0] * count, [1.0, 3.0, 2.0, 4.0, 9.0][:count]).noise
    assert (noise.ours, noise.theirs) == ([1.0, 2.0], [3.0, 4.0])
    assert noise.median_difference == -2.0


def test_all_are_measured_in_turns_and_each_begins_once() -> None:
    asked: list[str] = []

    def measure(name: str) -> int:
        asked.append(name)
        return len(asked)

    values = take_turns(3, lambda: measure("a"), lambda: measure("b"), lambda: measure("c"))
    assert "".join(asked) == "abcbcacab"
    assert values == [[1, 6, 8], [2, 4, 9], [3, 5, 7]]


def test_a_rival_is_compared_where_ours_was_measured() -> None:
    speeds = {
        "claude_coded": Speed(new=[0.2, 0.1, 0.3], together=[2.0], memory=[700.0]),
        "other": Speed(new=[0.4], memory=[1100.0]),
        AHEAD: Speed(new=[0.1]),
        ONE_PROCESS: Speed(),
    }
    new, together, memory = compare(speeds, "other")
    assert (new.floor, new.value, new.rival, new.unit) == (100.0, 200.0, 400.0, "ms")
    assert new.interval is not None
    assert (together.floor, together.value, together.rival, together.interval) == (None, 2000.0, None, None)
    assert (memory.value, memory.rival, memory.unit) == (700.0, 1100.0, "MB")


def test_the_strongest_rival_can_be_run() -> None:
    assert STRONGEST in RIVALS


# Sweeps ------------------------------------------------------------------------------------------------

SWEPT = Chart(
    "deltas",
    "CPU <for> a delta",
    "deltas",
    "µs",
    [
        Line("ours", [Point(100, 50.0, Interval(40.0, 60.0)), Point(20_000, 7.5, Interval(7.0, 8.0))]),
        Line("theirs", [Point(100, 2.0), Point(1_000, 1.0)]),
    ],
    limit=10.0,
)


def test_a_chart_is_a_table_too() -> None:
    title, _, *body = curve(SWEPT).splitlines()
    assert title == "deltas: CPU <for> a delta, µs (≤ 10 µs: yes)"
    assert rows("\n".join(body)) == [
        ["deltas", "ours", "theirs"],
        ["---"] * 3,
        ["100", "50", "2"],
        ["1,000", "", "1"],
        ["20,000", "7.5", ""],
    ]


def test_a_chart_keeps_its_limit_at_its_end() -> None:
    assert SWEPT.holds
    assert not replace(SWEPT, limit=7.0).holds
    assert replace(SWEPT, limit=None).holds
    assert orjson.loads(document([], [SWEPT], "2.1"))["charts"][0]["holds"]


def test_points_are_medians_in_the_unit_of_the_chart() -> None:
    point = middle(10, [0.001, 0.003, 0.002], 1000)
    assert (point.at, point.value) == (10, 2.0)
    assert point.interval is not None
    assert 1.0 <= point.interval.low <= 2.0 <= point.interval.high <= 3.0
    assert added(10, [0.004, 0.003], [0.001, 0.002]).value == pytest.approx(2.0)
    assert ratio(10, [2.0, 2.0], [1.0, 1.0]).value == 2.0


def test_a_chart_is_drawn_with_all_of_its_points() -> None:
    drawn = ElementTree.fromstring(draw([SWEPT, replace(SWEPT, limit=None), SWEPT]))
    space = {"svg": "http://www.w3.org/2000/svg"}
    charts = drawn.findall("svg:g", space)
    assert [len(chart.findall("svg:circle", space)) for chart in charts] == [4, 4, 4]
    assert [len(chart.findall("svg:path[@class='limit']", space)) for chart in charts] == [1, 0, 1]
    assert "CPU <for> a delta, µs" in [text.text for text in charts[0].findall("svg:text", space)]
    told = [title.text for title in charts[0].findall("svg:circle/svg:title", space)]
    assert told[1] == "ours, 20,000: 7.5 µs"
    assert drawn.get("viewBox") == f"0 0 {2 * WIDTH} {2 * HEIGHT}"


@pytest.mark.parametrize("values", [[3.0, 7.0], [-2.0, 5.0], [0.0], [0.5, 800.0], [-3.0, -1.0], [0.001]])
def test_a_scale_holds_all_values_and_has_ticks_between(values: list[float]) -> None:
    points = [Point(at + 1, value, Interval(value - 0.2, value + 0.2)) for at, value in enumerate(values)]
    scale = upright(Chart("", "", "", "", [Line("", points)]))
    ends = [end for point in points for end in (point.value - 0.2, point.value + 0.2)]
    assert all(TOP <= scale(end) <= HEIGHT - BOTTOM for end in ends)
    assert 2 <= len(scale.ticks) <= 6
    assert all(TOP <= scale(tick) <= HEIGHT - BOTTOM for tick in scale.ticks)


def test_a_scale_is_logarithmic_where_values_differ_widely() -> None:
    far = Chart("", "", "", "", [Line("", [Point(1, 1.5), Point(2, 150.0)])])
    scale = upright(far)
    assert scale.logarithmic
    assert scale.ticks == [1.0, 10.0, 100.0]
    assert not upright(Chart("", "", "", "", [Line("", [Point(1, 50.0), Point(2, 150.0)])])).logarithmic
