"""Benchmarks of the daemon alone, with workers that replay: what it can do, and what it holds meanwhile."""

import os
import re
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from statistics import median, quantiles
from typing import Final, TypeAlias

from tests.benchmarks.harness import (
    CLI_MARKS,
    HTTP_MARKS,
    READ_SIZE,
    SETTLE,
    BenchmarkError,
    Daemon,
    DirectConversation,
)
from tests.benchmarks.measure import Figure

RATE_LIMIT: Final = 1e6 / 60_000
"""Microseconds of a core for a delta: so many of them are 60,000 a second."""

DELAY_LIMIT: Final = 10.0
"""Milliseconds that the daemon may hold back a delta of one among many streams, at the 99th percentile."""

IDLE_LIMIT: Final = 60.0
BUSY_LIMIT: Final = 100.0
CONNECTIONS_LIMIT: Final = 20.0
GROWTH_LIMIT: Final = 5.0
UNREAD_LIMIT: Final = 16.0
"""Megabytes: of the daemon at rest and with its streams, of a thousand idle connections, of thousands of
turns, and of a stream that nobody reads."""

DENSE: Final = "[[words 20000]]"
UNREAD: Final = "[[words 400000]]"
"""About 80 MB of events."""

STREAMS: Final = 200
PACE: Final = 20
"""Milliseconds between two deltas of a stream."""

APART: Final = (PACE + 20 / STREAMS) / 1000
"""Seconds between the beginnings of two streams: a little more than the pace, so that none are in step."""

SECONDS: Final = 10
SMALL: Final = 16 * 1024
"""Bytes of a read of one stream among many: the C library gets each larger buffer from the kernel anew."""

CONNECTIONS: Final = 1000
TURNS: Final = 10_000
ROUNDS: Final = 5

MANY_SETTINGS: Final = {"POOL_SIZE": str(STREAMS + 2), "CLAUDE_CODED_QUEUE_SIZE": str(STREAMS)}


def ceiling(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure what a delta costs the daemon where nothing else is slow."""
    costs, rates = [], []
    with closing(daemon.converse()) as conversation:
        conversation.ask(DENSE)
        for _ in range(2 if quick else ROUNDS):
            before = daemon.cpu_seconds()
            timing = conversation.ask(DENSE)
            time.sleep(SETTLE)
            costs.append((daemon.cpu_seconds() - before) / timing.deltas * 1e6)
            rates.append(timing.deltas / timing.total)
    name = "ceiling"
    yield Figure(name, "of a core a delta, replayed at full speed", median(costs), "µs", RATE_LIMIT)
    yield Figure(name, "that is on one core", 1e6 / median(costs), "deltas/s")
    yield Figure(name, "one stream, beside its worker and its client", median(rates), "deltas/s")


def many_streams(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure how late deltas are with many streams at once, and what the daemon holds then.

    The floor is the same streams with nobody between: one process writes them all, and we read them.
    """
    name = "many-streams"
    count = (5 if quick else SECONDS) * 1000 // PACE
    script = f"[[clock]] [[delay {PACE}]] [[words {count}]]"
    rest = daemon.memory()["rss"]
    with ExitStack() as stack:
        streams = [stack.enter_context(closing(daemon.converse())) for _ in range(STREAMS)]
        for stream in streams:
            stream.ask("hello")
        hot = daemon.memory()["rss"]
        before, started = daemon.cpu_seconds(), time.monotonic()
        ours = _Delays.of([partial(stream.begin, script) for stream in streams], HTTP_CLOCK)
        load = (daemon.cpu_seconds() - before) / (time.monotonic() - started)
        busy = daemon.memory()["rss"]
    with ExitStack() as stack:
        alone = [stack.enter_context(closing(DirectConversation(daemon.command))) for _ in range(STREAMS)]
        for direct in alone:
            direct.ask("hello")
        floor = _Delays.of([partial(direct.begin, script) for direct in alone], CLI_CLOCK)
    ours.check(count)
    floor.check(count)
    title = f"{STREAMS} streams of {1000 // PACE} deltas/s"
    late = f"{title}: delay of a delta, 99th percentile"
    yield Figure(name, late, ours.percentile(99), "ms", DELAY_LIMIT, floor=floor.percentile(99))
    yield Figure(name, "the median", ours.percentile(50), "ms", floor=floor.percentile(50))
    yield Figure(name, "the worst stream's median", ours.worst_median, "ms", floor=floor.worst_median)
    yield Figure(name, "the worst delta", ours.worst, "ms", floor=floor.worst)
    yield Figure(name, "the daemon's load", load * 100, "% of a core")
    yield Figure(name, f"resident, {STREAMS} streams", max(busy, hot), "MB", BUSY_LIMIT)
    yield Figure(name, "resident, at rest", rest, "MB", IDLE_LIMIT)


_Read: TypeAlias = tuple[int, bytes]
"""What was read from a stream, and when (CLOCK_MONOTONIC, nanoseconds)."""


@dataclass(frozen=True, slots=True)
class Clock:
    """How deltas tell when they were written: between what they do, and what is the last of a turn."""

    stamp: re.Pattern[bytes]
    between: bytes
    close: bytes

    def ends(self, reads: Sequence[_Read]) -> bool:
        """Return whether the last of some reads is that of a turn."""
        return self.close in b"".join(data for _, data in reads[-2:])

    def delays(self, reads: Iterable[_Read]) -> Iterator[float]:
        """Yield how many milliseconds each delta took, from its writing to the read that made it whole."""
        rest = b""
        for when, data in reads:
            whole, _, rest = (rest + data).rpartition(self.between)
            for stamp in self.stamp.findall(whole):
                yield (when - int(stamp)) / 1e6


HTTP_CLOCK: Final = Clock(re.compile(rb'"content":"(\d+) "'), b"\n\n", HTTP_MARKS.close)
CLI_CLOCK: Final = Clock(re.compile(rb'"text_delta","text":"(\d+) "'), b"\n", CLI_MARKS.close)


@dataclass(frozen=True, slots=True)
class _Delays:
    """How many milliseconds each delta of each stream took from its worker to us."""

    streams: Sequence[Sequence[float]]

    @classmethod
    def of(cls, begins: Sequence[Callable[[], int]], clock: Clock) -> "_Delays":
        """Begin streams, one after the other, read them to their ends, and only then look what they told."""
        streams: list[list[_Read]] = [[] for _ in begins]
        reading: dict[int, list[_Read]] = {}
        begun, started = 0, time.monotonic()
        with select.epoll() as events:
            while begun < len(begins) or reading:
                if begun < len(begins) and time.monotonic() >= started + begun * APART:
                    descriptor = begins[begun]()
                    reading[descriptor] = streams[begun]
                    events.register(descriptor, select.EPOLLIN)
                    begun += 1
                for descriptor, _ in events.poll(APART):
                    new = os.read(descriptor, SMALL)
                    reading[descriptor].append((time.monotonic_ns(), new))
                    if clock.ends(reading[descriptor]):
                        events.unregister(descriptor)
                        del reading[descriptor]
                    elif not new:
                        raise BenchmarkError("a stream broke off")
        return cls([list(clock.delays(stream)) for stream in streams])

    def check(self, count: int) -> None:
        """Raise BenchmarkError where a stream has other than so many deltas."""
        if starved := [len(stream) for stream in self.streams if len(stream) != count]:
            raise BenchmarkError(f"streams have {starved} deltas of {count}")

    def percentile(self, number: int) -> float:
        """Return a percentile of all."""
        return quantiles((delay for stream in self.streams for delay in stream), n=100)[number - 1]

    @property
    def worst(self) -> float:
        """Return the longest."""
        return max(map(max, self.streams))

    @property
    def worst_median(self) -> float:
        """Return the median of the stream that comes latest."""
        return max(map(median, self.streams))


def idle_connections(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure what connections cost that are kept and not used."""
    count = 100 if quick else CONNECTIONS
    request = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{daemon.port}\r\n\r\n".encode()
    daemon.health()
    before = daemon.memory()["rss"]
    with ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
            connection.sendall(request)
            connection.recv(READ_SIZE)
        after = daemon.memory()["rss"]
    limit = CONNECTIONS_LIMIT
    yield Figure("idle-connections", f"resident, of {count} kept connections", after - before, "MB", limit)


def many_turns(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure what the daemon keeps in memory of turns, and what of a stream that nobody reads."""
    count = 500 if quick else TURNS
    name = "many-turns"
    with closing(daemon.converse()) as chat, closing(daemon.respond()) as responses:
        for number in range(count // 5):
            (responses if number % 2 else chat).ask("hello")
        before = daemon.memory()["rss"]
        for number in range(count - count // 5):
            (responses if number % 2 else chat).ask("hello")
        after = daemon.memory()["rss"]
    yield Figure(name, f"resident, more after {count} turns", after - before, "MB", GROWTH_LIMIT)
    with closing(daemon.converse()) as unread:
        unread.ask("hello")
        before = daemon.memory()["rss"]
        unread.begin(UNREAD)
        after = _at_rest(daemon)
    yield Figure(name, "resident, of a stream that nobody reads", after - before, "MB", UNREAD_LIMIT)


def _at_rest(daemon: Daemon) -> float:
    """Return the daemon's memory once it does no more than at rest: what is to be held is held by then."""
    for _ in range(100):
        before = daemon.cpu_seconds()
        time.sleep(0.5)
        if daemon.cpu_seconds() - before <= 0.02:
            return daemon.memory()["rss"]
    raise BenchmarkError("the daemon goes on to work for a client that does not read")
