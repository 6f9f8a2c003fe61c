"""Who is at the other end of the control socket.

The HTTP server hands over no file descriptor. But the accepted connections are descriptors of this process,
and the kernel knows who made each (unix(7), SO_PEERCRED): of several at once any may be the one.
"""

import contextlib
import os
import socket
from pathlib import Path

from claude_coded.proc import descends
from claude_coded.unix import has_ended, peer_of

DESCRIPTORS = Path("/proc/self/fd")


def is_of_a_worker(sock: socket.socket) -> bool:
    """Return whether who has connected descends from this process, as all does that Claude runs.

    The daemon adopts orphans, so that nothing gets out of its tree by losing its parents. Who has ended since
    may have been anything, and counts as one, unless it was another user's.
    """
    pid, uid = peer_of(sock)
    if pid == 0:  # from beyond this container
        return False
    descent = descends(pid, os.getpid())
    if descent is None or has_ended(sock):
        return uid == os.getuid()
    return descent


def connected_users(path: str) -> frozenset[int]:
    """Return the user ids of everybody who is connected to the Unix socket at `path`; empty if unknown."""
    users: set[int] = set()
    with contextlib.suppress(OSError):
        for descriptor in list(DESCRIPTORS.iterdir()):
            users |= _user(descriptor, path)
    return frozenset(users)


def _user(descriptor: Path, path: str) -> set[int]:
    with contextlib.suppress(OSError):
        if not str(descriptor.readlink()).startswith("socket:"):
            return set()
        with socket.socket(fileno=os.dup(int(descriptor.name))) as sock:
            if sock.family != socket.AF_UNIX or sock.getsockname() != path:
                return set()
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return set()
            return {peer_of(sock)[1]}
    return set()
