"""The machine's processes, one small file each: proc(5), `/proc/PID/stat`.

A library that knows all systems reads four files where one tells all: a look at the workers' processes must
not be felt while fifty of them stream.
"""

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
DEAD: Final = frozenset({"Z", "X"})
_TICK: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    """A process that runs: CPU time so far in seconds, resident memory in bytes.

    In the CPU time is that of children which have ended, so that a tree's never grows less.
    """

    pid: int
    parent: int
    cpu: float
    memory: int


@dataclass(frozen=True, slots=True)
class Tree:
    """What a process and all below it use: resident bytes, CPU seconds so far, how many there are."""

    memory: int = 0
    cpu: float = 0.0
    processes: int = 0

    def __add__(self, other: "Tree") -> "Tree":
        """Return the sum, field by field."""
        return Tree(self.memory + other.memory, self.cpu + other.cpu, self.processes + other.processes)


def trees(roots: Iterable[int]) -> Mapping[int, Tree]:
    """Return what the trees below some pids use; nothing for those that are gone.

    One pass over the machine's processes, for a thread: some 20 microseconds each.
    """
    own: dict[int, Tree] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for process in processes():
        children[process.parent].append(process.pid)
        own[process.pid] = Tree(process.memory, process.cpu, 1)
    return {root: _sum(root, own, children) for root in roots}


def _sum(root: int, own: Mapping[int, Tree], children: Mapping[int, list[int]]) -> Tree:
    members, total = [root], Tree()
    while members:
        pid = members.pop()
        total += own.get(pid, Tree())
        members += children.get(pid, ())
    return total


def ended_children() -> float:
    """Return the CPU seconds of all children of this process that have ended, and of those below them."""
    times = os.times()
    return times.children_user + times.children_system


def processes(proc: Path = PROC) -> Iterator[Process]:
    """Yield each process that is no zombie."""
    for name in os.listdir(proc):  # noqa: PTH208 - names are enough
        if name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                with open(f"{proc}/{name}/stat", "rb") as file:  # noqa: PTH123 - a fifth of the time
                    text = file.read()
                if (process := _read(int(name), text)) is not None:
                    yield process


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a process comes from: its parent, and when it was started, in ticks since the machine was."""

    pid: int
    parent: int
    start: int


def descends(pid: int, ancestor: int, proc: Path = PROC) -> bool | None:
    """Return whether a process is another or descends from it; None: it has ended, or cannot be seen.

    Above a process that this user cannot see there is nothing to be known, and it counts as no descendant:
    what a process starts as its own user can be seen as long as that can.
    """
    if (child := _origin(pid, proc)) is None:
        return None
    while child.pid != ancestor:
        parent = _origin(child.parent, proc)
        if parent is not None and parent.start <= child.start:
            child = parent
            continue
        # It is hidden, or has ended: then its child has another parent now, and its number may be another's.
        if (again := _origin(child.pid, proc)) is None:
            return None
        if again == child:
            return False if parent is None else None
        child = again
    return True


def _origin(pid: int, proc: Path) -> Origin | None:
    with contextlib.suppress(OSError):
        text = (proc / str(pid) / "stat").read_bytes()
        fields = text[text.rindex(b")") + 2 :].split()
        return Origin(pid, int(fields[1]), int(fields[19]))
    return None


def _read(pid: int, text: bytes) -> Process | None:
    # The name, in parentheses, may hold anything. Of the fields behind it, the 3rd of all is the first.
    fields = text[text.rindex(b")") + 2 :].split()
    if fields[0].decode() in DEAD:
        return None
    ticks = sum(map(int, fields[11:15]))
    return Process(pid, int(fields[1]), ticks / _TICK, int(fields[21]) * _PAGE)
