"""How results are shown: tables in markdown, and JSON."""

import os
import platform
from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson

from tests.benchmarks.charts import Chart
from tests.benchmarks.measure import Figure


def brief(result: Figure | Chart) -> str:
    """Return a line of it."""
    if isinstance(result, Figure):
        return f"{result.benchmark}: {result.name}: {amount(result.value, result.unit)}"
    points = result.lines[0].points
    told = ", ".join(f"{amount(point.value, result.unit)} at {number(point.at)}" for point in points)
    return f"{result.sweep}: {result.title}: {told}"


COLUMNS: Final = ("benchmark", "figure", "floor", "value", "95 % interval", "rival", "limit", "holds")


def table(figures: Sequence[Figure], rival: str = "") -> str:
    """Return a markdown table. `rival` is the name of the other server, if there was one."""
    rows = [_row(figure) for figure in figures]
    head = [rival if column == "rival" else column for column in COLUMNS]
    kept = [at for at, column in enumerate(COLUMNS) if column != "rival" or rival]
    return _markdown([[row[at] for at in kept] for row in (head, ("---",) * len(head), *rows)])


def _markdown(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _row(figure: Figure) -> Sequence[str]:
    interval = figure.interval
    return (
        figure.benchmark,
        figure.name,
        amount(figure.floor, figure.unit) if figure.floor is not None else "",
        amount(figure.value, figure.unit),
        f"{number(interval.low)} to {number(interval.high)}" if interval else "",
        amount(figure.rival, figure.unit) if figure.rival is not None else "",
        *_limited(figure),
    )


def _limited(result: Figure | Chart) -> tuple[str, str]:
    """Return the limit, and whether it holds."""
    if result.limit is None:
        return "", ""
    return "≤ " + amount(result.limit, result.unit), "yes" if result.holds else "**no**"


def curve(chart: Chart) -> str:
    """Return a chart as a markdown table under its title, a row for each place of its axis."""
    limit, holds = _limited(chart)
    title = f"{chart.sweep}: {chart.title}" + (f", {chart.unit}" if chart.unit else "")
    values = [{point.at: number(point.value) for point in line.points} for line in chart.lines]
    head = (chart.across, *(line.name for line in chart.lines))
    rows = [(number(at), *(of_one.get(at, "") for of_one in values)) for at in chart.places]
    return f"{title}{f' ({limit}: {holds})' if limit else ''}\n\n" + _markdown(
        [head, ("---",) * len(head), *rows]
    )


def amount(value: float, unit: str) -> str:
    """Return a number with its unit."""
    return f"{number(value)} {unit}".rstrip()


def number(value: float) -> str:
    """Return a number with three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def markdown(figures: Sequence[Figure], charts: Sequence[Chart], rival: str = "") -> str:
    """Return all of it."""
    parts = [table(figures, rival)] if figures else []
    return "\n\n".join([*parts, *map(curve, charts)]) + "\n"


def document(figures: Sequence[Figure], charts: Sequence[Chart], claude: str, rival: str = "") -> bytes:
    """Return all of it as JSON, with what it was measured on."""
    machine: dict[str, Any] = {
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "claude": claude,
    }
    body = {
        "machine": machine,
        "rival": rival or None,
        "figures": [figure.plain() for figure in figures],
        "charts": [chart.plain() for chart in charts],
    }
    return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
