"""What all commands of claude-codectl share: options, how answers and errors are shown, completion."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec
from click.shell_completion import CompletionItem

from claude_coded import guide
from claude_coded.codectl import display
from claude_coded.codectl.client import PATIENCE, ControlClient, ControlError, Name, Refused, Unreachable
from claude_coded.codectl.places import candidates
from claude_coded.control.api import worker_number

Decorated = TypeVar("Decorated", bound=Callable[..., Any] | click.Command)

PROGRAM: Final = "claude-codectl"
VARIABLE: Final = "CLAUDE_CODED_SOCKET"

FAILED: Final = 1
NO_DAEMON: Final = 3

COMPLETION_PATIENCE: Final = 0.5
"""Seconds that somebody who pressed the tabulator may be kept waiting."""


class Console:
    """One run of the program: what was asked of all commands, and its way to the daemon."""

    def __init__(self, patience: float = PATIENCE, wall: Callable[[], float] = time.time) -> None:
        self.socket: Path | None = None
        self.json = False
        self.patience = patience
        self.wall = wall

    def client(self) -> ControlClient:
        """Return a client of the daemon that was named, or else is found."""
        paths = [self.socket] if self.socket is not None else candidates(os.environ)
        return ControlClient(paths, self.patience)

    def show(self, answer: object, text: Sequence[str]) -> None:
        """Print an answer: as JSON if that was asked for, else as text."""
        click.echo(document(answer) if self.json else "\n".join(text))

    def note(self, text: str) -> None:
        """Tell people something beside the answer."""
        if not self.json:
            click.echo(text, err=True)


def document(answer: object) -> str:
    """Return an answer as a JSON document."""
    return msgspec.json.format(msgspec.json.encode(answer), indent=2).decode()


# Errors ------------------------------------------------------------------------------------------------


class Failed(click.ClickException):
    """The end of a command that was not done."""

    exit_code = FAILED

    def show(self, file: Any = None) -> None:  # noqa: ANN401 - click's
        """Print the message as a program of the system does."""
        click.echo(f"{PROGRAM}: {self.message}", err=True)


class Alone(Failed):
    """The end of a command for which there was no daemon."""

    exit_code = NO_DAEMON


def failed(error: ControlError) -> Failed:
    """Return the end that an error of the client's means."""
    return (Alone if isinstance(error, Unreachable) else Failed)(str(error))


# Options -----------------------------------------------------------------------------------------------


def _take_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    console = ctx.ensure_object(Console)
    console.json = console.json or value


def _take_socket(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    console = ctx.ensure_object(Console)
    console.socket = Path(value) if value else console.socket


def _common(variable: str | None = None) -> list[click.Parameter]:
    """Return the options that every command takes, and the program itself."""
    return [
        click.Option(
            ["--socket"],
            metavar="PATH",
            envvar=variable,
            callback=_take_socket,
            expose_value=False,
            help=f"The daemon's control socket. [{VARIABLE}]",
        ),
        click.Option(
            ["--json"],
            is_flag=True,
            callback=_take_json,
            expose_value=False,
            help="Print JSON, for programs.",
        ),
    ]


STATUS: Final[Mapping[int, str]] = {
    0: "Done.",
    FAILED: "Refused, or failed.",
    2: "Wrong usage.",
    NO_DAEMON: "No daemon, or none that answers.",
}
"""What an exit status means where a command does not say otherwise."""


def statuses(own: Mapping[int, str]) -> guide.Section:
    """Return what the exit statuses of a command mean, of which some are its own."""
    told = {**STATUS, **own}
    return guide.Section("Exit status", entries=tuple((str(code), told[code]) for code in sorted(told)))


class Command(guide.Guided):
    """A command, which takes the common options too. `status` are its own meanings of exit statuses."""

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - click's
        status: Mapping[int, str] | None = None,
        examples: tuple[guide.Entry, ...] = (),
        **more: Any,  # noqa: ANN401
    ) -> None:
        shown = (guide.Section("Examples", examples=examples),) if examples else ()
        super().__init__(*args, sections=(*shown, statuses(status or {})), **more)
        self.status = status or {}
        self.params.extend(_common())


def command(name: str | None = None, **more: Any) -> Callable[[Callable[..., Any]], Command]:  # noqa: ANN401
    """Make a command of a function, as `click.command` does."""
    return click.command(name, cls=Command, **more)


class Program(guide.Guided, click.Group):
    """All commands: in the order in which they were added, and with our errors."""

    def __init__(self, *args: Any, **more: Any) -> None:  # noqa: ANN401 - click's
        super().__init__(*args, **more)
        self.params.extend(_common(VARIABLE))

    def list_commands(self, _: click.Context) -> list[str]:
        """Return the commands' names as they stand in the help."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's
        """Run a command; what it could not do ends the program with a status and a message."""
        try:
            return super().invoke(ctx)
        except ControlError as error:
            raise failed(error) from None


# Names, and their completion ---------------------------------------------------------------------------


Completion = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _completed_by(known: Callable[[ControlClient], Iterator[str]]) -> Completion:
    """Return what completes a name by those that the running daemon knows; by none if there is no daemon."""

    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        console = ctx.ensure_object(Console)
        console.patience = COMPLETION_PATIENCE
        with contextlib.suppress(ControlError, OSError):
            return [CompletionItem(it) for it in known(console.client()) if it.startswith(incomplete)]
        return []

    return complete


def _conversations_and_workers(client: ControlClient) -> Iterator[str]:
    yield from display.full_names(client.conversations(stored=True))
    yield from (it.id for it in client.workers())


complete_id: Final = _completed_by(_conversations_and_workers)
complete_request: Final = _completed_by(lambda client: (it.id for it in client.requests()))

ID: Final = (
    "A conversation, TENANT/CONVERSATION where two tenants have one of the same name, or a worker, as w3."
)


def _argument(name: str, complete: Completion, text: str, **more: Any) -> Callable[[Decorated], Decorated]:  # noqa: ANN401
    given = {"metavar": "ID", **more}
    return click.argument(name, cls=guide.Argument, shell_complete=complete, help=text, **given)


named: Final = _argument("name", complete_id, ID)
several: Final = _argument("names", complete_id, ID, metavar="[ID]...", nargs=-1)
asked: Final = _argument("request", complete_request, "A request, as `requests` shows it.")


def conversation_or_worker(
    text: str, conversation: Callable[[Name], Any], worker: Callable[[str], Any]
) -> Any:  # noqa: ANN401 - whatever the two return
    """Do something to a conversation, or if there is none of this name and it can be a worker's, to that."""
    try:
        return conversation(Name.of(text))
    except Refused as error:
        if error.status != 404 or worker_number(text) is None:
            raise
    return worker(text)
