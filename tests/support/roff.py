"""Writes the source of manual pages: the macros of man(7), for groff and mandoc alike."""

import re
import textwrap
from collections.abc import Iterable
from typing import Final

from claude_coded.guide import Entry, paragraphs

WIDTH: Final = 78

ESCAPES: Final = {
    "\\": r"\e",
    "-": r"\-",  # else a hyphen, which is no option when it is copied
    "'": r"\(aq",
    "`": r"\(ga",
    "^": r"\(ha",
    "~": r"\(ti",
    '"': r"\(dq",
}
BOLD: Final = re.compile("`([^`]+)`")


def escape(text: str) -> str:
    """Return text as it is written: nothing in it is an escape or another character."""
    return "".join(ESCAPES.get(it, it if it.isascii() else f"\\[u{ord(it):04X}]") for it in text)


def protect(line: str) -> str:
    """Return a line that is no request."""
    return rf"\&{line}" if line.startswith(".") else line


def macro(name: str, *arguments: str) -> str:
    """Return a macro with arguments of text."""
    return " ".join([f".{name}", *(f'"{escape(it)}"' for it in arguments)])


def bold(text: str) -> str:
    return rf"\fB{escape(text)}\fR"


def italic(text: str) -> str:
    return rf"\fI{escape(text)}\fR"


def text(paragraph: str) -> str:
    """Return running text; what is between backquotes is bold."""
    parts = BOLD.split(" ".join(paragraph.split()))
    marked = "".join(bold(part) if place % 2 else escape(part) for place, part in enumerate(parts))
    lines = textwrap.wrap(marked, WIDTH, break_on_hyphens=False, break_long_words=False)
    return "\n".join(map(protect, lines))


def block(paragraph: str) -> str:
    """Return lines that stay as they are, indented."""
    lines = [protect(escape(line)) for line in textwrap.dedent(paragraph).split("\n")]
    return "\n".join([".RS 4", ".nf", *lines, ".fi", ".RE"])


def prose(document: str | None) -> list[str]:
    """Return the paragraphs of a docstring."""
    found: list[str] = []
    for verbatim, paragraph in paragraphs(document):
        found += [block(paragraph)] if verbatim else [".PP", text(paragraph)]
    return found


def entries(rows: Iterable[Entry]) -> list[str]:
    """Return terms, each with what it means."""
    return [line for term, meaning in rows for line in (".TP", marked_term(term), text(meaning))]


def marked_term(term: str) -> str:
    """Return a term: what is typed is bold, what stands for something else italic."""
    if not term.startswith("-"):
        return bold(term)
    words = re.split(r"(, | )", term)
    return "".join(bold(it) if it.startswith("-") else italic(it) if it.strip(", ") else it for it in words)


def examples(rows: Iterable[Entry]) -> list[str]:
    """Return commands, each after what it is for."""
    return [line for purpose, command in rows for line in (".PP", text(f"{purpose}:"), block(command))]
