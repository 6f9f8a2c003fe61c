"""What a turn writes to the CLI, and its events on their way to their reader."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from claude_coded.claude.protocol import Limits, Outfit
from claude_coded.claude.toolbridge import qualified
from claude_coded.claude.translate import Terms, Translator
from claude_coded.claude.wire import Assistant, Line, User
from claude_coded.errors import CodedError, WorkerDied
from claude_coded.history import Span
from claude_coded.turn import Message, Role, Text, ToolOutcome, Tools, TurnEvent, TurnFailed, Usage

BUFFER_LIMIT: Final = 512
"""Events of a turn that wait for their reader before the CLI's output is left in the pipe."""


class Manner(Struct, frozen=True):
    """How a response is to be had: the client's tools, the model's limits, whether its form is set."""

    tools: Tools = Tools()
    limits: Limits = Limits()
    structured: bool = False

    @property
    def terms(self) -> Terms:
        """Return what of it shows in how the response is told."""
        return Terms(
            tools={qualified(spec.name): spec for spec in self.tools.specs},
            parallel=self.tools.parallel,
            limited=self.limits.max_tokens is not None,
            structured=self.structured,
        )


class Ask(Struct, frozen=True):
    """What a turn writes: all of it once, in this order.

    `outfit` is None for a worker that serves the conversation already. `back` is taken back from the
    session, the oldest first; `seeds` go into the history without a call of the model. `own` is how many of
    them went before this turn: an abandoned turn leaves those. `last` is the uuid of what was asked after
    the message, if anything was.
    """

    message: Message
    uuid: str
    manner: Manner = Manner()
    outfit: Outfit | None = None
    back: Sequence[Span] = ()
    seeds: Sequence[tuple[Message, str]] = ()
    own: int = 0
    last: str = ""

    def uuid_of(self, number: int) -> str:
        """Return the uuid of a message that the turn writes: the seeds come first."""
        return self.seeds[number][1] if number < len(self.seeds) else self.uuid

    @property
    def span(self) -> Span:
        """Return what has to go when the turn is taken back."""
        return Span(self.uuid_of(self.own), self.last or self.uuid)


@dataclass(slots=True)
class Turn:
    """The events of a turn on their way from the pipe to their reader."""

    ask: Ask
    _translator: Translator
    _resume: Callable[[], None]
    _events: list[TurnEvent] = field(default_factory=list)
    _waiter: asyncio.Future[None] | None = None
    _due: float = inf  # the loop's time until which the reader waits
    _timer: asyncio.TimerHandle | None = None
    _notice: asyncio.Future[str] | None = None
    _heard: bool = False  # anything since the present response began
    produced: int = 0  # how many events there have been
    answer: str = ""  # the uuid of the answer's last message

    @property
    def full(self) -> bool:
        """Return whether enough waits for the reader."""
        return len(self._events) > BUFFER_LIMIT

    @property
    def begun(self) -> bool:
        """Return whether the CLI has taken what it was given last: the model may have been asked."""
        return self._translator.started and self._heard

    def death(self, taken: Sequence[TurnEvent]) -> WorkerDied | None:
        """Return the death of the worker that some events tell of, if it cannot have asked the model."""
        error = taken[0].error if taken and isinstance(taken[0], TurnFailed) else None
        return error if isinstance(error, WorkerDied) and not self.begun else None

    @property
    def answering(self) -> bool:
        """Return whether the model has begun to answer, whatever it may say."""
        return self._translator.answering

    @property
    def open_calls(self) -> set[str]:
        """Return the calls that wait for their outcomes; it changes with time."""
        return self._translator.calls.open

    @property
    def refused_calls(self) -> dict[str, str]:
        """Return the calls that the client is not told of, and why; it changes with time."""
        return self._translator.calls.refused

    @property
    def usage(self) -> Usage:
        """Return what the present response has used so far."""
        return self._translator.usage

    @property
    def calling(self) -> bool:
        """Return whether the newest reply calls tools: the CLI goes on with their results, with no notice."""
        return self._translator.calling

    @property
    def awaited(self) -> list[str]:
        """Return the calls whose outcomes the turn is parked for, in order."""
        parked = self._translator.parked and not self._translator.astray
        return list(self._translator.calls.told) if parked else []

    def add(self, message: Line) -> None:
        """Translate a message of the CLI."""
        if isinstance(message, Assistant) and message.parent_tool_use_id is None:
            self.answer = message.uuid
        elif isinstance(message, User) and message.synthetic and message.parent_tool_use_id is None:
            self._note(message.uuid)
        self._heard = True
        answering = self._translator.answering
        self._tell(self._translator.feed(message))
        if self._translator.answering and not answering:
            self._wake()

    def called(self) -> None:
        """Take note that the CLI has asked for a call of the client's tools."""
        self._tell(self._translator.called())

    def go_on(self, manner: Manner) -> None:
        """Begin the next response of a parked turn."""
        self._heard = False
        self._tell(self._translator.go_on(manner.terms))

    def ask_more(self, uuid: str, translator: Translator) -> None:
        """Go on with what comes of another message."""
        self._translator = translator
        self.ask = replace(self.ask, last=uuid)

    def keep_seeds(self, count: int) -> None:
        """Leave so many of the messages that were written where they are, should the turn be taken back."""
        self.ask = replace(self.ask, own=count)

    def fail(self, error: CodedError) -> None:
        """End the turn badly, unless it has ended."""
        if not self._translator.ended:
            self._translator.ended = True
            self._tell([TurnFailed(error)])

    async def take(self, seconds: float = inf) -> list[TurnEvent]:
        """Return what has come since the last call; the turn's end is the last of all.

        That is at least one event; none when none came within so many seconds, or when the model begins to
        answer: what there is to do before its first word can be done before it is there.
        """
        if not self._events:
            await self._wait(seconds)
        events, self._events = self._events, []
        if self._translator.ended:
            self._drop_timer()
        self._resume()
        return events

    async def _wait(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        if seconds < inf:
            self._set_timer(loop.time() + seconds)
        try:
            await self._waiter
        finally:
            self._due = inf

    def _set_timer(self, due: float) -> None:
        """Have the reader woken then: one timer serves for many waits, moved when it fires too early."""
        self._due = due
        if self._timer is None or self._timer.when() > due:
            self._drop_timer()
            self._timer = asyncio.get_running_loop().call_at(due, self._on_timer, due)

    def _on_timer(self, when: float) -> None:
        self._timer = None
        if self._due <= when:
            self._wake()
        elif self._due < inf:
            self._set_timer(self._due)

    def _drop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def notice(self) -> str:
        """Return the uuid of the line that the CLI adds after an answer that a limit has cut."""
        self._notice = self._notice or asyncio.get_running_loop().create_future()
        return await self._notice

    def _note(self, uuid: str) -> None:
        self._notice = self._notice or asyncio.get_running_loop().create_future()
        if not self._notice.done():
            self._notice.set_result(uuid)

    def _tell(self, events: list[TurnEvent]) -> None:
        if not events:
            return
        self.produced += len(events)
        self._events += events
        self._wake()


def reminder(words: str) -> Message:
    """Return a message that reminds the model of something, as the CLI does that itself."""
    return Message.of(Role.USER, f"<system-reminder>{words}</system-reminder>")


def reminded(message: Message, words: str) -> Message:
    """Return a message with a reminder at its end."""
    *parts, last = message.parts
    reminding = reminder(words).parts[0]
    assert isinstance(reminding, Text)
    if isinstance(last, ToolOutcome):
        return Message(message.role, (*parts, ToolOutcome(last.id, (*last.parts, reminding))))
    return Message(message.role, (*parts, last, reminding))
