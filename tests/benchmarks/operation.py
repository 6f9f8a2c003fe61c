"""Benchmarks of the daemon as a service: its start, and its control socket while it is busy."""

import contextlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from tests.benchmarks.harness import (
    ANSWER_TIMEOUT,
    START_TIMEOUT,
    BenchmarkError,
    Daemon,
    HttpConversation,
    end,
)
from tests.benchmarks.measure import Figure

READY_LIMIT: Final = 700.0
"""Milliseconds from the start of the process to READY=1, all of it in the page cache."""

CONTROL_LIMIT: Final = 50.0
"""Milliseconds for a control request while STREAMS streams run: of nineteen in twenty."""

STREAMS: Final = 50
SCRIPT: Final = "[[delay 40]] [[words 2000]]"
"""25 pieces a second, as models write."""

ROOT: Final = Path(__file__).parents[2]
BUSY_SETTINGS: Final = {"POOL_SIZE": str(STREAMS), "CLAUDE_CODED_SPARE_WORKERS": "0"}


def start_to_ready(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure starts of a daemon like this one, which knows its CLI already, against those of Python."""
    with tempfile.TemporaryDirectory() as folder:
        _start(daemon, Path(folder))  # the CLI's version is asked for once
        taken = [_start(daemon, Path(folder)) for _ in range(3 if quick else 12)]
        bare = [_bare_start(daemon) for _ in taken]
    name = "start-to-ready"
    floor = median(bare) * 1000
    yield Figure(name, "from the start to READY=1", median(taken) * 1000, "ms", READY_LIMIT, floor=floor)
    yield Figure(name, "ratio to an empty Python program", median(taken) * 1000 / floor, "", floor=1.0)


def _start(daemon: Daemon, folder: Path) -> float:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        place = folder / "notify"
        place.unlink(missing_ok=True)
        manager.bind(str(place))
        manager.settimeout(START_TIMEOUT)
        own = {
            "NOTIFY_SOCKET": str(place),
            "PORT": "0",
            "CLAUDE_CODED_STATE_DIR": str(folder / "state"),
            "CLAUDE_CODED_SOCKET": str(folder / "control.sock"),
        }
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "claude_coded", "serve"],
            env={**daemon.command.environment, **own},
            cwd=folder,
            stderr=subprocess.DEVNULL,
        )
        try:
            while b"READY=1" not in manager.recv(4096):
                pass
            return time.perf_counter() - started
        finally:
            end(process)


def _bare_start(daemon: Daemon) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], env=daemon.command.environment, check=True)
    return time.perf_counter() - started


def control_under_load(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure control requests while many conversations stream, each from a CLI of its own."""
    with ExitStack() as stack:
        running = threading.Semaphore(0)
        for _ in range(STREAMS):
            conversation = stack.enter_context(closing(daemon.converse()))
            stack.callback(_streaming(conversation, running).join, ANSWER_TIMEOUT)
        for _ in range(STREAMS):
            if not running.acquire(timeout=2 * ANSWER_TIMEOUT):
                raise BenchmarkError("not all streams have begun")
        times = {path: _asked(daemon.control, path, 20 if quick else 100) for path in ("status", "workers")}
        busy = daemon.health()["pool"]["busy"]
    if busy != STREAMS:
        raise BenchmarkError(f"{busy} streams ran, not {STREAMS}")
    for path, taken in times.items():
        name = "control-under-load"
        yield Figure(name, f"{path}, {STREAMS} streams, median", median(taken) * 1000, "ms")
        worst = quantiles(taken, n=20)[-1] * 1000
        yield Figure(name, f"{path}, {STREAMS} streams, 95 of 100", worst, "ms", CONTROL_LIMIT)


def _streaming(conversation: HttpConversation, running: threading.Semaphore) -> threading.Thread:
    """Let a conversation stream; the thread ends with its connection."""

    def stream() -> None:
        conversation.ask("hello")
        running.release()
        with contextlib.suppress(OSError, BenchmarkError):
            conversation.ask(SCRIPT)

    thread = threading.Thread(target=stream, daemon=True)
    thread.start()
    return thread


def _asked(path: Path, resource: str, count: int) -> list[float]:
    command = [sys.executable, "-m", "tests.benchmarks.asking", str(path), resource, str(count)]
    asking = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return [float(line) for line in asking.stdout.split()]
