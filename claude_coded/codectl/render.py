"""Text for people: tables, ages, sizes. Pure.

Whatever comes from outside is made harmless first: what Claude wishes to run, or the CLI complains of, could
hold sequences that rule the terminal, or letters that show as others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from unicodedata import category, east_asian_width

GAP: Final = "  "
MINUTE: Final = 60
HOUR: Final = 3600
DAY: Final = 86400


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column; numbers stand on the right."""

    title: str
    right: bool = False


def printable(text: str) -> str:
    """Return a text in one line, with what is not to be seen, or rules the terminal, written out."""
    return "".join(it if it.isprintable() else _escaped(it) for it in text)


def lines(text: str) -> list[str]:
    """Return a text's lines, made printable."""
    return [printable(line.expandtabs()) for line in text.splitlines()]


def width(text: str) -> int:
    """Return how many cells of a terminal a printable text takes."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def cut(text: str, cells: int) -> str:
    """Return a text that is no wider than that; `…` stands for what is left out."""
    if width(text) <= cells:
        return text
    kept, used = "", 1
    for it in text:
        used += _cells(it)
        if used > cells:
            break
        kept += it
    return kept + "…" if cells > 0 else ""


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table with its header. Columns with nothing in them are left out."""
    cells = [[printable(cell) for cell in row] for row in rows]
    used = [n for n, _ in enumerate(columns) if any(row[n] for row in cells)]
    shown = [columns[n] for n in used]
    grid = [[column.title for column in shown], *([row[n] for n in used] for row in cells)]
    widths = [max(map(width, column)) for column in zip(*grid, strict=True)]
    return [_row(row, shown, widths) for row in grid]


def _row(row: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    padded = (
        " " * (wide - width(cell)) + cell if column.right else cell + " " * (wide - width(cell))
        for cell, column, wide in zip(row, columns, widths, strict=True)
    )
    return GAP.join(padded).rstrip()


def pairs(items: Iterable[tuple[str, str]]) -> list[str]:
    """Return lines of a name and a value each; empty values are left out."""
    kept = [(name, printable(value)) for name, value in items if value]
    wide = max((len(name) for name, _ in kept), default=0)
    return [f"{name:<{wide}}{GAP}{value}" for name, value in kept]


def indented(text: Iterable[str]) -> list[str]:
    """Return lines that stand in by two."""
    return [f"  {line}".rstrip() for line in text]


def duration(seconds: float) -> str:
    """Return a length of time in its two largest units."""
    whole = max(0, int(seconds))
    if whole < MINUTE:
        return f"{whole}s"
    if whole < HOUR:
        return f"{whole // MINUTE}m" + (f" {whole % MINUTE:02}s" if whole < 10 * MINUTE else "")
    if whole < DAY:
        return f"{whole // HOUR}h {whole % HOUR // MINUTE:02}m"
    return f"{whole // DAY}d {whole % DAY // HOUR}h"


def ago(seconds: float) -> str:
    """Return how long something is past."""
    return "now" if seconds < 1 else f"{duration(seconds)} ago"


def size(count: int) -> str:
    """Return bytes as MiB or GiB; nothing for none."""
    if count <= 0:
        return ""
    mib = count / 2**20
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"


def number(count: int) -> str:
    """Return a count with three or four figures."""
    if count < 1000:
        return str(count)
    for unit, factor in (("k", 1e3), ("M", 1e6)):
        if count < 999.5 * factor:
            value = count / factor
            return f"{value:.1f}{unit}" if value < 99.95 else f"{value:.0f}{unit}"
    return f"{count / 1e9:.1f}G"


def cost(dollars: float) -> str:
    """Return an amount in dollars."""
    return "<$0.01" if 0 < dollars < 0.005 else f"${dollars:.2f}"


def counted(count: int, what: str, several: str = "") -> str:
    """Return a count of things: `1 turn`, `2 turns`."""
    return f"{count} {what}" if count == 1 else f"{count} {several or what + 's'}"


def _cells(letter: str) -> int:
    return 0 if category(letter) in {"Mn", "Me"} else 2 if east_asian_width(letter) in "WF" else 1


def _escaped(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
