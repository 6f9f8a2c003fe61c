"""A turn's events as one reader takes them."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable

from claude_coded.errors import CodedError
from claude_coded.turn import AnswerEvent, TurnFailed, TurnFinished


class Batches:
    """A turn's batches of events, to be had with a time limit and no loss.

    The turn tells first, by an empty batch, that its worker was asked. That may take any time, so a task of
    its own gets it, unless the worker waits for it. After that the turn tells, by None, that nothing has come
    for long, and its reader runs it: a batch costs no task then.
    `on_end` is told once, before anybody has the turn's end, or when the turn is closed without one.
    """

    def __init__(
        self, events: AsyncIterator[list[AnswerEvent] | None], on_end: Callable[[], None] | None = None
    ) -> None:
        self._events = events
        self._on_end = on_end
        self._first: asyncio.Future[list[AnswerEvent] | None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._asked = False
        self._refused: list[AnswerEvent] | None = None  # instead of being asked; nobody has it yet
        self._reader: asyncio.Task[object] | None = None
        self._reading: asyncio.Future[None] | None = None
        self._failure: CodedError | None = None
        self._closing: asyncio.Future[None] | None = None
        self._on_close: Callable[[], None] | None = None
        self.closed = False

    def on_close(self, tell: Callable[[], None]) -> None:
        """Have it told when the turn has ended."""
        self._on_close = tell

    def fail(self, error: CodedError) -> None:
        """End the turn, if it has not ended; its reader is told of the error next."""
        if self._failure is None:
            self._failure = error
            self._closing = asyncio.ensure_future(self._close())

    async def ask(self) -> None:
        """Have the worker asked, by the caller: of a turn that need not wait for it. It costs no task."""
        self._refused = await anext(self._events)
        self._asked = True

    async def next(self, seconds: float) -> list[AnswerEvent] | None:
        """Return the next batch; None when none came in time, or the worker was not asked in so many seconds.

        The first one is empty where the model has begun to answer and nothing is there yet.
        """
        if failed := self._failed():
            return failed
        if not self._asked and not await self._is_asked(seconds):
            return None
        if failed := self._failed():
            return failed
        if refused := self._refused:
            self._refused = None
            return self._noted(refused)
        return await self._read()

    async def _is_asked(self, seconds: float) -> bool:
        """Return whether the worker has been asked within so many seconds."""
        if self._first is None:
            self._first = asyncio.get_running_loop().create_task(self._get_first())
        if not self._first.done():
            loop = asyncio.get_running_loop()
            self._waiter = waiter = loop.create_future()
            timer = loop.call_later(seconds, _wake, waiter) if seconds < math.inf else None
            try:
                await waiter
            finally:
                if timer is not None:
                    timer.cancel()
        if self._first.done() and self._failure is None:
            self._refused, self._asked = self._first.result(), True
        return self._first.done()

    async def _get_first(self) -> list[AnswerEvent] | None:
        try:
            return await anext(self._events)
        finally:
            _wake(self._waiter)  # its reader comes next, when this has ended

    async def _read(self) -> list[AnswerEvent] | None:
        self._reader = asyncio.current_task()
        self._reading = asyncio.get_running_loop().create_future()
        try:
            return self._noted(await anext(self._events))
        except asyncio.CancelledError:
            assert self._reader is not None
            if self._failure is None or self._reader.uncancel() > 0:  # that was not us
                raise
            return self._failed()
        finally:
            self._reading.set_result(None)
            self._reading = None

    def _noted(self, events: list[AnswerEvent] | None) -> list[AnswerEvent] | None:
        if events and isinstance(events[-1], TurnFinished | TurnFailed):
            self._tell_end()
        return events

    def _tell_end(self) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()

    def _failed(self) -> list[AnswerEvent]:
        return [TurnFailed(self._failure)] if self._failure is not None else []

    async def aclose(self) -> None:
        """End the turn, if it has not ended."""
        if self._closing is not None:
            await asyncio.shield(self._closing)
        else:
            await self._close()

    async def _close(self) -> None:
        try:
            if self._first is not None and not self._asked:
                self._first.cancel()
                with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                    await self._first
            if self._reading is not None and self._reader is not None:
                self._reader.cancel()
                await self._reading
            await self._events.aclose()  # type: ignore[attr-defined]
        finally:
            self.closed = True
            self._tell_end()
            if self._on_close is not None:
                self._on_close()


def _wake(waiter: "asyncio.Future[None] | None") -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
