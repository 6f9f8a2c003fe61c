"""A server's process: its place, its start, its end, and what it leaves behind."""

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from claude_coded.claude.launch import find_binary
from tests.benchmarks.alternatives.client import Asker
from tests.benchmarks.alternatives.servers import Server, Spot
from tests.benchmarks.harness import API_KEY, BenchmarkError, end

START_SECONDS: Final = 60.0
LEFT_SECONDS: Final = 2.0
"""How long what a server has started may outlive it before it counts as left behind."""

NOWHERE: Final = "http://127.0.0.1:9"
"""A proxy that refuses every connection: who tries to leave the machine fails at once."""

SUBREAPER: Final = 36
"""PR_SET_CHILD_SUBREAPER: what a dead server leaves behind becomes ours, so that we see and end it."""


def adopt_orphans() -> None:
    """Become the parent of what our descendants leave behind."""
    if ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0):
        raise BenchmarkError(f"no subreaper: {os.strerror(ctypes.get_errno())}")


def clean_environment(spot: Spot, model_url: str) -> dict[str, str]:
    """Return the environment that all servers and the bare CLI have."""
    return {
        "PATH": f"{spot.claude.parent}:{os.environ['PATH']}",
        "HOME": str(spot.home),
        "LANG": "C.UTF-8",
        "IS_SANDBOX": "1",
        "ANTHROPIC_API_KEY": API_KEY,
        "ANTHROPIC_BASE_URL": model_url,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "1",
        "DISABLE_AUTOUPDATER": "1",
        "HTTP_PROXY": NOWHERE,
        "HTTPS_PROXY": NOWHERE,
        "NO_PROXY": "127.0.0.1,localhost",
    }


def settle_in(directory: Path) -> Spot:
    """Make a place to run in. Those of one directory share nothing but the CLI."""
    binaries = directory.parent / "bin"
    binaries.mkdir(parents=True, exist_ok=True)
    claude = binaries / "claude"
    if not claude.exists():
        claude.symlink_to(find_binary(None, shutil.which))
    with socket.create_server(("127.0.0.1", 0)) as free:
        spot = Spot(directory, free.getsockname()[1], claude)
    for place in (spot.home, spot.work):
        place.mkdir(parents=True, exist_ok=True)
    return spot


@dataclass(slots=True)
class Running:
    """A running server, and how it is asked. `left` is known after its end: what outlived it."""

    server: Server
    spot: Spot
    process: "subprocess.Popen[bytes]"
    asker: Asker
    left: int = 0

    def memory(self) -> float:
        """Return what the server and all below it hold, in MB; what they share counts once."""
        server = psutil.Process(self.process.pid)
        total = 0
        for process in (server, *server.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total / 1e6


@contextlib.contextmanager
def serving(server: Server, program: Path, spot: Spot, model_url: str) -> Iterator[Running]:
    """Run a server until the block is left; then end it and all that it has started."""
    variables = clean_environment(spot, model_url) | dict(server.environment(spot))
    before = {process.pid for process in _descendants()}
    with (spot.directory / "log").open("ab") as log:
        process = subprocess.Popen(
            server.command(program, spot),
            cwd=spot.work,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    asker = Asker(spot.port, server.model, server.named, server.base)
    running = Running(server, spot, process, asker)
    try:
        _await_serving(running)
        yield running
    finally:
        end(process)
        running.left = _end_others(before)


def _await_serving(running: Running) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and running.process.poll() is None:
        if running.asker.knock():
            return
        time.sleep(0.05)
    log = (running.spot.directory / "log").read_text(errors="replace")[-1000:]
    raise BenchmarkError(f"{running.server.name} did not start: {log}")


def _end_others(before: set[int]) -> int:
    """End our descendants but those from before; return how many had not ended by themselves."""

    def others() -> list[psutil.Process]:
        return [process for process in _descendants() if process.pid not in before and _lives(process)]

    until(lambda: not others(), LEFT_SECONDS)
    left = others()
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    until(lambda: not others(), LEFT_SECONDS)
    return len(left)


def _lives(process: psutil.Process) -> bool:
    """Tell whether a process lives; one that is dead and ours is reaped."""
    with contextlib.suppress(psutil.NoSuchProcess):
        if process.status() != psutil.STATUS_ZOMBIE:
            return True
        if process.ppid() == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
    return False


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def until(check: Callable[[], bool], seconds: float, every: float = 0.02) -> float | None:
    """Return the seconds until a check holds, None if it does not within that time."""
    started = time.monotonic()
    while not check():
        if time.monotonic() - started > seconds:
            return None
        time.sleep(every)
    return time.monotonic() - started


def install_all(servers: Sequence[Server], tell: Callable[[str], None]) -> Mapping[str, Path]:
    """Install the servers; return where each is."""
    places = {}
    for server in servers:
        tell(f"installing {server.package}")
        places[server.name] = server.install()
    return places
