"""Benchmark of the daemon's memory."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from subprocess import PIPE
from typing import Final

from tests.benchmarks.harness import SETTLE, BenchmarkError, Daemon, end, memory_of, pipes
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
    bare = _bare()
    name, title = "memory", f"{WORKERS} hot workers"
    yield Figure(name, f"resident, {title}", figures["rss"], "MB", RSS_LIMIT, floor=bare["rss"])
    yield Figure(name, f"unshared, {title}", figures["uss"], "MB", floor=bare["uss"])


def _bare() -> dict[str, float]:
    """Return the memory of a Python that does nothing."""
    idle = subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], stdin=PIPE, stdout=PIPE)
    stdin, stdout = pipes(idle)
    with closing(stdin), closing(stdout):
        try:
            stdout.readline()
            return memory_of(idle.pid)
        finally:
            end(idle)
