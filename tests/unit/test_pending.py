"""What a process has yet to answer."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from claude_coded.claude.wire import Answer
from claude_coded.errors import WorkerDied
from claude_coded.pending import Pending


def on_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @functools.wraps(test)
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 10))

    return run


def answer(name: str) -> Answer:
    return Answer(subtype="success", request_id=name)


@on_a_loop
async def test_each_answer_goes_to_who_asked_whatever_the_order() -> None:
    pending = Pending()
    first, second = pending.answer("1"), pending.answer("2")
    for name in ("2", "unknown", "1", "1"):
        pending.hear(answer(name))
    assert ((await first).request_id, (await second).request_id) == ("1", "2")
    assert not pending.unanswered


@on_a_loop
async def test_an_answer_that_nobody_waits_for_any_more_harms_nothing() -> None:
    pending = Pending()
    pending.answer("1").cancel()
    assert pending.unanswered  # the process owes it all the same
    pending.hear(answer("1"))
    assert not pending.unanswered


@on_a_loop
async def test_receipts_come_by_message_and_are_no_answers() -> None:
    pending = Pending()
    first, second = pending.receipt("a"), pending.receipt("b")
    assert not pending.unanswered
    pending.acknowledge(["b", "c"])
    assert (first.done(), second.done()) == (False, True)


@on_a_loop
async def test_a_death_is_told_to_all_who_wait_and_to_nobody_twice() -> None:
    pending = Pending()
    waiting: list[asyncio.Future[Any]] = [pending.answer("1"), pending.receipt("a")]
    pending.answer("2").cancel()
    pending.fail(WorkerDied("gone"))
    for future in waiting:
        with pytest.raises(WorkerDied, match="gone"):
            await future
    pending.fail(WorkerDied("again"))
    pending.hear(answer("1"))
    assert not pending.unanswered
