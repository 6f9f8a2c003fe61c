"""Long work beside the loop."""

import asyncio
import gc
import threading
import weakref

import pytest

from claude_coded.aside import LARGE, Aside
from tests.support.daemon import eventually


def test_only_the_work_for_a_large_request_has_a_thread() -> None:
    async def test() -> None:
        aside = Aside()
        assert await aside.run(LARGE - 1, threading.get_ident) == threading.get_ident()
        assert await aside.run(LARGE, threading.get_ident) != threading.get_ident()
        aside.close()

    asyncio.run(test())


@pytest.mark.parametrize("size", [1, LARGE])
def test_what_a_function_raises_is_raised(size: int) -> None:
    async def test() -> None:
        aside = Aside()
        with pytest.raises(ValueError, match="no number"):
            await aside.run(size, fail, "no number")
        aside.close()

    asyncio.run(test())


class Failure(Exception):
    """An error that can be referred to weakly."""


def test_an_error_holds_its_request_no_longer_than_it_is_looked_at() -> None:
    """The collector counts objects, not bytes: some large bodies would wait for it."""

    def refuse(_: bytes) -> None:
        raise Failure

    async def test() -> weakref.ref[Failure]:
        aside = Aside()
        try:  # pytest's own would hold it, too
            await aside.run(LARGE, refuse, b"a body")
        except Failure as failure:
            return weakref.ref(failure)
        finally:
            aside.close()
        raise AssertionError

    gc.disable()
    try:
        error = asyncio.run(test())
        eventually(lambda: error() is None)  # for a moment the thread still has it
    finally:
        gc.enable()


def fail(why: str) -> None:
    raise ValueError(why)


def test_the_loop_goes_on_meanwhile_and_nothing_begins_after_the_end() -> None:
    async def test() -> None:
        aside, going = Aside(), threading.Event()
        running = asyncio.ensure_future(aside.run(LARGE, going.wait, 10))
        waiting = asyncio.ensure_future(aside.run(LARGE, fail, "never"))
        await asyncio.sleep(0)
        aside.close()
        going.set()  # which the loop would never come to, did it wait
        assert await running
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(test())
