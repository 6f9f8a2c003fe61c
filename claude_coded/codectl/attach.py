"""`claude-codectl attach`: Claude Code's own terminal on a conversation that the daemon holds."""

import os
import pwd
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Any, Final

from claude_coded.control.api import Attached

KEPT: Final = ("TERM", "COLORTERM", "TERM_PROGRAM", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "PATH")
"""Variables that root's own terminal hands on to another user's command."""


class Manner(Enum):
    """How the command can be run from here."""

    OURSELVES = "ourselves"
    AS_USER = "as the user"
    BY_SUDO = "by sudo"
    IN_CONTAINER = "in the container"


def manner(attached: Attached, uid: int, *, here: bool) -> Manner:
    """Return how the command can be run by a user; `here` says whether this machine has what it needs."""
    if not here:
        return Manner.IN_CONTAINER
    if uid == attached.uid:
        return Manner.OURSELVES
    return Manner.AS_USER if uid == 0 else Manner.BY_SUDO


def is_here(attached: Attached) -> bool:
    """Return whether directory and program exist where we are; what we may not see counts as here."""
    try:
        return Path(attached.directory).is_dir() and shutil.which(attached.command[0]) is not None
    except PermissionError:
        return True


def advice(attached: Attached, how: Manner) -> list[str]:
    """Return the lines that tell a person what to run."""
    if how is Manner.IN_CONTAINER:
        why = "What this session needs is not on this machine: the daemon seems to run in a container."
        return [why, "Run this in another terminal, with the container's name:"]
    return [f"This session belongs to user {attached.user}. Run this in another terminal:"]


def command_line(attached: Attached, how: Manner) -> str:
    """Return what to run, for a shell."""
    variables = [f"{name}={value}" for name, value in attached.environment.items()]
    if how is Manner.IN_CONTAINER:
        given = [part for variable in variables for part in ("--env", variable)]
        place = ["--user", attached.user.removeprefix("#"), "--workdir", attached.directory]
        return shlex.join(["docker", "exec", "-it", *place, *given, "CONTAINER", *attached.command])
    words = ["env", "-C", attached.directory, *variables, *attached.command]
    return shlex.join(["sudo", "-u", attached.user, *words])


def run(attached: Attached, how: Manner, environment: Mapping[str, str]) -> int:
    """Run the command in this terminal, as the session's user; return its exit status. Raises OSError."""
    with _left_to_the_command() as tell:
        given = {"env": {**environment, **attached.environment}}
        more = _as_user(attached, environment) if how is Manner.AS_USER else given
        process = subprocess.Popen(attached.command, cwd=attached.directory, **more)  # noqa: S603 - as told
        tell(process)
        code = process.wait()
    return code if code >= 0 else 128 - code


def _as_user(attached: Attached, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what makes a process of root's another user's: ids, groups, and nothing of root's variables."""
    kept = {name: environment[name] for name in KEPT if name in environment}
    try:
        entry = pwd.getpwuid(attached.uid)
    except KeyError:  # a number without a name: its group is taken to be the same
        numbers = {"user": attached.uid, "group": attached.uid, "extra_groups": []}
        return {**numbers, "env": {**kept, **attached.environment}}
    own = {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name, "SHELL": entry.pw_shell}
    return {
        "user": attached.uid,
        "group": entry.pw_gid,
        "extra_groups": os.getgrouplist(entry.pw_name, entry.pw_gid),
        "env": {**kept, **own, **attached.environment},
    }


@contextmanager
def _left_to_the_command() -> Iterator[Callable[["subprocess.Popen[bytes]"], None]]:
    """Let the keyboard's signals be the command's alone; pass on those that are sent to us.

    The command shares our process group, so the terminal's signals reach it anyway, and job control works
    as for one program. Handlers, unlike ignored signals, do not outlive the start of another program.
    """
    commands: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        for command in commands:
            command.send_signal(number)

    def leave(_number: int, _frame: FrameType | None) -> None:
        """Do nothing: the command has it already."""

    handlers = {
        signal.SIGINT: leave,
        signal.SIGQUIT: leave,
        signal.SIGTERM: pass_on,
        signal.SIGHUP: pass_on,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield commands.append
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
