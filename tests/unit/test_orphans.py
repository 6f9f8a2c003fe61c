"""Orphans: they get this process for a parent, and none stays a zombie. In a process of its own: it lasts."""

import subprocess
import sys

LEAVES_ORPHANS = """
import asyncio, os, sys
from claude_coded import orphans

SHELL = "(sleep 0.1; exit 3) & (exec sleep 0.2) & echo $$"

async def main():
    orphans.PERIOD = 0.05
    async with orphans.adopted():
        shells = [await asyncio.create_subprocess_exec("sh", "-c", SHELL, stdout=-1) for _ in range(3)]
        adopted = 0
        for shell in shells:
            assert await shell.wait() == 0
        children = lambda: open(f"/proc/self/task/{os.getpid()}/children").read().split()
        adopted = len(children())
        own = await asyncio.create_subprocess_exec("sh", "-c", "exit 7")
        assert await own.wait() == 7
        while children():
            await asyncio.sleep(0.02)
        print(adopted)

asyncio.run(asyncio.wait_for(main(), 20))
"""


def test_orphans_are_adopted_and_reaped_and_children_keep_their_status() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAVES_ORPHANS], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
