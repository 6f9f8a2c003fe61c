"""Benchmark of claude-codectl: from its start to an answer of the daemon's."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Final

from tests.benchmarks.harness import Daemon
from tests.benchmarks.latency import alternate
from tests.benchmarks.measure import Figure

START_LIMIT: Final = 150.0
"""Milliseconds from the start of `claude-codectl status` to its end."""

PROGRAM: Final = Path(sys.executable).with_name("claude-codectl")


def client_start(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure `status`, against the start and end of a Python that does nothing."""
    daemon.await_spare()
    status = [str(PROGRAM), "--socket", str(daemon.control), "status"]
    bare = [sys.executable, "-c", "pass"]
    pairs = alternate(8 if quick else 40, lambda _: _run(status), lambda _: _run(bare))
    name = "client-start"
    ours, theirs = (median(side) * 1000 for side in (pairs.ours, pairs.theirs))
    yield Figure(name, "claude-codectl status, median", ours, "ms", START_LIMIT, floor=theirs)
    interval = pairs.ratio_interval()
    yield Figure(name, "ratio to an empty Python program", pairs.ratio, "", interval=interval, floor=1.0)


def _run(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started
