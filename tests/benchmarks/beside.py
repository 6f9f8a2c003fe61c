"""Benchmarks of another server beside ours, in one run: the same client, CLI, model and machine, in turns."""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from tests.benchmarks.alternatives.running import adopt_orphans, install_all
from tests.benchmarks.alternatives.servers import ALTERNATIVES, OURS, Server
from tests.benchmarks.alternatives.speed import (
    AHEAD,
    AT_ONCE,
    DELTAS,
    ONE_PROCESS,
    ROUNDS,
    Speed,
    contenders,
    race,
)
from tests.benchmarks.harness import model
from tests.benchmarks.measure import Figure, interval_of

RIVALS: Final[Mapping[str, Server]] = {server.name: server for server in ALTERNATIVES}

STRONGEST: Final = "claude-code-openai"
"""The only other one that keeps a CLI's process from turn to turn: no other comes near on later turns."""

MEASURED: Final = (
    ("first content, new conversation; floor: the CLI spawned ahead", "new", 1000, "ms", AHEAD),
    ("first content, second turn; floor: the CLI, hot", "second", 1000, "ms", ONE_PROCESS),
    (f"{DELTAS} deltas, later turn; floor: the CLI, hot", "again", 1000, "ms", ONE_PROCESS),
    (f"{AT_ONCE} new conversations at once, all of them", "together", 1000, "ms", None),
    ("memory at rest, all processes", "memory", 1, "MB", None),
)


def beside(name: str, *, quick: bool) -> Iterator[Figure]:
    """Measure ours and a rival, which is installed if it is not. Raises BenchmarkError and InstallError."""
    servers = (OURS, RIVALS[name])
    places = install_all(servers, _tell)
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="claude-coded-") as folder, model() as url:
        speeds = race(contenders(servers, places, url), Path(folder), 1 if quick else ROUNDS, _tell)
    for server in servers:
        for fault in speeds[server.name].faults:
            _tell(f"{server.name}: {fault}")
    yield from compare(speeds, name)


def compare(speeds: Mapping[str, Speed], name: str) -> Iterator[Figure]:
    """Return what both took, and the CLI itself: medians."""
    for title, what, scale, unit, floor in MEASURED:
        ours, theirs = (_scaled(speeds[it], what, scale) for it in (OURS.name, name))
        least = _scaled(speeds[floor], what, scale) if floor else []
        if ours:
            yield Figure(
                "beside",
                title,
                median(ours),
                unit,
                interval=interval_of(ours, median) if len(ours) > 1 else None,
                floor=median(least) if least else None,
                rival=median(theirs) if theirs else None,
            )


def _scaled(speed: Speed, what: str, scale: float) -> Sequence[float]:
    values: Sequence[float] = getattr(speed, what)
    return [value * scale for value in values]


def _tell(what: str) -> None:
    print(f"beside: {what}", file=sys.stderr, flush=True)
