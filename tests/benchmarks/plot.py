"""Charts as one SVG: small multiples, readable on light and dark pages, values under the pointer. Pure."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from tests.benchmarks.charts import Chart, Line
from tests.benchmarks.report import amount, number

COLUMNS: Final = 2
WIDTH, HEIGHT = 460, 290
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 66, 52
"""Of a chart in its cell: what is around the lines."""

WIDE: Final = 30.0
"""Values that differ by such a factor are drawn on a logarithmic scale."""

STYLE: Final = """
svg { font: 12px system-ui, "DejaVu Sans", sans-serif; }
.page { fill: #ffffff; } text { fill: #59636e; } .title { fill: #1f2328; font-weight: 600; }
.grid { stroke: #d8dee4; } .limit { stroke: #cf222e; stroke-dasharray: 5 4; }
.bound { fill: #cf222e; }
.a { stroke: #0969da; fill: #0969da; } .b { stroke: #bc4c00; fill: #bc4c00; }
.c { stroke: #8250df; fill: #8250df; }
@media (prefers-color-scheme: dark) {
  .page { fill: #0d1117; } text { fill: #9198a1; } .title { fill: #e6edf3; }
  .grid { stroke: #30363d; } .limit { stroke: #ff7b72; } .bound { fill: #ff7b72; }
  .a { stroke: #58a6ff; fill: #58a6ff; } .b { stroke: #f0883e; fill: #f0883e; }
  .c { stroke: #bc8cff; fill: #bc8cff; }
}
path.a, path.b, path.c { fill: none; stroke-width: 2; } polygon { opacity: 0.16; }
tspan[class], polygon[class] { stroke: none; } .end { text-anchor: end; } .mid { text-anchor: middle; }
"""


@dataclass(frozen=True, slots=True)
class Scale:
    """Where values stand between two ends of the page."""

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        bend: Callable[[float], float] = math.log if self.logarithmic else float
        low, high = bend(self.low), bend(self.high)
        share = (bend(value) - low) / (high - low)
        return round(self.start + share * (self.stop - self.start), 1)

    @property
    def ticks(self) -> list[float]:
        """Return round values between the ends."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            return [10.0**power for power in powers if self.low <= 10.0**power <= self.high]
        step = _step(self.high - self.low)
        return [step * count for count in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def _step(span: float) -> float:
    """Return a round number of which some four make a span."""
    unit: float = 10.0 ** math.floor(math.log10(span / 4))
    return next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor * 4.5 >= span)


def upright(chart: Chart) -> Scale:
    """Return the scale of a chart's values, from nought where they do not differ too much."""
    points = [point for line in chart.lines for point in line.points]
    values = [point.value for point in points] + ([chart.limit] if chart.limit is not None else [])
    ends = [end for it in points if it.interval for end in (it.interval.low, it.interval.high)] + values
    low, high = min(ends), max(ends)
    if low > 0 and max(values) > WIDE * min(values):
        return Scale(10 ** math.floor(math.log10(low)), high * 1.3, HEIGHT - BOTTOM, TOP, logarithmic=True)
    room = (high - min(low, 0.0)) * 0.08 or 1.0
    return Scale(min(low * 1.1, 0.0), high + room, HEIGHT - BOTTOM, TOP)


def level(chart: Chart) -> Scale:
    """Return the scale of what a chart's values are drawn against."""
    places = chart.places
    return Scale(places[0] * 0.85, places[-1] / 0.85, LEFT, WIDTH - RIGHT, logarithmic=True)


def draw(charts: Sequence[Chart]) -> str:
    """Return an SVG of all charts."""
    width, height = COLUMNS * WIDTH, -(-len(charts) // COLUMNS) * HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
    ]
    for number_, chart in enumerate(charts):
        row, column = divmod(number_, COLUMNS)
        parts += [f'<g transform="translate({column * WIDTH} {row * HEIGHT})">', *_chart(chart), "</g>"]
    return "\n".join([*parts, "</svg>\n"])


def _chart(chart: Chart) -> Iterator[str]:
    across, up = level(chart), upright(chart)
    yield _text(LEFT, 26, chart.title + (f", {chart.unit}" if chart.unit else ""), "title")
    yield _legend(chart)
    for value in up.ticks:
        yield _rule(up(value), "grid")
        yield _text(LEFT - 8, up(value) + 4, number(value), "end")
    for place in chart.places:
        yield _text(across(place), HEIGHT - BOTTOM + 18, number(place), "mid")
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 38, chart.across, "mid")
    if chart.limit is not None:
        yield _rule(up(chart.limit), "limit")
    for line, colour in zip(chart.lines, "abc", strict=False):
        yield from _line(line, colour, chart.unit, across, up)


def _legend(chart: Chart) -> str:
    told = [(f"● {line.name}", colour) for line, colour in zip(chart.lines, "abc", strict=False)]
    if chart.limit is not None:
        told.append((f"┄ limit {amount(chart.limit, chart.unit)}", "bound"))
    spans = (f'<tspan class="{kind}" dx="14">{escape(text)}</tspan>' for text, kind in told)
    return f'<text x="{LEFT - 14}" y="46">{"".join(spans)}</text>'


def _line(line: Line, colour: str, unit: str, across: Scale, up: Scale) -> Iterator[str]:
    spans = [(point.at, it.low, it.high) for point in line.points if (it := point.interval)]
    edge = [(at, high) for at, _, high in spans] + [(at, low) for at, low, _ in reversed(spans)]
    corners = " ".join(f"{across(at)},{up(value)}" for at, value in edge)
    yield f'<polygon class="{colour}" points="{corners}"/>'
    places = [(across(point.at), up(point.value)) for point in line.points]
    yield f'<path class="{colour}" d="M {" L ".join(f"{x} {y}" for x, y in places)}"/>'
    for (x, y), point in zip(places, line.points, strict=True):
        told = escape(f"{line.name}, {number(point.at)}: {amount(point.value, unit)}")
        yield f'<circle class="{colour}" cx="{x}" cy="{y}" r="3"><title>{told}</title></circle>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(text)}</text>'


def _rule(y: float, kind: str) -> str:
    return f'<path class="{kind}" d="M {LEFT} {y} H {WIDTH - RIGHT}"/>'
