"""The shell around the scheduler: it carries out what that decides and tells it what happens.

Events are handled one at a time, in order, on the event loop; carrying out an action never waits.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from contextvars import Context
from functools import partial
from itertools import count
from math import inf
from typing import Any, Final

from msgspec import Struct

from claude_coded import scheduler as s
from claude_coded.claude.launch import Launch
from claude_coded.claude.permits import Permit, denied
from claude_coded.claude.protocol import Limits, Outfit
from claude_coded.errors import HELD, CodedError, Draining, Evicted, Held, QueueFull, WorkerStartFailed
from claude_coded.events import EventKind, Events
from claude_coded.permissions import Desk
from claude_coded.turn import ConversationKey
from claude_coded.worker import Cli, Watch, Worker

log = logging.getLogger(__name__)

BREATH: Final = 0.005
"""Seconds from an event to a look at what is due when: those of a turn's beginning come together, and it
need not wait for that. So much late a deadline may be."""

Waits = Callable[[str], None]
"""Is told what is waited for, where that is not there at once: the conversation, or a worker."""


def _unheard(_: str) -> None:
    """Tell nobody."""


class Lease(Struct, frozen=True):
    """A worker that belongs to a ticket until it is given back, which has to happen exactly once."""

    pool: "Pool"
    ticket: int
    worker: Worker
    hot: bool

    def give_back(self, *, keep: bool) -> None:
        """Return the worker; with `keep` the conversation can go on in it."""
        self.pool.post(s.TurnEnded(self.ticket, keep))

    def park(self) -> None:
        """Return the worker for the time that the turn waits for its client's tools."""
        self.pool.post(s.TurnParked(self.ticket))


class Admission(Struct, frozen=True):
    """A ticket that has its conversation. `acquire` or `withdraw` is to follow."""

    pool: "Pool"
    ticket: int
    waits: Waits = _unheard

    async def acquire(self, want: s.Want) -> Lease:
        """Wait for a worker. Raises QueueFull, Draining, Evicted, WorkerStartFailed."""
        return await self.pool.acquire(self.ticket, want, self.waits)

    def withdraw(self) -> None:
        """Leave without a worker."""
        self.pool.withdraw(self.ticket)


class Pool:
    """The workers. `models` is called with the CLI's model list when it is heard.

    What workers want to be allowed comes to the `desk`; `events` are told what happens.
    """

    def __init__(
        self,
        limits: s.Limits,
        cli: Cli,
        spare: Launch,
        *,
        models: Callable[[list[dict[str, Any]]], None],
        desk: Desk,
        events: Events,
    ) -> None:
        self.desk = desk
        self._scheduler = s.Scheduler(limits, spare)
        self._cli = cli
        self._first_spare = spare
        self._models = models
        self._events = events
        self._watch = Watch(
            self._loaded,
            self._prepared,
            self._exited,
            self._stirred,
            self._asked,
            self._cancelled,
            self._retried,
            self._models,
        )
        self._workers: dict[int, Worker] = {}
        self._tickets = count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._refused: dict[int, CodedError] = {}  # tickets that were rejected while they planned their turn
        self._inbox: deque[s.Event] = deque()
        self._handling = False
        self._beats = 0
        self._timer: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: str | None = None
        self._ending = False
        self._released: Callable[[ConversationKey], None] = lambda _: None
        self._unused: Callable[[str], None] = lambda _: None

    def start(self) -> None:
        """Begin to keep spares."""
        self.post(s.Tick())

    @property
    def figures(self) -> s.Figures:
        """Return the counts of the moment."""
        return self._scheduler.figures()

    @property
    def size(self) -> int:
        """Return how many workers there may be."""
        return self._scheduler.limits.size

    @property
    def draining(self) -> bool:
        """Return whether nothing new is taken."""
        return self._scheduler.draining

    @property
    def failure(self) -> str | None:
        """Return why workers do not start; None once one has answered."""
        return self._failure

    async def beat(self) -> bool:
        """Send a Tick through the event loop and the scheduler; return whether it was handled."""
        before = self._beats
        asyncio.get_running_loop().call_soon(self.post, s.Tick())
        await asyncio.sleep(0)
        return self._beats > before

    @property
    def views(self) -> list[s.WorkerView]:
        """Return what the scheduler holds of each worker."""
        return list(self._scheduler.workers.values())

    @property
    def pids(self) -> list[int]:
        """Return the workers' processes."""
        return [worker.pid for worker in self._workers.values() if worker.pid is not None]

    def worker(self, number: int) -> Worker | None:
        """Return a worker's process, for those who look at it; None when it is gone."""
        return self._workers.get(number)

    def view_of(self, conversation: ConversationKey) -> s.WorkerView | None:
        """Return a conversation's worker, the one on its way out included."""
        return self._scheduler.of(conversation)

    def is_held(self, conversation: ConversationKey) -> bool:
        """Return whether an operator has the conversation to himself."""
        return self._scheduler.is_held(conversation)

    def holds(self, conversation: ConversationKey) -> bool:
        """Return whether a turn of the conversation runs or is about to."""
        return self._scheduler.holds(conversation)

    def is_idle(self, conversation: ConversationKey) -> bool:
        """Return whether the conversation has a hot process with nothing to do."""
        view = self._scheduler.of(conversation)
        return view is not None and view.phase is s.Phase.IDLE and not self.holds(conversation)

    def is_parked(self, conversation: ConversationKey) -> bool:
        """Return whether the conversation has a process that waits for the client's tools."""
        view = self._scheduler.of(conversation)
        return view is not None and view.phase is s.Phase.PARKED

    def fit_of(self, conversation: ConversationKey) -> Hashable:
        """Return what the conversation's process was set up with; None where there is none."""
        view = self._scheduler.of(conversation)
        return view.fit if view is not None else None

    def limits_of(self, conversation: ConversationKey) -> Limits | None:
        """Return what the requests of the conversation's process are made with; None where there is none."""
        view = self._scheduler.of(conversation)
        worker = self._workers.get(view.id) if view is not None else None
        return worker.limits if worker is not None else None

    async def admit(self, conversation: ConversationKey, waits: Waits = _unheard) -> Admission:
        """Wait for the conversation. Raises QueueFull, Draining, Evicted."""
        ticket = next(self._tickets)
        await self._ask(ticket, s.TurnRequested(ticket, conversation), partial(waits, "conversation"))
        return Admission(self, ticket, waits)

    async def acquire(self, ticket: int, want: s.Want, waits: Waits = _unheard) -> Lease:
        """Wait for a worker for an admitted ticket."""
        if (refusal := self._refused.pop(ticket, None)) is not None:
            raise refusal
        lease: Lease = await self._ask(ticket, s.WorkerWanted(ticket, want), partial(waits, "worker"))
        return lease

    def withdraw(self, ticket: int) -> None:
        """Let an admitted ticket leave without a worker."""
        self._refused.pop(ticket, None)
        self.post(s.TicketCancelled(ticket))

    def evict(self, conversation: ConversationKey) -> None:
        """Release a conversation's worker, at the end of its turn if one runs."""
        self.post(s.EvictRequested(conversation))

    def release(self, number: int) -> None:
        """Stop a worker, at the end of its turn if one runs; who waits for its conversation gets another."""
        self.post(s.ReleaseRequested(number))

    async def hold(self, conversation: ConversationKey) -> Admission:
        """Wait for the conversation and keep everybody else out of it. Raises Held.

        Its process has ended by then. `withdraw` gives it back.
        """
        ticket = next(self._tickets)
        await self._ask(ticket, s.TurnRequested(ticket, conversation, hold=True), partial(_unheard, ""))
        held = Admission(self, ticket)
        try:
            if (view := self._scheduler.of(conversation)) is not None:
                self.release(view.id)
                await self.released(conversation)
        except BaseException:
            held.withdraw()
            raise
        return held

    def on_release(self, tell: Callable[[ConversationKey], None], unused: Callable[[str], None]) -> None:
        """Have somebody told whenever a conversation's process has ended.

        `unused` is told of sessions of ended processes that are on disk and are nobody's.
        """
        self._released, self._unused = tell, unused

    async def released(self, conversation: ConversationKey) -> bool:
        """Wait until the process that has the conversation's session has ended; False when there is none."""
        view = self._scheduler.of(conversation)
        if view is None or view.id not in self._workers:
            return False
        await self._workers[view.id].gone()
        return True

    async def gone(self, number: int) -> None:
        """Wait until a worker's process has ended."""
        if (worker := self._workers.get(number)) is not None:
            await worker.gone()

    def drain(self, *, for_good: bool = False) -> None:
        """Take nothing new; `for_good` at the daemon's end."""
        self._ending |= for_good
        self.post(s.DrainRequested())

    def resume(self) -> None:
        """Take new turns again. Raises Draining at the daemon's end."""
        if self._ending:
            raise Draining("the daemon is stopping and takes no new turns", retry_after=10)
        self.post(s.ResumeRequested())

    def configure(self, limits: s.Limits, cli: Cli, spare: Launch) -> None:
        """Go on with other settings. Workers that were started with others serve no further turn."""
        renew = (cli, spare) != (self._cli, self._first_spare)
        self._cli, self._first_spare = cli, spare
        self.post(s.Configured(limits, spare, renew))

    async def close(self) -> None:
        """Stop all workers and wait until they are gone."""
        self.drain(for_good=True)
        for timer in (self._timer, self._look):
            if timer is not None:
                timer.cancel()
        for number in self._workers:
            self.desk.withdraw(number)
        await asyncio.gather(*(worker.stop() for worker in self._workers.values()))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.desk.settle()

    # Events in, actions out ----------------------------------------------------------------------------

    def post(self, event: s.Event) -> None:
        """Let the scheduler handle an event, after those before it, and carry out what it decides."""
        self._handle(event)
        self._look_soon()

    def _handle(self, event: s.Event) -> None:
        self._inbox.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._inbox:
                event = self._inbox.popleft()
                for action in self._scheduler.handle(event, self._now()):
                    self._carry_out(action)
                self._beats += isinstance(event, s.Tick)
        finally:
            self._handling = False

    def _look_soon(self) -> None:
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(BREATH, self._set_timer)

    async def _ask(self, ticket: int, event: s.Event, waits: Callable[[], None]) -> Any:  # noqa: ANN401 - None or a Lease
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[ticket] = answer
        self._handle(event)
        if not _is_content(event, answer):
            self._look_soon()
        if not answer.done():
            waits()
        try:
            return await answer
        except asyncio.CancelledError:
            # The grant may have come first, and nobody is there to take it.
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self._decline(ticket, answer.result())
            else:
                self.withdraw(ticket)
            raise
        finally:
            self._answers.pop(ticket, None)

    def _decline(self, ticket: int, granted: Lease | None) -> None:
        if granted is None:
            self.withdraw(ticket)
        else:
            # A spare that was given to this conversation was never set up for it.
            granted.give_back(keep=granted.hot)

    def _carry_out(self, action: s.Action) -> None:
        match action:
            case s.Admit(ticket):
                self._resolve(ticket, None)
            case s.Assign(ticket, number, hot):
                self._resolve(ticket, Lease(self, ticket, self._workers[number], hot))
            case s.Reject(ticket, reason, retry_after):
                self._reject(ticket, self._refusal(reason, retry_after))
            case s.Spawn(number, launch):
                assert isinstance(launch, Launch)
                self._workers[number] = worker = Worker(number, launch, self._cli, self._watch)
                self._run(self._start(worker, self._purpose(number, launch)))
            case s.Prepare(number, outfit):
                assert isinstance(outfit, Outfit)
                self._workers[number].prepare(outfit)
            case s.Stop(number, reason):
                log.debug(
                    "stopping a worker", extra={"worker": s.worker_name(number), "reason": reason.value}
                )
                self._tell(EventKind.WORKER_STOPPING, number, reason=reason.value)
                self.desk.withdraw(number)
                self._run(self._workers[number].stop())

    def _resolve(self, ticket: int, grant: Lease | None) -> None:
        answer = self._answers.get(ticket)
        if answer is not None and not answer.done():
            answer.set_result(grant)
        else:
            # Cancelled, and not yet run: it will find its ticket gone.
            self._decline(ticket, grant)

    def _reject(self, ticket: int, refusal: CodedError) -> None:
        answer = self._answers.get(ticket)
        if answer is not None and not answer.done():
            answer.set_exception(refusal)
        else:
            self._refused[ticket] = refusal

    def _refusal(self, reason: s.Refusal, retry_after: float) -> CodedError:
        limits = self._scheduler.limits
        match reason:
            case s.Refusal.QUEUE_FULL:
                return QueueFull(
                    f"all {limits.size} workers are busy and {limits.queue_size} requests wait already",
                    retry_after=5,
                )
            case s.Refusal.QUEUE_TIMEOUT:
                return QueueFull(
                    f"no worker became free within {limits.queue_timeout:g} s (POOL_SIZE is {limits.size})",
                    retry_after=10,
                )
            case s.Refusal.DRAINING:
                return Draining("the daemon is draining and takes no new turns", retry_after=10)
            case s.Refusal.EVICTED:
                return Evicted("the conversation was released while this request waited")
            case s.Refusal.HELD:
                return Held(HELD)
            case s.Refusal.BACKING_OFF:
                return WorkerStartFailed(
                    self._failure or "Claude Code did not start", retry_after=retry_after
                )

    def _purpose(self, number: int, launch: Launch) -> str:
        """Return what a worker is started for: a spare, a new session, one that goes on, or a fork of one."""
        if self._scheduler.workers[number].ticket is None:
            return "spare"
        return "fork" if launch.fork_at else "resume" if launch.session else "new"

    async def _start(self, worker: Worker, purpose: str) -> None:
        try:
            await worker.start()
        except WorkerStartFailed as error:
            self._note_failure(worker, error.message)
            del self._workers[worker.id]
            self.post(s.WorkerExited(worker.id, failed=True))
            return
        self._tell(EventKind.WORKER_STARTED, worker.id, pid=worker.pid, reason=purpose)
        self.post(s.WorkerReady(worker.id))
        view = self._scheduler.workers.get(worker.id)
        if view is not None and view.phase is s.Phase.SPARE:
            worker.warm_up()

    def _loaded(self, worker: Worker) -> None:
        self._failure = None
        self._tell(EventKind.WORKER_READY, worker.id, seconds=round(self._now() - worker.life.story[0].at, 3))
        self.post(s.WorkerLoaded(worker.id))

    def _prepared(self, worker: Worker, fit: bool) -> None:
        self.post(s.WorkerPrepared(worker.id, failed=not fit))

    def _exited(self, worker: Worker) -> None:
        failed = worker.failed_to_start
        if failed:
            self._note_failure(worker, worker.death.message)
        self._workers.pop(worker.id, None)
        self.desk.withdraw(worker.id)
        view = self._scheduler.workers.get(worker.id)
        asked = worker.stopped or (view is not None and view.phase is s.Phase.STOPPING)
        if view is not None and not asked and not failed:
            told = {"status": worker.status, "phase": view.phase.value}
            log.warning("a worker has died", extra={**self._named(worker.id), **told})
            self._tell(EventKind.WORKER_DIED, worker.id, status=worker.status)
        self._tell(EventKind.WORKER_EXITED, worker.id, status=worker.status, failed=failed)
        self.post(s.WorkerExited(worker.id, failed=failed))
        if view is not None and view.conversation is not None:
            self._released(view.conversation)
        if worker.rehearsed:
            self._unused(worker.session)

    def _note_failure(self, worker: Worker, message: str) -> None:
        self._failure = message
        self._tell(EventKind.WORKER_FAILED, worker.id, error=message)
        log.error("a worker failed to start", extra={**self._named(worker.id), "error": message})

    def _tell(self, kind: EventKind, number: int, **fields: object) -> None:
        """Tell of a worker, with the conversation that it has by now."""
        key = self._key(number)
        whose = {"tenant": key.tenant, "conversation": key.id} if key is not None else {}
        self._events.tell(kind, worker=s.worker_name(number), **whose, **fields)

    def _named(self, number: int) -> dict[str, str]:
        """Return what a worker is called in the log, with the conversation that it has by now."""
        key = self._key(number)
        return {"worker": s.worker_name(number), **({"conversation": key.id} if key is not None else {})}

    def _key(self, number: int) -> ConversationKey | None:
        view = self._scheduler.workers.get(number)
        return view.conversation if view is not None else None

    def _stirred(self, worker: Worker, pending: bool) -> None:
        self.post(s.WorkerStirred(worker.id, pending))

    def _asked(self, worker: Worker, permit: Permit) -> None:
        view = self._scheduler.workers.get(worker.id)
        if view is None or view.conversation is None:
            worker.permit(permit.asked, denied("This process is about to end."))
            return
        self.desk.ask(permit, view.conversation, worker.id, partial(worker.permit, permit.asked))

    def _retried(self, worker: Worker, status: int | None) -> None:
        self._tell(EventKind.UPSTREAM_RETRY, worker.id, status=status)

    def _cancelled(self, worker: Worker, asked: str) -> None:
        self.desk.withdraw(worker.id, asked)

    def _set_timer(self) -> None:
        self._look = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._scheduler.deadline()
        if deadline < inf:
            self._timer = asyncio.get_running_loop().call_at(deadline, self.post, s.Tick())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        # A worker outlives the request that it is started for, of which the context tells the log.
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _is_content(event: s.Event, answer: "asyncio.Future[Any]") -> bool:
    """Return whether one has the conversation, or its own worker, at once: nothing is due earlier by that.

    What a fresh one wishes may change what spares are to be.
    """
    if not answer.done() or answer.exception() is not None:
        return False
    lease: Lease | None = answer.result()
    return lease is None or (lease.hot and isinstance(event, s.WorkerWanted) and not event.want.fresh)
