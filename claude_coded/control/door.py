"""The door of the control interface: who connects is looked at before a byte goes on.

What Claude runs is of the daemon's user, so no rights of files keep it from the socket; yet it must not allow
what it has asked to be allowed, nor see what others do. The HTTP server accepts by itself, and then does not
tell whose a request is. Hence the door accepts, and passes on who may come in, to a socket that the server
listens on and that has no name any more: only this process can connect to it.
"""

import asyncio
import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from claude_coded.control import api
from claude_coded.server import BACKLOG
from claude_coded.unix import addressable

log = logging.getLogger(__name__)

READ_SIZE: Final = 65536

MANNERS: Final = 1.0
"""Seconds that somebody who is refused may take to read that."""

BREATH: Final = 0.5
"""Seconds without accepting when there are no descriptors left."""


@dataclass(slots=True)
class Door:
    """Accepts on `outside`, and connects who may come in, by `bars`, to `inside`."""

    outside: socket.socket
    inside: socket.socket
    handle: int
    bars: Callable[[socket.socket], bool]
    _visitors: set[asyncio.Task[None]] = field(default_factory=set)
    _accepting: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Let in who comes."""
        self.outside.setblocking(False)
        self._accepting = asyncio.create_task(self._accept())

    def close(self) -> None:
        """Let in nobody else; who is in may stay."""
        if self._accepting is not None:
            self._accepting.cancel()
        self.outside.close()

    async def clear(self) -> None:
        """Close, and send away who is still there."""
        self.close()
        for visitor in self._visitors:
            visitor.cancel()
        if self._visitors:
            await asyncio.wait(self._visitors)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                visitor, _ = await loop.sock_accept(self.outside)
            except OSError as error:
                log.warning("the control socket accepts nobody", extra={"error": str(error)})
                await asyncio.sleep(BREATH)
                continue
            visitor.setblocking(False)
            task = loop.create_task(self._receive(visitor))
            self._visitors.add(task)
            task.add_done_callback(self._visitors.discard)

    async def _receive(self, visitor: socket.socket) -> None:
        with visitor, contextlib.suppress(OSError):
            if self.bars(visitor):
                await _send_away(visitor)
                return
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as within:
                await asyncio.get_running_loop().sock_connect(within, f"/proc/self/fd/{self.handle}")
                await _relay(visitor, within)


@contextlib.asynccontextmanager
async def guarded(
    outside: socket.socket, directory: Path, bars: Callable[[socket.socket], bool]
) -> AsyncIterator[Door]:
    """Yield the door of a listening socket while the context lasts; it closes that socket.

    `bars` says who is sent away. `directory` is where the socket inside has its name for a moment.
    """
    inside, handle = nameless(directory)
    with inside, contextlib.ExitStack() as stack:
        stack.callback(os.close, handle)
        door = Door(outside, inside, handle, bars)
        door.open()
        try:
            yield door
        finally:
            await door.clear()


def nameless(directory: Path) -> tuple[socket.socket, int]:
    """Return a socket that listens and has no name, and a descriptor by which this process can connect."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with (
            tempfile.TemporaryDirectory(dir=directory, prefix=".door-") as place,
            addressable(Path(place) / "s") as address,
        ):
            sock.bind(address)
            handle = os.open(address, os.O_PATH | os.O_CLOEXEC)
        sock.listen(BACKLOG)  # not before: until then nobody could connect
    except OSError:
        sock.close()
        raise
    return sock, handle


async def _relay(visitor: socket.socket, within: socket.socket) -> None:
    """Pass on what each says, until the server has ended; it takes a visitor who says no more for gone."""
    asking = asyncio.ensure_future(_pass_on(visitor, within))
    try:
        await _pass_on(within, visitor)
    finally:
        asking.cancel()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await asking


async def _pass_on(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    try:
        while data := await loop.sock_recv(source, READ_SIZE):
            await loop.sock_sendall(target, data)
    finally:
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


async def _send_away(visitor: socket.socket) -> None:
    """Say why, and let the visitor finish: else it fails at writing, and never reads that."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(visitor, refusal())
    visitor.shutdown(socket.SHUT_WR)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(MANNERS):
            while await loop.sock_recv(visitor, READ_SIZE):
                pass


def refusal() -> bytes:
    """Return the response to who is sent away."""
    text = "what Claude runs has no access to the control interface"
    body = msgspec.json.encode(api.Failure(api.Fault(api.Kind.FORBIDDEN, text)))
    head = (
        "HTTP/1.1 403 Forbidden",
        "Content-Type: application/json",
        f"X-Claude-Coded-Control: {api.VERSION}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join((*head, "", "")).encode() + body
