"""One turn on its way through the daemon, and all that are on theirs.

A turn is planned when it has its conversation, asked when it has a worker, and recorded before its last event
is handed over. Whatever happens to it, somebody concludes it: the worker is taken back to where the
conversation stands, or waits for the client's tools, or is stopped.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar
from uuid import uuid4

from claude_coded import history, leaving, transcripts
from claude_coded.activity import Activity
from claude_coded.aside import Aside
from claude_coded.ask import Ask, Turn, reminded, reminder
from claude_coded.claude.toolbridge import qualified
from claude_coded.course import Course, Progress
from claude_coded.errors import (
    CodedError,
    NotRecorded,
    ParkLost,
    SessionMissing,
    ToolCallMissing,
    TurnTimeout,
    WorkerDied,
)
from claude_coded.events import EventKind, Events
from claude_coded.history import Conversation, Plan, Span, Unfinished, Way
from claude_coded.planning import REPLANNED, Located, Planner, Seat
from claude_coded.pool import Lease, Pool
from claude_coded.said import Said
from claude_coded.scheduler import Want
from claude_coded.settings import Settings
from claude_coded.stopping import Stopper
from claude_coded.store import Store
from claude_coded.tracing import Tracing
from claude_coded.turn import (
    AnswerEvent,
    ConversationKey,
    FinishReason,
    Message,
    TextDelta,
    ToolOutcome,
    TurnEvent,
    TurnFailed,
    TurnFinished,
    TurnRequest,
    Usage,
)
from claude_coded.worker import Worker

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

LOOKS: Final = 40
LOOK: Final = 0.02
"""Looks for what a live process has said, which is on disk 0.1 s later, and seconds between two of them."""

PATIENCE: Final = 5.0
"""Seconds that a reader has to take the news that its turn was ended: it may have stopped to read at all."""


class Runs:
    """The turns that run, and what they need.

    `wall` returns Unix seconds; `events` and `tracing` are told of each turn. `projects` is where the CLI
    keeps its transcripts.
    """

    def __init__(
        self,
        store: Store,
        pool: Pool,
        settings: Settings,
        wall: Callable[[], float],
        events: Events,
        *,
        tracing: Tracing,
        aside: Aside,
        projects: Path,
    ) -> None:
        self.projects = projects
        self.store = store
        self.pool = pool
        self.settings = settings
        self.wall = wall
        self.events = events
        self.tracing = tracing
        self.aside = aside
        self._runs: dict[ConversationKey, Run] = {}
        self._concluding: set[ConversationKey] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = count(1)

    def course(self, request: TurnRequest) -> Course:
        """Return what tells of a new turn."""
        key, profile = request.key, request.profile
        operation = "invoke_agent" if profile.agent else "chat"
        whose = {"conversation": key.id, "tenant": key.tenant}
        span = self.tracing.turn(request.trace, operation, profile.name, request.arrived, **whose)
        return Course(self.events, key, next(self._numbers), self.wall, span)

    def of(self, key: ConversationKey) -> "Run | None":
        """Return the turn that runs in a conversation."""
        return self._runs.get(key)

    @property
    def running(self) -> int:
        """Return how many turns run or are being concluded."""
        return len(self._runs) + len(self._concluding)

    async def idle_within(self, seconds: float) -> bool:
        """Wait until no turn runs; False when one still does after so long."""
        deadline = asyncio.get_running_loop().time() + seconds
        while self.running and asyncio.get_running_loop().time() < deadline:
            waits = [run.done.wait() for run in self._runs.values()]
            await _wait_all([*waits, *map(_ended, self._tasks)], deadline)
        return not self.running

    def is_concluding(self, key: ConversationKey) -> bool:
        """Return whether a turn of the conversation was given up, and will be over in a moment."""
        return key in self._concluding

    def enter(self, run: "Run") -> None:
        """Note that a turn runs."""
        self._runs[run.request.key] = run

    def part(self, run: "Run") -> None:
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
        """Let the turns finish for so long, then end them."""
        await self.idle_within(seconds)
        for run in list(self._runs.values()):
            run.fail(WorkerDied("the daemon is stopping"))
        await self.settle()

    async def settle(self) -> None:
        """Wait until everything that was begun in the background is done."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)


class Run:
    """One turn on its way through the daemon."""

    def __init__(self, runs: Runs, located: Located) -> None:
        self.request = located.request
        self.done = asyncio.Event()
        self._told = located.told
        self._runs = runs
        self._planner = Planner(runs.store, runs.pool, runs.settings, located)
        self._course = runs.course(self.request)
        self._activity = Activity(runs.settings.turns.tool_activity)
        self._stopper = Stopper(located.request.options.stop)
        self._said = Said()
        self._seen: list[str] = []  # the text that the client was sent
        self._before = Usage()  # of what was asked before it was asked once more
        self._reminded = False
        self._lease: Lease | None = None
        self._turn: Turn | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failure: CodedError | None = None
        self._handed = False  # its reader has what there was, and does not ask for more
        self._untold: Collection[TurnEvent] = ()  # of what the reader has by now
        self._answering = False
        self._begins = False  # the model, as far as the reader knows

    @property
    def progress(self) -> Progress:
        """Return how far it has come."""
        model = self.request.profile.name
        return Progress(self._course.id, self._course.began, model, self._used().output, self._activity.doing)

    def _used(self) -> Usage:
        """Return the tokens so far."""
        return self._before + self._turn.usage if self._turn is not None else self._before

    async def events(self) -> AsyncIterator[list[AnswerEvent] | None]:
        """Yield the turn's events: first an empty batch, when the worker has been asked.

        Another one is empty where the model begins to answer. None comes where nothing else came for as long
        as the status line is held, and then for the time between two signs of life.
        Raises CodedError for what goes wrong before the model answers.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        turn, plan = await self._begin()
        yield []
        server = self._runs.settings.server
        patience = max(0.0, started + server.header_hold - loop.time())
        while True:
            taken = await turn.take(patience)
            patience = server.keep_alive
            if not self._answering and (death := turn.death(taken)) is not None:
                turn, plan = await self._begin(instead_of=(death, plan))
                continue
            self._untold = taken
            self._note_first(taken)
            for batch in self._batches_of(taken, turn):
                end = batch[-1] if batch else None
                if batch and isinstance(end, TurnFinished | TurnFailed):
                    batch[-1] = await self._conclude(end, plan)
                self._handed = True
                yield batch
                self._handed = False
                if self.request.streamed:
                    self._seen += [event.text for event in batch or () if isinstance(event, TextDelta)]
                if isinstance(end, TurnFinished | TurnFailed):
                    return
                if self._lease is None and self._failure is not None:
                    raise self._failure  # it was not waited for any longer
            self._tell()

    def _note_first(self, taken: list[TurnEvent]) -> None:
        if self._answering or not taken or isinstance(taken[0], TurnFailed) or self._lease is None:
            return
        self._answering = True
        self._course.reach("answering", loaded=self._lease.worker.loaded)

    def _tell(self) -> None:
        """Tell what the answer has come to: the reader is not kept waiting for that."""
        untold, self._untold = self._untold, ()
        if untold:
            self._course.hears(untold, self._used)

    def _batches_of(self, taken: list[TurnEvent], turn: Turn) -> Sequence[list[AnswerEvent] | None]:
        """Return what is handed over of what came, or because nothing came."""
        if not taken:
            begins = turn.answering and not (self._begins or self._answering)
            self._begins |= begins
            return ([] if begins else None,)
        events = self._ending(self._stopper.feed(self._activity.show(taken)), turn)
        self._said.add(events)
        return in_batches(events, streamed=self.request.streamed) if events else ()

    def _ending(self, events: list[AnswerEvent], turn: Turn) -> list[AnswerEvent]:
        """Return the events, with the end that the client's wishes make of it."""
        end = events[-1] if events else None
        if self._stopper.stopped and not isinstance(end, TurnFinished | TurnFailed):
            return [*events, TurnFinished(FinishReason.STOP, turn.usage)]
        if not isinstance(end, TurnFinished):
            return events
        *events, _ = events
        if self.request.tools.required and end.reason is FinishReason.STOP and not self._stopper.stopped:
            if self._reminded:
                return [*events, TurnFailed(ToolCallMissing("the model has called none of the tools"))]
            return self._remind(events, end)
        return [*events, replace(end, usage=self._before + end.usage)]

    def _remind(self, events: list[AnswerEvent], end: TurnFinished) -> list[AnswerEvent]:
        """Ask once more for a call, within the turn."""
        assert self._lease is not None
        self._reminded = True
        self._before += end.usage
        self._lease.worker.ask_more(reminder(self._words()))
        return events

    def _words(self) -> str:
        names = ", ".join(qualified(spec.name) for spec in self.request.tools.specs)
        return f"You must now call one of these tools: {names}."

    def fail(self, error: CodedError) -> None:
        """End the turn with an error, if it has not ended; one that begins ends when it has begun."""
        self._failure = error
        if self._turn is not None:
            self._turn.fail(error)
        asyncio.get_running_loop().call_later(PATIENCE, self._leave_reader)

    def _leave_reader(self) -> None:
        """Conclude the turn without its reader: a worker is not to wait for a client that does not read."""
        if self._handed and self._lease is not None:
            self.leave()

    def leave(self) -> None:
        """Conclude a turn that has no reader any more; one that finished is concluded already."""
        self._runs.part(self)
        if self._timer is not None:
            self._timer.cancel()
        self._tell()
        if self._lease is None:
            self._course.is_left()
            self.done.set()
            return
        lease, self._lease = self._lease, None
        if self._failure is not None:
            self._course.fails(self._failure, self._used())
        self._course.ends(EventKind.TURN_ABANDONED, self._used())
        self._runs.conclude(self.request.key, self._give_up(lease))

    # Beginning -----------------------------------------------------------------------------------------

    async def _begin(self, instead_of: tuple[CodedError, Plan] | None = None) -> tuple[Turn, Plan]:
        """Have a worker asked, also instead of one that was lost with its plan."""
        try:
            if instead_of is not None:
                self._lose_worker(*instead_of)
            return await self._find_and_ask()
        except CodedError as error:
            self._course.fails(error, self._used())
            raise

    async def _find_and_ask(self) -> tuple[Turn, Plan]:
        """Have a worker asked; where a plan fails, by another one."""
        while True:
            admission = await self._runs.pool.admit(self.request.key, self._course.waits)
            self._course.reach("admitted")
            try:
                known = await self._runs.store.load(self.request.key)
                plan = await self._planner.plan(known)
                seat = self._planner.seat(known, plan)
                if plan.way is Way.FORK:
                    await self._await_written(plan)
            except BaseException:
                admission.withdraw()
                raise
            self._course.reach("planned")
            lasting = bool(self.request.tools.specs)
            fresh = plan.way is Way.FRESH
            want = Want(seat.fit, seat.launch, fresh, lasting, seat.outfit if fresh else None)
            self._lease = await admission.acquire(want)
            self._course.reach("granted", worker=self._lease.worker.name, age=self._lease.worker.age)
            self._runs.enter(self)
            try:
                return await self._attempt(self._lease, known, plan, seat), plan
            except REPLANNED as error:
                self._lose_worker(error, plan)

    async def _attempt(self, lease: Lease, known: Conversation | None, plan: Plan, seat: Seat) -> Turn:
        """Have the worker asked."""
        ask = self._answer if plan.way is Way.ANSWER else self._ask
        self._course.starts(lease.worker.name, plan.way, hot=lease.hot)
        self._turn = turn = await ask(lease, known, plan, seat)
        if self._timer is None:
            timeout = self._runs.settings.turns.timeout
            self._timer = asyncio.get_running_loop().call_later(timeout, self._late)
        if self._failure is not None:
            turn.fail(self._failure)
        return turn

    def _lose_worker(self, error: CodedError, plan: Plan) -> None:
        """Take note of a plan that failed with its worker. Raises the error where there is no other one."""
        self._planner.learn(error, plan)
        self._complain("a turn begins again", error)
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.give_back(keep=False)
        self._course.loses_worker()

    async def _ask(self, lease: Lease, known: Conversation | None, plan: Plan, seat: Seat) -> Turn:
        """Have the worker ask the turn, which is noted durably against our own death before.

        The database has it after that, but before anything is told of the answer.
        """
        await self._check_transcript(lease, plan)
        ask = await self._aside(plan, self._compose, lease, plan, seat)
        store = self._runs.store
        marked = store.mark(self.request.key, ask.span)
        if not marked:
            await asyncio.shield(store.begin(self._begun(lease, known, plan, seat, ask.span)))
        self._course.reach("asked", kind=plan.kind, way=plan.way, hot=lease.hot)
        try:
            return await lease.worker.begin(ask)
        finally:
            if marked:
                await asyncio.shield(store.begin(self._begun(lease, known, plan, seat, ask.span)))

    async def _check_transcript(self, lease: Lease, plan: Plan) -> None:
        """Raise SessionMissing where a process resumes what is not whole on disk."""
        base = plan.base
        # What was seeded ends with no answer whose uuid is known: what was asked next stands for it.
        last = plan.at or (base.answer or base.span.last if base is not None else "")
        if lease.hot or plan.session is None or not last:
            return
        if not await self._is_written(plan.session, last):
            raise SessionMissing("Claude Code's transcript of the session is not whole")

    async def _await_written(self, plan: Plan) -> None:
        """Wait for what is to be forked: a session that lives on may have it on disk a moment later."""
        assert plan.session is not None
        for _ in range(LOOKS):
            if await self._is_written(plan.session, plan.at):
                return
            await asyncio.sleep(LOOK)

    async def _is_written(self, session: str, last: str) -> bool:
        """Return whether a session's transcript has a message, and what this follows."""
        transcript = transcripts.find(self._runs.projects, session)
        if transcript is None:
            return True  # the CLI says so
        size = transcripts.size_of(transcript)
        return await self._runs.aside.run(size, transcripts.is_whole, transcript, last)

    async def _aside(self, plan: Plan, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a function returns, which takes long where there is much to write."""
        return await self._runs.aside.run(max(plan.size, self.request.size), function, *args, **kwargs)

    def _compose(self, lease: Lease, plan: Plan, seat: Seat) -> Ask:
        uuids = [str(uuid4()) for _ in plan.written]
        return Ask(
            self._worded(plan.asked[-1]),
            uuids[-1],
            manner=self._planner.manner,
            outfit=None if lease.hot else seat.outfit,
            back=plan.back_hot if lease.hot else plan.back,
            seeds=list(zip(plan.written[:-1], uuids, strict=False)),
            own=plan.own,
        )

    async def _answer(self, lease: Lease, known: Conversation | None, plan: Plan, seat: Seat) -> Turn:
        """Hand what the client's tools returned to the turn that waits for it. Raises ParkLost.

        That is noted while the CLI works on it: the turn before stands as one that cannot be gone on with,
        so that its span is taken back anyway.
        """
        assert plan.base is not None
        if not lease.hot:
            raise ParkLost("the turn that waited for these results is no more")
        asked = self._worded(plan.asked[-1])
        outcomes = [part for part in asked.parts if isinstance(part, ToolOutcome)]
        order = [outcome.id for outcome in history.outcomes(self._told)]
        outcomes.sort(key=lambda outcome: order.index(outcome.id))
        self._course.reach("asked", kind=plan.kind, way=plan.way, hot=lease.hot)
        turn = await lease.worker.answer(outcomes, self._planner.manner)
        await asyncio.shield(self._runs.store.begin(self._begun(lease, known, plan, seat, plan.base.span)))
        return turn

    def _worded(self, asked: Message) -> Message:
        """Return what is asked, with words for what the CLI has no field for."""
        return reminded(asked, self._words()) if self.request.tools.required else asked

    def _begun(
        self, lease: Lease, known: Conversation | None, plan: Plan, seat: Seat, span: Span
    ) -> Conversation:
        """Return the conversation as it is while the turn runs."""
        lead = plan.said[: len(plan.said) - len(plan.asked)]
        now = self._runs.wall()
        return Conversation(
            key=self.request.key,
            session=lease.worker.session,
            lineage=plan.lineage or lease.worker.session,
            profile=seat.fit.profile,
            workspace=seat.launch.workspace,
            system=seat.fit.system,
            turns=known.turns if known else 0,
            created_at=known.created_at if known else now,
            last_used_at=now,
            usage=known.usage if known else Usage(),
            # Should this be taken up again, the cut may have been made already.
            unfinished=Unfinished((*(Span(it.first, it.last) for it in plan.back), span), lead, plan.asked),
            head=plan.base,
            generation=seat.fit.generation,
            hint=self.request.hint,
            ephemeral=known.ephemeral if known else self.request.ephemeral,
        )

    def _late(self) -> None:
        seconds = self._runs.settings.turns.timeout
        self.fail(TurnTimeout(f"the turn took longer than {seconds:g} s and was interrupted"))

    # Ending --------------------------------------------------------------------------------------------

    async def _conclude(self, end: TurnFinished | TurnFailed, plan: Plan) -> TurnFinished | TurnFailed:
        """Record a turn and return its end with that, or tell why it fails."""
        self._tell()
        if isinstance(end, TurnFinished):
            return await self._finish(plan, end)
        self._course.fails(end.error, self._used())
        return end

    async def _finish(self, plan: Plan, end: TurnFinished) -> TurnFinished:
        """Record the turn and return its end, with that. It is concluded from here on, whoever leaves."""
        lease, self._lease = self._lease, None
        assert lease is not None
        assert self._turn is not None
        self._course.reach("answered")
        recorded: asyncio.Future[TurnFinished] = asyncio.get_running_loop().create_future()
        self._runs.background(self._record(lease, plan, self._turn, end, recorded))
        return await asyncio.shield(recorded)

    async def _record(
        self, lease: Lease, plan: Plan, turn: Turn, end: TurnFinished, recorded: asyncio.Future[TurnFinished]
    ) -> None:
        outcome = leaving.Outcome()
        now = self._runs.wall()
        try:
            outcome = await self._end(lease.worker, plan, turn, end)
            left = (plan, turn, self._said.message, end.usage, self._activity.used)
            records = await self._aside(plan, leaving.records, *left, whole=outcome.whole)
            number = await self._runs.store.finish(self.request.key, records, now, outcome.left)
            if end.reason is FinishReason.TOOL_CALLS:
                outcome = replace(outcome, parked=lease.worker.park())
            elif outcome.keep is None:
                outcome = replace(outcome, keep=lease.worker.settle())
            kind = EventKind.TURN_PARKED if outcome.parked else EventKind.TURN_FINISHED
            self._course.ends(kind, end.usage, calls=len(turn.awaited), reason=end.reason.value)
            recorded.set_result(replace(end, turn=number, at=now))
            words = self._words_of(plan) if self._runs.settings.logs.prompts else {}
            self._say("turn finished", lease, reason=end.reason.value, output=end.usage.output, **words)
        except CodedError as error:
            self._complain("a turn could not be recorded", error)
            self._course.fails(error, end.usage)
            outcome = leaving.Outcome()
            recorded.set_exception(error)
        except BaseException:  # a fault of ours, of which the end of this task tells: nobody waits for ever
            outcome = leaving.Outcome()
            recorded.set_exception(NotRecorded("the turn could not be recorded"))
            raise
        finally:
            if outcome.parked:
                lease.park()
            else:
                lease.give_back(keep=bool(outcome.keep))
            self._runs.part(self)
            self.done.set()

    async def _end(self, worker: Worker, plan: Plan, turn: Turn, end: TurnFinished) -> leaving.Outcome:
        """Bring the session to what the client has seen, as far as that goes.

        Where it does not, the turn is taken back, but not what was seeded before it: that is whole.
        """
        if end.reason is FinishReason.TOOL_CALLS:
            leaving.keep_seeds(plan, turn)
            return leaving.Outcome(whole=False)
        if end.reason is FinishReason.LENGTH and (cut := await worker.cut_short()) is not None:
            return leaving.Outcome(left=(cut,))
        if end.reason in {FinishReason.LENGTH, FinishReason.REFUSAL} or self._stopper.stopped:
            leaving.keep_seeds(plan, turn)
            return leaving.Outcome(whole=False, left=(turn.ask.span,), keep=await worker.abandon())
        return leaving.Outcome()

    async def _give_up(self, lease: Lease) -> None:
        """Take the session back to before the turn; keep what the client was sent of it."""
        keep = False
        try:
            await self._runs.store.give_up(self.request.key, "".join(self._seen))
            keep = await lease.worker.abandon()
            self._say("turn given up", lease)
        except CodedError as error:
            self._complain("what a client saw of its answer could not be recorded", error)
        finally:
            lease.give_back(keep=keep)
            self.done.set()

    def _say(self, message: str, lease: Lease, **more: object) -> None:
        log.info(message, extra={"conversation": self.request.key.id, "worker": lease.worker.name, **more})

    def _words_of(self, plan: Plan) -> dict[str, str]:
        """Return what was asked and answered, for the log."""
        asked = "\n".join(message.text for message in plan.asked)
        return {"prompt": asked, "answer": self._said.message.text}

    def _complain(self, message: str, error: CodedError) -> None:
        log.warning(message, extra={"conversation": self.request.key.id, "error": error.message})


def in_batches(events: list[AnswerEvent], *, streamed: bool) -> list[list[AnswerEvent]]:
    """Return what is handed over at once: in a stream, the end alone waits for the record."""
    if streamed and len(events) > 1 and isinstance(events[-1], TurnFinished):
        return [events[:-1], events[-1:]]
    return [events]


async def _ended(task: "asyncio.Task[None]") -> None:
    await asyncio.wait([task])


async def _wait_all(waits: Iterable[Coroutine[Any, Any, Any]], deadline: float) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    timeout = max(0.0, deadline - asyncio.get_running_loop().time())
    _, late = await asyncio.wait(tasks, timeout=timeout)
    for task in late:
        task.cancel()
