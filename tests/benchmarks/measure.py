"""Figures and the statistics behind them: pure."""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any, Final, TypeVar

T = TypeVar("T")

RESAMPLES: Final = 4000
CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Timing:
    """One turn as its client saw it; times in seconds from the moment before it was asked.

    That was at `asked`, by `perf_counter`. `first` is when the first piece of the answer came, `total` when
    its end came; `deltas` counts the pieces.
    """

    first: float
    total: float
    deltas: int
    asked: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval, in the unit of its figure."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `limit` is the most that it may be; None: it is shown only.

    `floor` is what the machine, or the CLI with nobody between, takes for the same thing, in the same unit;
    None: there is no such thing. `rival` is what another server takes.
    """

    benchmark: str
    name: str
    value: float
    unit: str
    limit: float | None = None
    interval: Interval | None = None
    floor: float | None = None
    rival: float | None = None

    @property
    def holds(self) -> bool:
        """Return whether it keeps its limit."""
        return self.limit is None or self.value <= self.limit

    def plain(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        return {**asdict(self), "holds": self.holds}


@dataclass(frozen=True, slots=True)
class Pairs:
    """What two sides took for the same thing, measured in alternation: one value of each a pair."""

    ours: Sequence[float]
    theirs: Sequence[float]

    @property
    def differences(self) -> list[float]:
        """Return ours less theirs, pair by pair."""
        return [our - their for our, their in zip(self.ours, self.theirs, strict=True)]

    @property
    def median_difference(self) -> float:
        """Return the median of the paired differences."""
        return median(self.differences)

    @property
    def quartile_difference(self) -> float:
        """Return the difference of the lower quartiles: what others do on the machine tells less there."""
        return quantiles(self.ours, n=4)[0] - quantiles(self.theirs, n=4)[0]

    @property
    def ratio(self) -> float:
        """Return the ratio of the medians, ours to theirs."""
        return median(self.ours) / median(self.theirs)

    @property
    def noise(self) -> "Pairs":
        """Return their side against itself, one value beside the next: what nobody can do better than."""
        even = len(self.theirs) // 2 * 2
        return Pairs(self.theirs[0:even:2], self.theirs[1:even:2])

    def difference_interval(self) -> Interval:
        """Return the bootstrap interval of the median difference."""
        return interval_of(self.differences, median)

    def ratio_interval(self) -> Interval:
        """Return the bootstrap interval of the ratio of the medians."""
        pairs = list(zip(self.ours, self.theirs, strict=True))
        return interval_of(pairs, lambda some: Pairs(*zip(*some, strict=True)).ratio)


def take_turns(count: int, *measures: Callable[[], T]) -> list[list[T]]:
    """Return the values of each, measured in turns `count` times; who begins changes from turn to turn."""
    values: list[list[T]] = [[] for _ in measures]
    for turn in range(count):
        for step in range(len(measures)):
            number = (turn + step) % len(measures)
            values[number].append(measures[number]())
    return values


def interval_of(values: Sequence[T], figure: Callable[[Sequence[T]], float]) -> Interval:
    """Return the bootstrap interval of a figure of some values."""
    dice = random.Random(0)
    figures = sorted(figure(dice.choices(values, k=len(values))) for _ in range(RESAMPLES))
    outside = round(RESAMPLES * (1 - CONFIDENCE) / 2)
    return Interval(figures[outside], figures[-outside - 1])
