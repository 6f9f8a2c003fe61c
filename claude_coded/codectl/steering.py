"""Commands that steer conversations and workers, permission requests, and the daemon itself."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Final

import click
import msgspec

from claude_coded.codectl import display
from claude_coded.codectl.client import Attachment, ControlClient, ControlError, Name
from claude_coded.codectl.console import (
    FAILED,
    PROGRAM,
    Console,
    Failed,
    asked,
    command,
    conversation_or_worker,
    document,
    named,
    several,
)
from claude_coded.codectl.render import counted
from claude_coded.control import api
from claude_coded.guide import Argument

DRAIN_STEP: Final = 5.0
"""Seconds of waiting for a drain between two words on how far it has come."""

LEVELS: Final = ("debug", "info", "warning", "error")

# Conversations and workers -----------------------------------------------------------------------------


@command(
    status={FAILED: "Refused, or some could not be released."},
    examples=(
        ("Release a worker, and that of a conversation", "claude-codectl evict w3 my-conversation"),
        ("Release all at once", "claude-codectl evict --all --now"),
    ),
)
@several
@click.option("--idle", "which", flag_value="idle", help="All that run no turn.")
@click.option("--all", "which", flag_value="all", help="All.")
@click.option("--now", is_flag=True, help="Interrupt running turns; else wait for their ends.")
@click.pass_obj
def evict(console: Console, names: tuple[str, ...], which: str | None, now: bool) -> None:
    """Release workers.

    It returns when they are gone. What a conversation has said stays: its next request takes another
    worker, which resumes the session.
    """
    if bool(names) == (which is not None):
        raise click.UsageError("Name conversations or workers, or give --idle or --all.")
    client = console.client()
    if which:
        answer, wrong = client.evict_many(which, now=now), False
    else:
        answer, wrong = _evict_each(client, names, now=now)
    console.show(answer, display.evicted(answer))
    if wrong:
        sys.exit(FAILED)


def _evict_each(client: ControlClient, names: tuple[str, ...], *, now: bool) -> tuple[api.Evicted, bool]:
    """Evict one after the other, also after one that could not be; return whether there was such a one."""
    gone: list[str] = []
    wrong = False
    for name in names:
        try:
            answer = conversation_or_worker(
                name, lambda it: client.evict(it, now=now), lambda it: client.evict_worker(it, now=now)
            )
        except ControlError as error:
            if len(names) == 1:
                raise
            click.echo(f"{PROGRAM}: {name}: {error}", err=True)
            wrong = True
        else:
            gone += answer.evicted
    return api.Evicted(gone), wrong


@command()
@named
@click.pass_obj
def interrupt(console: Console, name: str) -> None:
    """Stop the turn that a conversation runs.

    Its client's answer ends with an error. The worker stays with the conversation.
    """
    client = console.client()
    answer = conversation_or_worker(
        name, client.interrupt, lambda it: client.interrupt(_of_worker(client, it))
    )
    console.show(answer, [f"{name}: interrupted" if answer.interrupted else f"{name}: no turn was running"])


def _of_worker(client: ControlClient, worker: str) -> Name:
    """Return the name of a worker's conversation."""
    about = client.worker(worker).worker
    if about.conversation is None:
        raise Failed(f"worker {worker} has no conversation")
    return Name(about.conversation, about.tenant)


@command(
    status={0: "Done. Else that of Claude Code, if it was run."},
    examples=(
        ("Go on with a conversation by hand", "claude-codectl attach my-conversation"),
        ("The same where it is another user's", "sudo claude-codectl attach my-conversation"),
    ),
)
@named
@click.option("--now", is_flag=True, help="Interrupt a running turn; else wait for its end.")
@click.pass_obj
def attach(console: Console, name: str, now: bool) -> None:
    """Open Claude Code's own terminal on a conversation.

    The daemon releases the conversation's worker and holds the conversation: requests for it wait, or are
    told that it is attached. When you leave Claude (/exit), the API goes on from there, with all that was
    said in the terminal.

    It runs as the user whose session it is: you, or, if you are root (sudo claude-codectl attach ID), that
    user. Else, and where the daemon runs in a container, it prints what to run, and gives the conversation
    back when you press Enter. With --json it prints that as JSON, and gives the conversation back at the end
    of its input.
    """
    from claude_coded.codectl import attach as terminal  # noqa: PLC0415 - only it starts programs

    if not (console.json or (sys.stdin.isatty() and sys.stdout.isatty())):
        raise Failed("attach needs a terminal; with --json it says what to run, and holds the conversation")
    with _held(console.client(), name, now=now) as held:
        how = terminal.manner(held, os.geteuid(), here=terminal.is_here(held))
        if console.json:
            click.echo(document(held))
            sys.stdin.read()
            return
        if how in {terminal.Manner.OURSELVES, terminal.Manner.AS_USER}:
            code = terminal.run(held, how, os.environ)
        else:
            code = 0
            click.echo("\n".join([*terminal.advice(held, how), "", terminal.command_line(held, how), ""]))
            click.prompt("Press Enter when you have left Claude", default="", show_default=False)
    sys.exit(code)


@contextlib.contextmanager
def _held(client: ControlClient, name: str, *, now: bool) -> Iterator[api.Attached]:
    """Hold a conversation while the context lasts; tell at its end if the daemon let go of it before."""
    with contextlib.ExitStack() as stack:

        def hold(it: Name) -> Attachment:
            return stack.enter_context(client.attach(it, now=now))

        attachment: Attachment = conversation_or_worker(name, hold, lambda it: hold(_of_worker(client, it)))
        watching = threading.Thread(target=attachment.watch, daemon=True)
        watching.start()
        yield attachment.attached
        lost = not watching.is_alive()
    how = "the daemon ended meanwhile, and has not held it since" if lost else "it is the API's again"
    click.echo(f"{PROGRAM}: {name}: {how}", err=True)


# Permission requests -----------------------------------------------------------------------------------


@command()
@click.pass_obj
def requests(console: Console) -> None:
    """List what Claude asks leave for.

    In permission mode `ask`, Claude's turn waits until an operator has answered, or the time for it is over,
    which is a denial. Each request shows all of what Claude wants to do, and what --always would allow.
    """
    answer = console.client().requests()
    console.show(answer, display.requests(answer, console.wall()))


@command(
    examples=(
        ("Allow this once", "claude-codectl approve 1-612b"),
        ("Answer a question of Claude's", 'claude-codectl approve 1-612b --message "the second one"'),
    ),
)
@asked
@click.option("--message", default="", metavar="TEXT", help="What to tell Claude.")
@click.option("--always", is_flag=True, help="Also allow the like in this conversation from now on.")
@click.pass_obj
def approve(console: Console, request: str, message: str, always: bool) -> None:
    """Allow what a request asks for.

    Where Claude asks a question, the message answers it. What --always would allow, `requests` says.
    """
    _decide(console, request, api.Decision("allow", message, always))


@command(
    examples=(("Say what to do instead", 'claude-codectl deny 1-612b --message "do not push, only test"'),),
)
@asked
@click.option("--message", default="", metavar="TEXT", help="What to tell Claude: why, or what else to do.")
@click.pass_obj
def deny(console: Console, request: str, message: str) -> None:
    """Deny what a request asks for.

    Claude is told, and goes on with its turn.
    """
    _decide(console, request, api.Decision("deny", message))


def _decide(console: Console, request: str, decision: api.Decision) -> None:
    console.client().decide(request, decision)
    console.show(
        {"id": request, **msgspec.to_builtins(decision)},
        [f"{request}: {'allowed' if decision.decision == 'allow' else 'denied'}"],
    )


# The daemon --------------------------------------------------------------------------------------------


@command(
    status={FAILED: "Refused, or turns still ran after the wait."},
    examples=(
        (
            "Restart without cutting an answer",
            "claude-codectl drain --wait 600 && systemctl restart claude-coded",
        ),
    ),
)
@click.option("--wait", type=click.FloatRange(0), metavar="SECONDS", help="Longest to wait; else no limit.")
@click.option("--no-wait", is_flag=True, help="Do not wait.")
@click.pass_obj
def drain(console: Console, wait: float | None, no_wait: bool) -> None:
    """Take no new turns, and wait until none runs.

    New requests get 503 with Retry-After, until `resume`. A turn that waits for its client's tools is not
    running: it is rebuilt when their results come.
    """
    if no_wait and wait is not None:
        raise click.UsageError("--wait and --no-wait exclude each other.")
    client = console.client()
    try:
        answer = client.drain(0) if no_wait else _await_drained(console, client, wait)
    except KeyboardInterrupt:
        raise Failed(f"it goes on draining; {PROGRAM} resume ends that") from None
    console.show(answer, [display.drained(answer)])
    if answer.running and not no_wait:
        sys.exit(FAILED)


def _await_drained(console: Console, client: ControlClient, wait: float | None) -> api.Drain:
    deadline = None if wait is None else time.monotonic() + wait
    answer = client.drain(0)
    told = 0
    while answer.running:
        left = DRAIN_STEP if deadline is None else min(DRAIN_STEP, deadline - time.monotonic())
        if left <= 0:
            break
        if answer.running != told:
            told = answer.running
            console.note(f"waiting for {counted(told, 'turn')}")
        answer = client.drain(left)
    return answer


@command()
@click.pass_obj
def resume(console: Console) -> None:
    """Take turns again after a `drain`."""
    answer = console.client().resume()
    console.show(answer, ["still draining" if answer.draining else "taking turns again"])


@command(status={FAILED: "The configuration has a mistake, or the daemon does not serve."})
@click.pass_obj
def reload(console: Console) -> None:
    """Have the daemon read its configuration again.

    No turn is dropped. A configuration with a mistake changes nothing, and the reason is told. What needs a
    restart is named.
    """
    answer = console.client().reload()
    console.show(answer, display.reloaded(answer))


@command("log-level")
@click.argument(
    "level",
    cls=Argument,
    required=False,
    type=click.Choice(LEVELS),
    metavar="[LEVEL]",
    help=f"{', '.join(LEVELS[:-1])} or {LEVELS[-1]}; without it, the level is shown.",
)
@click.pass_obj
def log_level(console: Console, level: str | None) -> None:
    """Show or set how much the daemon logs.

    What is set here lasts until the daemon ends or reloads.
    """
    client = console.client()
    answer = client.set_log_level(level) if level else api.LogLevel(client.status().log_level)
    console.show(answer, [answer.level])


COMMANDS: Final = (evict, interrupt, attach, requests, approve, deny, drain, resume, reload, log_level)
"""In the order of the help."""
