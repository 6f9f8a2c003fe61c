"""A turn's events as one reader takes them."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable

from claude_coded.errors import CodedError
from claude_coded.turn import AnswerEvent, TurnFailed


class Batches:
    """A turn's batches of events, to be had with a time limit and no loss."""

    def __init__(self, events: AsyncIterator[list[AnswerEvent]]) -> None:
        self._events = events
        self._pending: asyncio.Future[list[AnswerEvent]] | None = None
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

    async def next(self, seconds: float) -> list[AnswerEvent] | None:
        """Return the next batch; None when none came within so many seconds."""
        if failed := self._failed():
            return failed
        if self._pending is None:
            self._pending = asyncio.ensure_future(anext(self._events))
        if seconds == math.inf:
            await asyncio.wait((self._pending,))
        else:
            await asyncio.wait((self._pending,), timeout=seconds)
            if not self._pending.done():
                return None
        if failed := self._failed():
            return failed
        pending, self._pending = self._pending, None
        return pending.result()

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
            if self._pending is not None:
                self._pending.cancel()
                with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                    await self._pending
            await self._events.aclose()  # type: ignore[attr-defined]
        finally:
            self.closed = True
            if self._on_close is not None:
                self._on_close()
