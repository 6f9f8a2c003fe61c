"""Who may call, and where: clients' keys, the port, the control socket."""

import contextlib
import errno
import grp
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from claude_coded.check import probes
from claude_coded.check.findings import Finding, Machine, Mark
from claude_coded.errors import ConfigurationError
from claude_coded.keys import read_keys
from claude_coded.listener import bind_tcp
from claude_coded.plan import control_socket, is_loopback

LONGEST_PATH: Final = 107
"""Bytes of a Unix socket's path (unix(7))."""

EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not bound
"""Where to ask for what listens on all addresses."""

_OTHERWISE: Final = "set CLAUDE_CODED_SOCKET and CLAUDE_CODED_SOCKET_GROUP otherwise"


def keys(machine: Machine) -> Iterator[Finding]:
    """Look at clients' keys, and whether some are needed."""
    access, host = machine.settings.access, machine.settings.server.host
    try:
        known = read_keys(access, machine.environment)
    except ConfigurationError as error:
        advice = "its lines are NAME:KEY, and the daemon's user has to be able to read it"
        yield Finding("api keys", Mark.FAILED, str(error), advice)
        return
    file = access.api_keys_file
    if not known and not is_loopback(host):
        mark = Mark.WARNING if access.allow_no_keys else Mark.FAILED
        yield Finding("api keys", mark, *_open_to_all(host, allowed=access.allow_no_keys))
    elif file is not None and stat.S_IMODE(file.stat().st_mode) & 0o004:
        yield Finding("api keys", Mark.WARNING, f"everybody here can read {file}", f"chmod o= {file}")
    else:
        yield Finding("api keys", Mark.OK, f"{len(known)} set" if known else f"none, on {host}")


def _open_to_all(host: str, *, allowed: bool) -> tuple[str, str]:
    """Return what that means, and what to do: from a container it is the published port that leads out."""
    if not probes.in_container():
        text = f"none, and HOST {host} is beyond loopback: whoever reaches it gets a shell here"
        return text, "set CLAUDE_CODED_API_KEYS_FILE, or HOST=127.0.0.1"
    text = "none: whoever reaches the port as it is published gets a shell in this container"
    also = "" if allowed else " with CLAUDE_CODED_ALLOW_NO_KEYS=1"
    return text, f"publish it for 127.0.0.1 alone{also}, or set CLAUDE_CODED_API_KEYS"


# The port ----------------------------------------------------------------------------------------------


def port(machine: Machine) -> Iterator[Finding]:
    """Look at whether the port can be had, or who has it."""
    host, number = machine.settings.server.host, machine.settings.server.port
    try:
        bind_tcp(host, number).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            yield _taken(machine, host, number)
            return
        advice = (
            "choose a PORT from 1024 on" if error.errno == errno.EACCES else "set HOST and PORT otherwise"
        )
        yield Finding("port", Mark.FAILED, str(error), advice)
        return
    yield Finding("port", Mark.OK, f"{host} port {number} is free" if number else "any free one")


def _taken(machine: Machine, host: str, number: int) -> Finding:
    holder = probes.holder_of(number)
    by = f" by {holder}" if holder else ""
    if machine.running and _is_ours(host, number):
        return Finding("port", Mark.OK, f"{host} port {number} is served{by}: the daemon runs")
    if holder is not None and holder.name == "systemd":
        return Finding("port", Mark.OK, f"{host} port {number} is held by systemd, to be handed over")
    text = f"{host} port {number} is taken{by}"
    return Finding("port", Mark.FAILED, text, "stop that, or choose another PORT")


def _is_ours(host: str, number: int) -> bool:
    """Return whether a claude-coded answers there."""
    address = EVERYWHERE.get(host, host)
    shown = f"[{address}]" if ":" in address else address
    with contextlib.suppress(OSError, ValueError):
        _, body = probes.get_here(f"http://{shown}:{number}/health")
        told = json.loads(body)
        return isinstance(told, dict) and told.get("status") in {"ok", "draining", "unhealthy"}
    return False


# The control socket ------------------------------------------------------------------------------------


def control(machine: Machine) -> Iterator[Finding]:
    """Look at whether the control socket can be had, or who has it."""
    settings = machine.settings
    path = settings.control.socket or control_socket(settings, machine.environment, offline=False)
    try:
        found = probes.look_at_socket(path)
    except OSError as error:
        text = f"{path} cannot be looked at: {error.strerror or error}"
        yield Finding("control", Mark.WARNING, text, _OTHERWISE)
        return
    if found.what == "file":
        yield Finding(
            "control", Mark.FAILED, f"{path} is there, and no socket", f"remove it, or {_OTHERWISE}"
        )
    elif found.what == "served":
        yield _served(machine, path, found)
    elif problem := _problem(path, settings.control.group):
        yield Finding("control", Mark.FAILED, problem, _OTHERWISE)
    else:
        stale = " is a socket that nobody serves, and will be replaced" if found.what == "stale" else ""
        yield Finding("control", Mark.OK, f"{path}{stale}")


def _served(machine: Machine, path: Path, found: probes.Found) -> Finding:
    if machine.running:
        return Finding("control", Mark.OK, f"{path} is served by {found.holder}: the daemon runs")
    text = f"{path} is served by {found.holder}, which does not use this state directory"
    return Finding("control", Mark.FAILED, text, f"stop that, or {_OTHERWISE}")


def _problem(path: Path, group: str | None) -> str:
    """Return why the socket cannot be made; "" where it can."""
    if len(os.fsencode(path)) > LONGEST_PATH:
        return f"{path} is longer than {LONGEST_PATH} bytes"
    if problem := probes.obstacle(path.parent):
        return f"{path.parent}: {problem}"
    return _group_problem(group) if group is not None else ""


def _group_problem(group: str) -> str:
    """Return why a socket cannot be given to a group; "" where it can."""
    try:
        gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        return f"CLAUDE_CODED_SOCKET_GROUP: there is no group {group!r}"
    if os.geteuid() == 0 or gid in {os.getegid(), *os.getgroups()}:
        return ""
    return f"CLAUDE_CODED_SOCKET_GROUP: {probes.user()} is not in the group {group!r}"
