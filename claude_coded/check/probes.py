"""Looks at the machine that change nothing: directories, ports, sockets, programs, an HTTP address."""

import contextlib
import fcntl
import http.client
import os
import pwd
import socket
import ssl
import stat
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from claude_coded.unix import peer_of

HTTP_TIMEOUT: Final = 10.0
LOCAL_TIMEOUT: Final = 2.0
"""Seconds for an answer of a far address, and of one on this machine."""

MOST_READ: Final = 1 << 20
"""Bytes of an answer."""

_LISTENS: Final = "0A"
"""The state of a listening socket in /proc/net/tcp (proc(5))."""


CONTAINER_MARKS: Final = (Path("/.dockerenv"), Path("/run/.containerenv"))
"""Files by which Docker and podman mark a container."""


def in_container() -> bool:
    """Return whether this is a container of Docker's or podman's."""
    return any(mark.exists() for mark in CONTAINER_MARKS)


# Directories -------------------------------------------------------------------------------------------


def obstacle(directory: Path) -> str:
    """Return why a directory cannot be written, or made; "" where it can."""
    there = _existing(directory)
    if not there.is_dir():
        return f"{there} is no directory"
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        lacking = "be written" if there == directory else f"be made: {there} cannot be written"
        return f"it cannot {lacking} by {user()}"
    return ""


def _existing(path: Path) -> Path:
    """Return the path, or the nearest above it that there is."""
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def user() -> str:
    """Return who runs this, for messages."""
    try:
        return f"user {pwd.getpwuid(os.geteuid()).pw_name}"
    except KeyError:
        return f"user {os.geteuid()}"


def is_locked(file: Path) -> bool:
    """Return whether a process holds the lock of a file. Raises OSError where it cannot be opened."""
    with contextlib.suppress(FileNotFoundError), file.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)  # for a moment, and nobody else's reading
        except BlockingIOError:
            return True
    return False


# Sockets -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a socket."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.name})" if self.name else f"process {self.pid}"


def holder_of(port: int) -> Holder | None:
    """Return who listens on a TCP port, as far as this user may know."""
    inodes = {f"socket:[{inode}]" for inode in _listening(port)}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(str(fd.readlink()) in inodes for fd in (process / "fd").iterdir()):
                return named(int(process.name))
    return None


def _listening(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == _LISTENS and int(local.rsplit(":", 1)[1], 16) == port:
                    yield inode


def named(pid: int) -> Holder:
    """Return a process with its name."""
    try:
        return Holder(pid, Path(f"/proc/{pid}/comm").read_text().strip())
    except OSError:
        return Holder(pid, "")


@dataclass(frozen=True, slots=True)
class Found:
    """What is at the path of a Unix socket: nothing, a `file`, a `stale` socket, one that `holder` serves."""

    what: str
    holder: Holder | None = None


def look_at_socket(path: Path) -> Found:
    """Return what is at a path where a Unix socket is to be. Raises OSError where that cannot be told."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return Found("nothing")
    if not stat.S_ISSOCK(mode):
        return Found("file")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(LOCAL_TIMEOUT)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return Found("stale")
        return Found("served", named(peer_of(probe)[0]))


# Programs and addresses --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended."""

    status: int
    out: str
    err: str


def run(
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    seconds: float,
    directory: Path | None = None,
) -> Ran:
    """Run a program with nothing to read. Raises OSError, and TimeoutError if it takes too long."""
    try:
        ended = subprocess.run(  # noqa: S603 - the operator's own program
            command,
            env=environment,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"no end within {seconds:g} s") from None
    out, err = (data.decode(errors="replace").strip() for data in (ended.stdout, ended.stderr))
    return Ran(ended.returncode, out, err)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A key goes to the address that it is for, and to no other."""

    def redirect_request(self, *_: Any) -> None:  # noqa: ANN401 - the library's signature
        """Follow nothing."""


def get(url: str, headers: Mapping[str, str], roots: str | None = None) -> tuple[int, bytes]:
    """Return status and body of what is at an http(s) URL, over the environment's proxies.

    `roots` is a file of certificates to trust besides the system's. Raises OSError and ValueError that say
    what is in the way.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError("it is no http or https URL")
    context = ssl.create_default_context()
    if roots:
        context.load_verify_locations(roots)
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=context))
    return _open(opener, urllib.request.Request(url, headers=dict(headers)), HTTP_TIMEOUT)  # noqa: S310 - it is


def get_here(url: str) -> tuple[int, bytes]:
    """Return status and body of what is at a URL of this machine, over no proxy. Raises OSError."""
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
    return _open(opener, urllib.request.Request(url), LOCAL_TIMEOUT)  # noqa: S310 - http, and ours


def _open(
    opener: urllib.request.OpenerDirector, request: urllib.request.Request, seconds: float
) -> tuple[int, bytes]:
    try:
        with opener.open(request, timeout=seconds) as answer:
            return answer.status, answer.read(MOST_READ)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(MOST_READ)
    except urllib.error.URLError as error:
        raise OSError(str(error.reason)) from None
    except http.client.HTTPException as error:
        raise OSError(f"it does not speak HTTP ({type(error).__name__})") from None
