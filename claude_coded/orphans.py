"""Descendants that have lost their parents: they get the daemon, which takes note of their end."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Final

from claude_coded.prctl import adopt_orphans

PERIOD: Final = 0.5
"""Seconds between two looks."""


@contextlib.asynccontextmanager
async def adopted() -> AsyncIterator[None]:
    """Adopt orphans, and reap them while the context lasts. Raises OSError."""
    adopt_orphans()
    reaping = asyncio.create_task(reap())
    try:
        yield
    finally:
        reaping.cancel()


async def reap() -> None:
    """Reap dead orphans, until cancelled.

    Nothing tells them from children that asyncio has started, but that it reaps those at once: who is dead at
    two looks is nobody else's.
    """
    last = 0
    while True:
        if (dead := _dead()) and dead == last:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(dead, os.WNOHANG)  # noqa: ASYNC222 - it does not block
            dead = _dead()
        last = dead
        await asyncio.sleep(PERIOD)


def _dead() -> int:
    """Return a dead child, which stays one; 0: there is none."""
    with contextlib.suppress(ChildProcessError):
        if (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            return found.si_pid
    return 0
