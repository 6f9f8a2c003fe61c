"""Turns, as the HTTP side sees them: a request in, an iterator of events out.

A turn is planned when it has its conversation, asked when it has a worker, and recorded before its last
event is handed over. Whatever else happens to it, somebody concludes it: the worker is taken back to where
the conversation stands, or stopped.
"""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from claude_coded import history
from claude_coded.activity import Activity
from claude_coded.claude.launch import Launch
from claude_coded.claude.protocol import Setup
from claude_coded.errors import (
    CodedError,
    Evicted,
    NotFound,
    TurnTimeout,
    WorkerDied,
    WorkspaceGone,
)
from claude_coded.history import Conversation, Head, Plan, Span, Told, Unfinished, Way
from claude_coded.models import Models
from claude_coded.pool import Lease, Pool
from claude_coded.scheduler import Figures, Phase, Want
from claude_coded.settings import Settings
from claude_coded.store import Found, Record, Store
from claude_coded.turn import (
    AnswerEvent,
    ConversationKey,
    Message,
    Profile,
    Role,
    TextDelta,
    TurnEvent,
    TurnFailed,
    TurnFinished,
    TurnRequest,
    Usage,
)
from claude_coded.worker import Ask, RewindRefused, SessionMissing, Turn

log = logging.getLogger(__name__)

HOUSEKEEPING: Final = 3600.0
"""Seconds between two looks for conversations to forget."""
DEFAULT_MODEL: Final = "default"
"""What the CLI calls its own choice."""


@dataclass(frozen=True, slots=True)
class Located:
    """A request with its conversation: a known one, or a new one, which may begin with a fork.

    `points` are where to fork, the best first, and `workspace` is that of the sessions there.
    """

    request: TurnRequest
    told: Told
    points: tuple[Head, ...] = ()
    workspace: Path | None = None


@dataclass(frozen=True, slots=True)
class Seat:
    """What a worker has to be for a turn."""

    profile: Profile
    system: str
    generation: int
    launch: Launch

    @property
    def fit(self) -> tuple[Profile, str, int]:
        """Return what a hot worker of the conversation must have been set up with."""
        return (self.profile, self.system, self.generation)


@dataclass(frozen=True, slots=True)
class Listed:
    """A conversation and where it stands: busy, idle, parked or cold."""

    conversation: Conversation
    state: str


def launch_of(profile: Profile, settings: Settings) -> Launch:
    """Return how a fresh worker for a profile is started."""
    claude = settings.claude
    return Launch(
        profile.agent,
        claude.workspace,
        claude.permission_mode,
        auto_compact=claude.auto_compact,
        retention_days=settings.retention_days,
    )


class TurnService:
    """Runs turns. `projects` is where the CLI keeps its transcripts; `wall` returns Unix seconds."""

    def __init__(
        self,
        store: Store,
        pool: Pool,
        models: Models,
        settings: Settings,
        *,
        projects: Path,
        wall: Callable[[], float],
    ) -> None:
        self.models = models
        self.store = store
        self.settings = settings
        self._pool = pool
        self._projects = projects
        self._wall = wall
        self._runs: dict[ConversationKey, _Run] = {}
        self._concluding: set[ConversationKey] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        pool.on_release(self._released)

    # Turns ---------------------------------------------------------------------------------------------

    async def locate(self, request: TurnRequest) -> "Located":
        """Find the conversation that an unnamed request goes on with, or what a new one branches from."""
        told = history.read(request)
        if request.named or not told.has_history:
            return Located(request, told)
        found = await self.store.find([told.digests[length - 1] for length in told.ends()])
        ready = [turn for turn in found if turn.is_head and not self._is_running(turn.key)]
        if ready:
            return Located(replace(request, key=self._best(ready, request.hint).key), told)
        return await self._branch(request, told, found) if found else Located(request, told)

    async def _branch(self, request: TurnRequest, told: Told, found: Sequence[Found]) -> "Located":
        """Branch in a hot session that can drop what the client has dropped, else in a new conversation."""
        best = self._best(found, request.hint)
        known, path = await self.store.load(best.key), await self.store.path(best.key)
        if known is None:
            return Located(request, told)
        points = history.fork_points(await self.store.turns(best.key, told.digests), told)
        if self._pool.is_idle(best.key) and history.can_drop(path, points, told):
            return Located(replace(request, key=best.key), told)
        return Located(request, told, points, known.workspace)

    def _is_running(self, key: ConversationKey) -> bool:
        """Return whether a turn runs or is about to; one that was given up is over in a moment."""
        return self._pool.holds(key) and key not in self._concluding

    def _best(self, found: Sequence[Found], hint: str) -> Found:
        """Return which of equal histories to go on with: hot and idle first, then the hinted, the latest."""
        return max(
            found,
            key=lambda turn: (
                self._pool.is_idle(turn.key),
                hint != "" and turn.hint == hint,
                turn.last_used_at,
            ),
        )

    async def run(self, located: "Located") -> AsyncIterator[list[AnswerEvent]]:
        """Yield a turn's events in batches, each what has come since the last; the end comes last.

        Every failure is a TurnFailed. Giving up the iteration ends the turn: close it (`aclosing`).
        """
        run = _Run(self, located)
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

    def enter(self, run: "_Run") -> None:
        """Note that a turn runs."""
        self._runs[run.request.key] = run

    def part(self, run: "_Run") -> None:
        """Note that a turn no longer runs."""
        if self._runs.get(run.request.key) is run:
            del self._runs[run.request.key]

    def conclude(self, key: ConversationKey, work: Coroutine[Any, Any, None]) -> None:
        """Run what takes a conversation back to where it stands; who goes on with it meanwhile waits."""
        self._concluding.add(key)
        self.background(work).add_done_callback(lambda _: self._concluding.discard(key))

    def background(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run something to its end, whoever asked for it stays or not."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def drain(self, seconds: float) -> None:
        """Take no new turns; let running ones finish for so long, then end them."""
        self._pool.drain()
        deadline = asyncio.get_running_loop().time() + seconds
        while self._runs and asyncio.get_running_loop().time() < deadline:
            runs = [run.done.wait() for run in self._runs.values()]
            await _wait_all(runs, deadline)
        for run in list(self._runs.values()):
            run.fail(WorkerDied("the daemon is stopping"))
        await self.settle()

    async def settle(self) -> None:
        """Wait until everything that was begun in the background is done."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # Conversations -------------------------------------------------------------------------------------

    @property
    def figures(self) -> Figures:
        """Return the pool's counts."""
        return self._pool.figures

    @property
    def hot(self) -> int:
        """Return how many conversations have a worker."""
        return sum(view.hot for view in self._pool.views)

    async def conversations(self, tenant: str, *, stored: bool) -> list[Listed]:
        """Return a tenant's conversations, the last used first: hot ones, or all."""
        listed = [self._listed(conversation) for conversation in await self.store.all(tenant)]
        return [item for item in listed if stored or item.state != "cold"]

    async def conversation(self, key: ConversationKey) -> tuple[Listed, tuple[Message, ...]]:
        """Return a conversation and what was said in it. Raises NotFound."""
        known = await self.store.load(key)
        if known is None:
            raise _unknown(key)
        return self._listed(known), await self.store.messages(key)

    async def release(self, key: ConversationKey, *, purge: bool) -> None:
        """Interrupt a conversation's turn and evict its worker; with `purge` forget it. Raises NotFound."""
        if await self.store.load(key) is None and key not in self._runs:
            raise _unknown(key)
        self._pool.evict(key)
        if (run := self._runs.get(key)) is not None:
            run.fail(Evicted("the conversation was released while its turn ran"))
            await run.done.wait()
        if purge:
            # A process that ends writes to its transcript to the last.
            await self._pool.released(key)
            await self._forget(key)

    async def housekeeping(self) -> None:
        """Forget what is outdated, now and every HOUSEKEEPING seconds; ends by being cancelled."""
        while True:
            try:
                await self.forget_outdated()
            except CodedError as error:
                log.warning("housekeeping failed", extra={"error": error.message})
            await asyncio.sleep(HOUSEKEEPING)

    async def forget_outdated(self) -> None:
        """Forget what the settings no longer keep, and ephemeral conversations of a former daemon."""
        days, count = self.settings.retention_days, self.settings.retention_count
        before = self._wall() - days * 86400 if days else 0.0
        for key in await self.store.outdated(before, count):
            if not self._in_use(key):
                await self._forget(key)

    def _in_use(self, key: ConversationKey) -> bool:
        return self._pool.holds(key) or any(view.conversation == key for view in self._pool.views)

    def _released(self, key: ConversationKey) -> None:
        self.background(self._forget_if_ephemeral(key))

    async def _forget_if_ephemeral(self, key: ConversationKey) -> None:
        known = await self.store.load(key)
        if known is not None and known.ephemeral and not self._in_use(key):
            await self._forget(key)

    async def _forget(self, key: ConversationKey) -> None:
        for session in await self.store.sessions(key):
            await asyncio.to_thread(remove_transcript, self._projects, session)
        await self.store.purge(key)

    def _listed(self, conversation: Conversation) -> Listed:
        view = next((v for v in self._pool.views if v.conversation == conversation.key and v.hot), None)
        states = {Phase.BUSY: "busy", Phase.IDLE: "idle", Phase.PARKED: "parked", Phase.STARTING: "busy"}
        return Listed(conversation, states.get(view.phase, "cold") if view is not None else "cold")


class _Run:
    """One turn on its way through the daemon."""

    def __init__(self, service: TurnService, located: Located) -> None:
        self.request = located.request
        self._told = located.told
        self._points = located.points
        self._workspace = located.workspace
        self._activity = Activity(service.settings.turns.tool_activity)
        self.done = asyncio.Event()
        self._service = service
        self._lease: Lease | None = None
        self._turn: Turn | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._text: list[str] = []
        self._seen: list[str] = []  # what the client was sent of it
        self._failure: CodedError | None = None
        self._forks = False  # whether the attempt that runs forks
        self._forks_failed = 0
        self._lost = False  # whether the conversation's session cannot be gone on with
        self._died = False  # whether a worker has died under it

    async def events(self) -> AsyncIterator[list[AnswerEvent]]:
        """Yield the turn's events. Raises CodedError for what goes wrong before the model is asked."""
        turn, plan, taken = await self._begin()
        while True:
            events = self._activity.show(taken)
            if not events:
                taken = await turn.take()
                continue
            text = [event.text for event in events if isinstance(event, TextDelta)]
            self._text += text
            end = events[-1]
            if isinstance(end, TurnFinished):
                await self._finish(plan, end.usage)
            yield events
            if self.request.streamed:
                self._seen += text
            if isinstance(end, TurnFinished | TurnFailed):
                return
            taken = await turn.take()

    def fail(self, error: CodedError) -> None:
        """End the turn with an error, if it has not ended; one that begins ends when it has begun."""
        self._failure = error
        if self._turn is not None:
            self._turn.fail(error)

    def leave(self) -> None:
        """Conclude a turn that has no reader any more; one that finished is concluded already."""
        self._service.part(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._lease is None:
            self.done.set()
            return
        lease, self._lease = self._lease, None
        self._service.conclude(self.request.key, self._give_up(lease))

    # Beginning -----------------------------------------------------------------------------------------

    async def _begin(self) -> tuple[Turn, Plan, list[TurnEvent]]:
        while True:
            try:
                return await self._attempt()
            except (SessionMissing, RewindRefused) as error:
                if self._lost:
                    raise
                self._complain("a session is lost or cannot be gone on with", error)
                # Where a fork was to end may have been dropped meanwhile by who goes on there.
                self._forks_failed += self._forks
                self._lost = not self._forks
            except WorkerDied as error:
                if self._died:
                    raise
                self._complain("a worker had ended when it was asked: another one is", error)
                self._died = True
            await self._conclude_lost()

    async def _conclude_lost(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            await lease.worker.abandon()
            lease.give_back(keep=False)

    async def _attempt(self) -> tuple[Turn, Plan, list[TurnEvent]]:
        """Get a worker, ask it, and wait for the turn's first events."""
        key, store = self.request.key, self._service.store
        admission = await self._service.pool.admit(key)
        try:
            known = await store.load(key)
            plan = await self._plan(known)
            seat = self._choose(known, plan)
        except BaseException:
            admission.withdraw()
            raise
        self._forks = plan.way is Way.FORK
        want = Want(seat.fit, seat.launch, plan.way is Way.FRESH)
        self._lease = lease = await admission.acquire(want)
        self._service.enter(self)
        turn = await self._ask(lease, known, plan, seat)
        if self._failure is not None:
            turn.fail(self._failure)
        first = await turn.take()
        if not turn.begun and isinstance(first[0], TurnFailed) and isinstance(first[0].error, WorkerDied):
            raise first[0].error
        return turn, plan, first

    async def _plan(self, known: Conversation | None) -> Plan:
        told, store = self._told, self._service.store
        if known is not None and not told.has_history:
            plan = history.go_on(known, told)
            if self._lost and plan.way is Way.CONTINUE:
                plan = history.rebuild(await store.messages(known.key), plan)
            return plan
        if self._lost:
            return history.begin(told)
        if known is None or known.head is None:
            return history.begin(told, next(iter(self._points[self._forks_failed :]), None))
        if told.digests[-1:] == (known.head.digest,) and not self._forks_failed:
            return history.follow(known, [known.head], (), told)
        points = history.fork_points(await store.turns(known.key, told.digests), told)
        if self._forks_failed:
            return history.begin_again(points[self._forks_failed :], told)
        return history.follow(known, await store.path(known.key), points, told)

    def _choose(self, known: Conversation | None, plan: Plan) -> Seat:
        """Return what worker suits a plan. Raises WorkspaceGone."""
        profile, system = self.request.profile, self.request.system or ""
        launch = launch_of(profile, self._service.settings)
        generation, model = 0, profile.model
        if known is not None:
            system = known.system if self.request.system is None else system
            launch = replace(launch, workspace=known.workspace)
            same = plan.way is Way.CONTINUE or (plan.way is Way.FRESH and known.head is None)
            generation = known.generation if same else known.generation + 1
            if known.profile.model is not None:
                # A resumed session goes on with its last model unless it is told.
                model = model or DEFAULT_MODEL
        elif self._workspace is not None:
            launch = replace(launch, workspace=self._workspace)
        if plan.session is not None:
            launch = launch.resuming(plan.session, model, plan.at or None)
        if not launch.workspace.is_dir():
            raise WorkspaceGone(f"the conversation's workspace {launch.workspace} does not exist any more")
        return Seat(profile, system, generation, launch)

    async def _ask(self, lease: Lease, known: Conversation | None, plan: Plan, seat: Seat) -> Turn:
        """Note the turn, durably against our own death, and have the worker ask it."""
        uuids = [str(uuid4()) for _ in plan.written]
        resumed = lease.worker.launch.session is not None
        ask = Ask(
            plan.asked[-1],
            uuids[-1],
            setup=None if lease.hot else Setup(seat.system, seat.profile.prompting, resumed=resumed),
            model=None if resumed else seat.profile.model,
            back=plan.back_hot if lease.hot else plan.back,
            seeds=list(zip(plan.written[:-1], uuids, strict=False)),
            own=plan.own,
        )
        lead = plan.said[: len(plan.said) - len(plan.asked)]
        now = self._service.now()
        conversation = Conversation(
            key=self.request.key,
            session=lease.worker.session,
            lineage=plan.lineage or lease.worker.session,
            profile=seat.profile,
            workspace=seat.launch.workspace,
            system=seat.system,
            turns=known.turns if known else 0,
            created_at=known.created_at if known else now,
            last_used_at=now,
            usage=known.usage if known else Usage(),
            unfinished=Unfinished((*plan.back, ask.span), lead, plan.asked),
            head=plan.base,
            generation=seat.generation,
            hint=self.request.hint,
            ephemeral=known.ephemeral if known else self.request.ephemeral,
        )
        await self._service.store.begin(conversation)
        self._turn = turn = await lease.worker.begin(ask)
        if self._timer is None:
            timeout = self._service.settings.turns.timeout
            self._timer = asyncio.get_running_loop().call_later(timeout, self._late)
        return turn

    def _late(self) -> None:
        seconds = self._service.settings.turns.timeout
        self.fail(TurnTimeout(f"the turn took longer than {seconds:g} s and was interrupted"))

    # Ending --------------------------------------------------------------------------------------------

    async def _finish(self, plan: Plan, usage: Usage) -> None:
        """Record the turn. From here on it is concluded even if its reader leaves."""
        lease, self._lease = self._lease, None
        assert lease is not None
        assert self._turn is not None
        records = self._records(plan, self._turn, usage)
        recorded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._service.background(self._record(lease, records, recorded))
        await asyncio.shield(recorded)

    def _records(self, plan: Plan, turn: Turn, usage: Usage) -> list[Record]:
        """Return what the turn leaves: what was seeded before it is a turn of its own, to branch after."""
        lead = plan.said[: len(plan.said) - len(plan.asked)]
        said = (*plan.asked, Message.of(Role.ASSISTANT, "".join(self._text)))
        before = history.last_digest(plan.digest, lead)
        ask = turn.ask
        first = ask.uuids[len(plan.seeds)]
        own = Record(
            said,
            usage,
            Span(first, ask.uuid),
            turn.answer,
            history.last_digest(before, said),
            plan.tools + self._activity.used,
        )
        if not lead:
            return [own]
        # What a fork holds ends with the message that it was made at: it can be forked there again.
        held, seeded = lead[: len(lead) - len(plan.seeds)], lead[-len(plan.seeds) :] if plan.seeds else ()
        if plan.base is not None or plan.way is not Way.FORK:
            held, seeded = (), lead
        span = Span(ask.span.first, first)
        records = []
        if held:
            digest = history.last_digest(plan.digest, held)
            records.append(Record(held, Usage(), span, plan.at, digest, plan.tools))
        if seeded:
            records.append(Record(seeded, Usage(), span, "", before, plan.tools))
        return [*records, own]

    async def _record(self, lease: Lease, records: Sequence[Record], recorded: asyncio.Future[None]) -> None:
        keep = False
        try:
            await self._service.store.finish(self.request.key, records, self._service.now())
            recorded.set_result(None)
            keep = lease.worker.settle()
        except CodedError as error:
            self._complain("a turn could not be recorded", error)
            recorded.set_exception(error)
        finally:
            lease.give_back(keep=keep)
            self._service.part(self)
            self.done.set()

    async def _give_up(self, lease: Lease) -> None:
        """Take the session back to before the turn; keep what the client was sent of it."""
        keep = False
        try:
            await self._service.store.give_up(self.request.key, "".join(self._seen))
            keep = await lease.worker.abandon()
        except CodedError as error:
            self._complain("what a client saw of its answer could not be recorded", error)
        finally:
            lease.give_back(keep=keep)
            self.done.set()

    def _complain(self, message: str, error: CodedError) -> None:
        log.warning(message, extra={"conversation": self.request.key.id, "error": error.message})


def remove_transcript(projects: Path, session: str) -> None:
    """Remove what the CLI has on disk of a session: its transcript and what lies beside it."""
    for path in projects.glob(f"*/{session}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


async def _wait_all(waits: Iterable[Coroutine[Any, Any, Any]], deadline: float) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    timeout = max(0.0, deadline - asyncio.get_running_loop().time())
    _, late = await asyncio.wait(tasks, timeout=timeout)
    for task in late:
        task.cancel()


def _unknown(key: ConversationKey) -> NotFound:
    return NotFound(f"there is no conversation {key.id!r}", param="id")
