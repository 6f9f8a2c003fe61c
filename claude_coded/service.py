"""Turns, as the HTTP side sees them: a request in, an iterator of events out.

A turn is planned when it has its conversation, asked when it has a worker, and recorded before its last
event is handed over. Whatever else happens to it, somebody concludes it: the worker is taken back to where
the conversation stands, or stopped.
"""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from claude_coded import history
from claude_coded.claude.launch import Launch
from claude_coded.claude.protocol import Setup
from claude_coded.errors import (
    CodedError,
    Evicted,
    ModelNotFound,
    NotFound,
    TurnTimeout,
    WorkerDied,
    WorkspaceGone,
)
from claude_coded.history import Conversation, Plan, Span, Unfinished
from claude_coded.pool import Lease, Pool
from claude_coded.scheduler import Figures, Phase, Want
from claude_coded.settings import Settings
from claude_coded.store import Store
from claude_coded.turn import (
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

AGENT: Final = Profile("claude-code", agent=True)
CHAT: Final = Profile("claude-code-chat", agent=False)
ALIASES: Final = ("sonnet", "opus", "haiku")
DEFAULT_MODEL: Final = "default"
"""What the CLI calls its own choice."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A conversation and where it stands: busy, idle, parked or cold."""

    conversation: Conversation
    state: str


class Models:
    """The model names that may be asked for; the CLI's own are learnt from it."""

    def __init__(self) -> None:
        self._own: dict[str, dict[str, Any]] = {}

    def learn(self, models: Iterable[dict[str, Any]]) -> None:
        """Take in the CLI's list. Its `default` is what the profiles use already."""
        named = {str(m["value"]): m for m in models if m.get("value") not in {None, "default"}}
        self._own = named or self._own

    @property
    def names(self) -> list[str]:
        """Return all names, the profiles first."""
        return [AGENT.name, CHAT.name, *(self._own or dict.fromkeys(ALIASES))]

    def profile(self, name: str) -> Profile:
        """Return what a model name asks for. Raises ModelNotFound."""
        for profile in (AGENT, CHAT):
            if name == profile.name:
                return profile
        if name in self.names or name.startswith("claude-"):
            return Profile(name, agent=True, model=name)
        raise ModelNotFound(
            f"the model {name!r} does not exist; there are {', '.join(self.names)}", param="model"
        )


def launch_of(profile: Profile, settings: Settings) -> Launch:
    """Return how a fresh worker for a profile is started."""
    claude = settings.claude
    return Launch(profile.agent, claude.workspace, claude.permission_mode, claude.auto_compact)


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
        self._tasks: set[asyncio.Task[None]] = set()

    # Turns ---------------------------------------------------------------------------------------------

    async def run(self, request: TurnRequest) -> AsyncIterator[list[TurnEvent]]:
        """Yield a turn's events in batches, each what has come since the last; the end comes last.

        Every failure is a TurnFailed. Giving up the iteration ends the turn: close it (`aclosing`).
        """
        run = _Run(self, request)
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
        if purge and (known := await self.store.purge(key)) is not None:
            await asyncio.to_thread(remove_transcript, self._projects, known.session)

    def _listed(self, conversation: Conversation) -> Listed:
        view = next((v for v in self._pool.views if v.conversation == conversation.key and v.hot), None)
        states = {Phase.BUSY: "busy", Phase.IDLE: "idle", Phase.PARKED: "parked", Phase.STARTING: "busy"}
        return Listed(conversation, states.get(view.phase, "cold") if view is not None else "cold")


class _Run:
    """One turn on its way through the daemon."""

    def __init__(self, service: TurnService, request: TurnRequest) -> None:
        self.request = request
        self.done = asyncio.Event()
        self._service = service
        self._lease: Lease | None = None
        self._turn: Turn | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._text: list[str] = []
        self._seen: list[str] = []  # what the client was sent of it
        self._failure: CodedError | None = None

    async def events(self) -> AsyncIterator[list[TurnEvent]]:
        """Yield the turn's events. Raises CodedError for what goes wrong before the model is asked."""
        turn, plan = await self._begin()
        if self._failure is not None:
            turn.fail(self._failure)
        while True:
            events = await turn.take()
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
        self._service.background(self._give_up(lease))

    # Beginning -----------------------------------------------------------------------------------------

    async def _begin(self) -> tuple[Turn, Plan]:
        try:
            return await self._attempt(lost=False)
        except (SessionMissing, RewindRefused) as error:
            self._complain("rebuilding a conversation whose session is lost", error)
        await self._conclude_lost()
        return await self._attempt(lost=True)

    async def _conclude_lost(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            await lease.worker.abandon()
            lease.give_back(keep=False)

    async def _attempt(self, *, lost: bool) -> tuple[Turn, Plan]:
        """Get a worker and ask it. With `lost` the session is not used again."""
        key, store = self.request.key, self._service.store
        admission = await self._service.pool.admit(key)
        try:
            known = await store.load(key)
            plan = history.plan(known, self.request)
            if lost and not plan.fresh:
                plan = history.rebuild(await store.messages(key), plan)
            profile, system, launch = self._choose(known, fresh=plan.fresh)
            want = Want((profile, system), launch, plan.fresh)
        except BaseException:
            admission.withdraw()
            raise
        self._lease = lease = await admission.acquire(want)
        self._service.enter(self)
        return await self._ask(lease, known, plan, profile, system), plan

    def _choose(self, known: Conversation | None, *, fresh: bool) -> tuple[Profile, str, Launch]:
        profile, system = self.request.profile, self.request.system
        launch = launch_of(profile, self._service.settings)
        if known is not None:
            system = known.system if system is None else system
            launch = replace(launch, workspace=known.workspace)
            if not fresh:
                # A resumed session goes on with its last model unless it is told.
                back = DEFAULT_MODEL if known.profile.model is not None else None
                launch = launch.resuming(known.session, profile.model or back)
        if not launch.workspace.is_dir():
            raise WorkspaceGone(f"the conversation's workspace {launch.workspace} does not exist any more")
        return profile, system or "", launch

    async def _ask(
        self, lease: Lease, known: Conversation | None, plan: Plan, profile: Profile, system: str
    ) -> Turn:
        """Note the turn, durably against our own death, and have the worker ask it."""
        uuids = [str(uuid4()) for _ in plan.written]
        back = plan.back.spans if plan.back is not None and not plan.fresh else ()
        unfinished = Unfinished((*back, Span(uuids[0], uuids[-1])), plan.lead, plan.asked)
        now = self._service.now()
        conversation = Conversation(
            key=self.request.key,
            session=lease.worker.session,
            profile=profile,
            workspace=lease.worker.launch.workspace,
            system=system,
            turns=known.turns if known else 0,
            created_at=known.created_at if known else now,
            last_used_at=now,
            usage=known.usage if known else Usage(),
            unfinished=unfinished,
        )
        await self._service.store.begin(conversation)
        ask = Ask(
            plan.asked[-1],
            uuids[-1],
            setup=None if lease.hot else self._setup(lease, profile, system),
            model=None if lease.worker.launch.session else profile.model,
            back=() if lease.hot else back,
            seeds=list(zip(plan.written[:-1], uuids, strict=False)),
        )
        self._turn = turn = await lease.worker.begin(ask)
        self._timer = asyncio.get_running_loop().call_later(self._service.settings.turns.timeout, self._late)
        return turn

    def _setup(self, lease: Lease, profile: Profile, system: str) -> Setup:
        return Setup(system, profile.prompting, resumed=lease.worker.launch.session is not None)

    def _late(self) -> None:
        seconds = self._service.settings.turns.timeout
        self.fail(TurnTimeout(f"the turn took longer than {seconds:g} s and was interrupted"))

    # Ending --------------------------------------------------------------------------------------------

    async def _finish(self, plan: Plan, usage: Usage) -> None:
        """Record the turn. From here on it is concluded even if its reader leaves."""
        lease, self._lease = self._lease, None
        assert lease is not None
        said = (*plan.lead, *plan.asked, Message(Role.ASSISTANT, "".join(self._text)))
        recorded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._service.background(self._record(lease, said, usage, recorded))
        await asyncio.shield(recorded)

    async def _record(
        self, lease: Lease, said: tuple[Message, ...], usage: Usage, recorded: asyncio.Future[None]
    ) -> None:
        keep = False
        try:
            await self._service.store.finish(self.request.key, said, usage, self._service.now())
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
