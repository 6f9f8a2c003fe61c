"""How figures are shown: a table in markdown, and JSON."""

import os
import platform
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from tests.benchmarks.measure import Figure


def table(figures: Iterable[Figure]) -> str:
    """Return a markdown table."""
    head = ("benchmark", "figure", "floor", "value", "95 % interval", "limit", "holds")
    rows = [head, ("---",) * len(head)]
    rows += [_row(figure) for figure in figures]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _row(figure: Figure) -> tuple[str, ...]:
    interval = figure.interval
    limited = figure.limit is not None
    return (
        figure.benchmark,
        figure.name,
        _amount(figure.floor, figure.unit) if figure.floor is not None else "",
        _amount(figure.value, figure.unit),
        f"{_number(interval.low)} to {_number(interval.high)}" if interval else "",
        "≤ " + _amount(figure.limit, figure.unit) if figure.limit is not None else "",
        ("yes" if figure.holds else "**no**") if limited else "",
    )


def _amount(value: float, unit: str) -> str:
    return f"{_number(value)} {unit}".rstrip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def document(figures: Sequence[Figure], claude: str) -> bytes:
    """Return all of it as JSON, with what it was measured on."""
    machine: dict[str, Any] = {
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "claude": claude,
    }
    body = {"machine": machine, "figures": [figure.plain() for figure in figures]}
    return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
