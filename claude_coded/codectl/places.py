"""Where the control socket is looked for, and why one of these places is of no use."""

import grp
import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SOCKET: Final = "control.sock"
SYSTEM: Final = Path("/run/claude-coded") / SOCKET


def candidates(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where a daemon's socket may be, in the order in which one is looked for."""
    runtime = environment.get("XDG_RUNTIME_DIR")
    state = Path(environment.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "claude-coded"
    own = [Path(runtime) / "claude-coded" / SOCKET] if runtime else []
    return (*own, SYSTEM, state / SOCKET, state / "offline" / SOCKET)


def obstacle(path: Path, error: OSError) -> str:
    """Return in words why a connection failed."""
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return "not there"
        case PermissionError():
            return f"permission denied{_hint(_denies(path))}"
        case ConnectionRefusedError():
            return "nobody answers there" if _is_socket(path) else "not a socket"
        case _:
            return error.strerror or str(error)


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def _denies(path: Path) -> Path:
    """Return the outermost directory on the way that may not be entered, else the socket itself."""
    for directory in reversed(path.absolute().parents):
        if not os.access(directory, os.X_OK, effective_ids=True):
            return directory
    return path


def _hint(denied: Path) -> str:
    """Return what would help: its group, if that may pass, else its owner."""
    try:
        found = denied.stat()
    except OSError:
        return ""
    needed = stat.S_IXGRP if stat.S_ISDIR(found.st_mode) else stat.S_IWGRP
    if found.st_gid == 0 or not found.st_mode & needed:
        return f"; it is for user {_user(found.st_uid)} only"
    name, members = _group(found.st_gid)
    if _user(os.geteuid()) in members:
        return f"; your user is in group {name}, which counts from your next login on"
    return f"; is your user in group {name}?"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> tuple[str, list[str]]:
    try:
        entry = grp.getgrgid(gid)
    except KeyError:
        return str(gid), []
    return entry.gr_name, entry.gr_mem
