"""The decision core: the pool's state, and one handler an event."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Any, Final

from claude_coded.scheduler.sharing import fairly, is_spared
from claude_coded.scheduler.state import Figures, Stage, Ticket, WorkerView
from claude_coded.scheduler.vocabulary import (
    Action,
    Admit,
    Assign,
    Configured,
    DrainRequested,
    Event,
    EvictRequested,
    Limits,
    Phase,
    Prepare,
    Refusal,
    Reject,
    ReleaseRequested,
    ResumeRequested,
    Spawn,
    Stop,
    StopReason,
    Tick,
    TicketCancelled,
    TurnEnded,
    TurnParked,
    TurnRequested,
    Want,
    WorkerExited,
    WorkerLoaded,
    WorkerPrepared,
    WorkerReady,
    WorkerStirred,
    WorkerWanted,
)
from claude_coded.scheduler.wishes import Wishes
from claude_coded.turn import ConversationKey

PROBATION: Final = 60.0
"""Seconds after which a conversation that was never continued goes first."""

REFILL_DELAY: Final = 1.0
"""Seconds without a new start before spares are filled up: a start costs the CPU that first turns need."""

LOADING: Final = 10.0
"""Seconds after which a process that has not answered no longer holds up the start of others."""

BACKOFF_FIRST: Final = 1.0
BACKOFF_LAST: Final = 60.0
"""Seconds between starts after a worker failed to start: doubled from the first to the last. A spare
that ends by itself is replaced at once; if that ends too, after such a pause."""


class _Step(Enum):
    START = 1
    STOP = 2
    PREPARE = 3


@dataclass(slots=True)
class Scheduler:
    """The pool's state and its decisions. `spare_launch` is what spares are until requests say otherwise."""

    limits: Limits
    spare_launch: Hashable
    workers: dict[int, WorkerView] = field(default_factory=dict)
    draining: bool = False
    _tickets: dict[int, Ticket] = field(default_factory=dict)  # in order of arrival
    _owners: dict[ConversationKey, int] = field(default_factory=dict)
    _wishes: Wishes = field(default_factory=Wishes)
    _next_worker: int = 1
    _refill_at: float = 0.0
    _pause: float = 0.0  # the last one after a failed start
    _respite: float = 0.0  # the next one after the end of a spare that nobody has asked for
    _blocked_until: float = 0.0
    _starved: bool = False  # a ticket waits for a place, and nobody is to give one
    _handlers: Mapping[type, Callable[[Any, float], Iterable[Action]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._handlers = {
            TurnRequested: self._requested,
            WorkerWanted: self._wanted,
            TicketCancelled: self._cancelled,
            TurnEnded: self._ended,
            TurnParked: self._parked,
            WorkerReady: self._ready,
            WorkerLoaded: self._loaded,
            WorkerPrepared: self._prepared,
            WorkerStirred: self._stirred,
            WorkerExited: self._exited,
            EvictRequested: self._evicted,
            ReleaseRequested: self._released,
            DrainRequested: self._drained,
            ResumeRequested: self._resumed,
            Configured: self._configured,
            Tick: lambda _event, _now: (),
        }

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take note of an event and decide. `now` is in seconds of a clock that never goes back."""
        for worker in self._loading():
            worker.loaded = worker.since + LOADING <= now  # or it never will
        actions = list(self._handlers[type(event)](event, now))
        if isinstance(event, TurnRequested | WorkerWanted) and self._is_content(event.ticket):
            return actions  # nobody else has what he waits for by that
        actions += self._place(now)
        actions += self._expire(now)
        actions += self._shed()
        actions += self._refill(now)
        return actions

    def deadline(self) -> float:
        """Return when the next Tick is due at the latest; infinity when nothing depends on time."""
        waits = [t.deadline for t in self._queue()]
        if timeout := self.limits.idle_timeout:
            waits += [w.since + timeout for w in self._idle() if self._starved or not w.pending]
        if timeout := self.limits.park_timeout:
            waits += [w.since + timeout for w in self._parked_ones()]
        if any(t.placed for t in self._queue()):
            waits.append(self._start_at())
        if (step := self._refill_step()) is not None:
            waits.append(self._due(step[0]))
        return min(waits, default=inf)

    def figures(self) -> Figures:
        """Return the counts of the moment."""
        phases = [w.phase for w in self.workers.values()]
        return Figures(
            workers=len(phases),
            busy=phases.count(Phase.BUSY),
            idle=phases.count(Phase.IDLE),
            spare=phases.count(Phase.SPARE),
            parked=phases.count(Phase.PARKED),
            starting=phases.count(Phase.STARTING),
            queued=len(self._queue()),
        )

    def of(self, conversation: ConversationKey) -> WorkerView | None:
        """Return a conversation's worker, the one on its way out included."""
        for worker in self.workers.values():  # asked for some times a turn: `next` takes twice as long
            if worker.conversation == conversation:
                return worker
        return None

    def holds(self, conversation: ConversationKey) -> bool:
        """Return whether a turn of the conversation runs or is about to."""
        return conversation in self._owners

    def is_held(self, conversation: ConversationKey) -> bool:
        """Return whether an operator has the conversation to himself."""
        owner = self._owners.get(conversation)
        return owner is not None and self._tickets[owner].hold

    # Events --------------------------------------------------------------------------------------------

    def _requested(self, event: TurnRequested, now: float) -> Iterator[Action]:
        deadline = inf if event.hold else now + self.limits.queue_timeout
        ticket = Ticket(event.ticket, event.conversation, deadline, event.hold)
        if self.draining and not event.hold:
            yield Reject(ticket.id, Refusal.DRAINING)
        elif self.is_held(event.conversation):
            yield Reject(ticket.id, Refusal.HELD)
        elif event.conversation not in self._owners:
            self._tickets[ticket.id] = ticket
            yield from self._admit(ticket)
        elif self._has_no_room(ticket):
            yield Reject(ticket.id, Refusal.QUEUE_FULL)
        else:
            self._tickets[ticket.id] = ticket

    def _admit(self, ticket: Ticket) -> Iterator[Action]:
        ticket.stage = Stage.ADMITTED
        self._owners[ticket.conversation] = ticket.id
        yield Admit(ticket.id)
        if ticket.hold:
            behind = [t for t in self._tickets.values() if t.conversation == ticket.conversation]
            yield from self._reject_all([t for t in behind if t is not ticket], Refusal.HELD)

    def _is_content(self, number: int) -> bool:
        ticket = self._tickets.get(number)
        return ticket is not None and ticket.stage in (Stage.ADMITTED, Stage.SERVED)

    def _wanted(self, event: WorkerWanted, now: float) -> Iterable[Action]:
        ticket, want = self._tickets.get(event.ticket), event.want
        if ticket is None:
            return ()  # rejected meanwhile
        ticket.stage, ticket.want = Stage.WAITING, want
        if want.fresh:
            self._wishes.note(want)
            self.spare_launch = self._wishes.launch(self.spare_launch)
        own = self.of(ticket.conversation)
        return self._use_own(ticket, want, own, now) if own is not None else ()

    def _cancelled(self, event: TicketCancelled, _now: float) -> Iterable[Action]:
        ticket = self._tickets.get(event.ticket)
        return self._leave(ticket) if ticket is not None else ()

    def _drained(self, _event: DrainRequested, _now: float) -> Iterator[Action]:
        self.draining = True
        unserved = [t for t in self._tickets.values() if t.stage is not Stage.SERVED and not t.hold]
        yield from self._reject_all(unserved, Refusal.DRAINING)

    def _resumed(self, _event: ResumeRequested, _now: float) -> Iterable[Action]:
        self.draining = False
        return ()

    def _configured(self, event: Configured, now: float) -> Iterator[Action]:
        self.limits = event.limits
        if event.renew:
            self._wishes.clear()
            self.spare_launch = event.spare_launch
            self._pause, self._blocked_until = 0.0, now  # what kept workers from starting may be mended
            for worker in list(self.workers.values()):
                yield from self._let_go(worker, StopReason.OUTDATED, parked=False)

    def _loaded(self, event: WorkerLoaded, _now: float) -> Iterable[Action]:
        if (worker := self.workers.get(event.worker)) is not None:
            worker.loaded = True
        return ()

    def _prepared(self, event: WorkerPrepared, _now: float) -> Iterator[Action]:
        if (worker := self.workers.get(event.worker)) is None:
            return
        worker.preparing = False
        if event.failed:
            self._wishes.doubt()
            if worker.phase is Phase.SPARE:
                yield self._stop(worker, StopReason.UNUSABLE)

    def _stirred(self, event: WorkerStirred, now: float) -> Iterable[Action]:
        if (worker := self.workers.get(event.worker)) is not None:
            worker.pending, worker.since, worker.loaded = event.pending, now, True
        return ()

    def _leave(self, ticket: Ticket) -> Iterator[Action]:
        """Forget a ticket that holds no worker; the next of its conversation is admitted."""
        del self._tickets[ticket.id]
        if (worker := self._worker(ticket)) is not None:
            worker.ticket = None
        yield from self._pass_on(ticket)

    def _pass_on(self, ticket: Ticket) -> Iterator[Action]:
        if self._owners.get(ticket.conversation) != ticket.id:
            return
        del self._owners[ticket.conversation]
        for other in self._tickets.values():
            if other.conversation == ticket.conversation:
                yield from self._admit(other)
                return

    def _reject(self, ticket: Ticket, reason: Refusal, retry_after: float = 1.0) -> Iterator[Action]:
        yield Reject(ticket.id, reason, retry_after)
        yield from self._leave(ticket)

    def _reject_all(self, tickets: list[Ticket], reason: Refusal) -> Iterator[Action]:
        for ticket in reversed(tickets):  # the newest first, so that none is admitted only to be rejected
            yield from self._reject(ticket, reason)

    def _ended(self, event: TurnEnded, now: float) -> Iterator[Action]:
        yield from self._give_back(event.ticket, Phase.IDLE if event.keep else Phase.STOPPING, now)

    def _parked(self, event: TurnParked, now: float) -> Iterator[Action]:
        yield from self._give_back(event.ticket, Phase.PARKED, now)

    def _give_back(self, ticket_id: int, phase: Phase, now: float) -> Iterator[Action]:
        ticket = self._tickets.pop(ticket_id)
        if (worker := self._worker(ticket)) is not None:
            worker.ticket, worker.since, worker.loaded = None, now, True
            worker.turns += 1
            if phase is Phase.STOPPING:
                yield self._stop(worker, StopReason.UNUSABLE)
            else:
                self._pause = self._respite = 0.0
                worker.phase = phase
                # Settings that have changed let a turn that waits for its client's tools end.
                if worker.doomed and (phase, worker.doomed) != (Phase.PARKED, StopReason.OUTDATED):
                    yield self._stop(worker, worker.doomed)
        yield from self._pass_on(ticket)

    def _ready(self, event: WorkerReady, now: float) -> Iterator[Action]:
        worker = self.workers.get(event.worker)
        if worker is None or worker.phase is not Phase.STARTING:
            return
        worker.phase, worker.since = Phase.SPARE, now
        ticket = self._tickets.get(worker.ticket) if worker.ticket is not None else None
        worker.ticket = None
        if ticket is not None:
            yield self._assign(ticket, worker, now)
        elif worker.conversation is not None or worker.doomed:
            # Started to resume a session for a request that has left, or with settings that have changed.
            yield self._stop(worker, StopReason.UNSUITED)

    def _exited(self, event: WorkerExited, now: float) -> Iterator[Action]:
        worker = self.workers.pop(event.worker, None)
        if worker is None:
            return
        if worker.preparing and worker.phase is not Phase.STOPPING:
            self._wishes.doubt()  # it may have died of that
        # A failure within the pause is of a process that was started before it.
        if event.failed and now >= self._blocked_until:
            self._pause = min(BACKOFF_LAST, 2 * self._pause or BACKOFF_FIRST)
            self._blocked_until = now + self._pause
        elif worker.phase is Phase.SPARE:
            self._refill_at = max(self._refill_at, now + self._respite)
            self._respite = min(BACKOFF_LAST, 2 * self._respite or BACKOFF_FIRST)
        ticket = self._tickets.get(worker.ticket) if worker.ticket is not None else None
        if ticket is None or ticket.stage is Stage.SERVED:
            return  # who is served gives the worker back
        ticket.worker = None
        if event.failed:
            yield from self._reject(ticket, Refusal.BACKING_OFF, self._pause)

    def _evicted(self, event: EvictRequested, _now: float) -> Iterator[Action]:
        waiting = [
            t
            for t in self._tickets.values()
            if t.conversation == event.conversation and t.stage is not Stage.SERVED and not t.hold
        ]
        yield from self._reject_all(waiting, Refusal.EVICTED)
        if (worker := self.of(event.conversation)) is not None:
            yield from self._let_go(worker, StopReason.EVICTED)

    def _released(self, event: ReleaseRequested, _now: float) -> Iterable[Action]:
        worker = self.workers.get(event.worker)
        return self._let_go(worker, StopReason.EVICTED) if worker is not None else ()

    def _let_go(self, worker: WorkerView, reason: StopReason, *, parked: bool = True) -> Iterator[Action]:
        """Stop a worker that waits, a parked one only with `parked`; another one stops when it would wait."""
        waits = {Phase.IDLE, Phase.SPARE} | ({Phase.PARKED} if parked else set())
        if worker.phase in waits:
            yield self._stop(worker, reason)
        elif worker.doomed is not StopReason.EVICTED:
            worker.doomed = reason

    # Decisions -----------------------------------------------------------------------------------------

    def _expire(self, now: float) -> Iterator[Action]:
        late = [t for t in self._queue() if t.deadline <= now]
        yield from self._reject_all(late, Refusal.QUEUE_TIMEOUT)
        if timeout := self.limits.idle_timeout:
            for worker in self._idle():
                if worker.since + timeout <= now and not worker.pending:
                    yield self._stop(worker, StopReason.IDLE)
        if timeout := self.limits.park_timeout:
            for worker in self._parked_ones():
                if worker.since + timeout <= now:
                    yield self._stop(worker, StopReason.FORSAKEN)

    def _place(self, now: float) -> Iterator[Action]:
        """Serve the waiting tickets in their turns, as far as workers and places go."""
        freeing = sum(w.phase is Phase.STOPPING for w in self.workers.values())
        room = self.limits.size - len(self.workers)
        blocked = False  # a ticket that waits for a place holds back those behind it that need one too
        for ticket in self._in_turn([t for t in self._tickets.values() if t.stage is Stage.WAITING]):
            if ticket.worker is not None:
                continue  # a worker is being started for it
            assert ticket.want is not None
            ticket.placed = False
            own = self.of(ticket.conversation)
            if own is not None:
                freeing -= own.phase is Phase.STOPPING
                yield from self._use_own(ticket, ticket.want, own, now)
            elif not blocked and (spare := self._spare_for(ticket.want)):
                yield from self._use_spare(ticket, spare, now)
            elif now < self._blocked_until:
                yield from self._reject(ticket, Refusal.BACKING_OFF, self._blocked_until - now)
            elif not blocked and room > 0:
                room -= 1
                yield from self._start_for(ticket, ticket.want, now)
            elif freeing > 0:
                freeing -= 1
            elif not blocked and (victim := self._victim(ticket, now)) is not None:
                yield self._stop(victim, StopReason.CAPACITY)
            elif self._has_no_room(ticket):
                yield from self._reject(ticket, Refusal.QUEUE_FULL)
            else:
                blocked = True
        self._starved = blocked

    def _start_for(self, ticket: Ticket, want: Want, now: float) -> Iterator[Action]:
        """Start a worker for a ticket that has a place, or let it wait until others have loaded."""
        ticket.placed = not self._may_start()
        if not ticket.placed:
            yield self._spawn(want.launch, now, ticket)

    def _use_own(self, ticket: Ticket, want: Want, own: WorkerView, now: float) -> Iterator[Action]:
        """Take the conversation's own worker; an unsuited one goes first: two never share a session."""
        if own.phase not in (Phase.IDLE, Phase.PARKED):
            return
        if own.fit == want.fit:
            yield self._assign(ticket, own, now)
        else:
            yield self._stop(own, StopReason.UNSUITED)

    def _use_spare(self, ticket: Ticket, spare: WorkerView, now: float) -> Iterator[Action]:
        if spare.phase is Phase.SPARE:
            yield self._assign(ticket, spare, now)
        else:
            spare.ticket = ticket.id
            ticket.worker = spare.id

    def _spare_for(self, want: Want) -> WorkerView | None:
        if not want.fresh:
            return None
        suited = [w for w in self._spares() if w.launch == want.launch and w.outfit in (None, want.outfit)]

        def rank(spare: WorkerView) -> tuple[bool, bool, bool, float]:
            return spare.phase is Phase.STARTING, spare.preparing, spare.outfit is None, spare.since

        return min(suited, key=rank, default=None)

    def _victim(self, ticket: Ticket, now: float) -> WorkerView | None:
        """Return the worker whose place is given to a ticket; never a busy one.

        Idle and never continued (past its probation), idle by last use, spares, parked by last use; and after
        all of these, in the same order, those of other tenants that have no more places than the ticket's.
        """
        held, asker = self._held(), ticket.conversation.tenant

        def rank(worker: WorkerView) -> tuple[bool, int, float]:
            owner = worker.conversation
            spared = owner is not None and is_spared(owner.tenant, asker, held)
            if worker.phase is Phase.PARKED:
                return spared, 3, worker.since
            if worker.phase is Phase.SPARE:
                return spared, 2, worker.since
            once = not worker.continued and now - worker.since > PROBATION
            return spared, (0 if once else 1), worker.since

        evictable = (w for w in self.workers.values() if self._evictable(w, ticket, now))
        return min(evictable, key=rank, default=None)

    def _evictable(self, worker: WorkerView, ticket: Ticket, now: float) -> bool:
        owner = self._owners.get(worker.conversation) if worker.conversation is not None else None
        if owner is not None and owner < ticket.id:
            return False  # it is about to serve who came earlier
        if worker.phase is Phase.IDLE and worker.pending:
            # Background work counts as use, for as long as an idle worker may stay.
            return self.limits.idle_timeout > 0 and worker.since + self.limits.idle_timeout <= now
        return worker.phase in {Phase.IDLE, Phase.SPARE, Phase.PARKED}

    def _shed(self) -> Iterator[Action]:
        """Stop what is more than the pool's size, should that have become less: busy ones when they end."""
        excess = sum(w.phase is not Phase.STOPPING for w in self.workers.values()) - self.limits.size
        if excess > 0:
            spares = [w for w in self._spares() if w.phase is Phase.SPARE]
            idle, parked = (sorted(of, key=lambda w: w.since) for of in (self._idle(), self._parked_ones()))
            for worker in [*spares, *idle, *parked][:excess]:
                yield self._stop(worker, StopReason.CAPACITY)

    def _refill(self, now: float) -> Iterator[Action]:
        """Keep spares ready, when nobody waits and the CPU is not needed for first turns."""
        step = self._refill_step()
        if step is None or now < self._due(step[0]):
            return
        self._refill_at = now + REFILL_DELAY
        match step:
            case _Step.START, _:
                yield self._spawn(self.spare_launch, now)
            case _Step.STOP, worker if worker is not None:
                unsuited = worker.phase is Phase.SPARE and not self._suits(worker)
                yield self._stop(worker, StopReason.UNSUITED if unsuited else StopReason.CAPACITY)
            case _Step.PREPARE, worker if worker is not None:
                worker.outfit, worker.preparing = self._wishes.outfit(worker.launch), True
                yield Prepare(worker.id, worker.outfit)

    def _refill_step(self) -> tuple[_Step, WorkerView | None] | None:
        """Return what to do for the spares' sake, and to whom; time aside."""
        if self.draining or any(t.stage is Stage.WAITING for t in self._tickets.values()):
            return None
        target, spares = self.limits.spare_target, self._spares()
        suited = [w for w in spares if self._suits(w)]
        missing = len(suited) < target
        ready = [w for w in spares if w.phase is Phase.SPARE]
        unsuited = [w for w in ready if w not in suited]
        if len(ready) > target or (missing and unsuited):
            return _Step.STOP, (unsuited or ready)[0]
        if not missing:
            plain = self._to_prepare(suited)
            return (_Step.PREPARE, plain) if plain is not None else None
        if len(self.workers) < self.limits.size:
            return _Step.START, None
        idle = [w for w in self._idle() if not w.pending]
        if not idle or sum(w.hot for w in self.workers.values()) <= self.limits.hot_capacity:
            return None
        return _Step.STOP, min(idle, key=lambda w: w.since)

    def _to_prepare(self, spares: list[WorkerView]) -> WorkerView | None:
        """Return the spare that is to be prepared next, if any: one at a time."""
        if self._wishes.outfit(self.spare_launch) is None or any(w.preparing for w in self.workers.values()):
            return None
        plain = [w for w in spares if w.phase is Phase.SPARE and w.outfit is None]
        prepared = sum(w.outfit is not None for w in spares)
        return plain[0] if plain and prepared < self._wishes.share(self.limits.spare_target) else None

    def _suits(self, spare: WorkerView) -> bool:
        """Return whether a spare is what spares are to be; a plain one always is but for its launch."""
        outfits = (None, self._wishes.outfit(self.spare_launch))
        return spare.launch == self.spare_launch and spare.outfit in outfits

    def _due(self, step: _Step) -> float:
        """Return from when on something may be done for the spares' sake."""
        loading = [w.since + LOADING for w in self._loading()]
        waits = {_Step.START: [self._start_at()], _Step.STOP: [], _Step.PREPARE: loading}
        return max(self._refill_at, self._blocked_until, *waits[step])

    # Helpers -------------------------------------------------------------------------------------------

    def _spawn(self, launch: Hashable, now: float, ticket: Ticket | None = None) -> Action:
        worker = WorkerView(self._next_worker, launch, since=now)
        self._next_worker += 1
        self.workers[worker.id] = worker
        if ticket is not None:
            worker.ticket, ticket.worker = ticket.id, worker.id
            if ticket.want is not None and not ticket.want.fresh:
                # From the first moment: nobody else may start a process on the same session.
                worker.conversation = ticket.conversation
        self._refill_at = now + REFILL_DELAY
        return Spawn(worker.id, launch)

    def _assign(self, ticket: Ticket, worker: WorkerView, now: float) -> Action:
        assert ticket.want is not None
        hot = worker.phase in (Phase.IDLE, Phase.PARKED)
        worker.phase, worker.ticket, worker.since = Phase.BUSY, ticket.id, now
        worker.conversation, worker.fit = ticket.conversation, ticket.want.fit
        worker.continued |= hot or not ticket.want.fresh or ticket.want.lasting
        ticket.stage, ticket.worker = Stage.SERVED, worker.id
        if not hot:
            self._refill_at = now + REFILL_DELAY
        return Assign(ticket.id, worker.id, hot)

    def _stop(self, worker: WorkerView, reason: StopReason) -> Action:
        worker.phase, worker.ticket = Phase.STOPPING, None
        return Stop(worker.id, reason)

    def _worker(self, ticket: Ticket) -> WorkerView | None:
        """Return the worker that serves a ticket or is being started for it."""
        return self.workers.get(ticket.worker) if ticket.worker is not None else None

    def _queue(self) -> list[Ticket]:
        """Return the tickets that wait for their conversation or, with none on its way, for a worker."""
        waiting = (Stage.LINED, Stage.WAITING)
        return [t for t in self._tickets.values() if t.worker is None and t.stage in waiting]

    def _crowd(self) -> list[Ticket]:
        """Return those of them that are many when the queue is full: who has a place is no burden."""
        return [t for t in self._queue() if not t.placed]

    def _in_turn(self, waiting: list[Ticket]) -> Sequence[Ticket]:
        """Return waiting tickets in the order in which they are served."""
        return fairly(waiting, self._held()) if len(waiting) > 1 else waiting

    def _has_no_room(self, ticket: Ticket) -> bool:
        """Return whether too many wait for this one to wait, too: those whose turn comes before it."""
        crowd = self._crowd()
        if ticket.id not in self._tickets:
            crowd.append(ticket)
        return fairly(crowd, {}).index(ticket) >= self.limits.queue_size

    def _held(self) -> Counter[str]:
        """Return how many places each tenant has, those that are being made for it included."""
        keys = {ticket.worker: ticket.conversation for ticket in self._tickets.values()}
        held = [w for w in self.workers.values() if w.phase is not Phase.STOPPING]
        owners = (w.conversation or keys.get(w.id) for w in held)
        return Counter(owner.tenant for owner in owners if owner is not None)

    def _loading(self) -> list[WorkerView]:
        """Return the workers whose start takes the CPU: one that is stopped in it does until it is gone."""
        return [w for w in self.workers.values() if not w.loaded]

    def _may_start(self) -> bool:
        """Return whether one more process may start: beyond the CPUs all would be late."""
        return len(self._loading()) < self.limits.starts

    def _start_at(self) -> float:
        """Return from when on one more process may start, should none that loads ever answer."""
        return -inf if self._may_start() else min(w.since + LOADING for w in self._loading())

    def _idle(self) -> list[WorkerView]:
        """Return the idle workers; not those that an admitted ticket is about to ask for."""
        return [
            w for w in self.workers.values() if w.phase is Phase.IDLE and w.conversation not in self._owners
        ]

    def _parked_ones(self) -> list[WorkerView]:
        """Return the workers that wait for clients' tools; not those that a ticket is about to ask for."""
        return [
            w for w in self.workers.values() if w.phase is Phase.PARKED and w.conversation not in self._owners
        ]

    def _spares(self) -> list[WorkerView]:
        """Return the workers that wait for any conversation, those on their way included."""
        return [
            w
            for w in self.workers.values()
            if w.conversation is None
            and w.ticket is None
            and w.phase in (Phase.SPARE, Phase.STARTING)
            and not w.doomed
        ]
