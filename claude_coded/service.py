"""Turns, as the HTTP side sees them: a request in, an iterator of events out.

A request is located here: it goes on with a conversation, branches from one, or begins one. `running` runs
its turn.
"""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from glob import glob
from math import inf
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from claude_coded import history, workspaces
from claude_coded.aside import Aside
from claude_coded.course import Progress
from claude_coded.errors import HELD, CodedError, Evicted, Held, Interrupted, NotFound
from claude_coded.events import Events
from claude_coded.fetch import Fetcher, urls_of
from claude_coded.history import Conversation, Told
from claude_coded.models import Models
from claude_coded.planning import Located, in_full, is_anothers
from claude_coded.pool import Pool
from claude_coded.rows import Found
from claude_coded.running import Run, Runs
from claude_coded.scheduler import Figures, Phase, WorkerView
from claude_coded.settings import Settings
from claude_coded.store import Store
from claude_coded.tracing import Tracing
from claude_coded.turn import (
    AnswerEvent,
    ConversationKey,
    Message,
    TurnFailed,
    TurnRequest,
)

log = logging.getLogger(__name__)

PROMISE: Final = 1.0
"""Seconds that a conversation which was found waits for its turn: the client may be gone by then."""

HOUSEKEEPING: Final = 3600.0
"""Seconds between two looks for conversations to forget."""

FULL_HOUSE: Final = 1000
"""Turns after which the next look is due: each may have begun a conversation."""


RECORD_SIZE: Final = 500
"""Bytes for which a conversation that is listed counts."""

PIECE: Final = 1000
"""Conversations that are looked at before others run."""

STATES: Final = {Phase.BUSY: "busy", Phase.IDLE: "idle", Phase.PARKED: "parked", Phase.STARTING: "busy"}
"""What a conversation is while its worker is so."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A conversation and where it stands: busy, idle, parked, attached (an operator has it) or cold."""

    conversation: Conversation
    state: str


class TurnService:
    """Runs turns.

    `traces` are where the CLI keeps files of sessions, and `projects` is where its transcripts are. `wall`
    returns Unix seconds, `clock` seconds that nobody sets.

    `events` are told what happens, and `tracing` of each turn.
    """

    def __init__(
        self,
        store: Store,
        pool: Pool,
        models: Models,
        settings: Settings,
        events: Events,
        *,
        traces: Sequence[Path],
        projects: Path,
        wall: Callable[[], float],
        tracing: Tracing,
        clock: Callable[[], float],
    ) -> None:
        self.models = models
        self.store = store
        self.settings = settings
        self._pool = pool
        self._traces = traces
        self._wall = wall
        self._clock = clock
        self._epoch = wall() - clock()
        self.aside = Aside()
        self._runs = Runs(
            store, pool, settings, wall, events, tracing=tracing, aside=self.aside, projects=projects
        )
        self._promised: dict[ConversationKey, float] = {}  # until when, by the clock
        self._begun = 0  # turns, since the last look for what to forget
        self._full = asyncio.Event()
        self._fetcher = Fetcher(enabled=settings.turns.fetch_images)
        pool.on_release(self._released, self._remove_soon)

    def configure(self, settings: Settings) -> None:
        """Go on with other settings; turns that run keep theirs."""
        self.settings = self._runs.settings = settings
        self._fetcher.enabled = settings.turns.fetch_images

    # Turns ---------------------------------------------------------------------------------------------

    async def locate(self, request: TurnRequest) -> Located:
        """Find the conversation that an unnamed request goes on with, or what a new one branches from."""
        if await self.aside.run(request.size, urls_of, request):
            request = await self._fetcher.resolve(request)
        told, digests = await self.aside.run(request.size, _read, request)
        if not digests:
            return Located(request, told)
        found = self._hot_at(digests[0]) or await self.store.find(digests)
        found = [turn for turn in found if self._may_go_on(request, turn.workspace)]
        ready = [turn for turn in found if turn.is_head and not self._is_running(turn.key)]
        if ready:
            return Located(replace(request, key=self._promise(self._best(ready, request).key)), told)
        if told.brief:
            return await self.locate(await in_full(self.store, request))
        return await self._branch(request, told, found) if found else Located(request, told)

    def _may_go_on(self, request: TurnRequest, workspace: Path) -> bool:
        chosen = request.options.workspace
        own = workspaces.admits(self.settings.claude, request.key.tenant, workspace)
        foreign = is_anothers(workspace, request.profile, self.settings)
        suits = chosen is None or chosen == workspace
        return suits and not foreign and (own or request.profile.workspace is not None)

    def _hot_at(self, digest: bytes) -> list[Found]:
        """Return the heads of hot conversations that wait at a history: no other would be chosen."""
        hot = [view.conversation for view in self._pool.views if view.conversation is not None]
        found = self.store.standing(digest, hot)
        return [turn for turn in found if self._waits(turn.key) and not self._is_running(turn.key)]

    def is_ready(self, located: Located) -> bool:
        """Return whether a turn goes on where a hot worker waits: it need not wait for one, nor seed it."""
        key, told = located.request.key, located.told
        if not self._waits(key) or self._pool.holds(key):
            return False
        return not told.has_history or bool(self.store.standing(told.digests[-1], [key]))

    def _waits(self, key: ConversationKey) -> bool:
        return self._pool.is_idle(key) or self._pool.is_parked(key)

    async def _branch(self, request: TurnRequest, told: Told, found: Sequence[Found]) -> Located:
        """Branch in a hot session that can drop what the client has dropped, else in a new conversation."""
        best = self._best(found, request)
        known, path = await self.store.load(best.key), await self.store.path(best.key)
        if known is None:
            return Located(request, told)
        points = history.fork_points(await self.store.turns(best.key, told.digests), told)
        free = self._pool.is_idle(best.key) and not self._is_running(best.key)
        if free and history.can_drop(path, points, told):
            return Located(replace(request, key=self._promise(best.key)), told)
        return Located(request, told, points, known.workspace)

    def _is_running(self, key: ConversationKey) -> bool:
        """Return whether a turn runs or is about to; one that was given up is over in a moment."""
        promised = self._promised.get(key, -inf) > self._clock()
        return promised or (self._pool.holds(key) and not self._runs.is_concluding(key))

    def _promise(self, key: ConversationKey) -> ConversationKey:
        """Let nobody else find a conversation, for the moment until its turn has a ticket of the pool's."""
        now = self._clock()
        self._promised = {key: until for key, until in self._promised.items() if until > now}
        self._promised[key] = now + PROMISE
        return key

    def _best(self, found: Sequence[Found], request: TurnRequest) -> Found:
        """Return which of equal histories to go on with.

        The one that the client goes on after, then what is hot and idle, the hinted, the latest.
        """
        if len(found) == 1:
            return found[0]
        hint = request.hint
        return max(
            found,
            key=lambda turn: (
                request.after is not None and turn.key == request.after.key,
                self._waits(turn.key),
                hint != "" and turn.hint == hint,
                turn.last_used_at,
            ),
        )

    async def run(self, located: Located) -> AsyncIterator[list[AnswerEvent] | None]:
        """Yield a turn's events in batches, each what has come since the last; the end comes last.

        The first is empty: the worker has been asked. So is one where the model begins to answer. None comes
        where nothing came for so long that its client wants a sign of life.
        Every failure is a TurnFailed. Giving up the iteration ends the turn: close it (`aclosing`).
        """
        run = Run(self._runs, located)
        self._promised.pop(located.request.key, None)  # it has its ticket with the next step
        self._begun += 1
        if self._begun >= FULL_HOUSE:
            self._full.set()
        try:
            async for events in run.events():
                yield events
        except CodedError as error:
            yield [TurnFailed(error)]
        finally:
            run.leave()

    def now(self) -> float:
        """Return the wall clock's time in Unix seconds."""
        return self._wall()

    @property
    def pool(self) -> Pool:
        """Return the pool that turns get their workers from."""
        return self._pool

    async def drain(self, seconds: float) -> None:
        """Take no new turns any more; let running ones finish for so long, then end them."""
        self._pool.drain(for_good=True)
        await self._runs.drain(seconds)

    @property
    def running(self) -> int:
        """Return how many turns run."""
        return self._runs.running

    async def idle_within(self, seconds: float) -> bool:
        """Wait until no turn runs; False when one still does after so long."""
        return await self._runs.idle_within(seconds)

    def progress(self, key: ConversationKey) -> Progress | None:
        """Return how far the turn that runs in a conversation has come."""
        run = self._runs.of(key)
        return run.progress if run is not None else None

    async def interrupt(self, key: ConversationKey) -> bool:
        """End a conversation's turn, its process stays hot; False when none runs. Raises NotFound."""
        if (run := self._runs.of(key)) is None:
            await self.conversation_of(key)
            return False
        run.fail(Interrupted("an operator interrupted the turn"))
        await run.done.wait()
        return True

    async def settle(self) -> None:
        """Wait until everything that was begun in the background is done."""
        await self._runs.settle()

    def close(self) -> None:
        """Take no requests any more."""
        self.aside.close()

    # Conversations -------------------------------------------------------------------------------------

    @property
    def figures(self) -> Figures:
        """Return the pool's counts."""
        return self._pool.figures

    def hot(self, tenant: str | None = None) -> int:
        """Return how many conversations have a worker, a tenant's or everybody's."""
        hot = [view.conversation for view in self._pool.views if view.hot]
        return sum(tenant in {None, key.tenant} for key in hot if key is not None)

    async def conversations(self, tenant: str | None, *, stored: bool) -> list[Listed]:
        """Return a tenant's conversations, or everybody's, the last used first: hot ones, or all."""
        known = await self.store.all(tenant)
        held = set[ConversationKey]()
        for start in range(0, len(known), PIECE):  # which only the loop may ask
            held.update(one.key for one in known[start : start + PIECE] if self._pool.is_held(one.key))
            await asyncio.sleep(0)
        listed = await self.aside.run(RECORD_SIZE * len(known), _list, known, held, self._pool.views)
        return [item for item in listed if stored or item.state != "cold"]

    async def conversation(self, key: ConversationKey) -> tuple[Listed, tuple[Message, ...]]:
        """Return a conversation and what was said in it. Raises NotFound."""
        listed = await self.conversation_of(key)
        return listed, await self.store.messages(key)

    async def conversation_of(self, key: ConversationKey) -> Listed:
        """Return a conversation. Raises NotFound."""
        known = await self.store.load(key)
        if known is None:
            raise _unknown(key)
        return self._listed(known)

    async def release(self, key: ConversationKey, *, purge: bool) -> None:
        """Interrupt a conversation's turn and evict its worker; with `purge` forget it.

        Raises NotFound, and Held while an operator has it.
        """
        self._check_held(key)
        if await self.store.load(key) is None and self._runs.of(key) is None:
            raise _unknown(key)
        await self._let_go(key)
        if purge:
            # A process that ends writes to its transcript to the last. Who comes meanwhile gets another one.
            while await self._pool.released(key):
                await self._let_go(key)
            self._check_held(key)  # an operator may have waited for the turn's end
            await self._forget(key)

    def _check_held(self, key: ConversationKey) -> None:
        if self._pool.is_held(key):
            raise Held(HELD)

    async def _let_go(self, key: ConversationKey) -> None:
        self._pool.evict(key)
        if (run := self._runs.of(key)) is not None:
            run.fail(Evicted("the conversation was released while its turn ran"))
            await run.done.wait()

    async def housekeeping(self) -> None:
        """Forget what is outdated, now, every HOUSEKEEPING seconds and after FULL_HOUSE turns, for ever."""
        while True:
            self._begun = 0
            self._full.clear()
            try:
                await self.forget_outdated()
            except CodedError as error:
                log.warning("housekeeping failed", extra={"error": error.message})
            with suppress(TimeoutError):
                async with asyncio.timeout(HOUSEKEEPING):
                    await self._full.wait()

    async def forget_outdated(self) -> None:
        """Forget what the settings no longer keep, and ephemeral conversations of a former daemon.

        A date that is set far ahead makes nothing old: what has passed since the start counts, if it is less.
        """
        days, count = self.settings.retention_days, self.settings.retention_count
        now = min(self._wall(), self._epoch + self._clock())
        before = now - days * 86400 if days else 0.0
        for key in await self.store.outdated(before, count):
            if not self._in_use(key):
                await self._forget(key)

    def _in_use(self, key: ConversationKey) -> bool:
        return self._pool.holds(key) or any(view.conversation == key for view in self._pool.views)

    def _released(self, key: ConversationKey) -> None:
        self._runs.background(self._forget_if_ephemeral(key))

    def _remove_soon(self, session: str) -> None:
        self._runs.background(asyncio.to_thread(remove_traces, self._traces, session))

    async def _forget_if_ephemeral(self, key: ConversationKey) -> None:
        known = await self.store.load(key)
        if known is not None and known.ephemeral and not self._in_use(key):
            await self._forget(key)

    async def _forget(self, key: ConversationKey) -> None:
        for session in await self.store.sessions(key):
            await asyncio.to_thread(remove_traces, self._traces, session)
        await self.store.purge(key)

    def _listed(self, known: Conversation) -> Listed:
        held = {known.key} if self._pool.is_held(known.key) else ()
        return _list([known], held, self._pool.views)[0]


def _list(
    known: Iterable[Conversation], held: Collection[ConversationKey], views: Iterable[WorkerView]
) -> list[Listed]:
    """Return conversations and where they stand; `held` are those that an operator has."""
    states = {view.conversation: STATES.get(view.phase, "cold") for view in views if view.hot}
    return [Listed(one, "attached" if one.key in held else states.get(one.key, "cold")) for one in known]


def _read(request: TurnRequest) -> tuple[Told, list[bytes]]:
    """Return what a request tells, and the histories by which its conversation is to be found."""
    told = history.read(request)
    if request.named:
        return told, []
    return told, list(told.digests) if told.brief else [told.digests[length - 1] for length in told.ends]


def remove_traces(directories: Sequence[Path], session: str) -> None:
    """Remove what the CLI has on disk of a session: its transcript, images, and what lies beside them."""
    for directory in directories:
        # Not Path.glob: that fails when one of the CLI's directories goes meanwhile.
        for name in glob(f"*/{session}*", root_dir=directory):  # noqa: PTH207
            path = directory / name
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _unknown(key: ConversationKey) -> NotFound:
    return NotFound(f"there is no conversation {key.id!r}", param="id")
