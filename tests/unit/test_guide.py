"""How commands explain themselves."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.codectl.commands import main as codectl
from claude_coded.codectl.console import STATUS, Command
from claude_coded.command_line import main as daemon
from claude_coded.guide import Formatter, Guided, paragraphs
from claude_coded.settings import sections, specs

COLUMNS = 80
WORDS = st.text("ab-$/.", min_size=1, max_size=12)
TEXT = st.lists(WORDS, min_size=1, max_size=30).map(" ".join)


def commands() -> Iterator[tuple[str, click.Command]]:
    for name, group in (("claude-coded", daemon), ("claude-codectl", codectl)):
        yield name, group
        yield from ((f"{name} {word}", command) for word, command in group.commands.items())


ALL = dict(commands())


def help_of(name: str) -> str:
    program, *words = name.split()
    ended = CliRunner().invoke(ALL[program], [*words, "--help"], prog_name=program, terminal_width=COLUMNS)
    assert ended.exit_code == 0, ended.output
    return ended.output


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", ALL)
def test_every_command_explains_itself_in_80_columns(name: str) -> None:
    command = ALL[name]
    assert isinstance(command, Guided)
    shown = help_of(name)
    examples = [line for section in command.sections for _, line in section.examples]
    wide = [line.strip() for line in shown.splitlines() if len(line) > COLUMNS]
    assert set(wide) <= set(examples)
    assert shown.startswith(f"Usage: {name} [OPTIONS]")
    for line in examples:
        assert line in shown
        assert "claude-code" in line


@pytest.mark.parametrize("name", ALL)
def test_every_option_and_argument_is_explained(name: str) -> None:
    command = ALL[name]
    assert isinstance(command, Guided)
    ctx = click.Context(command)
    for entries in command.described(ctx).values():
        for term, meaning in entries:
            assert meaning, (name, term)


@pytest.mark.parametrize("name", [name for name, command in ALL.items() if isinstance(command, Command)])
def test_every_command_of_the_operators_client_says_its_exit_statuses(name: str) -> None:
    command = ALL[name]
    assert isinstance(command, Command)
    told = flat(help_of(name).split("Exit status:")[1])
    for code, meaning in {**STATUS, **command.status}.items():
        assert f"{code} {meaning}" in told


@pytest.mark.parametrize("command", ["serve", "check"])
def test_every_setting_is_an_option_in_its_section(command: str) -> None:
    shown = help_of(f"claude-coded {command}")
    for title, settings in sections():
        listed = flat(shown.split(f"\n{title}:\n")[1].split("\n\n")[0])
        for spec in settings:
            default = f" Default: {spec.unset}." if spec.unset else ""
            assert f"{spec.flag} {spec.metavar} {spec.help}{default} [{spec.variable}]" in listed


def test_sections_are_all_settings() -> None:
    listed = [spec.variable for _, settings in sections() for spec in settings]
    assert sorted(listed) == sorted(spec.variable for spec in specs())


def test_what_is_for_the_manual_alone_is_not_in_the_help() -> None:
    assert isinstance(daemon, Guided)
    titles = [section.title for section in daemon.sections if section.manual]
    assert titles
    for title in titles:
        assert f"{title}:" not in help_of("claude-coded")


def test_paragraphs_are_filled_or_left() -> None:
    text = "One\n   two.\n\n\b\n  as it\n    is\n\n\nThree.\f hidden"
    assert paragraphs(text) == [(False, "One two."), (True, "  as it\n    is"), (False, "Three.")]
    assert paragraphs(None) == []


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
def test_no_word_is_broken_and_none_is_lost(rows: list[tuple[str, str]]) -> None:
    formatter = Formatter(width=60)
    formatter.write_dl(rows)
    for _, meaning in rows:
        formatter.write_text(meaning)
    written = formatter.getvalue().split()
    assert written == " ".join([*(f"{a} {b}" for a, b in rows), *(b for _, b in rows)]).split()
