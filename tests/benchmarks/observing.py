"""Benchmarks of what it costs that a daemon counts, logs and tells what it does, and of a scrape.

The log is at its default level and goes to a journal, as under systemd. One process is measured with and
without all of it, in turns: two of the same program differ by more than it costs. Workers replay, so that
little else takes the machine's time.
"""

import http.client
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Final

from tests.benchmarks import switched
from tests.benchmarks.harness import SETTLE, BenchmarkError, Daemon, HttpConversation, daemon
from tests.benchmarks.measure import Figure, Pairs, take_turns

LIMIT: Final = 1.03
"""The daemon's CPU of a stream, to that of one which counts, logs and tells nothing."""

ROUNDS: Final = 100
DELTAS: Final = 20_000
"""Deltas of a stream, at full speed: those that come one by one cost the daemon twenty times as much, and
what is told of them costs hardly more."""

TURNS: Final = 50
"""Short turns of a round."""

SCRAPES: Final = 20
INTERVAL: Final = 15.0
"""Seconds between two scrapes of Prometheus, as it is usually told."""

ENTRY: Final = 64 * 1024
"""Bytes that hold any entry of the journal."""


def observing(running: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure a daemon like this one with and without all that tells of it."""
    rounds = 3 if quick else ROUNDS
    name, floor = "observing", "nothing counted, logged or told"
    with _switched(running) as observed, closing(observed.running.converse()) as conversation:
        conversation.ask("hello")
        for what, script, count, limit in (
            (f"stream of {DELTAS} deltas", f"[[words {DELTAS}]]", 1, LIMIT),
            ("short turn", "hello", TURNS, None),
        ):
            pairs = observed.compare(rounds, partial(_cost, observed.running, conversation, script, count))
            ours, theirs = (median(side) * 1e3 for side in (pairs.ours, pairs.theirs))
            yield Figure(name, f"CPU of a {what}; floor: {floor}", ours, "ms", floor=theirs)
            interval, noise = pairs.ratio_interval(), pairs.noise.ratio
            yield Figure(name, f"CPU of a {what}, ratio to {floor}", pairs.ratio, "", limit, interval, noise)
    seconds = _scrape(running)
    yield Figure(name, "CPU of a scrape", seconds * 1e3, "ms")
    yield Figure(name, f"that is, one every {INTERVAL:g} s", seconds / INTERVAL * 100, "% of a core")


def _cost(running: Daemon, conversation: HttpConversation, text: str, count: int) -> float:
    """Return the daemon's CPU seconds of a turn, one of so many."""
    before = running.cpu_seconds()
    for _ in range(count):
        conversation.ask(text)
    time.sleep(SETTLE)
    return (running.cpu_seconds() - before) / count


class _Observed:
    """A daemon that can be made mute, and the journal that it logs to."""

    def __init__(self, running: Daemon, journal: socket.socket) -> None:
        self.running = running
        self._journal = journal
        self._entries = 0
        Thread(target=self._read, daemon=True).start()

    def compare(self, count: int, measure: Callable[[], float]) -> Pairs:
        """Measure it as it is, and mute, in turns. Raises BenchmarkError where the one is like the other."""
        return Pairs(*take_turns(count, partial(self._loud, measure), partial(self._mute, measure)))

    def _loud(self, measure: Callable[[], float]) -> float:
        value, entries = self._measure(switched.LOUD, measure)
        if not entries:
            raise BenchmarkError("the daemon logs nothing")
        return value

    def _mute(self, measure: Callable[[], float]) -> float:
        value, entries = self._measure(switched.MUTE, measure)
        if entries:
            raise BenchmarkError("the daemon is not mute")
        return value

    def _measure(self, switch: int, measure: Callable[[], float]) -> tuple[float, int]:
        """Return what is measured, and how much was logged meanwhile."""
        os.kill(self.running.pid, switch)
        time.sleep(SETTLE)
        before = self._entries
        value = measure()
        return value, self._entries - before

    def _read(self) -> None:
        with suppress(OSError):
            while self._journal.recv(ENTRY):
                self._entries += 1


@contextmanager
def _switched(like: Daemon) -> Iterator[_Observed]:
    """Run a daemon that can be made mute, with the other's model and CLI."""
    variables = like.command.environment
    with tempfile.TemporaryDirectory(prefix="claude-coded-") as name, ExitStack() as stack:
        folder = Path(name)
        path = str(folder / "journal")
        journal = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        journal.bind(path)
        stack.callback(journal.shutdown, socket.SHUT_RD)  # which ends its reader
        settings = {
            switched.JOURNAL: path,
            "CLAUDE_CODED_LOG_FORMAT": "journal",
            "CLAUDE_CODED_CLAUDE_BIN": variables["CLAUDE_CODED_CLAUDE_BIN"],
            "CLAUDE_CODED_SPARE_WORKERS": "0",
        }
        url = variables["ANTHROPIC_BASE_URL"]
        yield _Observed(
            stack.enter_context(daemon(folder / "daemon", url, module=switched.__name__, **settings)), journal
        )


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
