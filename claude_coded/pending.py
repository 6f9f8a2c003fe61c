"""What a process has been asked for and has not answered yet."""

import asyncio
from collections.abc import Iterable
from typing import Any, TypeVar

from claude_coded.claude.wire import Answer
from claude_coded.errors import CodedError

T = TypeVar("T")


class Pending:
    """Futures of answers to control requests, and of receipts of messages, by the ids that were sent."""

    def __init__(self) -> None:
        self._answers: dict[str, asyncio.Future[Answer]] = {}
        self._receipts: dict[str, asyncio.Future[None]] = {}

    @property
    def unanswered(self) -> bool:
        """Return whether a control request has no answer yet."""
        return bool(self._answers)

    def answer(self, request_id: str) -> asyncio.Future[Answer]:
        """Return what the answer to a request will come to."""
        return _kept(self._answers, request_id)

    def receipt(self, uuid: str) -> asyncio.Future[None]:
        """Return what is done when the process says that it has a message."""
        return _kept(self._receipts, uuid)

    def hear(self, answer: Answer) -> None:
        """Hand an answer to who waits for it."""
        if (waiting := self._answers.pop(answer.request_id, None)) and not waiting.done():
            waiting.set_result(answer)

    def acknowledge(self, uuids: Iterable[str]) -> None:
        """Tell who waits that the process has these messages."""
        for uuid in uuids:
            if (waiting := self._receipts.pop(uuid, None)) and not waiting.done():
                waiting.set_result(None)

    def fail(self, error: CodedError) -> None:
        """Tell everybody who waits that nothing will come."""
        waiting: list[asyncio.Future[Any]] = [*self._answers.values(), *self._receipts.values()]
        self._answers.clear()
        self._receipts.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(error)


def _kept(futures: dict[str, asyncio.Future[T]], name: str) -> asyncio.Future[T]:
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    # Nobody may be waiting any more when the process dies: the exception is then nobody's.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    futures[name] = future
    return future
