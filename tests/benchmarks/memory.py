"""Benchmark of the daemon's memory."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Final

from tests.benchmarks.harness import SETTLE, BenchmarkError, Daemon
from tests.benchmarks.measure import Figure

RSS_LIMIT: Final = 80.0
"""Megabytes of the daemon itself, its workers not counted."""

WORKERS: Final = 5
SCRIPT: Final = "[[words 2000]]"


def memory(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure the daemon with as many hot workers as its pool holds, each after a stream."""
    with ExitStack() as stack:
        for _ in range(WORKERS):
            conversation = stack.enter_context(closing(daemon.converse()))
            for _ in range(1 if quick else 3):
                conversation.ask(SCRIPT)
        time.sleep(SETTLE)
        hot = daemon.health()["conversations"]["hot"]
        if hot != WORKERS:
            raise BenchmarkError(f"{hot} workers are hot, not {WORKERS}")
        figures = daemon.memory()
    name = "memory"
    yield Figure(name, f"resident, {WORKERS} hot workers", figures["rss"], "MB", RSS_LIMIT)
    yield Figure(name, f"unshared, {WORKERS} hot workers", figures["uss"], "MB")
