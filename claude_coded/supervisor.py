"""`serve --reload`: a process that has the port, and starts the daemon anew when the code changes.

The daemon gets the listening socket as from systemd (sd_listen_fds(3)), so that connections which come
between two daemons wait and are served by the second. What is decided when: `restarting`.
"""

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import claude_coded
from claude_coded.claude.launch import die_with_parent
from claude_coded.configuration import Source
from claude_coded.daemon import CLOSING, STOP_GRACE
from claude_coded.errors import ConfigurationError
from claude_coded.listener import bind_tcp
from claude_coded.plan import Handed, Plan
from claude_coded.restarting import Action, Event, Phase, decide

log = logging.getLogger(__name__)

PACKAGE: Final = Path(claude_coded.__file__).parent

HAND_OVER: Final = "trap '' HUP; export LISTEN_PID=$$; exec \"$@\" 3<&0 0</dev/null"
"""How a shell makes of its standard input what systemd hands over, and becomes the daemon.

A hang-up is ignored until the daemon can take it.
"""

SETTLING: Final = 100
"""Milliseconds with no more changes after which those that came are one."""

LATE: Final = 5.0
"""Seconds beyond all that a daemon's stop may take; then it is killed."""


def this_program() -> list[str]:
    """Return how this program is run by this interpreter, and found where this process has found it."""
    unsafe = PACKAGE.parent == Path.cwd()  # else another one that lies here would go first
    return [sys.executable, *([] if unsafe else ["-P"]), "-m", PACKAGE.name]


def supervise(source: Source, *, offline: bool) -> int:
    """Run the daemon, and run it again whenever the code changes; return the exit status.

    Raises ConfigurationError, OSError.
    """
    given = source.environment
    if "NOTIFY_SOCKET" in given or given.get("LISTEN_PID") == str(os.getpid()):
        raise ConfigurationError("--reload is for development: systemd would wait for another process")
    changes = watch(PACKAGE)
    settings = source.load()
    plan = Plan.make(settings, given, offline=offline, handed=Handed())
    patience = plan.settings.turns.drain_timeout + STOP_GRACE + CLOSING + LATE
    with bind_tcp(plan.settings.server.host, plan.settings.server.port) as sock:
        return asyncio.run(Supervisor(command(source, offline=offline), sock, patience).run(changes))


def command(source: Source, *, offline: bool) -> list[str]:
    """Return the daemon's command line: the flags that were given, of which none is a secret by now."""
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in source.flags.items()]
    flags += [f"--config={source.config}"] if source.config is not None else []
    return [*this_program(), "serve", *(["--offline"] if offline else []), *flags]


def watch(directory: Path) -> AsyncIterator[Sequence[str]]:
    """Return what yields the Python files that have changed, those of a moment together.

    Raises ConfigurationError where the library for it is missing.
    """
    try:
        from watchfiles import awatch  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError(
            "--reload needs the library watchfiles, which the extra `reload` brings: pip install watchfiles"
        ) from None
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # what has changed is logged here

    async def changes() -> AsyncIterator[Sequence[str]]:
        async for found in awatch(directory, watch_filter=is_code, step=SETTLING):
            yield sorted({os.path.relpath(path, directory) for _, path in found})

    return changes()


def is_code(_: object, path: str) -> bool:
    """Return whether a path is that of a Python file; editors' own are hidden."""
    name = Path(path).name
    return name.endswith(".py") and not name.startswith(".")


class Supervisor:
    """One daemon after the other, all on one socket. `patience` is how long one may take to end."""

    def __init__(self, command: Sequence[str], sock: socket.socket, patience: float) -> None:
        self._command = ["/bin/sh", "-c", HAND_OVER, "sh", *die_with_parent(shutil.which), *command]
        self._sock = sock
        self._patience = patience
        self._phase = Phase.WAITING
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._child: asyncio.subprocess.Process | None = None
        self._overdue: asyncio.TimerHandle | None = None
        self._following: asyncio.Task[None] | None = None
        self._actions: Mapping[Action, Callable[[], Awaitable[None]]] = {
            Action.START: self._start,
            Action.TERMINATE: self._terminate,
            Action.KILL: self._kill,
            Action.HANG_UP: self._hang_up,
            Action.COMPLAIN: self._complain,
        }

    async def run(self, changes: AsyncIterator[Sequence[str]]) -> int:
        """Keep a daemon running until told to stop; return 0 if the last one ended in order."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._events.put_nowait, Event.STOP)
        loop.add_signal_handler(signal.SIGHUP, self._events.put_nowait, Event.HANGUP)
        watching = asyncio.ensure_future(self._watch(changes))
        watching.add_done_callback(lambda _: self._events.put_nowait(Event.STOP))
        await self._take(Event.CHANGED)  # there was none, now there is one
        while self._phase is not Phase.ENDED:
            await self._take(await self._events.get())
        if watching.done():
            watching.result()  # it has failed
        watching.cancel()
        return 1 if self._child is not None and self._child.returncode else 0

    async def _take(self, event: Event) -> None:
        self._phase, action = decide(self._phase, event)
        if action is not None:
            await self._actions[action]()

    async def _watch(self, changes: AsyncIterator[Sequence[str]]) -> None:
        async for files in changes:
            log.info("the code has changed", extra={"files": files})
            self._events.put_nowait(Event.CHANGED)

    # The daemon ----------------------------------------------------------------------------------------

    async def _start(self) -> None:
        """Start a daemon, in a session of its own: the terminal's Ctrl-C is for us."""
        environment = {name: value for name, value in os.environ.items() if name != "LISTEN_FDNAMES"}
        self._child = child = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=self._sock.fileno(),
            env=environment | {"LISTEN_FDS": "1"},
            start_new_session=True,
        )
        self._following = asyncio.ensure_future(self._follow(child))

    async def _follow(self, child: asyncio.subprocess.Process) -> None:
        await child.wait()
        if self._overdue is not None:
            self._overdue.cancel()
        self._events.put_nowait(Event.EXITED)

    async def _terminate(self) -> None:
        self._signal(signal.SIGTERM)
        loop = asyncio.get_running_loop()
        self._overdue = loop.call_later(self._patience, self._events.put_nowait, Event.OVERDUE)

    async def _kill(self) -> None:
        log.warning("the daemon is killed")
        self._signal(signal.SIGKILL)

    async def _hang_up(self) -> None:
        self._signal(signal.SIGHUP)

    def _signal(self, number: signal.Signals) -> None:
        assert self._child is not None
        if self._child.returncode is None:
            self._child.send_signal(number)

    async def _complain(self) -> None:
        assert self._child is not None
        told = {"status": self._child.returncode}
        log.error("the daemon has ended; the next change of the code starts it again", extra=told)
