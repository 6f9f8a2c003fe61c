"""How much a key may have, in virtual time."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.errors import KeyRateLimited, TooManyTurns
from claude_coded.http.limits import MINUTE, Bucket, KeyLimits, check

SECOND = 10**9


class Clock:
    """Nanoseconds that the test sets."""

    def __init__(self) -> None:
        self.now = 5 * SECOND

    def __call__(self) -> int:
        return self.now


def limits(clock: Clock, *, rate: int = 0, turns: int = 0) -> KeyLimits:
    made = KeyLimits(clock)
    made.configure(rate=rate, turns=turns)
    return made


# Requests a minute -----------------------------------------------------------------------------------------


def test_a_minutes_requests_may_come_at_once_and_then_one_by_one() -> None:
    bucket = Bucket()
    standings = [bucket.take(3, now=0) for _ in range(4)]
    assert [it.remaining for it in standings] == [2, 1, 0, 0]
    assert [it.wait for it in standings] == [0, 0, 0, 20]
    assert bucket.take(3, now=20 * SECOND).wait == 0
    assert bucket.take(3, now=20 * SECOND).wait == 20


def test_the_headers_are_openais() -> None:
    bucket = Bucket()
    bucket.take(120, now=0)
    assert bucket.take(120, now=0).headers() == {
        "x-ratelimit-limit-requests": "120",
        "x-ratelimit-remaining-requests": "118",
        "x-ratelimit-reset-requests": "1.000s",
    }


@given(
    rate=st.integers(1, 100_000),
    steps=st.lists(st.integers(0, 2 * MINUTE) | st.integers(0, SECOND), min_size=1, max_size=60),
)
def test_a_bucket_is_what_counting_drops_says(rate: int, steps: list[int]) -> None:
    """Against the plain model: so many tokens, of which one comes back every so often."""
    period = MINUTE // rate
    bucket, now, tokens = Bucket(), 0, rate * period  # the model counts in nanoseconds' worth of a token
    for step in steps:
        now += step
        tokens = min(rate * period, tokens + step)
        standing = bucket.take(rate, now)
        assert (standing.wait == 0) == (tokens >= period)
        if standing.wait:
            assert standing.wait == (period - tokens) / SECOND
            assert standing.remaining == 0
        else:
            tokens -= period
            assert standing.remaining == tokens // period
        assert standing.reset == (rate * period - tokens) / SECOND


@given(rate=st.integers(1, 1000))
def test_who_waits_as_told_is_let_in_and_nobody_sooner(rate: int) -> None:
    bucket = Bucket()
    for _ in range(rate):
        assert not bucket.take(rate, now=0).wait
    wait = round(bucket.take(rate, now=0).wait * SECOND)
    assert bucket.take(rate, now=wait - 1).wait
    assert not bucket.take(rate, now=wait).wait


def test_a_tenants_requests_cost_no_other_tenant_any() -> None:
    asked = limits(Clock(), rate=1)
    first, again, other = (asked.ask(tenant) for tenant in ("joe", "joe", "ann"))
    assert first is not None
    assert again is not None
    assert other is not None
    check(first)
    check(other)
    with pytest.raises(KeyRateLimited) as caught:
        check(again)
    assert caught.value.headers()["Retry-After"] == "60"


def test_a_wait_is_never_told_too_short() -> None:
    clock = Clock()
    asked = limits(clock, rate=60)
    for _ in range(60):
        asked.ask("joe")
    clock.now += SECOND // 10
    standing = asked.ask("joe")
    assert standing is not None
    assert standing.wait == 0.9
    with pytest.raises(KeyRateLimited) as caught:
        check(standing)
    assert caught.value.headers()["Retry-After"] == "1"


def test_with_no_limit_nothing_is_told() -> None:
    assert limits(Clock()).ask("joe") is None


def test_what_was_used_counts_when_the_limit_changes() -> None:
    asked = limits(Clock(), rate=2)
    asked.ask("joe")
    asked.ask("joe")
    asked.configure(rate=4, turns=0)
    standing = asked.ask("joe")
    assert standing is not None
    assert standing.wait > 0  # a minute's are used up


# Turns at once ---------------------------------------------------------------------------------------------


def test_a_key_has_so_many_turns_at_once_and_another_has_its_own() -> None:
    entered = limits(Clock(), turns=2)
    leave = entered.enter("joe")
    entered.enter("joe")
    with pytest.raises(TooManyTurns):
        entered.enter("joe")
    entered.enter("ann")
    leave()
    entered.enter("joe")


@given(st.lists(st.sampled_from(["joe", "ann", "leave"]), max_size=60), st.integers(0, 3))
def test_turns_are_counted_by_tenant(steps: list[str], most: int) -> None:
    entered = limits(Clock(), turns=most)
    running: list[tuple[str, Callable[[], None]]] = []
    for step in steps:
        if step == "leave":
            if running:
                running.pop(0)[1]()
            continue
        full = 0 < most <= sum(tenant == step for tenant, _ in running)
        try:
            running.append((step, entered.enter(step)))
        except TooManyTurns:
            assert full
        else:
            assert not full


def test_turns_that_began_without_a_limit_count_when_there_is_one() -> None:
    entered = limits(Clock())
    leave = entered.enter("joe")
    entered.configure(rate=0, turns=1)
    with pytest.raises(TooManyTurns):
        entered.enter("joe")
    leave()
    entered.enter("joe")
