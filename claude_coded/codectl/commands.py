"""`claude-codectl`: shows and steers a running daemon over its control socket."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import click
import msgspec

from claude_coded import __version__
from claude_coded.codectl import display
from claude_coded.codectl.client import Attachment, ControlClient, ControlError, Lost, Name, Unreachable
from claude_coded.codectl.console import (
    FAILED,
    PROGRAM,
    Console,
    Failed,
    Program,
    asked,
    conversation_or_worker,
    document,
    named,
    several,
    statuses,
)
from claude_coded.codectl.render import counted
from claude_coded.control import api
from claude_coded.guide import Argument, Section

DRAIN_STEP: Final = 5.0
"""Seconds of waiting for a drain between two words on how far it has come."""

READY_STEP: Final = 0.1
"""Seconds between two looks at whether the daemon is ready."""

PLACES: Final = Section(
    "Files",
    "The control socket: that of --socket, else of CLAUDE_CODED_SOCKET, else the first of these that a "
    "daemon listens on:\n\n"
    "\b\n"
    "  $XDG_RUNTIME_DIR/claude-coded/control.sock\n"
    "  /run/claude-coded/control.sock\n"
    "  ~/.local/state/claude-coded/control.sock\n"
    "  ~/.local/state/claude-coded/offline/control.sock",
)
EXAMPLES: Final = Section(
    "Examples",
    examples=(
        ("Watch what runs", "claude-codectl top"),
        ("See how a conversation came to where it is", "claude-codectl show my-conversation"),
        ("Restart without cutting an answer", "claude-codectl drain && systemctl restart claude-coded"),
    ),
)
ENVIRONMENT: Final = Section(
    "Environment",
    entries=(("CLAUDE_CODED_SOCKET", "The control socket, unless --socket names one."),),
    manual=True,
)
SEE_ALSO: Final = Section("See also", "claude-coded(8)", manual=True)

LEVELS: Final = ("debug", "info", "warning", "error")
SHELLS: Final = ("bash", "zsh", "fish")
SIDES: Final = ("day", "tenant", "model")


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"]},
    sections=(PLACES, statuses({}), EXAMPLES, ENVIRONMENT, SEE_ALSO),
)
@click.version_option(__version__, prog_name=PROGRAM)
def main() -> None:
    """Show and steer a running claude_coded daemon over its control socket.

    An ID is a conversation, TENANT/CONVERSATION where two tenants have one of the same name, or a worker, as
    w3. All commands take --socket and --json.
    """


# Looking -----------------------------------------------------------------------------------------------


@main.command()
@click.pass_obj
def status(console: Console) -> None:
    """Show what the daemon is and how it does."""
    answer = console.client().status()
    console.show(answer, display.status(answer))


@main.command()
@click.pass_obj
def workers(console: Console) -> None:
    """List the workers: Claude Code's processes.

    FOR is how long a worker has been in its state; `idle+` is one that works on, or may, with
    nobody asking. Tokens and cost are those of its conversation, MEMORY is that of its whole process tree.
    """
    answer = console.client().workers()
    console.show(answer, display.workers(answer, console.wall()))


@main.command()
@click.option("--all", "stored", is_flag=True, help="Those that have no worker, too.")
@click.pass_obj
def conversations(console: Console, stored: bool) -> None:
    """List the conversations that have a worker, or all.

    A conversation of another tenant than `default` shows as TENANT/CONVERSATION.
    """
    answer = console.client().conversations(stored=stored)
    console.show(answer, display.conversations(answer, console.wall()))


@main.command()
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


@main.command(
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


@main.command()
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


@main.command(
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


@main.command(
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


@main.command()
@click.pass_obj
def config(console: Console) -> None:
    """List the settings in force, and where each came from.

    Secrets are not shown. A setting that `needs a restart` is not changed by `reload`.
    """
    answer = console.client().config()
    console.show(answer, display.config(answer))


@main.command(
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


# Conversations and workers -----------------------------------------------------------------------------


@main.command(
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


@main.command()
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


@main.command(
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


@main.command()
@click.pass_obj
def requests(console: Console) -> None:
    """List what Claude asks leave for.

    In permission mode `ask`, Claude's turn waits until an operator has answered, or the time for it is over,
    which is a denial. Each request shows all of what Claude wants to do, and what --always would allow.
    """
    answer = console.client().requests()
    console.show(answer, display.requests(answer, console.wall()))


@main.command(
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


@main.command(
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


@main.command(
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


@main.command()
@click.pass_obj
def resume(console: Console) -> None:
    """Take turns again after a `drain`."""
    answer = console.client().resume()
    console.show(answer, ["still draining" if answer.draining else "taking turns again"])


@main.command(status={FAILED: "The configuration has a mistake, or the daemon does not serve."})
@click.pass_obj
def reload(console: Console) -> None:
    """Have the daemon read its configuration again.

    No turn is dropped. A configuration with a mistake changes nothing, and the reason is told. What needs a
    restart is named.
    """
    answer = console.client().reload()
    console.show(answer, display.reloaded(answer))


@main.command("log-level")
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


@main.command(
    examples=(
        (
            "bash",
            "claude-codectl completion bash > ~/.local/share/bash-completion/completions/claude-codectl",
        ),
        ("zsh", 'claude-codectl completion zsh > "${fpath[1]}/_claude-codectl"'),
        ("fish", "claude-codectl completion fish > ~/.config/fish/completions/claude-codectl.fish"),
    ),
)
@click.argument("shell", cls=Argument, type=click.Choice(SHELLS), metavar="SHELL", help="bash, zsh or fish.")
@click.pass_obj
def completion(console: Console, shell: str) -> None:
    """Print a shell's completion script.

    It completes commands, options, and the IDs that a running daemon knows.
    """
    script = _script(shell)
    console.show({"shell": shell, "script": script}, script.splitlines())


def _script(shell: str) -> str:
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - rarely needed

    found: Any = get_completion_class(shell)
    return str(found(main, {}, PROGRAM, "_CLAUDE_CODECTL_COMPLETE").source())
