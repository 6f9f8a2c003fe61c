"""Spares that are prepared for what new conversations wish for, in virtual time."""

import pytest

from claude_coded.scheduler import (
    CERTAIN,
    LOADING,
    REFILL_DELAY,
    STABLE,
    Assign,
    Configured,
    Prepare,
    Spawn,
    Stop,
    StopReason,
    TicketCancelled,
    TurnEnded,
    WorkerExited,
    WorkerLoaded,
    WorkerPrepared,
    WorkerReady,
)
from tests.unit.test_scheduler import AGENT, CHAT, Bench, fresh, resume

KNOWN, OTHER = fresh(AGENT, "known"), fresh(AGENT, "other")


def expecting(count: int = STABLE, spares: int = 1, size: int = 8) -> Bench:
    """Return a scheduler that was wished the same so often, with loaded spares."""
    bench = Bench(size=size, spares=spares)
    for number in range(count):
        ticket, _ = bench.ask(f"gone-{number}", KNOWN)
        bench.send(TicketCancelled(ticket))
    bench.send(WorkerReady(1))
    bench.send(WorkerLoaded(1))
    for _ in range(spares - 1):
        bench.send(WorkerLoaded(bench.spare()))
    return bench


def prepared(count: int = STABLE, spares: int = 1, size: int = 8) -> Bench:
    """Return a scheduler that has prepared what it prepares of its spares."""
    bench = expecting(count, spares, size)
    while bench.now < 2000 and (actions := bench.wait(REFILL_DELAY)):
        (prepare,) = actions
        assert isinstance(prepare, Prepare)
        assert prepare.outfit == "known"
        assert bench.send(WorkerPrepared(prepare.worker)) == []
    return bench


def outfits(bench: Bench) -> list[object]:
    return [worker.outfit for worker in bench.scheduler.workers.values()]


@pytest.mark.parametrize(
    ("wishes", "spares", "expected"),
    [
        (STABLE - 1, 1, 0),
        (STABLE, 1, 1),
        (STABLE, 2, 1),
        (STABLE, 3, 2),
        (CERTAIN - 1, 3, 2),
        (CERTAIN, 3, 3),
    ],
)
def test_the_longer_the_same_is_wished_the_more_spares_are_prepared_for_it(
    wishes: int, spares: int, expected: int
) -> None:
    assert outfits(prepared(wishes, spares)).count("known") == expected


def test_nothing_is_prepared_where_wishes_say_nothing_of_it_or_differ() -> None:
    bench = Bench(size=8, spares=1)
    for number in range(3 * CERTAIN):
        ticket, _ = bench.ask(str(number), (KNOWN, OTHER)[number % 2] if number < CERTAIN else fresh())
        bench.send(TicketCancelled(ticket))
    bench.send(WorkerReady(1))
    bench.send(WorkerLoaded(1))
    assert bench.wait(10) == []


def test_resumes_are_no_wishes_for_spares() -> None:
    bench = expecting(STABLE - 1)
    bench.serve("a", resume("a"))
    bench.wait(10)
    assert outfits(bench) == [None, None]
    bench.ask("b", KNOWN)
    actions = bench.wait(REFILL_DELAY)
    assert actions == [Spawn(3, AGENT)]
    bench.send(WorkerReady(3))
    bench.send(WorkerLoaded(3))
    assert bench.wait(LOADING) == [Prepare(3, "known")]


def test_one_is_prepared_at_a_time_when_all_have_loaded_and_nobody_waits() -> None:
    bench = expecting(CERTAIN, spares=2)
    ticket, _ = bench.ask("a", resume("a"))
    assert bench.wait(REFILL_DELAY) == []
    bench.send(WorkerReady(3))
    assert bench.wait(REFILL_DELAY) == []
    bench.send(WorkerLoaded(3))
    bench.send(TurnEnded(ticket, keep=True))
    assert bench.scheduler.workers[1].preparing
    assert bench.wait(10) == []
    assert bench.send(WorkerPrepared(1)) == [Prepare(2, "known")]
    assert bench.send(WorkerPrepared(2)) == []
    assert bench.wait(10) == []


def test_a_wish_takes_what_was_prepared_for_it_before_what_was_not() -> None:
    bench = prepared(spares=2)
    number = next(w.id for w in bench.scheduler.workers.values() if w.outfit is not None)
    ticket, actions = bench.ask("a", KNOWN)
    assert actions == [Assign(ticket, number, hot=False)]
    ticket, actions = bench.ask("b", KNOWN)
    assert actions == [Assign(ticket, 3 - number, hot=False)]


def test_another_wish_takes_a_plain_spare_or_a_new_process_but_never_what_was_prepared() -> None:
    bench = prepared(spares=2)
    number = next(w.id for w in bench.scheduler.workers.values() if w.outfit is None)
    ticket, actions = bench.ask("a", OTHER)
    assert actions == [Assign(ticket, number, hot=False)]
    _, actions = bench.ask("b", OTHER)
    assert actions == [Spawn(3, AGENT)]


def test_another_wish_has_the_place_of_a_prepared_spare_where_there_is_no_other() -> None:
    bench = prepared(size=2)
    bench.serve("a", resume("a"))
    _, actions = bench.ask("b", OTHER)
    assert actions == [Stop(1, StopReason.CAPACITY)]
    assert bench.send(WorkerExited(1)) == [Spawn(3, AGENT)]


def test_a_spare_that_is_being_prepared_serves_such_a_wish_and_no_other() -> None:
    bench = expecting()
    assert bench.wait(REFILL_DELAY) == [Prepare(1, "known")]
    _, actions = bench.ask("a", OTHER)
    assert actions == [Spawn(2, AGENT)]
    ticket, actions = bench.ask("b", KNOWN)
    assert actions == [Assign(ticket, 1, hot=False)]
    assert bench.send(WorkerPrepared(1)) == []


def test_prepared_spares_of_former_wishes_are_replaced_in_a_quiet_moment() -> None:
    bench = prepared()
    ticket, _ = bench.ask("a", OTHER)
    assert bench.wait(10) == []
    bench.send(WorkerReady(2))
    assert bench.wait(REFILL_DELAY / 2) == []
    assert bench.wait(REFILL_DELAY / 2) == [Stop(1, StopReason.UNSUITED)]
    bench.send(TurnEnded(ticket, keep=True))
    assert bench.wait(REFILL_DELAY) == [Spawn(3, AGENT)]


def test_spares_of_another_launch_are_not_prepared() -> None:
    bench = expecting()
    for number in range(STABLE):
        ticket, _ = bench.ask(f"chat-{number}", fresh(CHAT, "chat"))
        bench.send(TicketCancelled(ticket))
    bench.send(WorkerReady(2))
    bench.send(WorkerLoaded(2))
    assert bench.wait(REFILL_DELAY) == [Stop(1, StopReason.UNSUITED)]
    assert bench.wait(REFILL_DELAY) == [Prepare(2, "chat")]


@pytest.mark.parametrize("killed", [True, False])
def test_after_a_preparation_that_failed_nothing_is_prepared_until_the_same_is_wished_as_often_again(
    killed: bool,
) -> None:
    bench = expecting()
    assert bench.wait(REFILL_DELAY) == [Prepare(1, "known")]
    if not killed:
        assert bench.send(WorkerPrepared(1, failed=True)) == [Stop(1, StopReason.UNUSABLE)]
    bench.send(WorkerExited(1))
    assert bench.wait(REFILL_DELAY) == [Spawn(2, AGENT)]
    bench.send(WorkerReady(2))
    bench.send(WorkerLoaded(2))
    assert bench.wait(10) == []
    for number in range(STABLE):
        bench.serve(f"a{number}", KNOWN) if number else bench.ask("a", KNOWN)
    bench.send(WorkerLoaded(bench.spare()))
    for worker in bench.scheduler.workers:
        bench.send(WorkerLoaded(worker))
    assert [type(action) for action in bench.wait(REFILL_DELAY)] == [Prepare]


def test_a_preparation_that_fails_under_a_turn_leaves_its_worker_to_that() -> None:
    bench = expecting()
    assert bench.wait(REFILL_DELAY) == [Prepare(1, "known")]
    ticket, _ = bench.ask("a", KNOWN)
    assert bench.send(WorkerPrepared(1, failed=True)) == []
    assert bench.send(TurnEnded(ticket, keep=False)) == [Stop(1, StopReason.UNUSABLE)]


def test_a_renewal_forgets_what_was_wished() -> None:
    bench = prepared()
    renewal = bench.send(Configured(bench.scheduler.limits, AGENT, renew=True))
    assert renewal == [Stop(1, StopReason.OUTDATED), Spawn(2, AGENT)]
    bench.send(WorkerExited(1))
    bench.send(WorkerReady(2))
    bench.send(WorkerLoaded(2))
    assert bench.wait(10) == []


def test_news_of_the_preparation_of_a_worker_that_is_gone_is_nothing() -> None:
    assert expecting().send(WorkerPrepared(99, failed=True)) == []
