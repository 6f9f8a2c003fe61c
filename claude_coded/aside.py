"""Long work beside the event loop: what a large request takes would make everybody's streams wait.

It has one thread: more would not be quicker, since one at a time runs Python. The loop cannot interrupt a
long call of a decoder there: who makes it cuts it into pieces. `SWITCH` is for the rest.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LARGE: Final = 256 * 1024
"""Bytes of a request whose work is done aside: less takes some milliseconds at most."""

SWITCH: Final = 0.0005
"""Seconds after which a thread lets others run who want to (see `sys.setswitchinterval`). The loop waits so
long up to four times for each piece of a stream, whenever it has read, written or slept."""


class Aside:
    """Runs functions, those for large requests in a thread of its own."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="aside")

    async def run(self, size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a function returns; `size` is that of the request that it is for, in bytes.

        Who is cancelled meanwhile leaves a function that has begun to its end.
        """
        if size < LARGE:
            return function(*args, **kwargs)
        # With a name in this frame, an error would hold itself by its traceback, and the request with it.
        return await asyncio.wrap_future(self._thread.submit(function, *args, **kwargs))

    def close(self) -> None:
        """Begin nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)
