"""Unix sockets, for both ends of one: long paths, and who is there."""

import contextlib
import os
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SUN_PATH: Final = 108
"""Bytes of a Unix socket's address, its end included: unix(7)."""

_PEERPIDFD: Final = 77
"""SO_PEERPIDFD of Linux 6.5, which Python does not name yet."""

_UCRED: Final = struct.Struct("3i")


@contextlib.contextmanager
def addressable(path: Path) -> Iterator[str]:
    """Yield what names a socket: its path, or where that is too long, its name in its open directory."""
    if len(os.fsencode(path)) < SUN_PATH:
        yield os.fspath(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """Return pid and uid of who is at the other end (unix(7), SO_PEERCRED). Raises OSError."""
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid


def has_ended(sock: socket.socket) -> bool:
    """Return whether the process at the other end has: its pid may be another's. Before Linux 6.5, False."""
    try:
        descriptor = sock.getsockopt(socket.SOL_SOCKET, _PEERPIDFD)
    except OSError:
        return False
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))
    finally:
        os.close(descriptor)
