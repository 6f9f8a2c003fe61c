"""What of turns that begin is to survive this process before the database has it.

A CLI must not be asked before that is noted: should the daemon die, its session holds a question that nobody
knows of. The database takes a while. What is written to a file outlives the process at once, as the
database's own log does, and no longer than that: the death of the machine it need not survive, so it is not
waited for.
"""

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
        self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._counts = 0  # the half that does
        self._marks = self._read()

    @property
    def left(self) -> tuple[Mark, ...]:
        """Return those that were never removed, also of a former process."""
        return tuple(self._marks)

    def add(self, mark: Mark) -> bool:
        """Keep a mark; False where that cannot be had: there is no room for it, or the disk is full."""
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
        os.close(self._file)

    def _read(self) -> dict[Mark, None]:
        self._counts = int(os.pread(self._file, 1, 0) == b"\1")
        data = os.pread(self._file, HALF, 1 + HALF * self._counts)
        length = int.from_bytes(data[:_LENGTH], "little")
        try:
            return dict.fromkeys(msgspec.json.decode(data[_LENGTH : _LENGTH + length], type=list[Mark]))
        except msgspec.DecodeError:  # it is new, or the machine has died under it
            return {}

    def _write(self) -> bool:
        """Write all into the half that does not count, then let it count: that is one byte.

        Return whether that was possible.
        """
        data = msgspec.json.encode(list(self._marks))
        if len(data) > HALF - _LENGTH:
            return False
        other, whole = 1 - self._counts, len(data).to_bytes(_LENGTH, "little") + data
        try:
            if os.pwrite(self._file, whole, 1 + HALF * other) < len(whole):
                return False
            os.pwrite(self._file, bytes((other,)), 0)
        except OSError:
            return False
        self._counts = other
        return True
