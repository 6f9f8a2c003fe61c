"""Control groups of version 2: one for the daemon, one for each worker, in what systemd has delegated.

A worker's group holds all that its CLI has started, in whatever sessions: its end is the end of all of it.
Where nothing is delegated, what a killed CLI leaves is known by a mark in its environment.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from claude_coded.proc import PROC, processes
from claude_coded.scheduler import worker_name

log = logging.getLogger(__name__)

DELEGATED: Final = "user.delegate"
"""The attribute by which systemd says that a group's inside is not its own: systemd.resource-control(5)."""

MARK: Final = "CODED_WORKER"
"""The variable that tells a worker's processes from others."""

CLEAR_SECONDS: Final = 5.0
CLEAR_PERIOD: Final = 0.01
"""Seconds that killed processes may take to go, and between two looks."""


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """What the processes of a worker may use together; 0: no limit of their own."""

    memory: int = 0  # bytes
    tasks: int = 0

    @property
    def files(self) -> dict[str, dict[str, int]]:
        """Return the files to be written, by controller."""
        wanted = {"memory": {"memory.max": self.memory}, "pids": {"pids.max": self.tasks}}
        return {name: files for name, files in wanted.items() if any(files.values())}


@dataclass(frozen=True, slots=True)
class Group:
    """A worker's group."""

    path: Path

    def add(self, pid: int) -> None:
        """Move a process, which has no children yet, into the group. Raises OSError."""
        (self.path / "cgroup.procs").write_text(str(pid))

    async def clear(self) -> None:
        """Kill all that is in the group, and remove it."""
        deadline = asyncio.get_running_loop().time() + CLEAR_SECONDS
        while not self._remove():
            if asyncio.get_running_loop().time() > deadline:
                log.error("a worker's processes survived SIGKILL", extra={"cgroup": self.path})
                return
            self._kill()
            await asyncio.sleep(CLEAR_PERIOD)

    def _remove(self) -> bool:
        """Remove the group and those that its processes have made in it; False while it has processes."""
        for directory, _, _ in os.walk(self.path, topdown=False):
            with contextlib.suppress(OSError):
                Path(directory).rmdir()
        return not self.path.exists()

    def _kill(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            try:
                (self.path / "cgroup.kill").write_text("1")
            except PermissionError:  # a kernel before 5.14 has no such file, and lets none be made
                for pid in (self.path / "cgroup.procs").read_text().split():
                    _signal(int(pid))


@dataclass(frozen=True, slots=True)
class Groups:
    """The delegated group that workers' groups are made in."""

    root: Path
    limits: GroupLimits = GroupLimits()

    def make(self, number: int) -> Group | None:
        """Make the group of a worker; None if that fails, for a worker is worth more than its group."""
        group = Group(self.root / f"worker-{number}")
        try:
            group.path.mkdir(exist_ok=True)
            for controller, files in self.limits.files.items():
                if controller in self.controllers:
                    for name, value in files.items():
                        (group.path / name).write_text(str(value))
        except OSError as error:
            log.warning(
                "a worker has no control group", extra={"worker": worker_name(number), "error": str(error)}
            )
            return None
        return group

    @property
    def controllers(self) -> list[str]:
        """Return what can be limited in the workers' groups."""
        return (self.root / "cgroup.subtree_control").read_text().split()


def take_over(environment: Mapping[str, str], proc: Path = PROC) -> Groups | None:
    """Move this process to a group of its own in the delegated one; None where nothing is delegated."""
    root = own_group((proc / "self/cgroup").read_text(), (proc / "self/mountinfo").read_text())
    if root is None or not is_delegated(root, environment):
        return None
    try:
        # A group that has groups with controllers may have no processes itself.
        (root / "daemon").mkdir(exist_ok=True)
        (root / "daemon/cgroup.procs").write_text("0")
    except OSError as error:
        log.warning("workers have no control groups", extra={"cgroup": root, "error": str(error)})
        return None
    return Groups(root)


def limited(groups: Groups | None, limits: GroupLimits) -> Groups | None:
    """Return groups whose processes are limited, as far as that can be."""
    for name in limits.files:
        try:
            if groups is None:
                raise FileNotFoundError("no control group is delegated")
            (groups.root / "cgroup.subtree_control").write_text(f"+{name}")
        except OSError as error:
            log.warning("workers have no such limit", extra={"controller": name, "error": str(error)})
    return Groups(groups.root, limits) if groups is not None else None


def own_group(cgroup: str, mountinfo: str) -> Path | None:
    """Return the directory of a process's group of version 2, from its files `cgroup` and `mountinfo`."""
    path = next((line[3:] for line in cgroup.splitlines() if line.startswith("0::")), None)
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if path is not None and after.startswith("cgroup2 "):
            root, place = before.split()[3:5]
            return Path(place) / path.removeprefix(root).lstrip("/")
    return None


def is_delegated(group: Path, environment: Mapping[str, str]) -> bool:
    """Return whether systemd leaves the inside of a group to us. Root could write to any, and must not."""
    try:
        return os.getxattr(group, DELEGATED) == b"1"
    except OSError:
        return is_own_service(group, environment)


def is_own_service(group: Path, environment: Mapping[str, str]) -> bool:
    """Return whether this is the process of a service of a user's own manager.

    Up to systemd 252 such a manager does not mark what it delegates. All that it makes belongs to the user.
    """
    started = environment.get("SYSTEMD_EXEC_PID") == str(os.getpid())
    uid = os.geteuid()
    return started and uid != 0 and group.suffix == ".service" and group.stat().st_uid == uid


# Without groups ----------------------------------------------------------------------------------------


def kill_marked(mark: str, proc: Path = PROC) -> None:
    """Kill all processes that have a mark in their environment, and all that descend from those.

    What is killed may have started something meanwhile: until nothing is found.
    """
    deadline = time.monotonic() + CLEAR_SECONDS
    while found := marked(mark, proc):
        for pid in found:
            _signal(pid)
        if time.monotonic() > deadline:
            log.error("a worker's processes survived SIGKILL", extra={"pids": found})
            return
        time.sleep(CLEAR_PERIOD)


def marked(mark: str, proc: Path = PROC) -> list[int]:
    """Return the processes that run and have a mark, and their descendants."""
    parents = {process.pid: process.parent for process in processes(proc)}
    text = f"{MARK}={mark}".encode()
    found = {pid for pid in parents if text in _environment(proc / str(pid))}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def _environment(process: Path) -> Sequence[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return ()


def _signal(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
