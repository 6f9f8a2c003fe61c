"""Benchmarks of a long stream: its rate, and what a piece of it costs the daemon."""

import time
from collections.abc import Iterator
from contextlib import closing
from statistics import median
from typing import Final

from tests.benchmarks.harness import (
    SETTLE,
    BenchmarkError,
    Daemon,
    DirectConversation,
    HttpConversation,
)
from tests.benchmarks.latency import alternate
from tests.benchmarks.measure import Figure, Timing

DELTAS: Final = 20_000
SCRIPT: Final = f"[[words {DELTAS}]]"

CPU_LIMIT: Final = 30.0
"""Microseconds of the daemon's CPU for a delta."""

IDLE_SECONDS: Final = 2.0
"""How long the daemon is watched at rest."""


def stream_rate(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure how long a stream takes, against the CLI read by somebody who only counts."""
    pairs = alternate(
        2 if quick else 5,
        lambda _: _stream(daemon, daemon.converse()).total,
        lambda _: _stream(daemon, DirectConversation(daemon.command)).total,
    )
    name = "stream-rate"
    yield Figure(name, f"ratio of wall times, {DELTAS} deltas", pairs.ratio, "")
    yield Figure(name, "through the daemon", DELTAS / median(pairs.ours), "deltas/s")
    yield Figure(name, "from the CLI itself", DELTAS / median(pairs.theirs), "deltas/s")


def cpu_per_delta(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure the daemon's own CPU for a delta, less what it uses at rest in the same time."""
    daemon.await_spare()
    idle = _idle_load(daemon)
    spent = 0.0
    streams = 2 if quick else 5
    for _ in range(streams):
        spent += _stream_cost(daemon, idle)
    name = "cpu-per-delta"
    yield Figure(
        name, f"{streams} streams of {DELTAS} deltas", spent / streams / DELTAS * 1e6, "µs", CPU_LIMIT
    )
    yield Figure(name, "at rest", idle * 100, "% of a core")


def _stream(daemon: Daemon, conversation: HttpConversation | DirectConversation) -> Timing:
    """Run a stream as the second turn of a conversation, all of it."""
    with closing(conversation):
        _prepare(daemon, conversation)
        return _complete(conversation.ask(SCRIPT))


def _prepare(daemon: Daemon, conversation: HttpConversation | DirectConversation) -> None:
    conversation.ask("hello")
    daemon.await_spare()


def _complete(timing: Timing) -> Timing:
    if timing.deltas != DELTAS:
        raise BenchmarkError(f"{timing.deltas} deltas of {DELTAS} arrived")
    return timing


def _idle_load(daemon: Daemon) -> float:
    """Return the cores that the daemon uses at rest."""
    before = daemon.cpu_seconds()
    time.sleep(IDLE_SECONDS)
    return (daemon.cpu_seconds() - before) / IDLE_SECONDS


def _stream_cost(daemon: Daemon, idle: float) -> float:
    """Return the seconds of CPU that a stream takes beyond the load at rest."""
    with closing(daemon.converse()) as conversation:
        _prepare(daemon, conversation)
        before, started = daemon.cpu_seconds(), time.perf_counter()
        _complete(conversation.ask(SCRIPT))
        time.sleep(SETTLE)
        return daemon.cpu_seconds() - before - idle * (time.perf_counter() - started)
