"""One turn for all requests of a key: followed while it runs, replayed after, in virtual time."""

import asyncio
import math
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claude_coded.errors import IdempotencyKeyReused, InvalidRequest, QueueFull, UpstreamError
from claude_coded.http.batches import Batches
from claude_coded.http.idempotency import Begun, Claim, Replays
from claude_coded.turn import AnswerEvent, TextDelta, TurnFailed, TurnFinished

T = TypeVar("T")
END: list[AnswerEvent] = [TurnFinished()]
FAILED: list[AnswerEvent] = [TurnFailed(UpstreamError("down"))]


def run(test: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(test, 10))


async def settle() -> None:
    """Let every task go on that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def said(text: str) -> list[AnswerEvent]:
    return [TextDelta(text)]


def claim(key: str = "k", body: bytes = b"{}", tenant: str = "joe") -> Claim:
    return Claim.of(tenant, key, "/v1/chat/completions", None, body)


@dataclass
class Source:
    """A turn whose batches the test gives; it notes how it ended."""

    number: int
    closed: bool = False
    given: "asyncio.Queue[list[AnswerEvent] | Exception]" = field(default_factory=asyncio.Queue)

    def give(self, *batches: list[AnswerEvent] | Exception) -> None:
        for batch in batches:
            self.given.put_nowait(batch)

    async def events(self) -> AsyncIterator[list[AnswerEvent]]:
        try:
            while True:
                batch = await self.given.get()
                if isinstance(batch, Exception):
                    raise batch
                yield batch
        finally:
            self.closed = True


class Desk:
    """The replays under test, with a clock that the test sets and the turns that were begun."""

    def __init__(self, **bounds: Any) -> None:
        self.time = 0.0
        self.replays = Replays(lambda: self.time, **bounds)
        self.sources: list[Source] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    async def begin(self) -> Begun:
        source = Source(len(self.sources))
        self.sources.append(source)
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return Begun(f"conv-{source.number}", f"{source.number}", source.number, Batches(source.events()))

    async def ask(self, claim: Claim | None) -> Begun:
        return await self.replays.begin(claim, self.begin)

    async def answered(self, claim: Claim, *batches: list[AnswerEvent]) -> Begun:
        """Have a turn run to its end with one reader."""
        begun = await self.ask(claim)
        self.sources[-1].give(*batches, END)
        assert await read(begun) == [*batches, END]
        return begun


async def read(begun: Begun) -> list[list[AnswerEvent]]:
    """Read to the end, and close."""
    batches: list[list[AnswerEvent]] = []
    while not batches or not isinstance(batches[-1][-1], TurnFinished | TurnFailed):
        batch = await begun.batches.next(math.inf)
        assert batch is not None
        batches.append(batch)
    await begun.batches.aclose()
    return batches


# Claims ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "schl\u00fcssel", "a\tb", "a\n"])
def test_a_key_is_of_visible_ascii(key: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Claim.of("joe", key, b"{}")
    assert caught.value.param == "Idempotency-Key"


def test_every_part_of_the_content_counts() -> None:
    contents: list[tuple[str | bytes | None, ...]] = [
        ("/a", b"{}"),
        ("/a", b"{ }"),
        ("/b", b"{}"),
        ("/a{}", b""),
        ("/a", None, b"{}"),
        ("/a", b"", b"{}"),
    ]
    assert len({Claim.of("joe", "k" * 255, *content).digest for content in contents}) == len(contents)


# Turns -------------------------------------------------------------------------------------------------


def test_without_a_key_every_request_is_a_turn_with_its_own_batches() -> None:
    async def test() -> None:
        desk = Desk()
        begun = [await desk.ask(None), await desk.ask(None)]
        assert len(desk.sources) == 2
        assert all(isinstance(item.batches, Batches) for item in begun)

    run(test())


def test_a_finished_turn_is_replayed_batch_by_batch_with_its_ids() -> None:
    async def test() -> None:
        desk = Desk()
        first = await desk.answered(claim(), said("a"), said("b"))
        assert desk.sources[0].closed
        again = await desk.ask(claim())
        assert (again.serial, again.created, again.conversation) == (
            first.serial,
            first.created,
            first.conversation,
        )
        assert await read(again) == [said("a"), said("b"), END]
        assert len(desk.sources) == 1

    run(test())


def test_a_running_turn_is_followed_from_its_first_batch_on() -> None:
    async def test() -> None:
        desk = Desk()
        first = await desk.ask(claim())
        desk.sources[0].give(said("a"))
        assert await first.batches.next(math.inf) == said("a")
        second = await desk.ask(claim())
        assert second.serial == first.serial
        assert await second.batches.next(math.inf) == said("a")
        assert await second.batches.next(0) is None
        waiting = [asyncio.ensure_future(read(begun)) for begun in (first, second)]
        await settle()
        desk.sources[0].give(said("b"), END)
        assert await asyncio.gather(*waiting) == [[said("b"), END]] * 2
        assert len(desk.sources) == 1

    run(test())


def test_requests_at_once_share_a_turn_that_has_not_begun() -> None:
    async def test() -> None:
        desk = Desk()
        desk.gate.clear()
        asked = [asyncio.ensure_future(desk.ask(claim())) for _ in range(3)]
        await settle()
        asked[0].cancel()
        await settle()
        desk.gate.set()
        desk.sources[0].give(END)
        assert [await read(await item) for item in asked[1:]] == [[END]] * 2
        assert len(desk.sources) == 1

    run(test())


def test_a_turn_goes_on_for_those_who_follow_and_ends_with_the_last() -> None:
    async def test() -> None:
        desk = Desk()
        first, second = await desk.ask(claim()), await desk.ask(claim())
        reader = asyncio.ensure_future(first.batches.next(math.inf))
        await settle()
        reader.cancel()
        await first.batches.aclose()
        desk.sources[0].give(said("a"))
        assert await second.batches.next(math.inf) == said("a")
        assert await second.batches.next(0) is None  # it waits for more as it leaves
        await second.batches.aclose()
        assert desk.sources[0].closed
        third = await desk.ask(claim())
        assert third.conversation == "conv-1"
        await third.batches.aclose()

    run(test())


def test_a_turn_that_all_leave_before_it_has_begun_is_ended() -> None:
    async def test() -> None:
        desk = Desk()
        desk.gate.clear()
        asked = asyncio.ensure_future(desk.ask(claim()))
        await settle()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        desk.gate.set()
        await desk.answered(claim(), said("anew"))
        assert [source.closed for source in desk.sources] == [False, True]  # the first had never begun

    run(test())


def test_a_turn_that_fails_is_told_to_all_who_follow_and_then_forgotten() -> None:
    async def test() -> None:
        desk = Desk()
        first, second = await desk.ask(claim()), await desk.ask(claim())
        desk.sources[0].give(said("a"), FAILED)
        assert await read(first) == [said("a"), FAILED]
        assert desk.sources[0].closed
        await desk.answered(claim(), said("anew"))
        assert await read(second) == [said("a"), FAILED]

    run(test())


@pytest.mark.parametrize("failure", [QueueFull("full"), RuntimeError("a bug")])
def test_what_goes_wrong_before_the_turn_has_begun_is_told_to_all_and_forgotten(failure: Exception) -> None:
    async def test() -> None:
        desk = Desk()
        desk.gate.clear()
        desk.failure = failure
        asked = [asyncio.ensure_future(desk.ask(claim())) for _ in range(2)]
        await settle()
        desk.gate.set()
        assert await asyncio.gather(*asked, return_exceptions=True) == [failure, failure]
        desk.failure = None
        await desk.answered(claim())

    run(test())


def test_a_bug_in_the_middle_is_told_to_all_and_forgotten() -> None:
    async def test() -> None:
        desk = Desk()
        followers = [await desk.ask(claim()) for _ in range(2)]
        bug = RuntimeError("a bug")
        desk.sources[0].give(said("a"), bug)
        reads = [read(begun) for begun in followers]
        assert await asyncio.gather(*reads, return_exceptions=True) == [bug, bug]
        await desk.answered(claim())
        for begun in followers:
            await begun.batches.aclose()

    run(test())


def test_another_request_under_the_key_is_refused_while_the_key_is_known() -> None:
    async def test() -> None:
        desk = Desk()
        first = await desk.ask(claim())
        with pytest.raises(IdempotencyKeyReused) as caught:
            await desk.ask(claim(body=b"[]"))
        assert (caught.value.status, caught.value.param) == (409, "Idempotency-Key")
        desk.sources[0].give(END)
        await read(first)
        with pytest.raises(IdempotencyKeyReused):
            await desk.ask(claim(body=b"[]"))
        desk.time = 600.0
        await desk.answered(claim(body=b"[]"))

    run(test())


def test_keys_are_the_tenants_own() -> None:
    async def test() -> None:
        desk = Desk()
        await desk.answered(claim(tenant="joe"))
        await desk.answered(claim(tenant="ann", body=b"[]"))
        assert len(desk.sources) == 2

    run(test())


def test_a_turn_is_kept_from_its_end_on_and_no_longer() -> None:
    async def test() -> None:
        desk = Desk()
        begun = await desk.ask(claim())
        desk.time = 5000.0
        desk.sources[0].give(END)
        await read(begun)
        desk.time = 5599.9
        late = await desk.ask(claim())
        desk.time = 5600.0
        await desk.answered(claim())
        assert await read(late) == [END]  # who has it keeps it
        assert len(desk.sources) == 2

    run(test())


def test_the_oldest_finished_turns_make_room() -> None:
    async def test() -> None:
        desk = Desk(max_turns=2)
        running = await desk.ask(claim("running"))
        for key in "abc":
            await desk.answered(claim(key))
        for key in "cb":
            assert await read(await desk.ask(claim(key))) == [END]
        assert len(desk.sources) == 4
        await desk.answered(claim("a"))
        assert (await desk.ask(claim("running"))).conversation == running.conversation
        assert len(desk.sources) == 5

    run(test())


def test_the_bytes_that_are_kept_are_bounded() -> None:
    async def test() -> None:
        desk = Desk(max_bytes=20_000)
        for key in "abc":
            await desk.answered(claim(key), said("x" * 8_000))
        await desk.answered(claim("a"), said("x" * 8_000))
        await desk.answered(claim("huge"), said("x" * 30_000))
        await desk.answered(claim("huge"))
        assert len(desk.sources) == 6

    run(test())


@pytest.mark.parametrize("bounds", [{"max_turns": 4}, {"max_bytes": 36_000}], ids=["turns", "bytes"])
def test_who_has_most_makes_room(bounds: dict[str, int]) -> None:
    async def test() -> None:
        desk = Desk(**bounds)
        await desk.answered(claim("old", tenant="ann"), said("x" * 8_000))
        for key in "abcdefgh":
            await desk.answered(claim(key, tenant="joe"), said("x" * 8_000))
        assert len(desk.sources) == 9
        assert await read(await desk.ask(claim("old", tenant="ann"))) == [said("x" * 8_000), END]
        assert await read(await desk.ask(claim("h", tenant="joe"))) == [said("x" * 8_000), END]
        assert len(desk.sources) == 9
        await desk.answered(claim("a", tenant="joe"))  # that one is not kept any more
        desk.time = 600.0
        await desk.answered(claim("old", tenant="ann"))

    run(test())


def test_a_follower_leaves_once() -> None:
    async def test() -> None:
        desk = Desk()
        first, second = await desk.ask(claim()), await desk.ask(claim())
        await first.batches.aclose()
        await first.batches.aclose()
        desk.sources[0].give(END)
        assert await read(second) == [END]

    run(test())


# At random ---------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(0, 1)),
        st.tuples(st.sampled_from(("next", "wait", "leave", "drop")), st.integers(0, 5)),
        st.tuples(st.just("give"), st.integers(0, 5)),
        st.tuples(st.sampled_from(("end", "fail", "settle")), st.integers(0, 3)),
    ),
    max_size=60,
)


@dataclass
class Reader:
    """A reader of the walk: what it got, and the turn that it reads."""

    begun: Begun
    source: Source
    got: list[list[AnswerEvent]] = field(default_factory=list)
    waiting: "asyncio.Task[list[AnswerEvent] | None] | None" = None

    @property
    def over(self) -> bool:
        return bool(self.got) and isinstance(self.got[-1][-1], TurnFinished | TurnFailed)


class Walk:
    """Readers of two keys that come, wait, read and go in any order."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.readers: list[Reader] = []
        self.gone: list[Reader] = []
        self.written: dict[int, list[list[AnswerEvent]]] = {}

    async def step(self, action: str, number: int) -> None:
        if action == "join":
            await self.join(f"k{number}")
        elif action == "settle":
            await settle()
        elif action in {"give", "end", "fail"}:
            self.write(action, number)
        elif self.readers:
            await self.act(action, self.readers[number % len(self.readers)])

    async def join(self, key: str) -> None:
        begun = await self.desk.ask(claim(key))
        self.readers.append(Reader(begun, self.desk.sources[begun.created]))

    def write(self, action: str, number: int) -> None:
        batch = {"end": END, "fail": FAILED}.get(action) or said(str(number))
        open_ = [source for source in self.desk.sources if not self.is_written(source)]
        if open_:
            source = open_[number % len(open_)]
            self.written.setdefault(source.number, []).append(batch)
            source.give(batch)

    def is_written(self, source: Source) -> bool:
        return any(batch in (END, FAILED) for batch in self.written.get(source.number, []))

    async def act(self, action: str, reader: Reader) -> None:
        if action in {"leave", "drop"}:
            await self.leave(reader, wait=action == "leave")
        elif reader.waiting is not None:
            await settle()
            self.collect(reader)
        elif not reader.over:
            task = asyncio.ensure_future(reader.begun.batches.next(0 if action == "next" else math.inf))
            reader.waiting = task
            await asyncio.sleep(0)

    def collect(self, reader: Reader) -> None:
        if reader.waiting is not None and reader.waiting.done():
            batch, reader.waiting = reader.waiting.result(), None
            reader.got += [batch] if batch is not None else []

    async def leave(self, reader: Reader, *, wait: bool) -> None:
        self.collect(reader)
        if reader.waiting is not None:
            reader.waiting.cancel()
            await asyncio.wait((reader.waiting,))
        self.readers.remove(reader)
        self.gone.append(reader)
        closing = asyncio.ensure_future(reader.begun.batches.aclose())
        if wait:
            await closing
            followed = any(other.source is reader.source for other in self.readers)
            assert reader.source.closed or followed or not reader.got

    def check(self) -> None:
        for reader in [*self.readers, *self.gone]:
            assert reader.got == self.written.get(reader.source.number, [])[: len(reader.got)]
        for reader in self.readers:
            if reader.source.closed:  # it was closed only because it was over
                assert self.is_written(reader.source)

    async def finish(self) -> None:
        """End every turn; whoever still reads gets all of its own."""
        for source in self.desk.sources:
            if not self.is_written(source):
                self.written.setdefault(source.number, []).append(END)
                source.give(END)
        for reader in self.readers:
            while not reader.over:
                if reader.waiting is None:
                    reader.waiting = asyncio.ensure_future(reader.begun.batches.next(math.inf))
                await asyncio.wait((reader.waiting,))
                self.collect(reader)
            await reader.begun.batches.aclose()
            assert reader.got == self.written[reader.source.number]
            assert reader.source.closed
        await settle()


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_whatever_the_order_everybody_reads_one_turn_from_its_beginning(steps: list[tuple[str, int]]) -> None:
    async def test() -> None:
        walk = Walk()
        for action, number in steps:
            await walk.step(action, number)
            walk.check()
        await walk.finish()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        assert not tasks

    asyncio.run(test())
