"""`Idempotency-Key`: requests of the same key and the same content get the answer of one turn.

The first of them begins the turn. Those that come while it runs follow it, those that come later have it
replayed, event by event, for KEEP seconds after its end. The turn runs as long as anybody follows it: the
last one to go away stops it, as without a key. A turn that was stopped or failed is not kept: who tries again
gets another one. Nothing of this outlives the daemon.
"""

import asyncio
import math
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from claude_coded.errors import IdempotencyKeyReused, InvalidRequest
from claude_coded.http.batches import Batches
from claude_coded.turn import AnswerEvent, ReasoningDelta, TextDelta, ToolCallDelta, TurnFailed, TurnFinished

KEY_HEADER: Final = "Idempotency-Key"
KEEP: Final = 600.0
MAX_TURNS: Final = 1000
MAX_BYTES: Final = 64 << 20

_KEY: Final = re.compile(r"[!-~]{1,255}")
_EVENT_BYTES: Final = 150
"""About what an event takes in memory beside its text."""


class Claim(Struct, frozen=True):
    """What a request with a key asks for: `digest` is that of everything which decides about its turn."""

    tenant: str
    key: str
    digest: bytes

    @classmethod
    def of(cls, tenant: str, key: str, *content: str | bytes | None) -> "Claim":
        """Return the claim. Raises InvalidRequest."""
        if not _KEY.fullmatch(key):
            raise InvalidRequest("an idempotency key is 1 to 255 visible ASCII characters", param=KEY_HEADER)
        digest = sha256()
        for item in content:
            data = item.encode() if isinstance(item, str) else item
            digest.update(b"-" if data is None else b"%d:%b" % (len(data), data))
        return cls(tenant, key, digest.digest())


class Begun(Struct, frozen=True):
    """A turn that has its conversation, and its events as one reader takes them.

    `serial` makes the ids of its answer, `created` is in Unix seconds.
    """

    conversation: str
    serial: str
    created: int
    batches: "Batches | Follower"


Begin = Callable[[], Awaitable[Begun]]


class Replays:
    """The turns of requests with a key: those that run and, within bounds, those that have finished.

    `now` returns seconds of a clock that never goes back. The bounds are for finished turns; the oldest go
    first, of the tenant that has most: nobody's push out another's before that.
    """

    def __init__(
        self,
        now: Callable[[], float],
        *,
        keep: float = KEEP,
        max_turns: int = MAX_TURNS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._now = now
        self._keep = keep
        self._max_turns = max_turns
        self._max_bytes = max_bytes
        self._turns: dict[tuple[str, str], _Turn] = {}
        self._finished: dict[tuple[str, str], float] = {}  # until when, the oldest first
        self._held: dict[str, _Held] = {}  # by tenant
        self._closing: set[asyncio.Task[None]] = set()

    async def begin(self, claim: Claim | None, begin: Begin) -> Begun:
        """Begin a turn, or join the one that has been claimed; without a claim it is the caller's alone.

        Raises IdempotencyKeyReused, and what `begin` raises.
        """
        if claim is None:
            return await begin()
        return await self._join(claim, begin).begun()

    def _join(self, claim: Claim, begin: Begin) -> "Follower":
        self._expire()
        name = (claim.tenant, claim.key)
        turn = self._turns.get(name)
        if turn is None:
            turn = self._turns[name] = _Turn(claim.digest, begin, partial(self._over, name))
        elif turn.digest != claim.digest:
            raise IdempotencyKeyReused("this key was used for another request", param=KEY_HEADER)
        return Follower(turn)

    def _over(self, name: tuple[str, str], turn: "_Turn", closing: "asyncio.Task[None]") -> None:
        """Keep a turn that finished, forget any other."""
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        if not turn.finished:
            del self._turns[name]
            return
        self._finished[name] = self._now() + self._keep
        held = self._held.setdefault(name[0], _Held())
        held.turns += 1
        held.size += turn.size
        while len(self._finished) > self._max_turns:
            self._forget_of(max(self._held, key=lambda tenant: self._held[tenant].turns))
        while sum(held.size for held in self._held.values()) > self._max_bytes:
            self._forget_of(max(self._held, key=lambda tenant: self._held[tenant].size))

    def _expire(self) -> None:
        now = self._now()
        while self._finished and next(iter(self._finished.values())) <= now:
            self._forget(next(iter(self._finished)))

    def _forget_of(self, tenant: str) -> None:
        """Forget a tenant's oldest."""
        self._forget(next(name for name in self._finished if name[0] == tenant))

    def _forget(self, name: tuple[str, str]) -> None:
        del self._finished[name]
        held = self._held[name[0]]
        held.turns -= 1
        held.size -= self._turns.pop(name).size
        if not held.turns:
            del self._held[name[0]]


@dataclass(slots=True)
class _Held:
    """How many finished turns of a tenant are kept, and in how many bytes."""

    turns: int = 0
    size: int = 0


class Follower:
    """One reader of a turn that others may read too; it gets every batch from the first on."""

    def __init__(self, turn: "_Turn") -> None:
        self._turn = turn
        self._at = 0
        self._left = False
        turn.join()

    async def begun(self) -> Begun:
        """Return the turn, when it has its conversation, with this reader. What fails closes the reader."""
        try:
            return replace(await self._turn.begun(), batches=self)
        except BaseException:
            await self.aclose()
            raise

    async def next(self, seconds: float) -> list[AnswerEvent] | None:
        """Return the next batch; None when none came within so many seconds."""
        batch = await self._turn.batch(self._at, seconds)
        self._at += batch is not None
        return batch

    async def aclose(self) -> None:
        """Follow no longer: the last one ends the turn, if it has not ended."""
        if not self._left:
            self._left = True
            self._turn.leave()
        await self._turn.closed()


class _Turn:
    """A turn, what came of it so far, and how many follow it.

    `on_over` is told once, with the task that closes the turn: it finished, failed, or lost its last
    follower. The turn goes on only where a follower waits for more.
    """

    def __init__(
        self, digest: bytes, begin: Begin, on_over: Callable[["_Turn", "asyncio.Task[None]"], None]
    ) -> None:
        self.digest = digest
        self.size = 0
        self.finished = False
        self._on_over = on_over
        self._followers = 0
        self._recorded: list[list[AnswerEvent]] = []
        self._begun = asyncio.ensure_future(self._begin(begin))
        self._pending: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    async def begun(self) -> Begun:
        return await asyncio.shield(self._begun)

    async def batch(self, at: int, seconds: float) -> list[AnswerEvent] | None:
        """Return a batch by its number; None when it did not come within so many seconds."""
        if at == len(self._recorded):
            pending = self._pending = self._pending or asyncio.ensure_future(self._take())
            await asyncio.wait((pending,), timeout=None if seconds == math.inf else seconds)
            if not pending.done():
                return None
            pending.result()
        return self._recorded[at]

    def join(self) -> None:
        self._followers += 1

    def leave(self) -> None:
        self._followers -= 1
        if not self._followers:
            self._end()

    async def closed(self) -> None:
        """Wait until a turn that is over is closed."""
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _begin(self, begin: Begin) -> Begun:
        try:
            return await begin()
        except BaseException:
            self._end()
            raise

    async def _take(self) -> None:
        """Record the next batch: here, so that it is there whenever this task is done."""
        try:
            batches = self._begun.result().batches
            while not (batch := await batches.next(math.inf)):
                pass  # a sign of life, which each follower has of its own
        except BaseException:
            self._end()
            raise
        self._recorded.append(batch)
        self.size += sum(map(_size, batch))
        self._pending = None
        if isinstance(batch[-1], TurnFinished | TurnFailed):
            self.finished = isinstance(batch[-1], TurnFinished)
            self._end()

    def _end(self) -> None:
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
            self._on_over(self, self._closing)

    async def _close(self) -> None:
        """End what runs of the turn."""
        running = [task for task in (self._begun, self._pending) if task is not None]
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        # What they raised was for the followers; with none left it is nobody's.
        failed = [task.cancelled() or task.exception() is not None for task in running]
        if not failed[0]:
            await self._begun.result().batches.aclose()


def _size(event: AnswerEvent) -> int:
    match event:
        case TextDelta(text) | ReasoningDelta(text) | ToolCallDelta(_, text):
            return _EVENT_BYTES + sys.getsizeof(text)
        case _:
            return _EVENT_BYTES
