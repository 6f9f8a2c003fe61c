"""Benchmarks of what it costs to count: streams and short turns with and without it, and a scrape.

One process of the same program differs from the next by more than that costs: several are measured. What
counting takes by itself, here in this process, is the finer figure.
"""

import http.client
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

from claude_coded.metrics import Metrics
from tests.benchmarks.harness import BenchmarkError, Daemon, daemon
from tests.benchmarks.measure import Figure, Pairs, take_turns
from tests.benchmarks.streams import DELTAS, stream

LIMIT: Final = 1.03
"""The daemon's CPU, to that of one which counts nothing."""

SHARE: Final = 3.0
"""Percent of what a daemon takes that counts nothing."""

TIMES: Final = 5000
TURNS: Final = 20
SCRAPES: Final = 20
INTERVAL: Final = 15.0
"""Seconds between two scrapes of Prometheus, as it is usually told."""

PROGRAMS: Final = ("claude_coded", "tests.benchmarks.unmetered")


@dataclass(frozen=True, slots=True)
class Cost:
    """The daemon's CPU, in seconds: for a stream's delta, and for a short turn."""

    delta: float
    turn: float


def metered(running: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure daemons like this one beside others that count nothing."""
    ours, theirs = _beside(running, 1 if quick else 5)
    name = "metrics"
    for what, unit, scale, field in (
        (f"CPU of a delta, streams of {DELTAS}", "µs", 1e6, "delta"),
        ("CPU of a short turn", "ms", 1e3, "turn"),
    ):
        pairs = Pairs(*([getattr(cost, field) * scale for cost in side] for side in (ours, theirs)))
        yield Figure(
            name, f"{what}; floor: nothing counted", median(pairs.ours), unit, floor=median(pairs.theirs)
        )
        interval, noise = pairs.ratio_interval(), pairs.noise.ratio
        yield Figure(name, f"{what}, ratio to nothing counted", pairs.ratio, "", LIMIT, interval, noise)
        share = _counting(field) * scale / median(pairs.theirs) * 100
        yield Figure(name, f"{what}, counting alone", share, "%", SHARE)
    seconds = _scrape(running)
    yield Figure(name, "CPU of a scrape", seconds * 1e3, "ms")
    yield Figure(name, f"that is, one every {INTERVAL:g} s", seconds / INTERVAL * 100, "% of a core")


def _beside(running: Daemon, count: int) -> tuple[Sequence[Cost], Sequence[Cost]]:
    """Return what so many daemons with and without it took, in turns, twice each."""
    ours: list[Cost] = []
    theirs: list[Cost] = []
    url = running.command.environment["ANTHROPIC_BASE_URL"]
    for _ in range(count):
        with tempfile.TemporaryDirectory(prefix="claude-coded-") as folder, ExitStack() as stack:
            one, other = (
                stack.enter_context(daemon(Path(folder) / module, url, module=module, POOL_SIZE="2"))
                for module in PROGRAMS
            )
            sides = take_turns(2, partial(_cost, one), partial(_cost, other))
        ours += sides[0]
        theirs += sides[1]
    return ours, theirs


def _cost(running: Daemon) -> Cost:
    with closing(running.converse()) as conversation:
        conversation.ask("hello")
        running.await_spare()
        streamed = stream(conversation, running.pid, DELTAS).between
        before = running.cpu_seconds()
        for _ in range(TURNS):
            conversation.ask("hello")
        return Cost(streamed / DELTAS, (running.cpu_seconds() - before) / TURNS)


def _counting(field: str) -> float:
    """Return the CPU seconds of counting a turn, or a piece of a stream: the best of several tries."""
    metrics = Metrics("1", "2", time.monotonic)
    step = partial({"turn": _tell_of_a_turn, "delta": _tell_of_a_piece}[field], metrics)
    tries = []
    for _ in range(5):
        before = time.thread_time()
        for _ in range(TIMES):
            step()
        tries.append((time.thread_time() - before) / TIMES)
    return min(tries)


def _tell_of_a_turn(metrics: Metrics) -> None:
    """Tell what a hot turn tells."""
    turn = metrics.turn({}, "chat", "claude-code", time.monotonic(), conversation="c", tenant="t")
    turn.reach("admitted")
    turn.reach("planned")
    turn.reach("granted", worker="w1", age=5.0)
    turn.reach("asked", kind="continue", way="continue", hot=True)
    turn.reach("answering", loaded=4.0)
    turn.reach("answered")
    used: dict[str, Any] = {"input": 5, "output": 1, "cost_usd": 0.1, "cache_read": 4, "cache_write": 1}
    turn.end(reason="stop", calls=0, **used)


def _tell_of_a_piece(metrics: Metrics) -> None:
    metrics.traffic.streamed += 200


def _scrape(running: Daemon) -> float:
    """Return the daemon's CPU for a look at its page."""
    before = running.cpu_seconds()
    with closing(http.client.HTTPConnection("127.0.0.1", running.port)) as connection:
        for _ in range(SCRAPES):
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            if not (response.read() and response.status == 200):
                raise BenchmarkError("there is no /metrics")
    return (running.cpu_seconds() - before) / SCRAPES
