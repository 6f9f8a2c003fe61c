"""The machine's processes, one small file each: proc(5), `/proc/PID/stat`.

A library that knows all systems reads four files where one tells all: a look at the workers' processes must
not be felt while fifty of them stream.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
DEAD: Final = frozenset({"Z", "X"})
_TICK: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    """A process that runs: CPU time of its own so far in seconds, resident memory in bytes."""

    pid: int
    parent: int
    cpu: float
    memory: int


def processes(proc: Path = PROC) -> Iterator[Process]:
    """Yield each process that is no zombie."""
    for name in os.listdir(proc):  # noqa: PTH208 - names are enough
        if name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                with open(f"{proc}/{name}/stat", "rb") as file:  # noqa: PTH123 - a fifth of the time
                    text = file.read()
                if (process := _read(int(name), text)) is not None:
                    yield process


def _read(pid: int, text: bytes) -> Process | None:
    # The name, in parentheses, may hold anything. Of the fields behind it, the 3rd of all is the first.
    fields = text[text.rindex(b")") + 2 :].split()
    if fields[0].decode() in DEAD:
        return None
    ticks = int(fields[11]) + int(fields[12])
    return Process(pid, int(fields[1]), ticks / _TICK, int(fields[21]) * _PAGE)
