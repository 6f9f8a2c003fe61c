"""How long it takes: the servers, and the bare CLI in three ways, in turns."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final
from uuid import uuid4

from claude_coded.claude.launch import Launch
from tests.benchmarks.alternatives.client import FAILURES, Asker, Reply, Talk
from tests.benchmarks.alternatives.running import clean_environment, serving, settle_in
from tests.benchmarks.alternatives.servers import Server
from tests.benchmarks.harness import BenchmarkError, Command, DirectConversation
from tests.benchmarks.measure import Timing

ROUNDS: Final = 2
CONVERSATIONS: Final = 5
"""Of two turns each, a round and server."""

DELTAS: Final = 2000
AT_ONCE: Final = 8

ONE_PROCESS: Final = "the CLI, one process"
AHEAD: Final = "the CLI, spawned ahead"
"""Two of the bare CLI's ways."""

REST: Final = 1.5
"""Seconds of quiet before a new conversation, the same for all: people do not begin one a second."""


@dataclass(slots=True)
class Speed:
    """What was measured of one contender; times in seconds.

    `new` and `second` are the times to the first content of a conversation's turns, `stream` and `again` the
    whole times of a long answer to the first one and to a later one, and `pieces` in how many each came.
    `memory` is what server and CLI hold at rest after that, in MB. `together` is the time until the last of
    several conversations was done, `right` how many of them got their own answer. `faults` tells what did not
    work.
    """

    new: list[float] = field(default_factory=list)
    second: list[float] = field(default_factory=list)
    stream: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    pieces: list[int] = field(default_factory=list)
    together: list[float] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @contextmanager
    def forgiving(self, what: str) -> Iterator[None]:
        """Note a failure and go on: that is a result, too."""
        try:
            yield
        except FAILURES as error:
            self.faults.append(f"{what}: {error}"[:300])


@dataclass(frozen=True, slots=True)
class Contender:
    """What is measured: `measure` runs a round of it in a directory."""

    name: str
    measure: Callable[[Speed, Path], None]


def contenders(servers: Sequence[Server], places: Mapping[str, Path], model_url: str) -> list[Contender]:
    """Return the servers and the bare CLI."""

    def server(it: Server) -> Contender:
        return Contender(it.name, partial(_round, it, places[it.name], model_url))

    bare = [
        Contender("the CLI, a process per turn", partial(_process_per_turn, model_url)),
        Contender(ONE_PROCESS, partial(_hot, model_url)),
        Contender(AHEAD, partial(_spawned_ahead, model_url)),
    ]
    return [server(it) for it in servers] + bare


def race(
    field_: Sequence[Contender], directory: Path, rounds: int, tell: Callable[[str], None]
) -> dict[str, Speed]:
    """Measure all in turns; who begins changes from round to round."""
    speeds = {contender.name: Speed() for contender in field_}
    for number in range(rounds):
        for contender in field_ if number % 2 == 0 else reversed(field_):
            tell(f"speed, round {number + 1} of {rounds}: {contender.name}")
            speed = speeds[contender.name]
            with speed.forgiving("round"):
                contender.measure(speed, directory / f"{contender.name.replace(' ', '-')}-{number}")
    return speeds


# A server ----------------------------------------------------------------------------------------------


def _round(server: Server, program: Path, model_url: str, speed: Speed, place: Path) -> None:
    with serving(server, program, settle_in(place), model_url) as running:
        asker = running.asker
        _first(asker.converse().ask("warm up"))
        for number in range(CONVERSATIONS):
            with speed.forgiving("conversation"):
                _converse(speed, asker, number)
        with speed.forgiving("stream"):
            _stream(speed, asker)
        time.sleep(REST)
        speed.memory.append(running.memory())
        with speed.forgiving("at once"):
            _at_once(speed, asker)


def _converse(speed: Speed, asker: Asker, number: int) -> None:
    """Hold a conversation of two turns."""
    time.sleep(REST)
    talk = asker.converse()
    speed.new.append(_first(talk.ask(f"good morning, {number}")))
    speed.second.append(_first(talk.ask(f"and what is {number}?")))


def _first(reply: Reply) -> float:
    if reply.first is None or reply.error is not None:
        raise BenchmarkError(f"no content but {reply.status} {reply.raw[:200]!r}")
    return reply.first


def _stream(speed: Speed, asker: Asker) -> None:
    """Have a long answer streamed in a new conversation, and in one that has begun."""
    time.sleep(REST)
    speed.stream.append(_long(speed, asker.converse()))
    talk = asker.converse()
    talk.ask("good evening")
    speed.again.append(_long(speed, talk))


def _long(speed: Speed, talk: Talk) -> float:
    reply = talk.ask(f"[[words {DELTAS}]]")
    _first(reply)
    if reply.text.split()[-1] != f"w{DELTAS - 1}":
        raise BenchmarkError(f"the answer is not whole: it ends with {reply.text[-40:]!r}")
    speed.pieces.append(len(reply.contents))
    return reply.total


def _at_once(speed: Speed, asker: Asker) -> None:
    words = [f"right-{number}" for number in range(AT_ONCE)]
    wrong: list[str] = []
    seconds, right = _together([partial(_says, asker, word, wrong) for word in words])
    speed.together.append(seconds)
    speed.right.append(right)
    speed.faults += [f"at once, {len(wrong)} of {AT_ONCE}: {wrong[0]}"] if wrong else []


def _says(asker: Asker, word: str, wrong: list[str]) -> bool:
    try:
        reply = asker.converse().ask(f"[[say {word}]]")
        told = f"{reply.status} {reply.error or reply.text}"
    except FAILURES as error:
        told = f"{type(error).__name__}: {error}"
    if told == f"200 {word}":
        return True
    wrong.append(told[:200])
    return False


def _together(tasks: Sequence[Callable[[], bool]]) -> tuple[float, int]:
    """Run tasks at once; return the seconds until all were done, and how many came to be true."""
    gate = threading.Barrier(len(tasks) + 1)

    def run(task: Callable[[], bool]) -> bool:
        gate.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        results = [pool.submit(run, task) for task in tasks]
        gate.wait()
        started = time.perf_counter()
        right = sum(result.result() for result in results)
        return time.perf_counter() - started, right


# The bare CLI ------------------------------------------------------------------------------------------


def _command(place: Path, model_url: str) -> Command:
    spot = settle_in(place)
    return Command(spot.claude, spot.work, clean_environment(spot, model_url))


def _process_per_turn(model_url: str, speed: Speed, place: Path) -> None:
    """A new process for each turn; the second resumes what the first has written."""
    command = _command(place, model_url)
    for number in range(CONVERSATIONS):
        time.sleep(REST)
        session = str(uuid4())
        with closing(DirectConversation(command, session=session)) as first:
            speed.new.append(first.ask(f"good morning, {number}").first)
        launch = Launch(agent=True, workspace=command.workspace, permission_mode="bypassPermissions")
        with closing(DirectConversation(command, launch.resuming(session))) as second:
            speed.second.append(second.ask(f"and what is {number}?").first)
    time.sleep(REST)
    with closing(DirectConversation(command)) as conversation:
        _note(speed, speed.stream, conversation.ask(f"[[words {DELTAS}]]"))
    time.sleep(REST)
    with ExitStack() as stack:
        many = [stack.enter_context(closing(DirectConversation(command))) for _ in range(AT_ONCE)]
        seconds, right = _together([partial(_answers, conversation) for conversation in many])
    speed.together.append(seconds)
    speed.right.append(right)


def _answers(conversation: DirectConversation) -> bool:
    return conversation.ask("[[say right]]").deltas > 0


def _hot(model_url: str, speed: Speed, place: Path) -> None:
    """One process for all turns, all of them on its pipes."""
    with closing(DirectConversation(_command(place, model_url))) as conversation:
        conversation.ask("warm up")
        for number in range(CONVERSATIONS):
            time.sleep(REST / 5)
            speed.second.append(conversation.ask(f"and what is {number}?").first)
        _note(speed, speed.again, conversation.ask(f"[[words {DELTAS}]]"))


def _spawned_ahead(model_url: str, speed: Speed, place: Path) -> None:
    """A process that waits for its first turn."""
    command = _command(place, model_url)
    for number in range(CONVERSATIONS):
        with closing(DirectConversation(command)) as conversation:
            conversation.spawn()
            time.sleep(REST)
            speed.new.append(conversation.ask(f"good morning, {number}").first)


def _note(speed: Speed, totals: list[float], timing: Timing) -> None:
    totals.append(timing.total)
    speed.pieces.append(timing.deltas)
