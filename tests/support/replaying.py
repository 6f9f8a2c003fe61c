"""One process that replays for all workers: `python -m tests.support.replaying NUMBER`.

What the daemon starts as the CLI is `tests.support.stub`, which hands its pipes over. One loop serves them
all, so that hundreds of streams take little of the machine whose daemon is to be measured. NUMBER is that of
the listening socket, which is inherited.
"""

import heapq
import os
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final

from tests.support import stub
from tests.support.replay import Reply, reply

SIZE: Final = 64 * 1024
"""Bytes of a read, and of a write: a pipe holds no more."""


class Loop:
    """What can be read and written is handled, and what is due is called, in one thread.

    The times are as fine as the kernel's, where those of epoll are whole milliseconds.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    @property
    def watched(self) -> int:
        """Return how many descriptors are watched."""
        return len(self._handlers)

    def watch(self, descriptor: int, handler: Callable[[], None], mask: int = select.EPOLLIN) -> None:
        """Call a handler when a descriptor is ready."""
        self._handlers[descriptor] = handler
        self._epoll.register(descriptor, mask)

    def leave(self, descriptor: int) -> None:
        """Watch it no longer, if it was."""
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def at(self, when: float, handler: Callable[[], None]) -> None:
        """Call a handler at a time of the monotonic clock."""
        heapq.heappush(self._due, (when, next(self._numbers), handler))

    def step(self) -> None:
        """Wait until there is something to do, and do it."""
        seconds = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
        if select.select([self._epoll], [], [], seconds)[0]:
            for descriptor, _ in self._epoll.poll(0, 1):  # a second one's may be another's by its turn
                self._handlers[descriptor]()
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            heapq.heappop(self._due)[2]()


class Worker:
    """The pipes of one worker, and the connection by which it is held."""

    def __init__(self, loop: Loop, held: socket.socket, stdin: int, stdout: int) -> None:
        self._loop = loop
        self._held = held
        self._stdin = stdin
        self._stdout = stdout
        self._line = b""
        self._replies: deque[Reply] = deque()
        self._began = 0.0
        self._number = 0
        self._unwritten = memoryview(b"")
        self._closed = False
        os.set_blocking(stdout, False)
        loop.watch(stdin, self._read)
        loop.watch(held.fileno(), self._close)  # it says nothing: it has ended

    def _read(self) -> None:
        data = os.read(self._stdin, SIZE)
        if not data:
            self._close()
            return
        *lines, self._line = (self._line + data).split(b"\n")
        rests = not self._replies
        self._replies += filter(None, map(reply, lines))
        if rests:
            self._begin()

    def _begin(self) -> None:
        if self._replies:
            self._began, self._number = time.monotonic(), 0
            self._wait()

    def _wait(self) -> None:
        self._loop.at(self._began + self._replies[0].due(self._number), self._write_next)

    def _write_next(self) -> None:
        if not self._closed:
            piece = self._replies[0].piece(self._number, time.monotonic_ns())
            self._number += 1
            self._unwritten = memoryview(piece)
            self._write()

    def _write(self) -> None:
        """Write what the pipe takes; the next piece comes after the last byte of this one."""
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._stdout, self._unwritten[:SIZE]) :]
        except BlockingIOError:
            self._loop.leave(self._stdout)
            self._loop.watch(self._stdout, self._write, select.EPOLLOUT)
            return
        except BrokenPipeError:
            self._close()
            return
        self._loop.leave(self._stdout)
        if self._number < len(self._replies[0].pieces):
            self._wait()
        else:
            self._replies.popleft()
            self._begin()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for descriptor in (self._stdin, self._stdout, self._held.fileno()):
            self._loop.leave(descriptor)
        os.close(self._stdin)
        os.close(self._stdout)
        self._held.close()


def serve(listening: socket.socket) -> Loop:
    """Return a loop that takes workers."""
    loop = Loop()
    loop.watch(listening.fileno(), lambda: _take(loop, listening.accept()[0]))
    return loop


def _take(loop: Loop, held: socket.socket) -> None:
    with suppress(ConnectionError, ValueError):  # ended before it had handed over what it has
        _, (stdin, stdout), _, _ = socket.recv_fds(held, 1, 2)
        Worker(loop, held, stdin, stdout)
        return
    held.close()


def install(program: Path) -> socket.socket:
    """Write the stub as an executable; return the socket at which the replayer is to listen."""
    program.write_text(f"#!{sys.executable} -IS\n{Path(stub.__file__).read_text()}")
    program.chmod(0o755)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{program}.sock")
    listening.listen(socket.SOMAXCONN)
    return listening


def main() -> None:
    """Replay until it is ended."""
    loop = serve(socket.socket(fileno=int(sys.argv[1])))
    while True:
        loop.step()


if __name__ == "__main__":
    main()
