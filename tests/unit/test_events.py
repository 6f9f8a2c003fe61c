"""The stream of events: order, bounds, readers of any pace."""

import asyncio
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from claude_coded.control.stream import alive
from claude_coded.events import Batch, EventKind, Events


def stream(kept: int = 3) -> Events:
    return Events(lambda: 7.5, kept)


def tell(events: Events, *marks: str) -> None:
    for mark in marks:
        events.tell(EventKind.WORKER_STARTED, worker=mark)


def marks(batch: Batch) -> list[str]:
    return [event.fields["worker"] for event in batch.events]


def test_events_are_numbered_and_timed_and_fields_that_are_none_are_left_out() -> None:
    events = stream()
    events.tell(EventKind.TURN_TOOL, tool="Bash", failed=None)
    (event,) = events.since(0).events
    assert (event.number, event.at, event.kind, event.fields) == (1, 7.5, "turn.tool", {"tool": "Bash"})


def test_a_reader_is_told_how_many_it_has_missed() -> None:
    events = stream(kept=2)
    tell(events, *"abcde")
    assert (marks(events.since(0)), events.since(0).missed) == (["d", "e"], 3)
    assert (marks(events.since(3)), events.since(3).missed) == (["d", "e"], 0)
    assert (marks(events.since(4)), events.since(4).missed) == (["e"], 0)
    assert events.since(5) == Batch(())


def test_a_number_of_a_former_daemon_is_from_the_beginning() -> None:
    events = stream()
    tell(events, "a")
    assert marks(events.since(900)) == ["a"]


@given(st.integers(1, 5), st.lists(st.sampled_from(["tell", "read"]), max_size=60))
def test_a_reader_sees_or_misses_every_event_once(kept: int, steps: list[str]) -> None:
    events, number, seen, missed = stream(kept), 0, 0, 0
    for step in [*steps, "read"]:
        if step == "tell":
            tell(events, "it")
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
        tell(events, "before")

        async def follow(number: int) -> list[str]:
            return [mark async for batch in events.follow(number) for mark in marks(batch)]

        both = asyncio.gather(follow(0), follow(1))
        await asyncio.sleep(0)
        tell(events, "a")
        tell(events, "b")
        await asyncio.sleep(0)
        tell(events, "c")
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
        tell(events, "later")
        assert marks(events.since(0)) == ["later"]
        assert not events._waiters

    asyncio.run(scenario())


def test_a_reader_over_http_that_was_slow_is_told_with_the_next_event_what_it_has_missed() -> None:
    async def scenario() -> list[Any]:
        events = stream(kept=2)
        tell(events, "a")
        chunks = alive(events.follow(0))
        first = await anext(chunks)
        tell(events, *"bcdef")
        return [
            json.loads(line[6:]) for line in (first + await anext(chunks)).splitlines() if b"data" in line
        ]

    told = asyncio.run(scenario())
    assert [(it["number"], it["fields"]["worker"], it["missed"]) for it in told] == [
        (1, "a", 0),
        (5, "e", 3),
        (6, "f", 0),
    ]


def test_who_listens_hears_each_event_at_once() -> None:
    events, heard = stream(), list[tuple[str, dict[str, object]]]()
    events.tell(EventKind.WORKER_STARTED)
    events.listen(lambda kind, fields: heard.append((kind, dict(fields))))
    events.tell(EventKind.WORKER_READY, worker="w1", reason=None)
    assert heard == [(EventKind.WORKER_READY, {"worker": "w1"})]
