"""Writes the manual pages from the commands: `python -m tests.support.manuals`.

They lie in contrib/man, and the wheel installs them. Write them again when a command, a setting or what is
said of one has changed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from claude_coded import __version__
from claude_coded.codectl.commands import main as codectl
from claude_coded.codectl.console import Command
from claude_coded.command_line import main as daemon
from claude_coded.guide import ARGUMENTS, OPTIONS, Entry, Guided, Section
from claude_coded.manual import SETTINGS
from claude_coded.settings import sections
from tests.support import roff

DIRECTORY: Final = Path(__file__).parents[2] / "contrib/man"
DATE: Final = "2026-11-24"
SETTING_TITLES: Final = frozenset(title for title, _ in sections())

ORDER: Final = ("Exit status", "Environment", "Files", "Signals", "Examples", "See also")
"""In which what is said beside commands and options stands at the end of a page."""


@dataclass(frozen=True, slots=True)
class Page:
    """A program's page: its place, what it is in a line, and its commands."""

    name: str
    number: int
    what: str
    manual: str
    group: click.Group

    def __str__(self) -> str:
        return f"{self.name}({self.number})"

    @property
    def file(self) -> Path:
        return DIRECTORY / f"{self.name}.{self.number}"

    def source(self) -> str:
        """Return the whole page."""
        return "\n".join([*self._head(), *self._commands(), *self._options(), *self._tail(), ""])

    def _head(self) -> Iterator[str]:
        yield r".\" Made by `python -m tests.support.manuals`: not to be edited."
        title = self.name.upper()
        names = roff.macro("TH", title, str(self.number))
        yield f'{names} {DATE} "claude_coded {__version__}" "{self.manual}"'
        yield from (".nh", ".ad l")  # most long words are names
        yield ".SH NAME"
        yield f"{roff.escape(self.name)} \\-"
        yield roff.text(self.what)
        yield ".SH SYNOPSIS"
        yield from self._synopsis()
        yield ".SH DESCRIPTION"
        yield from roff.prose(self.group.help)[1:]

    def _synopsis(self) -> Iterator[str]:
        for number, (name, command) in enumerate(self.group.commands.items()):
            yield from [".br"] if number else []
            yield f"{roff.bold(f'{self.name} {name}')} {roff.italic(self._usage(command))}"

    def _usage(self, command: click.Command) -> str:
        return " ".join(command.collect_usage_pieces(_context(command)))

    def _commands(self) -> Iterator[str]:
        yield ".SH COMMANDS"
        for name, command in self.group.commands.items():
            yield roff.macro("SS", f"{name} {self._usage(command).removeprefix('[OPTIONS]').strip()}".strip())
            yield from roff.prose(command.help)[1:]
            yield from roff.entries(self._own(command))
            yield from self._particulars(command)

    def _own(self, command: click.Command) -> list[Entry]:
        """Return a command's arguments and options, but for the settings and what all commands have."""
        described = _described(command)
        common = {term for term, _ in _described(self.group)[OPTIONS]}
        found = [*described.get(ARGUMENTS, ()), *described[OPTIONS]]
        return [(term, meaning) for term, meaning in found if term not in common]

    def _particulars(self, command: click.Command) -> Iterator[str]:
        """Yield what a command of the operator's client says for itself: its exit statuses, examples."""
        if not isinstance(command, Command):
            return
        if command.status:
            yield ".PP"
            told = "; ".join(f"{code}: {text.removesuffix('.')}" for code, text in command.status.items())
            yield roff.text(f"Exit status {told}.")
        for section in command.sections:
            yield from roff.examples(section.examples)

    def _options(self) -> Iterator[str]:
        yield ".SH OPTIONS"
        settings = _described(next(iter(self.group.commands.values())))
        if own := {title: rows for title, rows in settings.items() if title in SETTING_TITLES}:
            yield roff.text(SETTINGS.text)
            for title, rows in own.items():
                yield roff.macro("SS", title)
                yield from roff.entries(rows)
            yield roff.macro("SS", "Others")
        yield from roff.entries(_described(self.group)[OPTIONS])

    def _tail(self) -> Iterator[str]:
        for title in ORDER:
            if found := self._section(title):
                yield roff.macro("SH", title.upper())
                yield from found

    def _section(self, title: str) -> list[str]:
        """Return what the program says under a title; else what its commands say, each by itself."""
        if section := _titled(self.group, title):
            return _written(section)
        said = [(name, _titled(command, title)) for name, command in self.group.commands.items()]
        return [line for name, it in said if it for line in (roff.macro("SS", name), *_written(it))]


def _context(command: click.Command) -> click.Context:
    return click.Context(command, help_option_names=["-h", "--help"])


def _described(command: click.Command) -> dict[str, list[Entry]]:
    assert isinstance(command, Guided)
    return command.described(_context(command))


def _titled(command: click.Command, title: str) -> Section | None:
    assert isinstance(command, Guided)
    return next((it for it in command.sections if it.title == title), None)


def _written(section: Section) -> list[str]:
    lines = [
        *roff.prose(section.text)[1:],
        *roff.entries(section.entries),
        *roff.examples(section.examples),
    ]
    return lines[1:] if lines[0] == ".PP" else lines  # a heading has its space already


PAGES: Final = (
    Page(
        "claude-coded",
        8,
        "an OpenAI-compatible API in front of a pool of Claude Code processes",
        "System Administration",
        daemon,
    ),
    Page("claude-codectl", 1, "shows and steers a running claude-coded", "User Commands", codectl),
)


def main() -> None:
    """Write all pages."""
    DIRECTORY.mkdir(exist_ok=True)
    for page in PAGES:
        page.file.write_text(page.source())


if __name__ == "__main__":
    main()
