"""A child process that cannot even be started."""

import asyncio
from pathlib import Path

import pytest

from claude_coded.process import Listener, Process


@pytest.mark.parametrize("command", [["true", "a\0b"], ["/nowhere/true"], ["true", "x" * 200_000]])
def test_what_cannot_be_started_has_ended(command: list[str]) -> None:
    async def start() -> None:
        process = Process(Listener(lambda _: None, lambda: None, lambda: False))
        with pytest.raises(OSError, match=r"null byte|No such file|too long"):
            await process.start(command, Path("/"), {"PATH": "/usr/bin:/bin"})
        assert await process.gone_within(5)

    asyncio.run(start())
