"""A turn's batches: none is lost, the turn ends with its reader or by somebody else's wish."""

import asyncio
import functools
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, ParamSpec

import pytest

from claude_coded.errors import Interrupted
from claude_coded.http.batches import Batches
from claude_coded.turn import AnswerEvent, TextDelta, TurnFailed, TurnFinished

P = ParamSpec("P")
STOPPED = Interrupted("stopped")


def on_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 10))

    return run


@dataclass
class Source:
    """A turn whose batches the test makes."""

    given: asyncio.Queue[list[AnswerEvent] | None] = field(default_factory=asyncio.Queue)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    begun: bool = False
    ended: bool = False

    async def events(self) -> AsyncIterator[list[AnswerEvent] | None]:
        try:
            await self.asked.wait()
            self.begun = True
            yield []
            while True:
                yield await self.given.get()
        finally:
            await asyncio.sleep(0)  # as one that has something to conclude
            self.ended = True


def say(text: str) -> list[AnswerEvent]:
    return [TextDelta(text)]


async def begun() -> tuple[Source, Batches]:
    source = Source()
    batches = Batches(source.events())
    source.asked.set()
    source.given.put_nowait(say("first"))
    assert await batches.next(math.inf) == say("first")
    return source, batches


@on_a_loop
async def test_the_worker_may_be_asked_late() -> None:
    source = Source()
    batches = Batches(source.events())
    assert await batches.next(0) is None
    assert await batches.next(0) is None
    source.asked.set()
    source.given.put_nowait(say("first"))
    assert await batches.next(math.inf) == say("first")
    await batches.aclose()
    assert source.ended


@on_a_loop
async def test_who_need_not_wait_asks_for_himself() -> None:
    source = Source()
    source.asked.set()
    batches = Batches(source.events())
    tasks = asyncio.all_tasks()
    await batches.ask()
    assert source.begun
    source.given.put_nowait(say("first"))
    assert await batches.next(0) == say("first")
    assert asyncio.all_tasks() == tasks
    await batches.aclose()
    assert source.ended


@pytest.mark.parametrize("ahead", [True, False], ids=["by its reader", "by a task"])
@on_a_loop
async def test_a_turn_that_fails_before_its_worker_is_asked(*, ahead: bool) -> None:
    async def refused() -> AsyncIterator[list[AnswerEvent] | None]:
        yield [TurnFailed(STOPPED)]

    told: list[str] = []
    batches = Batches(refused(), lambda: told.append("end"))
    if ahead:
        await batches.ask()
    assert await batches.next(math.inf) == [TurnFailed(STOPPED)]
    assert told == ["end"]
    await batches.aclose()


@pytest.mark.parametrize("empty", [[], None], ids=["the model begins", "silence"])
@on_a_loop
async def test_an_empty_batch_is_no_end(empty: list[AnswerEvent] | None) -> None:
    source, batches = await begun()
    source.given.put_nowait(empty)
    source.given.put_nowait(say("a"))
    source.given.put_nowait([TurnFinished()])
    assert await batches.next(9) == empty
    assert await batches.next(9) == say("a")
    assert await batches.next(9) == [TurnFinished()]
    await batches.aclose()


@pytest.mark.parametrize("early", [True, False], ids=["before its first batch", "in the middle"])
@on_a_loop
async def test_a_reader_is_told_that_the_turn_was_ended(*, early: bool) -> None:
    source = Source()
    batches = Batches(source.events())
    if not early:
        source, batches = await begun()
    told: list[None] = []
    batches.on_close(lambda: told.append(None))
    reading = asyncio.ensure_future(batches.next(math.inf))
    await asyncio.sleep(0)
    batches.fail(STOPPED)
    assert await reading == [TurnFailed(STOPPED)]
    await batches.aclose()
    assert (source.ended, batches.closed, len(told)) == (True, True, 1)
    assert await batches.next(math.inf) == [TurnFailed(STOPPED)]


@pytest.mark.parametrize("alone", [True, False], ids=["in one batch", "in a later one"])
@on_a_loop
async def test_the_end_is_told_before_anybody_has_it(*, alone: bool) -> None:
    source = Source()
    source.asked.set()
    told: list[str] = []
    batches = Batches(source.events(), lambda: told.append("end"))
    if not alone:
        source.given.put_nowait(say("a"))
        assert await batches.next(math.inf) == say("a")
    assert told == []
    source.given.put_nowait([TurnFinished()])
    assert await batches.next(math.inf) == [TurnFinished()]
    assert told == ["end"]
    await batches.aclose()
    assert told == ["end"]


@on_a_loop
async def test_the_end_is_told_of_a_turn_that_never_began() -> None:
    told: list[str] = []
    batches = Batches(Source().events(), lambda: told.append("end"))
    await batches.aclose()
    assert told == ["end"]


@on_a_loop
async def test_one_that_is_not_read_can_be_ended() -> None:
    source, batches = await begun()
    batches.fail(STOPPED)
    await batches.aclose()
    assert source.ended
    assert await batches.next(math.inf) == [TurnFailed(STOPPED)]


@pytest.mark.parametrize("failed", [False, True], ids=["alone", "when the turn was ended"])
@on_a_loop
async def test_a_reader_that_leaves_ends_the_turn(*, failed: bool) -> None:
    source, batches = await begun()
    reading = asyncio.ensure_future(batches.next(math.inf))
    await asyncio.sleep(0)
    if failed:
        batches.fail(STOPPED)
        await asyncio.sleep(0)  # it is cancelled for that, and now
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await batches.aclose()
    assert source.ended
