"""Commands that show how things are, and change nothing."""

import contextlib
import os
import sys
import time
from datetime import datetime
from typing import Final

import click
import msgspec

from claude_coded.codectl import display
from claude_coded.codectl.client import Lost, Unreachable
from claude_coded.codectl.console import FAILED, Console, Failed, command, conversation_or_worker, named
from claude_coded.control import api

READY_STEP: Final = 0.1
"""Seconds between two looks at whether the daemon is ready."""

SIDES: Final = ("day", "tenant", "model")


@command()
@click.pass_obj
def status(console: Console) -> None:
    """Show what the daemon is and how it does."""
    answer = console.client().status()
    console.show(answer, display.status(answer))


@command()
@click.pass_obj
def workers(console: Console) -> None:
    """List the workers: Claude Code's processes.

    FOR is how long a worker has been in its state; `idle+` is one that works on, or may, with
    nobody asking. Tokens and cost are those of its conversation, MEMORY is that of its whole process tree.
    """
    answer = console.client().workers()
    console.show(answer, display.workers(answer, console.wall()))


@command()
@click.option("--all", "stored", is_flag=True, help="Those that have no worker, too.")
@click.pass_obj
def conversations(console: Console, stored: bool) -> None:
    """List the conversations that have a worker, or all.

    A conversation of another tenant than `default` shows as TENANT/CONVERSATION.
    """
    answer = console.client().conversations(stored=stored)
    console.show(answer, display.conversations(answer, console.wall()))


@command()
@named
@click.pass_obj
def show(console: Console, name: str) -> None:
    """Show a conversation or a worker, with the worker's story.

    The story tells how the worker came to where it is. After it comes the last that its CLI said on stderr.
    """
    client, now = console.client(), console.wall()
    conversation_or_worker(
        name,
        lambda it: _show(console, client.conversation(it), now),
        lambda it: _show(console, client.worker(it), now),
    )


def _show(console: Console, answer: api.Shown | api.WorkerStory, now: float) -> None:
    text = display.shown(answer, now) if isinstance(answer, api.Shown) else display.worker(answer, now)
    console.show(answer, text)


@command(
    status={0: "Done; with --follow, ended by Ctrl-C.", 3: "No daemon; with --follow, it has ended."},
    examples=(
        (
            "Wait for the end of a turn, whosever it is",
            "claude-codectl --json events --follow | grep -m1 turn.finished",
        ),
    ),
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens from now on.")
@click.option("--since", type=click.IntRange(0), metavar="N", help="Only what came after event number N.")
@click.pass_obj
def events(console: Console, follow: bool, since: int | None) -> None:
    """Print what has happened, an event a line.

    The daemon remembers the newest events only; what was lost before an event is said. With --json, each
    line is an object.
    """
    with contextlib.suppress(KeyboardInterrupt):
        for event in console.client().events(since, follow=follow):
            text = [msgspec.json.encode(event).decode()] if console.json else display.event(event)
            click.echo("\n".join(text))
        if follow:
            raise Lost("the daemon has ended")


@command()
@click.option(
    "--interval",
    type=click.FloatRange(0.1),
    default=1.0,
    metavar="SECONDS",
    help="From one frame to the next. Default: 1.",
)
@click.option("--once", is_flag=True, help="Print one frame, and end.")
@click.pass_obj
def top(console: Console, interval: float, once: bool) -> None:
    """Watch the workers in a live view.

    The busy ones come first; q or Ctrl-C ends it. TURN is how long the turn runs, CPU the share of a core
    that the worker's process tree has used since the frame before; MEMORY and PROCS are the tree's too.
    Without a terminal, and with --json, it prints one frame, for which it looks twice.
    """
    from claude_coded.codectl.top import Frames, Sample, run  # noqa: PLC0415 - only it needs the terminal

    client = console.client()
    if not (once or console.json) and sys.stdin.isatty() and sys.stdout.isatty():
        run(client, interval, console.wall)
        return
    frames = Frames(Sample.take(client, console.wall()))
    time.sleep(min(interval, 1.0))
    sample = Sample.take(client, console.wall())
    console.show({"status": sample.status, "workers": sample.workers}, frames.frame(sample))


@command(
    status={0: "Ended by Ctrl-C."},
    examples=(
        (
            "See the page of a daemon on another machine",
            "ssh -t -L 8700:127.0.0.1:8700 HOST claude-codectl web --port 8700",
        ),
    ),
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="PORT", help="Default: a free one.")
@click.option("--no-browser", is_flag=True, help="Print the address only.")
@click.pass_obj
def web(console: Console, port: int, no_browser: bool) -> None:
    """Open the daemon's status page in a browser.

    It shows live what runs, and evicts, interrupts, approves and denies. While this command runs, the page is
    on a port of 127.0.0.1, for the browser alone that opens the printed address first: the address works
    once. Where there is no desktop, open it yourself. Ctrl-C ends it.
    """
    from claude_coded.codectl.web import Web, open_browser  # noqa: PLC0415 - only it serves

    client = console.client()
    client.status()
    try:
        server = Web(client, port, console.note)
    except OSError as error:
        raise Failed(f"port {port} of 127.0.0.1: {error.strerror}") from None
    with server, contextlib.suppress(KeyboardInterrupt):
        console.show({"address": server.address}, [server.address])
        if not no_browser:
            open_browser(server.address, os.environ)
        server.serve_forever()


@command(
    status={0: "It serves.", FAILED: "It does not, or is draining."},
    examples=(
        (
            "Go on when it serves",
            "claude-coded & claude-codectl ready --wait 10 && curl http://127.0.0.1:3000/health",
        ),
    ),
)
@click.option(
    "--wait", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="Longest to wait. Default: 0."
)
@click.pass_obj
def ready(console: Console, wait: float) -> None:
    """Tell whether the daemon is ready.

    The exit status says it. With --wait it may still be starting.
    """
    answer = _await_ready(console, wait)
    console.show(answer, ["ready" if answer.ready else f"not ready: {answer.reason}"])
    if not answer.ready:
        sys.exit(FAILED)


def _await_ready(console: Console, wait: float) -> api.Ready:
    deadline = time.monotonic() + wait
    while True:
        late = time.monotonic() >= deadline
        try:
            answer = console.client().ready()
        except Unreachable:
            if late:
                raise
        else:
            if answer.ready or late:
                return answer
        time.sleep(READY_STEP)


@command()
@click.pass_obj
def config(console: Console) -> None:
    """List the settings in force, and where each came from.

    Secrets are not shown. A setting that `needs a restart` is not changed by `reload`.
    """
    answer = console.client().config()
    console.show(answer, display.config(answer))


@command(
    examples=(
        ("What each tenant has used this year", "claude-codectl usage --by tenant --since 2026-01-01"),
        ("A sheet of all days", "claude-codectl usage --csv > usage.csv"),
    ),
)
@click.option(
    "--by",
    "sides",
    type=click.Choice(SIDES),
    multiple=True,
    help="Tell apart by day, tenant or model; more than once for several. Default: all three.",
)
@click.option(
    "--since", type=click.DateTime(["%Y-%m-%d"]), metavar="DATE", help="Only from that day on, YYYY-MM-DD."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for spreadsheets.")
@click.pass_obj
def usage(console: Console, sides: tuple[str, ...], since: datetime | None, as_csv: bool) -> None:
    """Show what turns have used, in tokens and dollars.

    It counts turns that have finished, those of conversations that are forgotten too. Days are UTC's. IN is
    all that the model read, of which CACHED came from its cache; the cost is as Claude Code tells it.
    """
    if as_csv and console.json:
        raise click.UsageError("Choose --csv or --json.")
    by = [side for side in SIDES if side in (sides or SIDES)]
    answer = console.client().usage(by, since.date().isoformat() if since else "")
    if as_csv:
        click.echo(display.usage_csv(answer, by), nl=False)
    else:
        console.show(answer, display.used(answer))


COMMANDS: Final = (status, workers, conversations, show, events, top, web, ready, config, usage)
"""In the order of the help."""
