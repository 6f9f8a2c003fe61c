"""What of turns that begin is to survive this process before the database has it.

A CLI must not be asked before that is noted: should the daemon die, its session holds a question that nobody
knows of. The database takes a while. Memory that a file backs outlives the process at once, as the
database's own log does, and no longer than that: the death of the machine it need not survive.
"""

import mmap
import os
from pathlib import Path
from typing import Final

import msgspec

HALF: Final = 64 * 1024
"""Bytes of each of the two halves of the file: one is written while the other one counts."""

_LENGTH: Final = 4


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """A turn that is about to be asked: what it writes into its conversation's session, first to last."""

    tenant: str
    conversation: str
    first: str
    last: str


class Marks:
    """The turns that the database does not know of yet. A killed process leaves the last whole set."""

    def __init__(self, file: Path) -> None:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, 1 + 2 * HALF)
            self._memory = mmap.mmap(descriptor, 1 + 2 * HALF)
        finally:
            os.close(descriptor)
        self._marks = self._read()

    @property
    def left(self) -> tuple[Mark, ...]:
        """Return those that were never removed, also of a former process."""
        return tuple(self._marks)

    def add(self, mark: Mark) -> bool:
        """Keep a mark; False where there is no room for it."""
        self._marks[mark] = None
        if self._write():
            return True
        del self._marks[mark]
        return False

    def remove(self, mark: Mark) -> None:
        """Forget a mark, if it is there."""
        if mark in self._marks:
            del self._marks[mark]
            self._write()

    def clear(self) -> None:
        """Forget all of them."""
        self._marks.clear()
        self._write()

    def close(self) -> None:
        """Let go of the file."""
        self._memory.close()

    def _read(self) -> dict[Mark, None]:
        start = 1 + HALF * self._memory[0]
        length = int.from_bytes(self._memory[start : start + _LENGTH], "little")
        data = self._memory[start + _LENGTH : start + _LENGTH + length]
        return dict.fromkeys(msgspec.json.decode(data, type=list[Mark])) if data else {}

    def _write(self) -> bool:
        """Write all into the half that does not count, then let it count: that is one byte."""
        data = msgspec.json.encode(list(self._marks))
        if len(data) > HALF - _LENGTH:
            return False
        other = 1 - self._memory[0]
        start = 1 + HALF * other
        self._memory[start : start + _LENGTH + len(data)] = len(data).to_bytes(_LENGTH, "little") + data
        self._memory[0] = other
        return True
