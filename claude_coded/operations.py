"""What an operator does to conversations and workers, whoever's they are."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from enum import Enum

from claude_coded.errors import CodedError, NotFound
from claude_coded.events import EventKind, Events
from claude_coded.pool import Pool
from claude_coded.scheduler import Phase, WorkerView, worker_name
from claude_coded.service import TurnService
from claude_coded.turn import ConversationKey


class AmbiguousName(CodedError):
    """Several tenants have a conversation of this name; `tenants` are they."""

    status = 409
    tenants: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, tenants: Iterable[str]) -> "AmbiguousName":
        """Return the error that names all of them."""
        error = cls("", param="tenant")
        error.tenants = tuple(sorted(tenants))
        choices = " and ".join(f"{tenant}/{name}" for tenant in error.tenants)
        error.message = f"there are {choices}: say which"
        return error


class Which(Enum):
    """Which conversations' workers are evicted together."""

    IDLE = "idle"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Drained:
    """How far a drain has come: turns that run, and those that wait for their client's tools."""

    draining: bool
    running: int
    parked: int


class Operations:
    """Carries out what operators want, and tells of it."""

    def __init__(self, service: TurnService, events: Events) -> None:
        self._service = service
        self._events = events

    @property
    def _pool(self) -> Pool:
        return self._service.pool

    async def find(self, name: str, tenant: str | None) -> ConversationKey:
        """Return the conversation of a name. Raises NotFound, AmbiguousName."""
        keys = {known.key for known in await self._service.store.named(name)}
        if tenant is not None:
            keys &= {ConversationKey(tenant, name)}
        if not keys:
            whose = f" of tenant {tenant!r}" if tenant is not None else ""
            raise NotFound(f"there is no conversation {name!r}{whose}")
        if len(keys) > 1:
            raise AmbiguousName.of(name, (key.tenant for key in keys))
        return keys.pop()

    # Eviction ------------------------------------------------------------------------------------------

    async def evict(self, key: ConversationKey, *, now: bool) -> bool:
        """Release a conversation's worker at the end of its turn, or `now`; False when it has none."""
        view = self._pool.view_of(key)
        if view is None:
            return False
        if now:
            await self._service.release(key, purge=False)
        else:
            self._pool.release(view.id)
        await self._pool.gone(view.id)
        return True

    async def evict_worker(self, number: int, *, now: bool) -> None:
        """Release a worker, a spare too. Raises NotFound."""
        view = next((view for view in self._pool.views if view.id == number), None)
        if view is None:
            raise NotFound(f"there is no worker {worker_name(number)}")
        if view.conversation is not None:
            await self.evict(view.conversation, now=now)
            return
        self._pool.release(number)
        await self._pool.gone(number)

    async def evict_many(self, which: Which, *, now: bool) -> list[ConversationKey]:
        """Release the workers of the idle conversations, or of all."""
        chosen = [view for view in self._pool.views if _is_meant(view, which)]
        keys = [view.conversation for view in chosen if view.conversation is not None]
        await asyncio.gather(*(self.evict(key, now=now) for key in keys))
        return keys

    # Turns ---------------------------------------------------------------------------------------------

    async def interrupt(self, key: ConversationKey) -> bool:
        """End a conversation's turn; False when none runs."""
        return await self._service.interrupt(key)

    @contextlib.asynccontextmanager
    async def holding(self, key: ConversationKey, *, now: bool) -> AsyncIterator[None]:
        """Keep everybody out of a conversation while the context lasts, once its turn has ended.

        With `now` that is interrupted. Nothing runs on the conversation's session inside. Raises Held.
        """
        if now:
            await self._service.interrupt(key)
        held = await self._pool.hold(key)
        self._events.tell(EventKind.CONVERSATION_ATTACHED, tenant=key.tenant, conversation=key.id)
        try:
            yield
        finally:
            self._events.tell(EventKind.CONVERSATION_DETACHED, tenant=key.tenant, conversation=key.id)
            held.withdraw()

    # The pool ------------------------------------------------------------------------------------------

    async def drain(self, seconds: float) -> Drained:
        """Take no new turns, and wait so long for those that run."""
        if not self._pool.draining:
            self._events.tell(EventKind.POOL_DRAINING)
        self._pool.drain()
        await self._service.idle_within(seconds)
        return self.drained

    def resume(self) -> Drained:
        """Take new turns again. Raises Draining when the daemon ends."""
        before = self._pool.draining
        self._pool.resume()
        if before:
            self._events.tell(EventKind.POOL_RESUMED)
        return self.drained

    @property
    def drained(self) -> Drained:
        """Return how far a drain has come."""
        return Drained(self._pool.draining, self._service.running, self._pool.figures.parked)


def _is_meant(view: WorkerView, which: Which) -> bool:
    return view.hot and (which is Which.ALL or view.phase is Phase.IDLE)
