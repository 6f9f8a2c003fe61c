"""Figures, and how they are shown."""

import orjson
import pytest

from tests.benchmarks.measure import Figure, Interval, Pairs, take_turns
from tests.benchmarks.report import document, table

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


def test_the_document_has_all_of_it() -> None:
    figures = orjson.loads(document([KEPT, SHOWN], "2.1"))["figures"]
    assert figures[0] == {
        "benchmark": "turn",
        "name": "added",
        "value": 1.25,
        "unit": "ms",
        "limit": 4.0,
        "interval": {"low": 1.0, "high": 1.5},
        "floor": 0.5,
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
