"""Charts: what something costs against how much of it there is. Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from tests.benchmarks.measure import Interval, Pairs, interval_of


@dataclass(frozen=True, slots=True)
class Point:
    """A measured number at a place of the axis."""

    at: float
    value: float
    interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """Points that belong together, from left to right."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over a common axis. `across` says what grows.

    `limit` is the most that the first line may be at its end: before, what any turn costs weighs on it.
    """

    sweep: str
    title: str
    across: str
    unit: str
    lines: Sequence[Line]
    limit: float | None = None

    @property
    def places(self) -> list[float]:
        """Return where there are points."""
        return sorted({point.at for line in self.lines for point in line.points})

    @property
    def holds(self) -> bool:
        """Return whether it keeps its limit."""
        return self.limit is None or self.lines[0].points[-1].value <= self.limit

    def plain(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        return {**asdict(self), "holds": self.holds}


def middle(at: float, values: Sequence[float], scale: float = 1.0) -> Point:
    """Return the median of some values, times a factor."""
    scaled = [value * scale for value in values]
    return Point(at, median(scaled), interval_of(scaled, median))


def ratio(at: float, ours: Sequence[float], theirs: Sequence[float]) -> Point:
    """Return the ratio of two sides' medians."""
    pairs = Pairs(ours, theirs)
    return Point(at, pairs.ratio, pairs.ratio_interval())


def added(at: float, ours: Sequence[float], theirs: Sequence[float]) -> Point:
    """Return the milliseconds that ours take more, of seconds: the median of the paired differences."""
    return middle(at, Pairs(ours, theirs).differences, 1000)
