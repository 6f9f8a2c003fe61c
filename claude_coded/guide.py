"""How commands explain themselves, at the terminal and in manual pages: more than Click's own can say.

Options stand in sections, arguments are told like them, and after both comes what else there is to say.
"""

import inspect
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import click

Entry: TypeAlias = tuple[str, str]
"""A term, and what it means."""

OPTIONS: Final = "Options"
"""The title of options that are in no section."""

ARGUMENTS: Final = "Arguments"

VERBATIM: Final = "\b"
"""Click's mark, on a line before a paragraph: it is not filled."""

TERM: Final = 30
"""Columns that a term may have with its meaning beside it."""


@dataclass(frozen=True, slots=True)
class Section:
    """Something to say under a title, in the manual alone with `manual`.

    An example is what for, and a command.
    """

    title: str
    text: str = ""
    entries: tuple[Entry, ...] = ()
    examples: tuple[Entry, ...] = ()
    manual: bool = False


class Option(click.Option):
    """An option in a section."""

    def __init__(self, *args: Any, section: str = OPTIONS, **more: Any) -> None:  # noqa: ANN401 - click's
        super().__init__(*args, **more)
        self.section = section


class Argument(click.Argument):
    """An argument that is explained: Click has that from 8.5 on."""

    def __init__(self, *args: Any, help: str = "", **more: Any) -> None:  # noqa: A002, ANN401 - click's
        super().__init__(*args, **more)
        self.help = help

    def get_help_record(self, ctx: click.Context) -> Entry:
        """Return what stands for it in the usage, and what it means."""
        return self.make_metavar(ctx), self.help or ""


def paragraphs(text: str | None) -> list[tuple[bool, str]]:
    """Return a docstring's paragraphs, each with whether it stands as it is."""
    found = []
    for block in inspect.cleandoc(text or "").partition("\f")[0].split("\n\n"):
        mark, _, rest = block.partition("\n")
        verbatim = mark == VERBATIM
        if lines := rest if verbatim else " ".join(block.split()):
            found.append((verbatim, lines))
    return found


class Formatter(click.HelpFormatter):
    """Click's, but words with hyphens are not broken: many are names."""

    def write_text(self, text: str) -> None:
        """Write paragraphs."""
        indent = " " * self.current_indent
        blocks = [
            textwrap.indent(block, indent) if verbatim else self._fill(block, indent, indent)
            for verbatim, block in paragraphs(text)
        ]
        self.write("\n\n".join(blocks) + "\n")

    def write_dl(self, rows: Iterable[Entry], col_max: int = TERM, col_spacing: int = 2) -> None:
        """Write terms, and beside each what it means, or below where the term is long."""
        entries = list(rows)
        column = min(max(len(term) for term, _ in entries), col_max) + col_spacing + self.current_indent
        for term, meaning in entries:
            first = " " * self.current_indent + term
            if len(first) + col_spacing > column:
                self.write(first + "\n")
                first = ""
            self.write(self._fill(meaning, first.ljust(column), " " * column) + "\n")

    def _fill(self, text: str, first: str, others: str) -> str:
        return textwrap.fill(
            text,
            self.width,
            initial_indent=first,
            subsequent_indent=others,
            break_on_hyphens=False,
            break_long_words=False,
        ).rstrip()


class _Context(click.Context):
    formatter_class = Formatter


class Guided(click.Command):
    """A command with such a help."""

    context_class = _Context

    def __init__(self, *args: Any, sections: Sequence[Section] = (), **more: Any) -> None:  # noqa: ANN401 - click's
        super().__init__(*args, **more)
        self.sections = tuple(sections)

    def described(self, ctx: click.Context) -> dict[str, list[Entry]]:
        """Return arguments and options as they are told, by the titles that they stand under."""
        found: dict[str, list[Entry]] = {}
        for param in sorted(self.get_params(ctx), key=lambda it: isinstance(it, click.Option)):
            if (record := param.get_help_record(ctx)) is not None:
                title = OPTIONS if isinstance(param, click.Option) else ARGUMENTS
                found.setdefault(getattr(param, "section", title), []).append(record)
        return found

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write all of it."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        self.format_options(ctx, formatter)
        self.format_epilog(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write arguments and options, and a group's commands."""
        described = self.described(ctx)
        terms = [len(term) for entries in described.values() for term, _ in entries]
        width = max((it for it in terms if it <= TERM), default=0)
        for title, entries in described.items():
            with formatter.section(title):
                formatter.write_dl([(term.ljust(width), meaning) for term, meaning in entries])
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what else there is to say."""
        for section in self.sections:
            if not section.manual:
                with formatter.section(section.title):
                    _write(section, formatter)
        super().format_epilog(ctx, formatter)


def _write(section: Section, formatter: click.HelpFormatter) -> None:
    if section.text:
        formatter.write_text(section.text)
    if section.entries:
        formatter.write_dl(section.entries)
    for purpose, command in section.examples:
        formatter.write_text(f"{purpose}:")
        with formatter.indentation():
            formatter.write_text(f"{VERBATIM}\n{command}")
