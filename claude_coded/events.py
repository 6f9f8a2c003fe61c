"""What happens, as one ordered and bounded stream that any number of readers follow at their own pace."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any, Final

from msgspec import Struct

KEPT: Final = 2000
"""Events that are kept. A reader that falls further behind is told how many it has missed."""


class EventKind(StrEnum):
    """All that is told of. Those of a turn have its id, `turn`; the README says what each has besides."""

    DAEMON_SERVING = "daemon.serving"
    DAEMON_STOPPING = "daemon.stopping"
    SETTINGS_RELOADED = "settings.reloaded"
    SETTINGS_REFUSED = "settings.refused"
    LOG_LEVEL = "log.level"
    POOL_DRAINING = "pool.draining"
    POOL_RESUMED = "pool.resumed"
    WORKER_STARTED = "worker.started"
    WORKER_READY = "worker.ready"
    WORKER_FAILED = "worker.failed"
    WORKER_STOPPING = "worker.stopping"
    WORKER_DIED = "worker.died"
    WORKER_EXITED = "worker.exited"
    UPSTREAM_RETRY = "upstream.retry"
    TURN_WAITING = "turn.waiting"
    TURN_WITHDRAWN = "turn.withdrawn"
    TURN_REFUSED = "turn.refused"
    TURN_STARTED = "turn.started"
    TURN_FIRST_TOKEN = "turn.first_token"  # noqa: S105 - no secret
    TURN_TOOL = "turn.tool"
    TURN_FINISHED = "turn.finished"
    TURN_PARKED = "turn.parked"
    TURN_FAILED = "turn.failed"
    TURN_ABANDONED = "turn.abandoned"
    PERMISSION_REQUESTED = "permission.requested"
    PERMISSION_ALLOWED = "permission.allowed"
    PERMISSION_DENIED = "permission.denied"
    PERMISSION_EXPIRED = "permission.expired"
    PERMISSION_WITHDRAWN = "permission.withdrawn"
    CONVERSATION_ATTACHED = "conversation.attached"
    CONVERSATION_DETACHED = "conversation.detached"


class Event(Struct, frozen=True):
    """Something that happened. `number` counts from 1 with no gaps; `at` is in Unix seconds."""

    number: int
    at: float
    kind: EventKind
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a reader has not seen yet; `missed` events before that are lost."""

    events: tuple[Event, ...]
    missed: int = 0


class Events:
    """The stream. `wall` returns Unix seconds."""

    def __init__(self, wall: Callable[[], float], kept: int = KEPT) -> None:
        self._wall = wall
        self._kept: deque[Event] = deque(maxlen=kept)
        self._count = 0
        self._waiters: set[asyncio.Future[None]] = set()
        self._closed = False
        self._listeners: list[Callable[[str, Mapping[str, Any]], None]] = []

    def listen(self, hear: Callable[[str, Mapping[str, Any]], None]) -> None:
        """Have somebody hear each event's kind and fields at once, from now on."""
        self._listeners.append(hear)

    def tell(self, kind: EventKind, **fields: Any) -> None:  # noqa: ANN401 - any JSON
        """Add an event; fields that are None are left out. It never waits, whoever reads."""
        self._count += 1
        given = {name: value for name, value in fields.items() if value is not None}
        self._kept.append(Event(self._count, self._wall(), kind, given))
        for hear in self._listeners:
            hear(kind, given)
        self._wake()

    def close(self) -> None:
        """End every reader's stream after what there is."""
        self._closed = True
        self._wake()

    def since(self, number: int) -> Batch:
        """Return the events after `number`. A number from a former daemon, too high for this one, is 0."""
        new = self._count - number if number <= self._count else self._count
        later = [*islice(reversed(self._kept), new)]  # the newest only: readers look after every event
        return Batch(tuple(reversed(later)), new - len(later))

    @property
    def last(self) -> int:
        """Return the newest event's number; 0 when there is none."""
        return self._count

    async def follow(self, number: int) -> AsyncIterator[Batch]:
        """Yield what came after `number`, and then what comes, until the stream is closed."""
        while True:
            batch = self.since(number)
            if batch.events:
                number = batch.events[-1].number
                yield batch
            elif self._closed:
                return
            else:
                await self._next()

    async def _next(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
