"""A child process with its pipes: what asyncio reads is handed on at once, with no stream buffers between."""

import asyncio
import contextlib
import errno
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from claude_coded.cgroups import MARK, Group, kill_marked

SLICE: Final = 0.002
"""Seconds between two reads of a dense stream: what comes meanwhile is read, and sent on, in one go."""

STDERR_KEPT: Final = 8192
"""Bytes of stderr that are kept for error messages."""

LAST_WORDS: Final = 0.5
"""Seconds for what is left in the pipes of an ended process: a child of its own may hold them open."""

MUTE: Final = 1.0
"""Seconds that a process may live on with its output closed."""

SCARCE: Final = 1.0
"""Seconds between two tries to end what a killed process has left, where the machine has no room for one."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Whom a process tells: of its output, of its end. `full` says whether the reader has enough for now."""

    received: Callable[[bytes], None]
    ended: Callable[[], None]
    full: Callable[[], bool]


class Process:
    """One process, from its start to its end."""

    def __init__(self, listener: Listener, group: Group | None = None) -> None:
        self.pid: int | None = None
        self.listener = listener
        self._group = group
        self._mark = str(uuid4())
        self._transport: asyncio.SubprocessTransport | None = None
        self._started = asyncio.Event()  # or failed to
        self._gone = asyncio.Event()
        self._clean = asyncio.Event()  # nothing that it started is left
        self._clearing: asyncio.Task[None] | None = None
        self._stderr: deque[bytes] = deque(maxlen=64)
        self._paused = False
        self._read_at = 0.0
        self._slice: asyncio.TimerHandle | None = None

    async def start(self, command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> None:
        """Start it, in a session of its own. Raises OSError."""
        environment = {**environment, MARK: self._mark}
        try:
            transport, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: _Pipes(self), *command, cwd=directory, env=environment, start_new_session=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            self._gone.set()
            self.clear()
            raise _as_os_error(error) from error
        finally:
            self._started.set()
        self._transport = transport
        if (stdout := self._pipe(1)) is not None:
            stdout.set_protocol(_Output(self, stdout.get_protocol()))
        self.pid = transport.get_pid()
        if self._group is not None:
            with contextlib.suppress(OSError):  # it may have ended already
                self._group.add(self.pid)

    @property
    def stderr(self) -> str:
        """Return the last that it said on stderr."""
        return b"".join(self._stderr)[-STDERR_KEPT:].decode(errors="replace").strip()

    @property
    def status(self) -> str:
        """Return how it ended."""
        code = self._transport.get_returncode() if self._transport is not None else None
        return f"exit status {code}"

    def write(self, data: bytes) -> None:
        """Write to its input, unless that is closed."""
        if (stdin := self._pipe(0)) is not None and not stdin.is_closing():
            stdin.write(data)

    async def begin_stop(self, *, close: bool) -> bool:
        """Get ready for its end; with `close` tell it by the end of its input, if it has one."""
        await self._started.wait()
        self.resume()
        if not close or (stdin := self._pipe(0)) is None:
            return False
        stdin.close()
        return True

    def kill(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            if self._transport is not None:
                self._transport.send_signal(number)

    async def gone(self) -> None:
        """Wait until it has ended, and with it what it has started."""
        await self._gone.wait()
        await self._clean.wait()

    async def gone_within(self, seconds: float) -> bool:
        """Return whether it ends in that time."""
        try:
            async with asyncio.timeout(seconds):
                await self.gone()
        except TimeoutError:
            return False
        return True

    # Reading -------------------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """Return whether its output is left alone for now."""
        return self._paused

    def pace(self) -> None:
        """Leave the output alone for a while where the reader has enough, or the stream is dense.

        Only reads that count are told: what comes before the first of them must not delay it.
        """
        now, last = asyncio.get_running_loop().time(), self._read_at
        self._read_at = now
        if self.listener.full():
            self._pause()
        elif now - last < SLICE:
            self._pause()
            self._slice = asyncio.get_running_loop().call_later(SLICE, self._end_slice)

    def go_on(self) -> None:
        """Read on, now that the reader has taken what there was."""
        if self._slice is None:
            self.resume()

    def resume(self) -> None:
        """Read on, whatever the reader has."""
        if self._paused and (stdout := self._pipe(1)) is not None:
            self._paused = False
            with contextlib.suppress(RuntimeError):  # the pipe is closing
                stdout.resume_reading()

    def _pause(self) -> None:
        if not self._paused and (stdout := self._pipe(1)) is not None:
            self._paused = True
            stdout.pause_reading()

    def _end_slice(self) -> None:
        self._slice = None
        if not self.listener.full():
            self.resume()

    def _pipe(self, number: int) -> Any:  # noqa: ANN401 - typeshed has only the base transport
        return self._transport.get_pipe_transport(number) if self._transport is not None else None

    # Called by the pipes -------------------------------------------------------------------------------

    def on_made(self, transport: asyncio.SubprocessTransport) -> None:
        """Take note that it has been started; close it where nobody could be set to wait for its end."""
        if self._gone.is_set():
            transport.close()

    def on_data(self, fd: int, data: bytes) -> None:
        """Take in what it wrote."""
        if fd == 1:
            self.listener.received(data)
        else:
            self._stderr.append(data)

    def on_gone(self) -> None:
        """Take note that it has ended, or closed its pipes, which comes to the same."""
        if self._gone.is_set():
            return
        self._gone.set()
        self.listener.ended()
        if self._transport is not None:
            self._transport.close()

    def clear(self) -> None:
        """End what an ended process has left."""
        self._clearing = asyncio.get_running_loop().create_task(self._clear())

    async def _clear(self) -> None:
        try:
            if self._group is not None:
                await self._group.clear()
            elif self._was_killed:
                # By itself it ends what it has started, if it is let.
                await self._kill_marked()
        finally:
            self._clean.set()

    async def _kill_marked(self) -> None:
        while True:
            try:
                await asyncio.to_thread(kill_marked, self._mark)
                return
            except (OSError, RuntimeError):  # no file, or no thread, is to be had now
                await asyncio.sleep(SCARCE)

    @property
    def _was_killed(self) -> bool:
        return self._transport is not None and (self._transport.get_returncode() or 0) < 0

    def on_mute(self) -> None:
        """End a process that lives on with its output closed: nothing can be learnt from it."""
        if not self._gone.is_set():
            self.kill(signal.SIGKILL)


def watch_by_descriptors() -> None:
    """Have the ends of child processes told by a descriptor each, not by a thread each, as from 3.12 on.

    To be called before a loop runs. A machine that is out of threads could start nothing any more.
    """
    if sys.version_info < (3, 12) and hasattr(os, "pidfd_open"):
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())


def _as_os_error(error: Exception) -> OSError:
    match error:
        case OSError():
            return error
        case RuntimeError():  # a thread that cannot be had
            return OSError(errno.EAGAIN, str(error))
        case _:  # a ValueError: what no process can be given, as a zero byte
            return OSError(errno.EINVAL, str(error))


class _Output(asyncio.Protocol):
    """Hands on what a process writes at once: asyncio's own protocol takes another round of the loop."""

    def __init__(self, process: Process, own: asyncio.BaseProtocol) -> None:
        self._process = process
        self._own = own

    def data_received(self, data: bytes) -> None:
        self._process.on_data(1, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._own.connection_lost(exc)


class _Pipes(asyncio.SubprocessProtocol):
    def __init__(self, process: Process) -> None:
        self._process = process

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._process.on_made(transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._process.on_data(fd, data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            # The exit is reported next where there is one.
            asyncio.get_running_loop().call_later(MUTE, self._process.on_mute)

    def process_exited(self) -> None:
        self._process.clear()
        asyncio.get_running_loop().call_later(LAST_WORDS, self._process.on_gone)

    def connection_lost(self, exc: Exception | None) -> None:
        self._process.on_gone()
