"""The scheduler in virtual time: an example for each behaviour and race, then a model under random events."""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from claude_coded.scheduler import (
    BACKOFF_FIRST,
    BACKOFF_LAST,
    CERTAIN,
    LOADING,
    PROBATION,
    REFILL_DELAY,
    STABLE,
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
    Scheduler,
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
from claude_coded.scheduler.sharing import fairly
from claude_coded.turn import ConversationKey

AGENT, CHAT = "agent", "chat"


def key(name: str) -> ConversationKey:
    """Return a conversation's key; those with capitals are another tenant's."""
    return ConversationKey(tenant_of(name), name)


def tenant_of(name: str) -> str:
    return "other" if name.isupper() else "default"


def fresh(kind: str = AGENT, outfit: str | None = None) -> Want:
    return Want(fit=kind, launch=kind, fresh=True, outfit=outfit)


def resume(name: str, kind: str = AGENT) -> Want:
    return Want(fit=kind, launch=("resume", name, kind), fresh=False)


def check_deadline(
    scheduler: Scheduler, event: Event, actions: list[Action], now: float, before: float
) -> None:
    """Check when the next tick is due, against what that was before an event.

    Who has his conversation or its own worker at once leaves to that tick what is due meanwhile, and the
    pool does not look again: nothing may be due earlier by that. Only a fresh wish may change what is due.
    """
    deadline = scheduler.deadline()
    match event, actions:
        case (TurnRequested(ticket), [Admit(granted), *_]) if ticket == granted:
            assert deadline >= before
        case (WorkerWanted(ticket, want), [Assign(granted, _, True)]) if ticket == granted:
            assert want.fresh or deadline >= before
        case _:
            assert deadline > now


@dataclass
class Asked:
    number: int
    conversation: ConversationKey


class Bench:
    """A scheduler that has just started a worker elsewhere, so that it starts no spare at once; a clock."""

    def __init__(
        self,
        size: int = 2,
        *,
        spares: int = 0,
        idle_timeout: float = 0.0,
        queue_size: int = 64,
        queue_timeout: float = 60.0,
        park_timeout: float = 0.0,
        starts: int = 64,
    ) -> None:
        self.now = 1000.1
        self.tickets = 0
        limits = Limits(size, spares, idle_timeout, queue_size, queue_timeout, park_timeout, starts)
        self.scheduler = Scheduler(limits, AGENT, _refill_at=self.now + REFILL_DELAY)

    def send(self, event: Event) -> list[Action]:
        due = self.scheduler.deadline()
        actions = self.scheduler.handle(event, self.now)
        check_deadline(self.scheduler, event, actions, self.now, due)
        return actions

    def wait(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.send(Tick())

    def request(self, name: str, *, hold: bool = False) -> tuple[int, list[Action]]:
        self.tickets += 1
        return self.tickets, self.send(TurnRequested(self.tickets, key(name), hold=hold))

    def hold(self, name: str) -> int:
        """Have the conversation to oneself."""
        ticket, actions = self.request(name, hold=True)
        assert actions == [Admit(ticket)]
        return ticket

    def ask(self, name: str, want: Want | None = None) -> tuple[int, list[Action]]:
        """Request, and once admitted want a worker."""
        ticket, actions = self.request(name)
        assert actions == [Admit(ticket)]
        return ticket, self.send(WorkerWanted(ticket, want or fresh()))

    def serve(self, name: str, want: Want | None = None) -> tuple[int, int]:
        """Ask, and see it through to a new worker; return the ticket and the worker."""
        ticket, actions = self.ask(name, want)
        spawn = actions[-1]
        assert isinstance(spawn, Spawn), actions
        assert self.send(WorkerReady(spawn.worker)) == [Assign(ticket, spawn.worker, hot=False)]
        return ticket, spawn.worker

    def turn(self, name: str, want: Want | None = None) -> int:
        """Serve a whole turn in a new worker, which stays idle."""
        ticket, worker = self.serve(name, want)
        assert self.send(TurnEnded(ticket, keep=True)) == []
        return worker

    def again(self, name: str, want: Want | None = None) -> None:
        """Serve a whole turn in the conversation's own worker."""
        ticket, actions = self.ask(name, want)
        own = self.scheduler.of(key(name))
        assert own is not None
        assert actions == [Assign(ticket, own.id, hot=True)]
        assert self.send(TurnEnded(ticket, keep=True)) == []

    def spare(self, launch: Hashable = AGENT) -> int:
        """Let a spare be started and get ready."""
        actions = self.wait(REFILL_DELAY)
        assert [type(a) for a in actions] == [Spawn], actions
        assert isinstance(actions[0], Spawn)
        assert actions[0].launch == launch
        assert self.send(WorkerReady(actions[0].worker)) == []
        return actions[0].worker


# Where a turn finds its worker -----------------------------------------------------------------------------


def test_new_conversation_takes_the_ready_spare() -> None:
    bench = Bench(spares=1)
    spare = bench.spare()
    ticket, actions = bench.ask("a")
    assert actions == [Assign(ticket, spare, hot=False)]


def test_oldest_of_the_ready_spares_is_taken_first() -> None:
    bench = Bench(size=4, spares=2)
    first, _second = bench.spare(), bench.spare()
    ticket, actions = bench.ask("a")
    assert actions == [Assign(ticket, first, hot=False)]


def test_new_conversation_waits_for_the_spare_that_starts_already() -> None:
    bench = Bench(spares=1)
    (spawn,) = bench.wait(REFILL_DELAY)
    assert isinstance(spawn, Spawn)
    ticket, actions = bench.ask("a")
    assert actions == []
    assert bench.send(WorkerReady(spawn.worker)) == [Assign(ticket, spawn.worker, hot=False)]


def test_spare_of_another_launch_does_not_serve() -> None:
    bench = Bench(size=3, spares=1)
    bench.spare()
    _, actions = bench.ask("a", fresh(CHAT))
    assert actions == [Spawn(2, CHAT)]


def test_conversation_continues_in_its_hot_worker() -> None:
    bench = Bench()
    worker = bench.turn("a")
    ticket, actions = bench.ask("a")
    assert actions == [Assign(ticket, worker, hot=True)]


def test_resume_never_takes_a_spare() -> None:
    bench = Bench(size=3, spares=1)
    spare = bench.spare()
    ticket, actions = bench.ask("a", resume("a"))
    assert actions == [Spawn(spare + 1, ("resume", "a", AGENT))]
    assert bench.send(WorkerReady(spare + 1)) == [Assign(ticket, spare + 1, hot=False)]


def test_starting_resume_belongs_to_its_conversation_at_once() -> None:
    bench = Bench()
    _, actions = bench.ask("a", resume("a"))
    assert actions == [Spawn(1, ("resume", "a", AGENT))]
    own = bench.scheduler.of(key("a"))
    assert own is not None
    assert (own.id, own.phase, own.hot) == (1, Phase.STARTING, True)


def test_unsuited_own_worker_is_gone_before_another_starts_on_the_session() -> None:
    bench = Bench(size=3)
    worker = bench.turn("a")
    ticket, actions = bench.ask("a", resume("a", CHAT))
    assert actions == [Stop(worker, StopReason.UNSUITED)]
    assert bench.wait(1) == []
    assert bench.send(WorkerExited(worker)) == [Spawn(2, ("resume", "a", CHAT))]
    assert bench.send(WorkerReady(2)) == [Assign(ticket, 2, hot=False)]


def test_unsuited_own_worker_goes_before_even_a_spare_is_taken() -> None:
    bench = Bench(size=3, spares=1)
    ticket, worker = bench.serve("a", fresh(CHAT))
    bench.send(TurnEnded(ticket, keep=True))
    spare = bench.spare(CHAT)
    ticket, actions = bench.ask("a", Want(fit="other", launch=CHAT, fresh=True))
    assert actions == [Stop(worker, StopReason.UNSUITED)]
    assert bench.send(WorkerExited(worker)) == [Assign(ticket, spare, hot=False)]


def test_unusable_worker_is_stopped_and_waited_for() -> None:
    bench = Bench()
    ticket, worker = bench.serve("a")
    assert bench.send(TurnEnded(ticket, keep=False)) == [Stop(worker, StopReason.UNUSABLE)]
    _, actions = bench.ask("a", resume("a"))
    assert actions == []
    assert bench.send(WorkerExited(worker)) == [Spawn(2, ("resume", "a", AGENT))]


def test_results_find_their_parked_worker() -> None:
    bench = Bench()
    ticket, worker = bench.serve("a")
    assert bench.send(TurnParked(ticket)) == []
    assert not bench.scheduler.holds(key("a"))
    ticket, actions = bench.ask("a")
    assert actions == [Assign(ticket, worker, hot=True)]


# How many start at once -----------------------------------------------------------------------------------


def test_starts_beyond_the_cpus_wait_until_one_has_loaded() -> None:
    bench = Bench(4, starts=2, queue_size=0)
    first, (spawn,) = bench.ask("a")
    _, (other,) = bench.ask("b")
    third, actions = bench.ask("c")
    assert actions == []  # and is not refused: it has a place
    assert isinstance(spawn, Spawn)
    assert isinstance(other, Spawn)
    assert bench.send(WorkerReady(spawn.worker)) == [Assign(first, spawn.worker, hot=False)]
    (next_one,) = bench.send(WorkerLoaded(spawn.worker))
    assert isinstance(next_one, Spawn)
    assert bench.send(WorkerReady(next_one.worker)) == [Assign(third, next_one.worker, hot=False)]


def test_process_that_never_answers_does_not_hold_up_the_others_for_long() -> None:
    bench = Bench(3, starts=1)
    bench.serve("a")
    ticket, actions = bench.ask("b")
    assert actions == []
    assert bench.scheduler.deadline() == bench.now + LOADING
    (spawn,) = bench.wait(LOADING)
    assert isinstance(spawn, Spawn)
    assert bench.send(WorkerReady(spawn.worker)) == [Assign(ticket, spawn.worker, hot=False)]


def test_spare_that_is_stopped_while_it_loads_holds_up_others_until_it_is_gone() -> None:
    bench = Bench(2, starts=1)
    ticket, (spawn,) = bench.ask("a")
    assert isinstance(spawn, Spawn)
    bench.send(TicketCancelled(ticket))
    bench.send(WorkerReady(spawn.worker))
    _, actions = bench.ask("b", fresh(CHAT))
    assert Spawn not in map(type, actions)
    _, actions = bench.ask("c", fresh(CHAT))
    assert Spawn not in map(type, actions)
    (started,) = bench.send(WorkerExited(spawn.worker))
    assert isinstance(started, Spawn)
    bench.send(WorkerReady(started.worker))
    (other,) = bench.send(WorkerLoaded(started.worker))
    assert isinstance(other, Spawn)


def test_place_of_who_waits_for_the_cpu_is_not_given_away() -> None:
    bench = Bench(2, starts=1, queue_size=0)
    bench.serve("a")
    bench.ask("b")
    late, actions = bench.request("c")
    assert actions == [Admit(late)]
    assert bench.send(WorkerWanted(late, fresh())) == [Reject(late, Refusal.QUEUE_FULL)]


# Whose place is given away ---------------------------------------------------------------------------------


def test_least_recently_used_conversation_gives_way_at_capacity() -> None:
    bench = Bench(size=2)
    first = bench.turn("a")
    bench.wait(1)
    bench.turn("b")
    bench.wait(1)
    ticket, actions = bench.ask("c")
    assert actions == [Stop(first, StopReason.CAPACITY)]
    assert bench.send(WorkerExited(first)) == [Spawn(3, AGENT)]
    assert bench.send(WorkerReady(3)) == [Assign(ticket, 3, hot=False)]


def test_conversation_never_continued_goes_first_after_a_minute() -> None:
    bench = Bench(size=2)
    bench.turn("a")
    bench.again("a")
    bench.wait(1)
    once = bench.turn("b")
    bench.wait(PROBATION + 1)
    _, actions = bench.ask("c")
    assert actions == [Stop(once, StopReason.CAPACITY)]


def test_conversation_with_tools_on_offer_is_not_on_probation() -> None:
    bench = Bench(size=2)
    bench.turn("a", replace(fresh(), lasting=True))
    bench.wait(1)
    once = bench.turn("b")
    bench.wait(PROBATION + 1)
    _, actions = bench.ask("c")
    assert actions == [Stop(once, StopReason.CAPACITY)]


def test_conversation_on_probation_is_as_good_as_any() -> None:
    bench = Bench(size=2)
    old = bench.turn("a")
    bench.again("a")
    bench.wait(1)
    bench.turn("b")
    bench.wait(PROBATION - 1)
    _, actions = bench.ask("c")
    assert actions == [Stop(old, StopReason.CAPACITY)]


def test_resumed_conversation_counts_as_continued() -> None:
    bench = Bench(size=2)
    bench.turn("a", resume("a"))
    bench.wait(1)
    once = bench.turn("b")
    bench.wait(PROBATION + 1)
    _, actions = bench.ask("c")
    assert actions == [Stop(once, StopReason.CAPACITY)]


def test_idle_goes_before_spares_and_spares_before_parked() -> None:
    bench = Bench(size=3, spares=1)
    ticket, parked = bench.serve("a")
    bench.send(TurnParked(ticket))
    spare = bench.spare()
    idle = bench.turn("b", resume("b"))
    _, actions = bench.ask("c", resume("c"))
    assert actions == [Stop(idle, StopReason.CAPACITY)]
    _, actions = bench.ask("d", resume("d"))
    assert actions == [Stop(spare, StopReason.CAPACITY)]
    _, actions = bench.ask("e", resume("e"))
    assert actions == [Stop(parked, StopReason.CAPACITY)]
    _, actions = bench.ask("f", resume("f"))
    assert actions == []


def test_busy_worker_is_never_evicted() -> None:
    bench = Bench(size=1)
    ticket, worker = bench.serve("a")
    waiting, actions = bench.ask("b")
    assert actions == []
    assert bench.wait(30) == []
    assert bench.send(TurnEnded(ticket, keep=True)) == [Stop(worker, StopReason.CAPACITY)]
    assert bench.send(WorkerExited(worker)) == [Spawn(2, AGENT)]
    assert bench.send(WorkerReady(2)) == [Assign(waiting, 2, hot=False)]


def test_own_worker_is_kept_for_the_earlier_request_that_was_just_admitted() -> None:
    bench = Bench(size=1)
    worker = bench.turn("a")
    early, _ = bench.request("a")
    late, actions = bench.ask("b")
    assert actions == []
    assert bench.send(WorkerWanted(early, fresh())) == [Assign(early, worker, hot=True)]
    assert bench.send(TurnEnded(early, keep=True)) == [Stop(worker, StopReason.CAPACITY)]
    bench.send(WorkerExited(worker))
    assert bench.send(WorkerReady(2)) == [Assign(late, 2, hot=False)]


def test_busy_conversation_does_not_starve_those_that_wait() -> None:
    bench = Bench(size=1)
    early, worker = bench.serve("a")
    bench.ask("b")
    next_one, _ = bench.request("a")
    assert bench.send(TurnEnded(early, keep=True)) == [Admit(next_one), Stop(worker, StopReason.CAPACITY)]


def test_worker_with_background_work_gives_way_only_after_the_idle_time() -> None:
    bench = Bench(size=1, idle_timeout=20)
    worker = bench.turn("a")
    bench.send(WorkerStirred(worker, pending=True))
    _, actions = bench.ask("b")
    assert actions == []
    assert bench.scheduler.deadline() == bench.now + 20
    assert bench.wait(19) == []
    assert bench.wait(1) == [Stop(worker, StopReason.CAPACITY)]


def test_worker_that_settles_gives_way_at_once() -> None:
    bench = Bench(size=1)
    worker = bench.turn("a")
    bench.send(WorkerStirred(worker, pending=True))
    _, actions = bench.ask("b")
    assert actions == []
    assert bench.send(WorkerStirred(worker, pending=False)) == [Stop(worker, StopReason.CAPACITY)]


# What tenants share ----------------------------------------------------------------------------------------


def test_who_opens_one_conversation_after_the_other_evicts_his_own() -> None:
    bench = Bench(size=3)
    first, kept = bench.turn("A"), bench.turn("B")
    bench.wait(1)
    own = [bench.turn("a")]

    def open_another(name: str, victim: int) -> None:
        bench.wait(1)
        ticket, actions = bench.ask(name)
        assert actions == [Stop(victim, StopReason.CAPACITY)]
        (spawn,) = bench.send(WorkerExited(victim))
        assert isinstance(spawn, Spawn)
        bench.send(WorkerReady(spawn.worker))
        bench.send(TurnEnded(ticket, keep=True))
        own.append(spawn.worker)

    open_another("b", first)  # of the tenant that has two
    for name in "cdef":  # and then of the one that has two by now, although the other's is idle for longer
        open_another(name, own.pop(0))
    assert kept in bench.scheduler.workers


def test_who_parks_turns_gives_way_to_himself_and_to_who_has_less() -> None:
    bench = Bench(size=2)
    ticket, parked = bench.serve("a")
    bench.send(TurnParked(ticket))
    bench.wait(1)
    idle = bench.turn("A")
    bench.wait(1)
    ticket, actions = bench.ask("b")
    assert actions == [Stop(parked, StopReason.CAPACITY)]  # not the other's, that has one place, as this has
    bench.send(TicketCancelled(ticket))
    bench.send(WorkerExited(parked))
    bench.turn("b")
    _, actions = bench.ask("B")
    assert actions == [Stop(idle, StopReason.CAPACITY)]


def test_idle_workers_of_others_give_way_where_ones_own_are_all_busy() -> None:
    bench = Bench(size=2)
    idle = bench.turn("A")
    bench.serve("a")
    _, actions = bench.ask("b")
    assert actions == [Stop(idle, StopReason.CAPACITY)]  # nobody waits for what does nothing


def test_a_place_that_gets_free_goes_to_the_tenant_that_has_least() -> None:
    bench = Bench(size=2)
    first, worker = bench.serve("a")
    bench.serve("b")
    bench.ask("c")
    bench.ask("d")
    late, actions = bench.ask("A")
    assert actions == []
    assert bench.send(TurnEnded(first, keep=True)) == [Stop(worker, StopReason.CAPACITY)]
    (spawn,) = bench.send(WorkerExited(worker))
    assert isinstance(spawn, Spawn)
    assert bench.send(WorkerReady(spawn.worker)) == [Assign(late, spawn.worker, hot=False)]


def test_a_queue_that_one_tenant_fills_has_room_for_another() -> None:
    bench = Bench(size=1, queue_size=3)
    bench.serve("a")
    waiting = [bench.ask(name)[0] for name in "bcd"]
    first, actions = bench.ask("A")
    assert actions == [Reject(waiting[-1], Refusal.QUEUE_FULL)]
    second, actions = bench.ask("B")
    assert actions == [Reject(second, Refusal.QUEUE_FULL)]  # two of the other's came before
    ticket, actions = bench.ask("e")
    assert actions == [Reject(ticket, Refusal.QUEUE_FULL)]
    assert first in bench.scheduler._tickets


@given(
    st.lists(st.sampled_from("abcABC"), max_size=20),
    st.dictionaries(st.sampled_from(["default", "other"]), st.integers(0, 3)),
)
def test_turns_come_to_who_has_least(names: list[str], held: dict[str, int]) -> None:
    asking = [Asked(number, key(name)) for number, name in enumerate(names)]
    turns = fairly(asking, held)
    assert sorted(one.number for one in turns) == list(range(len(names)))
    for tenant in ("default", "other"):  # each tenant's in order of arrival
        own = [one.number for one in turns if one.conversation.tenant == tenant]
        assert own == sorted(own)
    got = Counter(held)
    for place, one in enumerate(turns):  # nobody's comes while another who waits has less
        still = {other.conversation.tenant for other in turns[place:]}
        assert got[one.conversation.tenant] == min(got[tenant] for tenant in still)
        got[one.conversation.tenant] += 1


# The queue -------------------------------------------------------------------------------------------------


def test_turns_of_a_conversation_are_admitted_one_by_one_in_order() -> None:
    bench = Bench()
    first, worker = bench.serve("a")
    second, actions = bench.request("a")
    assert actions == []
    third, actions = bench.request("a")
    assert actions == []
    assert bench.send(TurnEnded(first, keep=True)) == [Admit(second)]
    assert bench.send(WorkerWanted(second, fresh())) == [Assign(second, worker, hot=True)]
    assert bench.send(TurnEnded(second, keep=True)) == [Admit(third)]


def test_conversations_get_places_in_order_of_arrival() -> None:
    bench = Bench(size=1)
    running, worker = bench.serve("a")
    first, _ = bench.request("b")
    second, _ = bench.ask("c")
    bench.send(WorkerWanted(first, fresh()))  # was slower to say what it wants
    bench.send(TurnEnded(running, keep=False))
    bench.send(WorkerExited(worker))
    assert bench.send(WorkerReady(2)) == [Assign(first, 2, hot=False)]
    assert bench.send(TurnEnded(first, keep=False)) == [Stop(2, StopReason.UNUSABLE)]
    bench.send(WorkerExited(2))
    assert bench.send(WorkerReady(3)) == [Assign(second, 3, hot=False)]


def test_hot_conversation_passes_those_that_wait_for_places() -> None:
    bench = Bench(size=2, idle_timeout=300)
    bench.serve("a")
    hot = bench.turn("b")
    bench.send(WorkerStirred(hot, pending=True))
    bench.ask("c")
    ticket, actions = bench.ask("b")
    assert actions == [Assign(ticket, hot, hot=True)]


def test_place_that_is_coming_free_is_counted_once() -> None:
    bench = Bench(size=2)
    one, two = bench.turn("a"), bench.turn("b")
    _, actions = bench.ask("c")
    assert actions == [Stop(one, StopReason.CAPACITY)]
    assert bench.wait(1) == []
    _, actions = bench.ask("d")
    assert actions == [Stop(two, StopReason.CAPACITY)]
    assert bench.wait(1) == []


def test_full_queue_refuses_another_conversation() -> None:
    bench = Bench(size=1, queue_size=1)
    bench.serve("a")
    bench.ask("b")
    ticket, actions = bench.ask("c")
    assert actions == [Reject(ticket, Refusal.QUEUE_FULL)]


def test_full_queue_refuses_another_turn_of_a_busy_conversation() -> None:
    bench = Bench(size=2, queue_size=1)
    bench.serve("a")
    bench.request("a")
    ticket, actions = bench.request("a")
    assert actions == [Reject(ticket, Refusal.QUEUE_FULL)]


def test_queue_of_none_refuses_at_once_but_waits_for_starts_and_stops() -> None:
    bench = Bench(size=1, queue_size=0)
    worker = bench.turn("a")
    _, actions = bench.ask("b")
    assert actions == [Stop(worker, StopReason.CAPACITY)]
    bench.send(WorkerExited(worker))
    ticket, actions = bench.ask("c")
    assert actions == [Reject(ticket, Refusal.QUEUE_FULL)]
    ticket, actions = bench.request("b")
    assert actions == [Reject(ticket, Refusal.QUEUE_FULL)]


def test_requests_whose_workers_are_starting_take_no_room_in_the_queue() -> None:
    bench = Bench(size=2, queue_size=1)
    bench.ask("a")
    assert bench.scheduler.figures().queued == 0
    _, actions = bench.request("a")
    assert actions == []
    assert bench.scheduler.figures().queued == 1


def test_waiting_ends_at_the_queue_timeout() -> None:
    bench = Bench(size=1, queue_timeout=10)
    bench.serve("a")
    lined, _ = bench.request("a")
    waiting, _ = bench.ask("b")
    assert bench.scheduler.deadline() == bench.now + 10
    assert bench.wait(9.9) == []
    bench.now = bench.scheduler.deadline()
    expected = [Reject(waiting, Refusal.QUEUE_TIMEOUT), Reject(lined, Refusal.QUEUE_TIMEOUT)]
    assert bench.send(Tick()) == expected
    assert bench.scheduler.deadline() == inf


def test_place_that_comes_free_as_the_time_is_up_is_still_given() -> None:
    bench = Bench(size=1, queue_timeout=10)
    _, worker = bench.serve("a")
    bench.ask("b")
    bench.now += 11
    assert bench.send(WorkerExited(worker)) == [Spawn(2, AGENT)]


def test_no_time_to_queue_still_leaves_time_to_start() -> None:
    bench = Bench(size=1, queue_timeout=0)
    ticket, actions = bench.ask("a")
    assert actions == [Spawn(1, AGENT)]
    assert bench.wait(5) == []
    assert bench.send(WorkerReady(1)) == [Assign(ticket, 1, hot=False)]
    late, actions = bench.ask("b")
    assert actions == [Reject(late, Refusal.QUEUE_TIMEOUT)]


def test_slow_preparation_does_not_use_up_the_time_to_queue() -> None:
    bench = Bench(size=1, queue_timeout=10)
    ticket, _ = bench.request("a")
    assert bench.wait(11) == []
    assert bench.send(WorkerWanted(ticket, fresh())) == [Spawn(1, AGENT)]


# Idle workers ----------------------------------------------------------------------------------------------


def test_idle_worker_is_stopped_at_its_time() -> None:
    bench = Bench(idle_timeout=300)
    worker = bench.turn("a")
    assert bench.scheduler.deadline() == bench.now + 300
    assert bench.wait(299) == []
    bench.again("a")
    bench.now = bench.scheduler.deadline()
    assert bench.send(Tick()) == [Stop(worker, StopReason.IDLE)]
    assert bench.scheduler.deadline() == inf


def test_idle_time_of_none_is_never() -> None:
    bench = Bench(idle_timeout=0)
    bench.turn("a")
    assert bench.scheduler.deadline() == inf
    assert bench.wait(1e9) == []


@pytest.mark.parametrize("start", [0.1, 1 / 3, 1000.1, 123456.789, 987654321.123])
@pytest.mark.parametrize("timeout", [0.1, 0.7, 300.0, 300.3])
def test_tick_at_the_idle_deadline_is_not_too_early_by_a_rounding(start: float, timeout: float) -> None:
    bench = Bench(idle_timeout=timeout)
    bench.now = start
    worker = bench.turn("a")
    bench.now = bench.scheduler.deadline()
    assert bench.send(Tick()) == [Stop(worker, StopReason.IDLE)]


def test_worker_with_background_work_is_kept() -> None:
    bench = Bench(idle_timeout=300)
    worker = bench.turn("a")
    bench.send(WorkerStirred(worker, pending=True))
    assert bench.scheduler.deadline() == inf
    assert bench.wait(1000) == []
    bench.send(WorkerStirred(worker, pending=False))
    assert bench.wait(299) == []
    assert bench.wait(1) == [Stop(worker, StopReason.IDLE)]


def test_parked_worker_is_not_idle() -> None:
    bench = Bench(idle_timeout=300)
    ticket, _ = bench.serve("a")
    bench.send(TurnParked(ticket))
    assert bench.wait(1000) == []


def test_parked_worker_is_released_when_its_client_never_comes() -> None:
    bench = Bench(park_timeout=600)
    ticket, worker = bench.serve("a")
    bench.send(TurnParked(ticket))
    assert bench.scheduler.deadline() == bench.now + 600
    assert bench.wait(599.9) == []
    assert bench.wait(0.1) == [Stop(worker, StopReason.FORSAKEN)]


def test_parked_worker_is_kept_for_the_results_just_admitted() -> None:
    bench = Bench(park_timeout=600)
    ticket, worker = bench.serve("a")
    bench.send(TurnParked(ticket))
    bench.wait(599.9)
    ticket, _ = bench.request("a")
    assert bench.wait(10) == []
    assert bench.send(WorkerWanted(ticket, fresh())) == [Assign(ticket, worker, hot=True)]


def test_idle_worker_is_kept_for_the_request_just_admitted() -> None:
    bench = Bench(idle_timeout=300)
    worker = bench.turn("a")
    bench.wait(299.9)
    ticket, _ = bench.request("a")
    assert bench.wait(1) == []
    assert bench.send(WorkerWanted(ticket, fresh())) == [Assign(ticket, worker, hot=True)]


def test_idle_worker_goes_when_the_request_just_admitted_leaves() -> None:
    bench = Bench(idle_timeout=300)
    worker = bench.turn("a")
    bench.wait(299.9)
    ticket, _ = bench.request("a")
    bench.wait(1)
    assert bench.send(TicketCancelled(ticket)) == [Stop(worker, StopReason.IDLE)]


# Spares ----------------------------------------------------------------------------------------------------


def test_first_spare_is_started_at_once_and_the_next_after_a_delay() -> None:
    bench = Bench(size=4, spares=2)
    bench.scheduler = Scheduler(bench.scheduler.limits, AGENT)
    assert bench.scheduler.deadline() <= bench.now
    assert bench.wait(0) == [Spawn(1, AGENT)]
    assert bench.scheduler.deadline() == bench.now + REFILL_DELAY
    assert bench.wait(REFILL_DELAY / 2) == []
    bench.now = bench.scheduler.deadline()
    assert bench.send(Tick()) == [Spawn(2, AGENT)]
    assert bench.wait(10) == []


def test_spare_that_was_taken_is_replaced_after_a_delay() -> None:
    bench = Bench(size=3, spares=1)
    bench.spare()
    bench.wait(10)
    bench.ask("a")
    assert bench.wait(REFILL_DELAY / 2) == []
    assert bench.wait(REFILL_DELAY / 2) == [Spawn(2, AGENT)]


def test_no_spare_is_started_while_a_ticket_waits() -> None:
    bench = Bench(size=3, spares=1)
    bench.ask("a", resume("a"))
    assert bench.wait(10) == []
    assert bench.send(WorkerReady(1)) == [Assign(1, 1, hot=False)]
    assert bench.wait(REFILL_DELAY) == [Spawn(2, AGENT)]


def test_pool_of_one_has_no_spare() -> None:
    bench = Bench(size=1, spares=3)
    assert bench.wait(10) == []
    assert (bench.scheduler.limits.spare_target, bench.scheduler.limits.hot_capacity) == (0, 1)


def test_idle_worker_makes_room_for_a_spare_when_conversations_hold_too_much() -> None:
    bench = Bench(size=2, spares=1)
    old = bench.turn("a", resume("a"))
    bench.now += REFILL_DELAY / 2
    bench.turn("b", resume("b"))
    bench.now = bench.scheduler.deadline()
    assert bench.send(Tick()) == [Stop(old, StopReason.CAPACITY)]
    assert bench.wait(REFILL_DELAY) == []
    assert bench.send(WorkerExited(old)) == [Spawn(3, AGENT)]
    assert bench.wait(10) == []


def test_busy_and_parked_workers_make_no_room_for_a_spare() -> None:
    bench = Bench(size=2, spares=1)
    bench.serve("a", resume("a"))
    ticket, _ = bench.serve("b", resume("b"))
    bench.send(TurnParked(ticket))
    assert bench.wait(10) == []


def test_spares_follow_what_is_asked_for_but_not_every_whim() -> None:
    bench = Bench(size=8, spares=1)
    for name in "ab":
        ticket, _ = bench.ask(name)
        bench.send(TicketCancelled(ticket))
    ticket, _ = bench.ask("c", fresh(CHAT))
    assert bench.scheduler.spare_launch == AGENT
    bench.send(TicketCancelled(ticket))
    bench.ask("d", fresh(CHAT))
    assert bench.scheduler.spare_launch == CHAT


def test_spares_do_not_flap_between_kinds_that_alternate() -> None:
    bench = Bench(size=8, spares=1)
    kinds = []
    for number in range(200):
        ticket, _ = bench.ask(str(number), fresh((AGENT, CHAT)[number % 2]))
        bench.send(TicketCancelled(ticket))
        kinds.append(bench.scheduler.spare_launch)
    assert set(kinds) == {AGENT}


def test_resumes_do_not_change_the_kind_of_spares() -> None:
    bench = Bench(size=8, spares=1)
    for _ in range(5):
        bench.turn("a", resume("a", CHAT))
        bench.send(EvictRequested(key("a")))
        own = bench.scheduler.of(key("a"))
        assert own is not None
        bench.send(WorkerExited(own.id))
    assert bench.scheduler.spare_launch == AGENT


def test_spare_of_the_former_kind_is_replaced_with_no_event_but_time() -> None:
    bench = Bench(size=4, spares=1)
    former = bench.spare()
    bench.serve("a", fresh(CHAT))
    bench.now = bench.scheduler.deadline()
    assert bench.now < 2000
    assert bench.send(Tick()) == [Stop(former, StopReason.UNSUITED)]
    bench.now = bench.scheduler.deadline()
    assert bench.send(Tick()) == [Spawn(3, CHAT)]


def test_spares_beyond_their_number_are_stopped() -> None:
    bench = Bench(size=4, spares=1)
    tickets = [bench.ask(name)[0] for name in "abc"]
    for ticket in tickets:
        bench.send(TicketCancelled(ticket))
    for worker in (1, 2, 3):
        bench.send(WorkerReady(worker))
    stops = bench.wait(REFILL_DELAY) + bench.wait(REFILL_DELAY) + bench.wait(REFILL_DELAY)
    assert stops == [Stop(1, StopReason.CAPACITY), Stop(2, StopReason.CAPACITY)]


# A ticket withdrawn, at each stage -------------------------------------------------------------------------


def test_ticket_cancelled_in_its_line_is_skipped() -> None:
    bench = Bench()
    first, _ = bench.serve("a")
    second, _ = bench.request("a")
    third, _ = bench.request("a")
    assert bench.send(TicketCancelled(second)) == []
    assert bench.send(TurnEnded(first, keep=True)) == [Admit(third)]


def test_ticket_cancelled_when_admitted_lets_the_next_in() -> None:
    bench = Bench()
    first, _ = bench.request("a")
    second, _ = bench.request("a")
    assert bench.send(TicketCancelled(first)) == [Admit(second)]
    assert bench.send(WorkerWanted(first, fresh())) == []


def test_ticket_cancelled_while_it_waits_is_never_served() -> None:
    bench = Bench(size=1)
    running, worker = bench.serve("a")
    waiting, _ = bench.ask("b")
    assert bench.send(TicketCancelled(waiting)) == []
    assert bench.send(TurnEnded(running, keep=True)) == []
    assert bench.scheduler.workers[worker].phase is Phase.IDLE
    assert not bench.scheduler.holds(key("b"))


def test_ticket_cancelled_while_a_fresh_worker_starts_leaves_a_spare() -> None:
    bench = Bench(spares=1)
    ticket, actions = bench.ask("a")
    assert actions == [Spawn(1, AGENT)]
    assert bench.send(TicketCancelled(ticket)) == []
    assert bench.wait(REFILL_DELAY) == []
    assert bench.send(WorkerReady(1)) == []
    ticket, actions = bench.ask("b")
    assert actions == [Assign(ticket, 1, hot=False)]


def test_ticket_cancelled_while_its_session_resumes_stops_the_worker_once_it_runs() -> None:
    bench = Bench(size=3, spares=1)
    ticket, _ = bench.ask("a", resume("a"))
    bench.send(TicketCancelled(ticket))
    second, actions = bench.ask("a", resume("a", CHAT))
    assert actions == []  # two never share a session
    assert bench.send(WorkerReady(1)) == [Stop(1, StopReason.UNSUITED)]
    assert bench.send(WorkerExited(1)) == [Spawn(2, ("resume", "a", CHAT))]
    assert bench.send(WorkerReady(2)) == [Assign(second, 2, hot=False)]


def test_cancel_of_a_ticket_that_has_ended_is_nothing() -> None:
    bench = Bench(size=1, queue_size=0)
    bench.serve("a")
    ticket, actions = bench.ask("b")
    assert actions == [Reject(ticket, Refusal.QUEUE_FULL)]
    assert bench.send(TicketCancelled(ticket)) == []
    assert bench.send(WorkerWanted(ticket, fresh())) == []


def test_place_won_for_a_ticket_that_left_goes_to_the_next() -> None:
    bench = Bench(size=1)
    worker = bench.turn("a")
    first, _ = bench.ask("b")
    second, _ = bench.ask("c")
    bench.send(TicketCancelled(first))
    assert bench.send(WorkerExited(worker)) == [Spawn(2, AGENT)]
    assert bench.send(WorkerReady(2)) == [Assign(second, 2, hot=False)]


# A worker that exits, at each phase ------------------------------------------------------------------------


def test_exit_while_starting_starts_another() -> None:
    bench = Bench(size=1)
    ticket, _ = bench.ask("a")
    assert bench.send(WorkerExited(1)) == [Spawn(2, AGENT)]
    assert bench.send(WorkerReady(2)) == [Assign(ticket, 2, hot=False)]


def test_exit_of_a_spare_is_made_good() -> None:
    bench = Bench(spares=1)
    spare = bench.spare()
    bench.wait(10)
    assert bench.send(WorkerExited(spare)) == [Spawn(2, AGENT)]


def test_spares_that_end_again_and_again_are_replaced_less_and_less_often() -> None:
    bench = Bench(size=3, spares=1)
    bench.spare()
    pauses = []
    for number in range(1, 12):
        begun = bench.now = bench.now + REFILL_DELAY
        actions = bench.send(WorkerExited(number))
        while not actions:
            bench.now = bench.scheduler.deadline()
            actions = bench.send(Tick())
        assert actions == [Spawn(number + 1, AGENT)]
        assert bench.send(WorkerReady(number + 1)) == []
        pauses.append(bench.now - begun)
    expected = [0.0, *(min(BACKOFF_LAST, BACKOFF_FIRST * 2**n) for n in range(10))]
    assert pauses == pytest.approx(expected)
    # A turn that goes well begins it anew.
    ticket, _ = bench.ask("a")
    bench.send(TurnEnded(ticket, keep=True))
    spare = bench.spare()
    bench.now += REFILL_DELAY
    assert bench.send(WorkerExited(spare)) == [Spawn(spare + 1, AGENT)]


def test_exit_while_busy_holds_the_conversation_until_the_turn_is_given_back() -> None:
    bench = Bench()
    ticket, worker = bench.serve("a")
    second, _ = bench.request("a")
    assert bench.send(WorkerExited(worker)) == []
    assert bench.scheduler.holds(key("a"))
    assert bench.send(TurnEnded(ticket, keep=False)) == [Admit(second)]
    assert bench.send(WorkerWanted(second, resume("a"))) == [Spawn(2, ("resume", "a", AGENT))]


@pytest.mark.parametrize("parked", [False, True])
def test_exit_while_idle_or_parked_makes_the_conversation_cold(parked: bool) -> None:
    bench = Bench()
    ticket, worker = bench.serve("a")
    bench.send(TurnParked(ticket) if parked else TurnEnded(ticket, keep=True))
    assert bench.send(WorkerExited(worker)) == []
    assert bench.scheduler.of(key("a")) is None
    _, actions = bench.ask("a", resume("a"))
    assert actions == [Spawn(2, ("resume", "a", AGENT))]


def test_exit_frees_the_place_of_whoever_waits() -> None:
    bench = Bench(size=1)
    _, worker = bench.serve("a")
    bench.ask("b")
    assert bench.send(WorkerExited(worker)) == [Spawn(2, AGENT)]


def test_news_of_a_worker_that_is_gone_is_nothing() -> None:
    bench = Bench()
    worker = bench.turn("a")
    bench.send(WorkerExited(worker))
    assert bench.send(WorkerExited(worker, failed=True)) == []
    assert bench.send(WorkerReady(worker)) == []
    assert bench.send(WorkerStirred(worker, pending=True)) == []
    assert bench.ask("b")[1] == [Spawn(2, AGENT)]


# Starts that fail ------------------------------------------------------------------------------------------


def test_failed_start_is_told_to_who_asked_and_holds_back_the_next() -> None:
    bench = Bench(spares=1)
    ticket, _ = bench.ask("a")
    assert bench.send(WorkerExited(1, failed=True)) == [
        Reject(ticket, Refusal.BACKING_OFF, retry_after=BACKOFF_FIRST)
    ]
    bench.now += BACKOFF_FIRST / 4
    ticket, actions = bench.ask("a")
    (reject,) = actions
    assert isinstance(reject, Reject)
    assert (reject.ticket, reject.reason) == (ticket, Refusal.BACKING_OFF)
    assert reject.retry_after == pytest.approx(BACKOFF_FIRST * 3 / 4)
    bench.now = bench.scheduler.deadline()
    assert bench.send(Tick()) == [Spawn(2, AGENT)]


def test_hot_workers_and_spares_serve_while_starts_are_held_back() -> None:
    bench = Bench(size=3, spares=1)
    spare = bench.spare()
    hot = bench.turn("a", resume("a"))
    bench.ask("b", resume("b"))
    bench.send(WorkerExited(3, failed=True))
    ticket, actions = bench.ask("a")
    assert actions == [Assign(ticket, hot, hot=True)]
    ticket, actions = bench.ask("c")
    assert actions == [Assign(ticket, spare, hot=False)]


def test_pauses_double_up_to_the_last_and_go_on_for_ever() -> None:
    bench = Bench(spares=1)
    pauses = []
    bench.wait(REFILL_DELAY)
    for worker in range(1, 2000):
        bench.send(WorkerExited(worker, failed=True))
        pauses.append(bench.scheduler.deadline() - bench.now)
        bench.now = bench.scheduler.deadline()
        assert bench.send(Tick()) == [Spawn(worker + 1, AGENT)]
    assert pauses[:7] == pytest.approx([1, 2, 4, 8, 16, 32, BACKOFF_LAST])
    assert pauses[-1] == pytest.approx(BACKOFF_LAST)


@pytest.mark.parametrize("evicted", [False, True])
def test_good_turn_ends_the_doubling(evicted: bool) -> None:
    bench = Bench()
    for worker in (1, 2):
        bench.ask("a")
        bench.send(WorkerExited(worker, failed=True))
        bench.wait(10)
    ticket, _ = bench.serve("a")
    if evicted:
        bench.send(EvictRequested(key("a")))
    bench.send(TurnEnded(ticket, keep=True))
    ticket, _ = bench.ask("b")
    assert bench.send(WorkerExited(4, failed=True)) == [
        Reject(ticket, Refusal.BACKING_OFF, retry_after=BACKOFF_FIRST)
    ]


def test_processes_that_die_together_are_one_failure() -> None:
    bench = Bench(size=4)
    for name in "abc":
        bench.ask(name)
    for worker in (1, 2, 3):
        bench.wait(0.01)
        bench.send(WorkerExited(worker, failed=True))
    bench.wait(BACKOFF_FIRST)
    _, actions = bench.ask("d")
    assert actions == [Spawn(4, AGENT)]


def test_bad_turn_does_not_end_the_doubling() -> None:
    bench = Bench()
    bench.ask("a")
    bench.send(WorkerExited(1, failed=True))
    bench.wait(10)
    ticket, worker = bench.serve("a")
    bench.send(WorkerExited(worker, failed=True))
    bench.send(TurnEnded(ticket, keep=False))
    bench.wait(10)
    ticket, _ = bench.ask("a")
    assert bench.send(WorkerExited(3, failed=True)) == [
        Reject(ticket, Refusal.BACKING_OFF, retry_after=4 * BACKOFF_FIRST)
    ]


# Drain and evict -------------------------------------------------------------------------------------------


def test_drain_rejects_all_who_wait_and_lets_turns_go_on() -> None:
    bench = Bench(size=1, spares=1)
    running, worker = bench.serve("a")
    lined, _ = bench.request("a")
    waiting, _ = bench.ask("b")
    admitted, _ = bench.request("c")
    behind, _ = bench.request("c")
    actions = bench.send(DrainRequested())
    assert actions == [Reject(t, Refusal.DRAINING) for t in (behind, admitted, waiting, lined)]
    assert bench.send(WorkerWanted(admitted, fresh())) == []
    late, actions = bench.request("d")
    assert actions == [Reject(late, Refusal.DRAINING)]
    assert bench.send(TurnEnded(running, keep=True)) == []
    assert bench.scheduler.workers[worker].phase is Phase.IDLE


def test_drain_starts_no_spares() -> None:
    bench = Bench(size=3, spares=1)
    spare = bench.spare()
    bench.send(DrainRequested())
    bench.send(WorkerExited(spare))
    assert bench.wait(10) == []
    assert bench.scheduler.deadline() == inf


@pytest.mark.parametrize("parked", [False, True])
def test_evict_stops_an_idle_or_parked_worker(parked: bool) -> None:
    bench = Bench()
    ticket, worker = bench.serve("a")
    bench.send(TurnParked(ticket) if parked else TurnEnded(ticket, keep=True))
    assert bench.send(EvictRequested(key("a"))) == [Stop(worker, StopReason.EVICTED)]


@pytest.mark.parametrize("parks", [False, True])
def test_evict_of_a_busy_worker_waits_for_its_turn(parks: bool) -> None:
    bench = Bench()
    ticket, worker = bench.serve("a")
    lined, _ = bench.request("a")
    assert bench.send(EvictRequested(key("a"))) == [Reject(lined, Refusal.EVICTED)]
    after, _ = bench.request("a")
    ended = TurnParked(ticket) if parks else TurnEnded(ticket, keep=True)
    assert bench.send(ended) == [Stop(worker, StopReason.EVICTED), Admit(after)]


def test_evict_while_the_session_resumes_stops_the_worker_once_it_runs() -> None:
    bench = Bench()
    ticket, _ = bench.ask("a", resume("a"))
    assert bench.send(EvictRequested(key("a"))) == [Reject(ticket, Refusal.EVICTED)]
    assert bench.send(WorkerReady(1)) == [Stop(1, StopReason.UNSUITED)]


def test_evict_while_a_fresh_worker_starts_leaves_a_spare() -> None:
    bench = Bench(spares=1)
    ticket, _ = bench.ask("a")
    assert bench.send(EvictRequested(key("a"))) == [Reject(ticket, Refusal.EVICTED)]
    assert bench.send(WorkerReady(1)) == []
    assert bench.scheduler.workers[1].phase is Phase.SPARE


def test_evict_of_a_cold_conversation_is_nothing() -> None:
    assert Bench().send(EvictRequested(key("a"))) == []


def test_evict_leaves_who_holds_the_conversation() -> None:
    bench = Bench()
    ticket = bench.hold("a")
    assert bench.send(EvictRequested(key("a"))) == []
    assert bench.scheduler.is_held(key("a"))
    assert bench.send(TicketCancelled(ticket)) == []
    assert not bench.scheduler.holds(key("a"))


# Operators -------------------------------------------------------------------------------------------------


def test_release_of_an_idle_parked_or_spare_worker_stops_it() -> None:
    bench = Bench(size=4, spares=1)
    idle = bench.turn("a")
    ticket, parked = bench.serve("b")
    bench.send(TurnParked(ticket))
    spare = bench.spare()
    for worker in (idle, parked, spare):
        assert bench.send(ReleaseRequested(worker)) == [Stop(worker, StopReason.EVICTED)]


def test_release_of_a_busy_worker_waits_for_its_turn_and_who_comes_next_gets_another() -> None:
    bench = Bench()
    ticket, worker = bench.serve("a")
    after, _ = bench.request("a")
    assert bench.send(ReleaseRequested(worker)) == []
    assert bench.send(TurnEnded(ticket, keep=True)) == [Stop(worker, StopReason.EVICTED), Admit(after)]
    assert bench.send(WorkerWanted(after, resume("a"))) == []
    (spawn,) = bench.send(WorkerExited(worker))
    assert isinstance(spawn, Spawn)


def test_release_of_a_starting_spare_stops_it_once_it_runs() -> None:
    bench = Bench(size=3, spares=1)
    (spawn,) = bench.wait(REFILL_DELAY)
    assert isinstance(spawn, Spawn)
    assert bench.send(ReleaseRequested(spawn.worker)) == []
    _, actions = bench.ask("a")
    assert [type(action) for action in actions] == [Spawn], "what is about to go serves nobody"
    assert bench.send(WorkerReady(spawn.worker)) == [Stop(spawn.worker, StopReason.UNSUITED)]


def test_release_of_a_worker_that_is_gone_is_nothing() -> None:
    assert Bench().send(ReleaseRequested(7)) == []


def test_hold_waits_for_the_turn_and_refuses_who_comes_meanwhile() -> None:
    bench = Bench(queue_timeout=5.0)
    ticket, worker = bench.serve("a")
    hold, actions = bench.request("a", hold=True)
    assert actions == []
    behind, actions = bench.request("a")
    assert actions == []
    assert bench.wait(4.0) == []
    assert bench.send(TurnEnded(ticket, keep=True)) == [Admit(hold), Reject(behind, Refusal.HELD)]
    late, actions = bench.request("a")
    assert actions == [Reject(late, Refusal.HELD)]
    assert bench.wait(3600.0) == []
    assert bench.send(ReleaseRequested(worker)) == [Stop(worker, StopReason.EVICTED)]
    assert bench.send(TicketCancelled(hold)) == []
    _, actions = bench.request("a")
    assert len(actions) == 1


def test_hold_never_waits_too_long_and_a_drain_leaves_it() -> None:
    bench = Bench(queue_timeout=1.0)
    ticket, _ = bench.serve("a")
    hold, _ = bench.request("a", hold=True)
    assert bench.wait(100.0) == []
    assert bench.send(DrainRequested()) == []
    assert bench.send(TurnEnded(ticket, keep=True)) == [Admit(hold)]
    other, actions = bench.request("b", hold=True)
    assert actions == [Admit(other)]


def test_a_second_hold_is_refused() -> None:
    bench = Bench()
    bench.hold("a")
    second, actions = bench.request("a", hold=True)
    assert actions == [Reject(second, Refusal.HELD)]


def test_resume_takes_new_turns_and_keeps_spares_again() -> None:
    bench = Bench(spares=1)
    bench.send(DrainRequested())
    assert bench.wait(60.0) == []
    (spawn,) = bench.send(ResumeRequested())
    assert isinstance(spawn, Spawn)
    ticket, actions = bench.request("a")
    assert actions == [Admit(ticket)]


def test_a_smaller_pool_sheds_spares_first_then_the_idle_and_the_busy_when_they_end() -> None:
    bench = Bench(size=4, spares=1)
    ticket, busy = bench.serve("a")
    older, newer = bench.turn("b"), bench.turn("c")
    spare = bench.spare()
    assert bench.send(Configured(Limits(2), AGENT)) == [
        Stop(spare, StopReason.CAPACITY),
        Stop(older, StopReason.CAPACITY),
    ]
    assert bench.send(Configured(Limits(1), AGENT)) == [Stop(newer, StopReason.CAPACITY)]
    for worker in (spare, older, newer):
        assert bench.send(WorkerExited(worker)) == []
    assert bench.send(TurnEnded(ticket, keep=True)) == []
    assert list(bench.scheduler.workers) == [busy]


def test_a_smaller_pool_stops_a_busy_worker_at_its_turns_end() -> None:
    bench = Bench(size=2)
    first, one = bench.serve("a")
    bench.serve("b")
    assert bench.send(Configured(Limits(1), AGENT)) == []
    assert bench.send(TurnEnded(first, keep=True)) == [Stop(one, StopReason.CAPACITY)]


def test_a_larger_pool_serves_who_waits() -> None:
    bench = Bench(size=1)
    bench.serve("a")
    ticket, _ = bench.ask("b")
    (spawn,) = bench.send(Configured(Limits(2), AGENT))
    assert spawn == Spawn(2, AGENT)
    assert bench.send(WorkerReady(2)) == [Assign(ticket, 2, hot=False)]


def test_renewal_lets_running_and_parked_turns_end_and_no_worker_serves_another() -> None:
    bench = Bench(size=5, spares=1)
    busy, one = bench.serve("a")
    parked, two = bench.serve("b")
    bench.send(TurnParked(parked))
    idle = bench.turn("c")
    spare = bench.spare()
    assert bench.send(Configured(Limits(5, 1), CHAT, renew=True)) == [
        Stop(idle, StopReason.OUTDATED),
        Stop(spare, StopReason.OUTDATED),
    ]
    assert bench.scheduler.spare_launch == CHAT
    assert bench.send(TurnEnded(busy, keep=True)) == [Stop(one, StopReason.OUTDATED)]
    for _ in range(2):
        bench.send(Configured(Limits(5, 1), CHAT, renew=True))
        again, actions = bench.ask("b")
        assert actions == [Assign(again, two, hot=True)]
        assert bench.send(TurnParked(again)) == []
    again, _ = bench.ask("b")
    assert bench.send(TurnEnded(again, keep=True)) == [Stop(two, StopReason.OUTDATED)]


def test_a_turn_that_parks_after_a_renewal_is_answered_and_can_be_evicted() -> None:
    bench = Bench(size=5, spares=0)
    busy, one = bench.serve("a")
    bench.send(Configured(Limits(5, 0), CHAT, renew=True))
    assert bench.send(TurnParked(busy)) == []
    again, actions = bench.ask("a")
    assert actions == [Assign(again, one, hot=True)]
    bench.send(EvictRequested(key("a")))
    assert bench.send(TurnParked(again)) == [Stop(one, StopReason.EVICTED)]


def test_renewal_ends_the_pause_after_failed_starts() -> None:
    bench = Bench()
    bench.ask("a")
    bench.send(WorkerExited(1, failed=True))
    _, actions = bench.ask("b")
    assert [type(action) for action in actions] == [Reject]
    bench.send(Configured(Limits(2), AGENT, renew=True))
    _, actions = bench.ask("c")
    assert [type(action) for action in actions] == [Spawn]


def test_figures_count_each_phase() -> None:
    bench = Bench(size=6, spares=1)
    bench.serve("a")
    bench.request("a")
    bench.turn("b")
    ticket, _ = bench.serve("c")
    bench.send(TurnParked(ticket))
    bench.spare()
    bench.ask("d", resume("d"))
    figures = bench.scheduler.figures()
    assert (figures.workers, figures.busy, figures.idle, figures.parked) == (5, 1, 1, 1)
    assert (figures.spare, figures.starting, figures.queued) == (1, 1, 1)


# Under random events ---------------------------------------------------------------------------------------


class Stage(Enum):
    LINED = "lined"
    ADMITTED = "admitted"
    WAITING = "waiting"
    SERVED = "served"
    ENDED = "ended"


@dataclass
class Asker:
    """What a request knows of itself."""

    id: int
    conversation: str
    stage: Stage = Stage.LINED
    want: Want | None = None
    worker: int = 0
    hold: bool = False
    ends: int = 0  # times it was assigned, rejected or withdrawn


@dataclass
class Process:
    """What a process knows of itself."""

    id: int
    launch: Hashable
    phase: Phase = Phase.STARTING
    conversation: str | None = None
    fit: Hashable = None
    pending: bool = False
    loaded: bool = False
    begun: float = 0.0  # when it last changed before it answered
    doomed: bool = False
    outdated: bool = False  # as doomed, but for turns that wait for their client
    outfit: Hashable = None  # what it was prepared with
    preparing: bool = False
    used: float = 0.0


CONVERSATIONS = "abcDE"
PICKS = st.integers(0, 1000)
OUTFITS = st.sampled_from(["x", "y", None])
OPEN = {Stage.LINED, Stage.ADMITTED, Stage.WAITING}


class Pool(RuleBasedStateMachine):
    """Askers and processes that do whatever they may at any time, and check what they are told."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.1
        self.askers: dict[int, Asker] = {}
        self.processes: dict[int, Process] = {}  # those that live
        self.spawned = 0
        self.held_until = 0.0
        self.wishes: list[Want] = []  # the last that were the same
        self.scheduler = Scheduler(Limits(1), AGENT)

    @initialize(
        size=st.integers(1, 4),
        spares=st.integers(0, 2),
        idle_timeout=st.sampled_from([0.0, 5.1, 300.0]),
        queue_size=st.sampled_from([0, 1, 3, 64]),
        queue_timeout=st.sampled_from([0.0, 7.3, 60.0, 1000.0]),
        park_timeout=st.sampled_from([0.0, 9.7, 600.0]),
        starts=st.sampled_from([1, 2, 64]),
    )
    def begin(self, **settings: Any) -> None:
        limits = Limits(**settings)
        self.scheduler = Scheduler(limits, AGENT)

    # What it is told ---------------------------------------------------------------------------------------

    def send(self, event: Event) -> list[Action]:
        due = self.scheduler.deadline()
        actions = self.scheduler.handle(event, self.now)
        admitted = set()
        for action in actions:
            match action:
                case Admit():
                    self.on_admit(action)
                    admitted.add(action.ticket)
                case Assign():
                    self.on_assign(action)
                case Reject():
                    assert action.ticket not in admitted, "admitted only to be rejected"
                    assert action.retry_after > 0
                    self.on_reject(action)
                case Spawn():
                    self.on_spawn(action)
                case Prepare():
                    self.on_prepare(action)
                case Stop():
                    process = self.processes[action.worker]
                    assert process.phase in {Phase.IDLE, Phase.PARKED, Phase.SPARE}
                    if action.reason is StopReason.CAPACITY:
                        self.on_giving_way(process)
                    process.phase = Phase.STOPPING
        check_deadline(self.scheduler, event, actions, self.now, due)
        return actions

    def end(self, asker: Asker) -> None:
        assert asker.stage in OPEN
        asker.stage = Stage.ENDED
        asker.ends += 1

    def on_admit(self, action: Admit) -> None:
        asker = self.askers[action.ticket]
        assert asker.hold or not self.scheduler.draining
        others = [a for a in self.askers.values() if a.conversation == asker.conversation]
        assert not any(a.stage in {Stage.ADMITTED, Stage.WAITING, Stage.SERVED} for a in others)
        assert asker is next(a for a in others if a.stage is Stage.LINED)
        asker.stage = Stage.ADMITTED

    def on_assign(self, action: Assign) -> None:
        asker, process = self.askers[action.ticket], self.processes[action.worker]
        assert asker.stage is Stage.WAITING
        assert asker.want is not None
        if action.hot:
            assert process.phase in {Phase.IDLE, Phase.PARKED}
            assert (process.conversation, process.fit) == (asker.conversation, asker.want.fit)
        else:
            assert process.phase is Phase.SPARE
            assert process.launch == asker.want.launch
            assert asker.want.fresh == (process.conversation is None)
            assert process.outfit in (None, asker.want.outfit)
        asker.stage, asker.worker = Stage.SERVED, process.id
        asker.ends += 1
        self.goes_on(process)
        process.phase, process.used = Phase.BUSY, self.now
        process.conversation, process.fit = asker.conversation, asker.want.fit

    def on_reject(self, action: Reject) -> None:
        asker = self.askers[action.ticket]
        if action.reason is Refusal.QUEUE_FULL:
            assert self.ahead_of(asker) >= self.scheduler.limits.queue_size
        self.end(asker)

    def ahead_of(self, asker: Asker) -> int:
        """Return how many may wait before one: a tenant's first before any other's second."""
        waiting = [a for a in self.askers.values() if a.stage in {Stage.LINED, Stage.WAITING}]
        tenant = tenant_of(asker.conversation)
        own = sum(tenant_of(a.conversation) == tenant and a.id < asker.id for a in waiting)
        others = sum(tenant_of(a.conversation) != tenant for a in waiting)
        return own + min(others, own + 1)

    def on_giving_way(self, process: Process) -> None:
        """Check that who has no more than who asks keeps it while there is a spare, or one of who asks."""
        asking = {tenant_of(a.conversation) for a in self.needy()}
        over = (
            sum(p.phase is not Phase.STOPPING for p in self.processes.values()) - self.scheduler.limits.size
        )
        if process.conversation is None or len(asking) != 1 or over > 0:
            return
        (asker,) = asking
        owner = tenant_of(process.conversation)
        coming = sum(w.ticket is not None and w.conversation is None for w in self.scheduler.workers.values())
        if owner == asker or self.places(owner) + coming > self.places(asker):
            return
        asked_for = {a.conversation for a in self.askers.values() if a.stage in OPEN}
        for other in self.processes.values():
            own = other.conversation is not None and tenant_of(other.conversation) == asker
            if (own and other.conversation not in asked_for) or other.phase is Phase.SPARE:
                assert not self.evictable(other, set())

    def places(self, tenant: str) -> int:
        live = [p for p in self.processes.values() if p.phase is not Phase.STOPPING]
        return sum(p.conversation is not None and tenant_of(p.conversation) == tenant for p in live)

    def on_spawn(self, action: Spawn) -> None:
        assert action.worker not in self.processes
        assert not self.scheduler.draining
        assert self.now >= self.held_until
        self.spawned += 1
        process = self.processes[action.worker] = Process(
            action.worker, action.launch, used=self.now, begun=self.now
        )
        if isinstance(action.launch, tuple):
            process.conversation = action.launch[1]
        assert len(self.processes) <= self.scheduler.limits.size
        assert len(self.loading()) <= self.scheduler.limits.starts

    def on_prepare(self, action: Prepare) -> None:
        process = self.processes[action.worker]
        assert len(self.wishes) >= STABLE
        assert (self.wishes[-1].launch, self.wishes[-1].outfit) == (process.launch, action.outfit)
        assert (process.phase, process.outfit) == (Phase.SPARE, None)
        assert not self.loading()
        assert not any(p.preparing for p in self.processes.values())
        assert self.asker(0, Stage.WAITING) is None
        process.outfit, process.preparing = action.outfit, True

    def goes_on(self, process: Process) -> None:
        """Give a process more time to load, unless it was given up."""
        if self.now < process.begun + LOADING:
            process.begun = self.now

    def loading(self) -> list[Process]:
        """Return the processes whose start takes the CPU, as far as anybody knows."""
        return [p for p in self.processes.values() if not p.loaded and self.now < p.begun + LOADING]

    # What happens ------------------------------------------------------------------------------------------

    def asker(self, pick: int, *stages: Stage, hold: bool | None = None) -> Asker | None:
        found = [a for a in self.askers.values() if a.stage in stages and hold in {None, a.hold}]
        return found[pick % len(found)] if found else None

    def process(self, pick: int, *phases: Phase) -> Process | None:
        found = [p for p in self.processes.values() if p.phase in phases]
        return found[pick % len(found)] if found else None

    @rule(name=st.sampled_from(CONVERSATIONS))
    def request(self, name: str) -> None:
        ticket = len(self.askers) + 1
        self.askers[ticket] = Asker(ticket, name)
        self.send(TurnRequested(ticket, key(name)))
        if self.scheduler.draining:
            assert self.askers[ticket].stage is Stage.ENDED

    @rule(name=st.sampled_from(CONVERSATIONS))
    def hold(self, name: str) -> None:
        ticket = len(self.askers) + 1
        self.askers[ticket] = Asker(ticket, name, hold=True)
        self.send(TurnRequested(ticket, key(name), hold=True))

    @rule(pick=PICKS, kind=st.sampled_from([AGENT, CHAT]), outfit=OUTFITS, resumes=st.booleans())
    def want(self, pick: int, kind: str, outfit: str | None, resumes: bool) -> None:
        if (asker := self.asker(pick, Stage.ADMITTED, hold=False)) is not None:
            self.wish(asker, resume(asker.conversation, kind) if resumes else fresh(kind, outfit))

    def wish(self, asker: Asker, want: Want) -> None:
        asker.want, asker.stage = want, Stage.WAITING
        if want.fresh:
            self.wishes = [*self.wishes, want] if self.wishes[-1:] in ([], [want]) else [want]
        self.send(WorkerWanted(asker.id, want))

    @rule(
        name=st.sampled_from(CONVERSATIONS),
        kind=st.sampled_from([AGENT, CHAT]),
        outfit=OUTFITS,
        resumes=st.booleans(),
    )
    def request_and_want(self, name: str, kind: str, outfit: str | None, resumes: bool) -> None:
        self.request(name)
        asker = self.askers[len(self.askers)]
        if asker.stage is Stage.ADMITTED:
            self.wish(asker, resume(name, kind) if resumes else fresh(kind, outfit))

    @rule(name=st.sampled_from(CONVERSATIONS), kind=st.sampled_from([AGENT, CHAT]), outfit=OUTFITS)
    def wish_the_same_again_and_again(self, name: str, kind: str, outfit: str | None) -> None:
        for _ in range(STABLE):
            self.request_and_want(name, kind, outfit, resumes=False)
            if (asker := self.askers[len(self.askers)]).stage in OPEN:
                self.end(asker)
                self.send(TicketCancelled(asker.id))

    @rule(name=st.sampled_from(CONVERSATIONS), outfit=st.sampled_from(["x", "y"]))
    def wish_the_same_until_a_spare_is_prepared(self, name: str, outfit: str) -> None:
        self.wish_the_same_again_and_again(name, AGENT, outfit)
        for _ in range(2 * STABLE):
            if self.preparing() is not None:
                break
            self.ready(0)
            self.end_turn(0, "kept")
            self.exit_as_told(0)
            for number in range(len(self.processes)):
                self.load(number)
            self.pass_time(REFILL_DELAY, tick=True)

    @rule(failed=st.booleans())
    def prepared(self, failed: bool) -> None:
        if (process := self.preparing()) is not None:
            process.preparing = False
            spare = process.phase is Phase.SPARE
            if failed:
                self.wishes.clear()
            self.send(WorkerPrepared(process.id, failed))
            assert not (spare and failed) or process.phase is Phase.STOPPING

    @rule(name=st.sampled_from(CONVERSATIONS), pick=PICKS)
    def go_through_a_turn(self, name: str, pick: int) -> None:
        """Have a whole turn where nothing is in the way: so many conversations are idle at once."""
        self.request_and_want(name, AGENT, None, resumes=False)
        for _ in range(2):
            self.exit_as_told(0)
            self.ready(pick)
        asker = self.askers[len(self.askers)]
        served = [a for a in self.askers.values() if a.stage is Stage.SERVED]
        if asker in served:
            self.end_turn(served.index(asker), "kept")

    @rule(pick=PICKS)
    def cancel(self, pick: int) -> None:
        if (asker := self.asker(pick, *OPEN)) is not None:
            self.end(asker)
            self.send(TicketCancelled(asker.id))

    @rule(pick=PICKS)
    def cancel_or_want_too_late(self, pick: int) -> None:
        if (asker := self.asker(pick, Stage.ENDED)) is not None:
            self.send(TicketCancelled(asker.id))
            self.send(WorkerWanted(asker.id, fresh()))

    @rule(pick=PICKS, how=st.sampled_from(["kept", "kept", "lost", "parked"]))
    def end_turn(self, pick: int, how: str) -> None:
        if (asker := self.asker(pick, Stage.SERVED)) is None:
            return
        asker.stage = Stage.ENDED
        process = self.processes.get(asker.worker)
        if process is not None:
            process.loaded = True
            process.phase = Phase.PARKED if how == "parked" else Phase.IDLE
            process.used = self.now
        self.send(TurnParked(asker.id) if how == "parked" else TurnEnded(asker.id, keep=how == "kept"))
        outdated = process is not None and process.outdated and how != "parked"
        if process is not None and (how == "lost" or process.doomed or outdated):
            assert process.phase is Phase.STOPPING

    @rule(pick=PICKS)
    def ready(self, pick: int) -> None:
        if (process := self.process(pick, Phase.STARTING)) is not None:
            self.goes_on(process)
            process.phase, process.used = Phase.SPARE, self.now
            self.send(WorkerReady(process.id))
            assert process.conversation is None or process.phase in {Phase.BUSY, Phase.STOPPING}

    @rule(pick=PICKS)
    def load(self, pick: int) -> None:
        if (process := self.process(pick, Phase.SPARE, Phase.BUSY)) is not None:
            process.loaded = True
            self.send(WorkerLoaded(process.id))

    @rule(pick=PICKS, pending=st.booleans())
    def stir(self, pick: int, pending: bool) -> None:
        if (process := self.process(pick, Phase.BUSY, Phase.IDLE, Phase.PARKED)) is not None:
            process.pending, process.used, process.loaded = pending, self.now, True
            self.send(WorkerStirred(process.id, pending))

    @rule(pick=PICKS)
    def exit_as_told(self, pick: int) -> None:
        if (process := self.process(pick, Phase.STOPPING)) is not None:
            del self.processes[process.id]
            self.send(WorkerExited(process.id))

    @rule(pick=PICKS, failed=st.booleans())
    def exit_unasked(self, pick: int, failed: bool) -> None:
        if (process := self.process(pick, *Phase)) is not None:
            failed = failed and process.phase in {Phase.STARTING, Phase.SPARE, Phase.BUSY}
            if process.preparing and process.phase is not Phase.STOPPING:
                self.wishes.clear()
            del self.processes[process.id]
            if failed and self.now >= self.held_until:  # else it was started before the pause
                self.held_until = self.now + BACKOFF_FIRST
            self.send(WorkerExited(process.id, failed))

    @rule(name=st.sampled_from(CONVERSATIONS))
    def evict(self, name: str) -> None:
        for process in self.processes.values():
            process.doomed |= process.conversation == name
        self.send(EvictRequested(key(name)))
        assert not any(
            a.conversation == name and a.stage in OPEN and not a.hold for a in self.askers.values()
        )
        for process in self.processes.values():
            assert process.conversation != name or process.phase in {
                Phase.STARTING,
                Phase.BUSY,
                Phase.STOPPING,
            }

    @precondition(lambda self: len(self.askers) > 10)
    @rule()
    def drain(self) -> None:
        self.send(DrainRequested())
        assert self.asker(0, *OPEN, hold=False) is None

    @rule()
    def resume(self) -> None:
        self.send(ResumeRequested())
        assert not self.scheduler.draining

    @rule(pick=PICKS)
    def release(self, pick: int) -> None:
        if (process := self.process(pick, *Phase)) is not None:
            process.doomed = True
            self.send(ReleaseRequested(process.id))
            assert process.phase in {Phase.STARTING, Phase.BUSY, Phase.STOPPING}

    @rule(size=st.integers(1, 4), spares=st.integers(0, 2), renew=st.booleans())
    def configure(self, size: int, spares: int, renew: bool) -> None:
        if renew:
            self.held_until = self.now
            self.wishes.clear()
            for process in self.processes.values():
                process.outdated |= process.phase in {Phase.STARTING, Phase.BUSY, Phase.PARKED}
        limits = replace(self.scheduler.limits, size=size, spares=spares)
        self.send(Configured(limits, AGENT, renew=renew))
        waiting = [p for p in self.processes.values() if p.phase in {Phase.IDLE, Phase.SPARE}]
        assert not (renew and waiting)

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 1.0, 1.0, 5.1, 7.3, 61.0, 301.0]), tick=st.booleans())
    def pass_time(self, seconds: float, tick: bool) -> None:
        self.now += seconds
        if tick:
            self.send(Tick())

    @rule()
    def pass_time_to_the_deadline(self) -> None:
        if (deadline := self.scheduler.deadline()) < inf:
            self.now = max(self.now, deadline)
            self.send(Tick())

    # What always holds -------------------------------------------------------------------------------------

    @invariant()
    def processes_are_as_counted(self) -> None:
        assert {w.id: w.phase for w in self.scheduler.workers.values()} == {
            p.id: p.phase for p in self.processes.values()
        }

    @invariant()
    def a_conversation_has_one_process_at_most(self) -> None:
        owned = [p.conversation for p in self.processes.values() if p.conversation is not None]
        assert len(owned) == len(set(owned))

    @invariant()
    def a_conversation_has_one_turn_at_most(self) -> None:
        held = [a.conversation for a in self.askers.values() if a.stage in OPEN | {Stage.SERVED}]
        for name in CONVERSATIONS:
            stages = [
                a.stage
                for a in self.askers.values()
                if a.conversation == name and a.stage in OPEN | {Stage.SERVED}
            ]
            assert all(stage is Stage.LINED for stage in stages[1:])
            assert Stage.LINED not in stages[:1]
            assert self.scheduler.holds(key(name)) == (name in held)

    @invariant()
    def every_ticket_ends_once(self) -> None:
        for asker in self.askers.values():
            assert asker.ends == (asker.stage in {Stage.SERVED, Stage.ENDED})

    @invariant()
    def nobody_waits_for_what_there_is(self) -> None:
        if self.now >= self.scheduler.deadline():
            return  # a Tick is due
        if not (needy := self.needy()):
            return
        full = len(self.processes) >= self.scheduler.limits.size
        assert full or len(self.loading()) >= self.scheduler.limits.starts
        spares = [p for p in self.processes.values() if p.phase is Phase.SPARE]
        assert not any(self.serves(spare, asker.want) for spare in spares for asker in needy)
        stopping = sum(p.phase is Phase.STOPPING for p in self.processes.values())
        room = max(0, self.scheduler.limits.size - len(self.processes))  # a smaller pool has too many
        if len(needy) > stopping + room:
            promised = {
                a.conversation
                for a in self.askers.values()
                if a.stage is Stage.ADMITTED and a.id < needy[-1].id
            }
            assert not [p for p in self.processes.values() if self.evictable(p, promised)]

    def needy(self) -> list[Asker]:
        """Return those who wait for a place."""
        coming = {w.ticket for w in self.scheduler.workers.values()}
        owned = {p.conversation for p in self.processes.values()}
        waiting = [a for a in self.askers.values() if a.stage is Stage.WAITING and a.id not in coming]
        return [a for a in waiting if a.conversation not in owned]

    def serves(self, spare: Process, want: Want | None) -> bool:
        assert want is not None
        return want.fresh and want.launch == spare.launch and spare.outfit in (None, want.outfit)

    def evictable(self, process: Process, promised: set[str]) -> bool:
        if process.conversation in promised:
            return False
        if process.phase is Phase.IDLE and process.pending:
            timeout = self.scheduler.limits.idle_timeout
            asked_for = any(
                a.conversation == process.conversation and a.stage is Stage.ADMITTED
                for a in self.askers.values()
            )
            return timeout > 0 and process.used + timeout <= self.now and not asked_for
        return process.phase in {Phase.SPARE, Phase.IDLE, Phase.PARKED}

    @invariant()
    def the_deadline_is_ahead_or_a_tick_at_it_gets_on(self) -> None:
        if (deadline := self.scheduler.deadline()) <= self.now:
            self.send(Tick())
            assert self.scheduler.deadline() > max(deadline, self.now)

    def teardown(self) -> None:
        """Let everything finish: every ticket comes to an end, and time alone then changes nothing."""
        for _ in range(20 * (len(self.askers) + len(self.processes) + 1)):
            self.ready(0)
            self.want(0, AGENT, None, resumes=False)
            self.prepared(failed=False)
            self.end_turn(0, "kept")
            self.exit_as_told(0)
            if (asker := self.asker(0, Stage.ADMITTED, hold=True)) is not None:
                self.end(asker)
                self.send(TicketCancelled(asker.id))
            if self.asker(0, *OPEN, Stage.SERVED) is None:
                break
            self.pass_time_to_the_deadline()
        assert self.asker(0, *OPEN, Stage.SERVED) is None
        assert all(a.ends == 1 for a in self.askers.values())
        for process in list(self.processes.values()):
            if process.pending:
                process.pending = False
                self.send(WorkerStirred(process.id, pending=False))
        self.settle()

    def settle(self) -> None:
        """Spares are as many as they should be, and of the right kind, once nothing happens any more."""
        for _ in range(200):
            moving = self.process(0, Phase.STARTING, Phase.STOPPING) or self.preparing()
            if moving is None and self.scheduler.deadline() == inf:
                break
            self.ready(0)
            self.prepared(failed=False)
            self.exit_as_told(0)
            self.pass_time_to_the_deadline()
        assert self.scheduler.deadline() == inf
        if self.scheduler.draining:
            return
        limits, figures = self.scheduler.limits, self.scheduler.figures()
        room = limits.size - figures.parked
        assert figures.spare == min(limits.spare_target, room)
        spares = [p for p in self.processes.values() if p.phase is Phase.SPARE]
        assert all(p.launch == self.scheduler.spare_launch for p in spares)
        wish = self.wishes[-1] if len(self.wishes) >= STABLE else fresh()
        outfit = wish.outfit if wish.launch == self.scheduler.spare_launch else None
        assert all(p.outfit in (None, outfit) for p in spares)
        few = limits.spare_target > 1 and len(self.wishes) < CERTAIN
        plain = [p for p in spares if p.outfit is None]
        assert outfit is None or len(plain) <= few

    def preparing(self) -> Process | None:
        return next((p for p in self.processes.values() if p.preparing), None)


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
