"""A machine that runs out of something: disks of their own that are small, files, processes. As root."""

import contextlib
import os
import resource
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.daemon import Daemon
from tests.support.namespaces import remove_groups

PIDS: Final = Path("/sys/fs/cgroup/pids")
"""Where version 1 of control groups counts processes."""

FILL: Final = "fill"


class SmallDisk:
    """A file system of so many bytes at a place of a daemon's, which nobody else sees; it ends with that.

    To be made before the daemon starts.
    """

    def __init__(self, daemon: Daemon, place: Path, size: int, options: str = "rw") -> None:
        place.mkdir(parents=True, exist_ok=True)
        self._daemon = daemon
        self._place = place
        mount = f"mount -t tmpfs -o size={size},{options} tmpfs {shlex.quote(str(place))}"
        daemon.program = ("unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "-", *daemon.program)

    @property
    def path(self) -> Path:
        """Return where this process sees it."""
        return Path(f"/proc/{self._daemon.pid}/root{self._place}")

    def fill(self) -> None:
        """Leave not a byte."""
        with (self.path / FILL).open("wb", buffering=0) as file:
            for size in (65536, 4096, 512, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)

    def free(self) -> None:
        """Give back what was filled."""
        (self.path / FILL).unlink()


@contextlib.contextmanager
def no_more_files(pid: int, more: int) -> Iterator[None]:
    """Let a process open no more than so many more files while the context lasts."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - names are enough
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + more, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def no_more_processes(pid: int) -> Iterator[None]:
    """Let a process start nothing, no thread either, while the context lasts."""
    group = PIDS / f"claude-coded-test-{pid}"
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(pid))
        (group / "pids.max").write_text((group / "pids.current").read_text())
        try:
            yield
        finally:
            (group / "pids.max").write_text("max")
            for line in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    (PIDS / "cgroup.procs").write_text(line)
    finally:
        remove_groups(group)
