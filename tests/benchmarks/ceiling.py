"""Benchmarks of the daemon alone, with workers that replay: what it can do, and what it holds meanwhile."""

import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from statistics import median, quantiles
from typing import Final

from tests.benchmarks.harness import HTTP_MARKS, READ_SIZE, SETTLE, BenchmarkError, Daemon, HttpConversation
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

APART: Final = 0.02
"""Seconds between the beginnings of two streams."""

SECONDS: Final = 10
CONNECTIONS: Final = 1000
TURNS: Final = 10_000
ROUNDS: Final = 5

MANY_SETTINGS: Final = {"POOL_SIZE": str(STREAMS + 2), "CLAUDE_CODED_QUEUE_SIZE": str(STREAMS)}

_CLOCK: Final = re.compile(rb'"content":"(\d+) "')


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
    """Measure how late deltas are with many streams at once, and what the daemon holds then."""
    name = "many-streams"
    rest = daemon.memory()["rss"]
    with ExitStack() as stack:
        streams = [stack.enter_context(closing(daemon.converse())) for _ in range(STREAMS)]
        for stream in streams:
            stream.ask("hello")
        hot = daemon.memory()["rss"]
        count = (5 if quick else SECONDS) * 1000 // PACE
        before, started = daemon.cpu_seconds(), time.monotonic()
        delays = _delays(streams, f"[[clock]] [[delay {PACE}]] [[words {count}]]")
        load = (daemon.cpu_seconds() - before) / (time.monotonic() - started)
        busy = daemon.memory()["rss"]
    if starved := [len(of) for of in delays if len(of) != count]:
        raise BenchmarkError(f"streams have {starved} deltas of {count}")
    every = sorted(delay for of in delays for delay in of)
    title = f"{STREAMS} streams of {1000 // PACE} deltas/s"
    cuts = quantiles(every, n=100)
    yield Figure(name, f"{title}: delay of a delta, 99th percentile", cuts[98], "ms", DELAY_LIMIT)
    yield Figure(name, "the median", cuts[49], "ms")
    yield Figure(name, "the worst stream's median", max(median(of) for of in delays), "ms")
    yield Figure(name, "the worst delta", every[-1], "ms")
    yield Figure(name, "the daemon's load", load * 100, "% of a core")
    yield Figure(name, f"resident, {STREAMS} streams", max(busy, hot), "MB", BUSY_LIMIT)
    yield Figure(name, "resident, at rest", rest, "MB", IDLE_LIMIT)


def _delays(streams: list[HttpConversation], script: str) -> list[list[float]]:
    """Begin streams, one after the other, and read them to their ends.

    Return how many milliseconds each delta took from its worker to us.
    """
    delays: list[list[float]] = [[] for _ in streams]
    tails = [b""] * len(streams)
    by_descriptor = {stream.socket.fileno(): number for number, stream in enumerate(streams)}
    begun, running, started = 0, 0, time.monotonic()
    with select.epoll() as events:
        while begun < len(streams) or running:
            if begun < len(streams) and time.monotonic() >= started + begun * APART:
                streams[begun].begin(script)
                events.register(streams[begun].socket, select.EPOLLIN)
                begun, running = begun + 1, running + 1
            for descriptor, _ in events.poll(APART):
                number = by_descriptor[descriptor]
                data = tails[number] + streams[number].socket.recv(READ_SIZE)
                now = time.monotonic_ns()
                whole, end, rest = data.rpartition(b"\n\n")
                delays[number] += [(now - int(stamp)) / 1e6 for stamp in _CLOCK.findall(whole)]
                tails[number] = end + rest
                if data.endswith(HTTP_MARKS.close):
                    events.unregister(descriptor)
                    running -= 1
                elif not data:
                    raise BenchmarkError("the daemon closed a connection")
    return delays


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
