"""Benchmarks of a long stream: its rate, and what a piece of it costs the daemon.

What the daemon is held against is a relay: the same CLI and the same client, with a process between them that
copies bytes as they come. Model, CLI, daemon and client share the machine's cores, so the CLI alone would be
no measure. The relay is no floor of the time: it wakes the client for each line, the daemon for many at once.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from socket import IPPROTO_TCP, TCP_NODELAY, create_connection
from statistics import median
from typing import Final
from uuid import uuid4

from claude_coded.claude.protocol import Protocol, Setup, message_line
from claude_coded.turn import Message, Role
from tests.benchmarks import relay
from tests.benchmarks.harness import (
    ANSWER_TIMEOUT,
    CLI_MARKS,
    READ_SIZE,
    SETTLE,
    BenchmarkError,
    Command,
    Daemon,
    HttpConversation,
    cpu_seconds,
    end,
    follow,
    pipes,
)
from tests.benchmarks.measure import Figure, Pairs, Timing, take_turns

DELTAS: Final = 20_000

CPU_LIMIT: Final = 15.0
"""Microseconds of the daemon's CPU for a delta, HTTP and all."""

RATE_LIMIT: Final = 1.10
"""The time of a stream through the daemon, to that through the relay."""

IDLE_SECONDS: Final = 2.0
"""How long the daemon is watched at rest."""


class RelayedConversation:
    """A conversation with a CLI of our own, through the relay; `pid` is the relay's."""

    def __init__(self, command: Command) -> None:
        self._cli = command.spawn()
        numbers = [pipe.fileno() for pipe in pipes(self._cli)]
        self._relay = subprocess.Popen(
            [sys.executable, "-I", relay.__file__, *map(str, numbers)],
            stdout=subprocess.PIPE,
            pass_fds=numbers,
        )
        for pipe in pipes(self._cli):
            pipe.close()  # the relay has them
        self.pid = self._relay.pid
        assert self._relay.stdout is not None
        with self._relay.stdout as said:
            port = int(said.readline())
        self._socket = create_connection(("127.0.0.1", port), timeout=ANSWER_TIMEOUT)
        self._socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        self._setup = Protocol().initialize(Setup())[0]

    def ask(self, text: str) -> Timing:
        """Run a turn."""
        line = message_line(Message.of(Role.USER, text), str(uuid4()), query=True)
        started = time.perf_counter()
        self._socket.sendall(self._setup + line)
        self._setup = b""
        return follow(self._read, CLI_MARKS, started)

    def close(self) -> None:
        """End the relay and the CLI."""
        self._socket.close()
        end(self._relay)
        end(self._cli)

    def _read(self) -> bytes:
        if data := self._socket.recv(READ_SIZE):
            return data
        raise BenchmarkError("the relay has ended")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a stream took, in seconds: in all, of the CPU of who stood between, and of the client's."""

    total: float
    between: float
    client: float


def through_daemon(daemon: Daemon, deltas: int = DELTAS, idle: float = 0.0) -> Cost:
    """Return the cost of a stream through the daemon, which uses `idle` cores for nothing."""
    with closing(daemon.converse()) as conversation:
        _prepare(daemon, conversation)
        return stream(conversation, daemon.pid, deltas, idle)


def through_relay(daemon: Daemon, deltas: int = DELTAS) -> Cost:
    """Return the cost of a stream of the same CLI through the relay."""
    with closing(RelayedConversation(daemon.command)) as conversation:
        _prepare(daemon, conversation)
        return stream(conversation, conversation.pid, deltas)


def idle_load(daemon: Daemon) -> float:
    """Return the cores that the daemon uses at rest."""
    daemon.await_spare()
    before = daemon.cpu_seconds()
    time.sleep(IDLE_SECONDS)
    return (daemon.cpu_seconds() - before) / IDLE_SECONDS


def _prepare(daemon: Daemon, conversation: HttpConversation | RelayedConversation) -> None:
    """Have a first turn behind, and nothing that starts."""
    conversation.ask("hello")
    daemon.await_spare()


def stream(
    conversation: HttpConversation | RelayedConversation, between: int, deltas: int, idle: float = 0.0
) -> Cost:
    """Have a conversation stream, all of it. `between` is the process that passes it on."""
    spent, mine, started = cpu_seconds(between), time.thread_time(), time.perf_counter()
    timing = conversation.ask(f"[[words {deltas}]]")
    mine = time.thread_time() - mine
    if timing.deltas != deltas:
        raise BenchmarkError(f"{timing.deltas} deltas of {deltas} arrived")
    time.sleep(SETTLE)
    spent = cpu_seconds(between) - spent - idle * (time.perf_counter() - started)
    return Cost(timing.total, spent, mine)


def stream_rate(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure how long a stream takes, against the relay; the floor is the relay against itself."""
    ours, theirs = take_turns(
        2 if quick else 6, lambda: through_daemon(daemon).total, lambda: through_relay(daemon).total
    )
    name, pairs = "stream-rate", Pairs(ours, theirs)
    interval, noise = pairs.ratio_interval(), pairs.noise.ratio
    yield Figure(name, "ratio of wall times to the relay's", pairs.ratio, "", RATE_LIMIT, interval, noise)
    wall, relayed = median(ours), median(theirs)
    yield Figure(name, f"{DELTAS} deltas; floor: the relay", wall * 1000, "ms", floor=relayed * 1000)
    yield Figure(name, "that is; floor: the relay", DELTAS / wall, "deltas/s", floor=DELTAS / relayed)


def cpu_per_delta(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure the daemon's own CPU for a delta, less what it uses at rest in the same time."""
    idle = idle_load(daemon)
    count = 2 if quick else 5
    sides = take_turns(count, lambda: through_daemon(daemon, idle=idle), lambda: through_relay(daemon))
    name = "cpu-per-delta"
    title = f"{count} streams of {DELTAS} deltas"
    value, floor = (median(cost.between for cost in side) / DELTAS * 1e6 for side in sides)
    yield Figure(name, f"{title}; floor: the relay", value, "µs", CPU_LIMIT, floor=floor)
    value, floor = (median(cost.client for cost in side) / DELTAS * 1e6 for side in sides)
    yield Figure(name, "the client's own; floor: behind the relay", value, "µs", floor=floor)
    yield Figure(name, "at rest", idle * 100, "% of a core", floor=0.0)
