"""Serving an ASGI app on a socket of our own, on the running loop.

Granian's embedded server binds with SO_REUSEPORT, so two daemons would share a port in silence, and it takes
no ready-made socket. Here the socket is bound (or inherited) first and handed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import os
import select
import socket
import stat
from pathlib import Path
from typing import Any, Final

from claude_coded.server import BACKLOG, App, Server
from claude_coded.unix import addressable, peer_of

EVENT_POLL: Final = "anon_inode:[eventpoll]"

TRAILING_TIME: Final = 0.5
"""Seconds that calls of the app have, after the last connection was closed, to end by themselves."""

_NOT_OURS: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def bind_tcp(host: str, port: int) -> socket.socket:
    """Return a socket that listens on `host` and `port` alone; port 0 lets the kernel choose.

    A name with several addresses gets the first that this machine has. Raises OSError, naming host and port,
    when the name is unknown or the port is taken.
    """
    try:
        return _bind_first(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE))
    except OSError as error:
        message = f"cannot listen on {host} port {port}: {error.strerror}"
        raise OSError(error.errno, message) from error


def _bind_first(candidates: list[Any]) -> socket.socket:
    for family, kind, protocol, _, address in candidates[:-1]:
        try:
            return _bind(family, kind, protocol, address)
        except OSError as error:
            if error.errno not in _NOT_OURS:  # a port taken on ::1 must not become one on 127.0.0.1
                raise
    family, kind, protocol, _, address = candidates[-1]
    return _bind(family, kind, protocol, address)


def _bind(family: int, kind: int, protocol: int, address: Any) -> socket.socket:  # noqa: ANN401
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def bind_unix(path: Path, group: str | None = None) -> socket.socket:
    """Return a socket that listens at `path`, of mode 0660; its directory is made, of mode 0750, if need be.

    With `group` both belong to that, where the directory was made here. What is there is replaced only if it
    is a socket that nobody answers on. Raises OSError that says what is in the way: who has the socket, a
    file that is none, a group that does not exist.
    """
    gid = _group(group) if group is not None else -1
    try:
        _make_directory(path.parent, gid)
        _make_way(path)
        return _bind_unix(path, gid)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno or errno.EINVAL, f"cannot listen on {path}: {reason}") from error


def _group(name: str) -> int:
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise OSError(errno.EINVAL, f"there is no group {name!r}") from None


def _make_directory(directory: Path, gid: int) -> None:
    if directory.is_dir():
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(mode=0o750)
    os.chown(directory, -1, gid)


def _make_way(path: Path) -> None:
    """Remove a socket that nobody answers on."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            with addressable(path) as address:
                probe.connect(address)
        except ConnectionRefusedError:
            path.unlink()
        except TimeoutError:
            raise OSError(errno.EADDRINUSE, "another process has it, and does not answer") from None
        else:
            raise OSError(errno.EADDRINUSE, f"process {peer_of(probe)[0]} serves it already")


def _bind_unix(path: Path, gid: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)  # nobody else may connect before the group is set
    try:
        with addressable(path) as address:
            sock.bind(address)
        os.chown(path, -1, gid)
        path.chmod(0o660)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(umask)
    return sock


def _address_of(sock: socket.socket) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    host, port = name[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _inode(descriptor: int) -> int:
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return 0


def _names(descriptor: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return ""


class Listener:
    """One socket that serves one ASGI app over HTTP/1 on the running loop, once.

    `serve()` closes the socket at its end, whatever that is; if it never runs, the caller does.
    `header_buffer` bounds a request's head, in bytes; hyper wants 8192 at least.
    """

    def __init__(self, app: App, sock: socket.socket, *, header_buffer: int = 65536) -> None:
        if sock.family != socket.AF_UNIX:
            # Its connections have it from there: else each piece of a stream waits until the one before is
            # acknowledged, which clients do up to 40 ms late.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._address = _address_of(sock)
        self._inode = _inode(sock.fileno())
        self._server = Server(app, sock, self._address, header_buffer=header_buffer, on_ready=self._accept)
        self._settled = asyncio.Event()
        self._accepting = False
        self._serving: asyncio.Task[None] | None = None
        self._cut = False

    @property
    def address(self) -> str:
        """Where clients connect: `http://127.0.0.1:3000`, `http://[::1]:3000` or `unix:/run/x.sock`."""
        return self._address

    async def serve(self) -> None:
        """Serve until `stop()`; return when the last response, and with it its call of the app, has ended.

        A cancellation stops as `stop()` does and is raised after the last call; a second one abandons what
        still runs.
        """
        self._serving = serving = asyncio.create_task(self._serve())
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            if self._cut:
                return
            self.stop()  # a cancelled server would go on accepting
            await serving
            raise
        finally:
            self._sock.close()
            self._settled.set()

    async def _serve(self) -> None:
        await self._server.run()
        # Every connection is closed, but a call may still be at its last lines, or wait for a disconnect that
        # will never be reported: the server forgets a receive() that is pending when its last client leaves.
        if self._server.calls and not await self._idle_within(TRAILING_TIME):
            await self._cancel()

    async def _idle_within(self, seconds: float) -> bool:
        _, late = await asyncio.wait(self._server.calls, timeout=seconds)
        return not late

    async def _cancel(self) -> None:
        self._server.cancel()
        if self._server.calls:
            await self._idle_within(TRAILING_TIME)

    async def started(self) -> None:
        """Return when requests are accepted; raise RuntimeError when `serve()` ended before that."""
        await self._settled.wait()
        if not self._accepting:
            raise RuntimeError(f"the listener on {self._address} ended before it accepted requests")

    def leave(self) -> None:
        """Take no more connections: they wait for whoever else has the socket. Those that are there go on.

        A server that stops closes connections on which nothing has come yet. This comes before: the server's
        event loop is made deaf to the listening socket.
        """
        if not self._accepting:
            return
        descriptors = [int(path.name) for path in Path("/proc/self/fd").iterdir()]
        listening = [it for it in descriptors if _inode(it) == self._inode]
        for poll in (it for it in descriptors if _names(it) == EVENT_POLL):
            with select.epoll.fromfd(os.dup(poll)) as events:
                for descriptor in listening:
                    with contextlib.suppress(OSError):
                        events.unregister(descriptor)

    def stop(self) -> None:
        """Refuse new connections, within milliseconds, and let running responses finish."""
        self._server.stop()  # type: ignore[no-untyped-call]

    async def close(self, seconds: float) -> None:
        """Stop, and cut off what still runs after so long: clients may send, or read, nothing any more."""
        self.stop()
        if self._serving is None or await _ends(self._serving, seconds):
            return
        await self._cancel()
        if not await _ends(self._serving, TRAILING_TIME):  # somebody never sends the rest of a head
            self._cut = True
            self._serving.cancel()

    def _accept(self) -> None:
        # The socket listens since it was bound; the server's worker has its descriptor, and closes it.
        self._sock.detach()
        self._accepting = True
        self._settled.set()


async def _ends(task: asyncio.Task[None], seconds: float) -> bool:
    """Wait so long for the end of a task; return whether it came."""
    done, _ = await asyncio.wait({task}, timeout=seconds)
    return bool(done)
