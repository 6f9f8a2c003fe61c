"""The course of a turn, as events and as a span: that it waits, starts, answers, uses a tool, how it ends."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum

from claude_coded.errors import CodedError
from claude_coded.events import EventKind, Events
from claude_coded.tracing import TurnSpan
from claude_coded.turn import (
    ConversationKey,
    ReasoningDelta,
    TextDelta,
    ToolActivity,
    ToolCallStarted,
    TurnEvent,
    Usage,
)


class _Stage(Enum):
    ASKED = "asked"
    WAITING = "waiting"  # which was told, or it has lost its worker and begins again
    RUNNING = "running"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a turn has come: when it began (Unix seconds), tokens so far, and the tool that Claude uses."""

    turn: str
    began: float
    model: str
    output: int
    doing: str


class Course:
    """What is told of one turn, of the `number`th request, and noted in its `span`.

    `wall` returns Unix seconds.

    Each that was told to wait or to start is told to end, once. Seconds count from its first start; what it
    `waited` before, from the request.
    """

    def __init__(
        self, events: Events, key: ConversationKey, number: int, wall: Callable[[], float], span: TurnSpan
    ) -> None:
        self.id = f"t{number}"
        self.began = 0.0  # Unix seconds; 0 until it starts
        self._events = events
        self._key = key
        self._wall = wall
        self._span = span
        self._asked = wall()
        self._stage = _Stage.ASKED
        self._spoke = False
        self._tools = 0
        self.reach = span.reach  # a step that is noted in the span alone

    def waits(self, what: str) -> None:
        """Tell what it waits for: its conversation, or a worker."""
        self._stage = _Stage.WAITING
        self._tell(EventKind.TURN_WAITING, **{"for": what})

    def starts(self, worker: str, way: str, *, hot: bool) -> None:
        """Tell that a worker is asked; once more where it begins again on another."""
        now = self._wall()
        self.began = self.began or now
        self._stage = _Stage.RUNNING
        self._tell(
            EventKind.TURN_STARTED, worker=worker, way=way, hot=hot, waited=round(now - self._asked, 3)
        )

    def loses_worker(self) -> None:
        """Take note that it begins again, or does not."""
        self._span.reach("lost")
        self._stage = _Stage.WAITING

    def hears(self, events: Collection[TurnEvent], used: Callable[[], Usage]) -> None:
        """Tell of the answer's beginning, and of Claude's own tools; `used` returns the tokens so far."""
        if self._spoke and ToolActivity not in map(type, events):
            return  # as nearly all of a long answer: it is not looked at piece by piece
        for event in events:
            if isinstance(event, ToolActivity):
                failed = True if event.failure is not None else None
                self._tell(EventKind.TURN_TOOL, tool=event.name, failed=failed, output=used().output)
                if not failed:
                    self._tools += 1
                    self._span.reach("execute_tool", tool=event.name, count=self._tools)
            elif not self._spoke and isinstance(event, TextDelta | ReasoningDelta | ToolCallStarted):
                self._spoke = True
                self._tell(EventKind.TURN_FIRST_TOKEN, seconds=self._seconds)

    def ends(
        self, kind: EventKind, usage: Usage, *, calls: int = 0, failure: str = "abandoned", **fields: object
    ) -> None:
        """Tell how it has ended, if that was not told before, with so many calls of the client's tools.

        `failure` is what the span ends with where it has not ended well.
        """
        if self._stage is _Stage.OVER:
            return
        self._stage = _Stage.OVER
        used = {"input": usage.input, "output": usage.output, "cost_usd": usage.cost_usd}
        self._tell(kind, seconds=self._seconds, **fields, **used)
        ended_well = kind in (EventKind.TURN_FINISHED, EventKind.TURN_PARKED)
        more = {"cache_read": usage.cache_read, "cache_write": usage.cache_write, "calls": calls}
        self._span.end("" if ended_well else failure, reason=fields.get("reason"), **used, **more)

    def fails(self, error: CodedError, usage: Usage) -> None:
        """Tell what went wrong, before it started or after."""
        if self.began:
            code, failure = error.code, error.code or error.type
            self.ends(EventKind.TURN_FAILED, usage, failure=failure, code=code, error=error.message)
        elif self._stage is not _Stage.OVER:
            self._stage = _Stage.OVER
            self._tell(EventKind.TURN_REFUSED, code=error.code, error=error.message)
            self._span.end(error.code or error.type)

    def is_left(self) -> None:
        """Tell that its client has left while it waited, if that was told."""
        if self._stage in (_Stage.ASKED, _Stage.WAITING):
            self._span.end("abandoned")
        if self._stage is _Stage.WAITING:
            self._stage = _Stage.OVER
            kind = EventKind.TURN_ABANDONED if self.began else EventKind.TURN_WITHDRAWN
            self._tell(kind, seconds=round(self._wall() - self._asked, 3))

    @property
    def _seconds(self) -> float:
        return round(self._wall() - self.began, 3)

    def _tell(self, kind: EventKind, **fields: object) -> None:
        self._events.tell(kind, turn=self.id, tenant=self._key.tenant, conversation=self._key.id, **fields)
