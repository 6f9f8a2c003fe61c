"""The stream of events: order, bounds, readers of any pace."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from claude_coded.events import Batch, Events


def stream(kept: int = 3) -> Events:
    return Events(lambda: 7.5, kept)


def kinds(batch: Batch) -> list[str]:
    return [event.kind for event in batch.events]


def test_events_are_numbered_and_timed_and_fields_that_are_none_are_left_out() -> None:
    events = stream()
    events.tell("one", worker="w1", reason=None)
    (event,) = events.since(0).events
    assert (event.number, event.at, event.kind, event.fields) == (1, 7.5, "one", {"worker": "w1"})


def test_a_reader_is_told_how_many_it_has_missed() -> None:
    events = stream(kept=2)
    for kind in "abcde":
        events.tell(kind)
    assert (kinds(events.since(0)), events.since(0).missed) == (["d", "e"], 3)
    assert (kinds(events.since(3)), events.since(3).missed) == (["d", "e"], 0)
    assert (kinds(events.since(4)), events.since(4).missed) == (["e"], 0)
    assert events.since(5) == Batch(())


def test_a_number_of_a_former_daemon_is_from_the_beginning() -> None:
    events = stream()
    events.tell("a")
    assert kinds(events.since(900)) == ["a"]


@given(st.integers(1, 5), st.lists(st.sampled_from(["tell", "read"]), max_size=60))
def test_a_reader_sees_or_misses_every_event_once(kept: int, steps: list[str]) -> None:
    events, number, seen, missed = stream(kept), 0, 0, 0
    for step in [*steps, "read"]:
        if step == "tell":
            events.tell("it")
            continue
        batch = events.since(number)
        missed += batch.missed
        numbers = [event.number for event in batch.events]
        assert numbers == list(range(number + batch.missed + 1, events.last + 1))
        seen += len(numbers)
        number = numbers[-1] if numbers else number
    assert seen + missed == events.last


def test_followers_get_what_comes_and_end_when_it_is_closed() -> None:
    async def scenario() -> list[list[str]]:
        events = stream(kept=10)
        events.tell("before")

        async def follow(number: int) -> list[str]:
            return [kind async for batch in events.follow(number) for kind in kinds(batch)]

        both = asyncio.gather(follow(0), follow(1))
        await asyncio.sleep(0)
        events.tell("a")
        events.tell("b")
        await asyncio.sleep(0)
        events.tell("c")
        events.close()
        return list(await both)

    assert asyncio.run(scenario()) == [["before", "a", "b", "c"], ["a", "b", "c"]]


def test_a_follower_that_leaves_is_forgotten() -> None:
    async def scenario() -> None:
        events = stream()
        following = asyncio.ensure_future(anext(events.follow(0)))
        await asyncio.sleep(0)
        following.cancel()
        await asyncio.wait([following])
        events.tell("later")
        assert kinds(events.since(0)) == ["later"]
        assert not events._waiters

    asyncio.run(scenario())


def test_who_listens_hears_each_event_at_once() -> None:
    events, heard = stream(), list[tuple[str, dict[str, object]]]()
    events.tell("before")
    events.listen(lambda kind, fields: heard.append((kind, dict(fields))))
    events.tell("one", worker="w1", reason=None)
    assert heard == [("one", {"worker": "w1"})]
