"""A child process that cannot even be started."""

import asyncio
import sys
from pathlib import Path

import psutil
import pytest

from claude_coded.process import Listener, Process
from tests.support.daemon import command_line, eventually


@pytest.mark.parametrize("command", [["true", "a\0b"], ["/nowhere/true"], ["true", "x" * 200_000]])
def test_what_cannot_be_started_has_ended(command: list[str]) -> None:
    async def start() -> None:
        process = Process(Listener(lambda _: None, lambda: None, lambda: False))
        with pytest.raises(OSError, match=r"null byte|No such file|too long"):
            await process.start(command, Path("/"), {"PATH": "/usr/bin:/bin"})
        assert await process.gone_within(5)

    asyncio.run(start())


# Popen complains that nobody has waited for it, which is so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there are no child watchers any more")
def test_what_runs_but_cannot_be_watched_is_ended() -> None:
    watcher = asyncio.get_child_watcher()

    class Unwatched(asyncio.PidfdChildWatcher):
        """What tells of the ends of children, on a machine that has no room for it."""

        def add_child_handler(self, *_: object) -> None:
            raise RuntimeError("can't start new thread")

    async def start() -> None:
        process = Process(Listener(lambda _: None, lambda: None, lambda: False))
        with pytest.raises(BlockingIOError, match="can't start new thread"):
            await process.start(["sleep", "1976"], Path("/"), {"PATH": "/usr/bin:/bin"})
        for _ in range(100):  # its pipes are connected by then
            await asyncio.sleep(0)

    asyncio.set_child_watcher(Unwatched())
    try:
        asyncio.run(start())
    finally:
        asyncio.set_child_watcher(watcher)
    eventually(lambda: "sleep 1976" not in map(command_line, psutil.Process().children()))
