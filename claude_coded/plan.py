"""What a daemon is to be: settings checked against each other and the machine, before anything is touched."""

import asyncio
import ipaddress
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from claude_coded.claude.launch import (
    MINIMUM_VERSION,
    SANDBOX_HINT,
    SANDBOX_PROGRAMS,
    find_binary,
    parse_version,
)
from claude_coded.errors import ConfigurationError
from claude_coded.keys import read_keys
from claude_coded.settings import Settings
from claude_coded.store import Store
from claude_coded.systemd import Inherited

VERSION_TIMEOUT: Final = 20.0
"""Seconds that `claude --version` may take."""

SOCKET_NAME: Final = "control.sock"
SYSTEM_RUNTIME: Final = Path("/run/claude-coded")


@dataclass(frozen=True, slots=True)
class Handed:
    """The sockets that systemd has opened: for HTTP, for the control interface.

    Where they are is noted: who serves on a socket takes it away, and a reload asks again.
    """

    tcp: socket.socket | None = None
    control: socket.socket | None = None
    host: str = ""
    path: str = ""

    @classmethod
    def of(cls, tcp: socket.socket | None, control: socket.socket | None = None) -> "Handed":
        """Return sockets that are still ours."""
        host = tcp.getsockname()[0] if tcp is not None else ""
        return cls(tcp, control, host, str(control.getsockname()) if control is not None else "")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a daemon is to be, checked before anything is touched."""

    settings: Settings
    keys: Mapping[str, str]
    environment: Mapping[str, str]
    binary: Path
    offline: bool
    control: Path
    handed: Handed

    @classmethod
    def make(
        cls,
        settings: Settings,
        environment: Mapping[str, str],
        *,
        offline: bool,
        handed: Handed,
    ) -> "Plan":
        """Check settings against each other and the machine. Raises ConfigurationError."""
        if offline:
            settings, environment = for_offline(settings, environment)
        keys = read_keys(settings.access, environment)
        host = handed.host or settings.server.host
        if not keys and not settings.access.allow_no_keys and not is_loopback(host):
            named = "the address of systemd's socket," if handed.host else "HOST"
            raise ConfigurationError(
                f"{named} {host} is not loopback and no API keys are set: whoever reaches it "
                "gets a shell here. Set CLAUDE_CODED_API_KEYS, or CLAUDE_CODED_ALLOW_NO_KEYS=1"
            )
        modes = {settings.claude.permission_mode, *(model.permission_mode for model in settings.models)}
        if "bypassPermissions" in modes and os.geteuid() == 0 and environment.get("IS_SANDBOX") != "1":
            raise ConfigurationError(SANDBOX_HINT)
        if not settings.claude.workspace.is_dir():
            raise ConfigurationError(f"WORKSPACE_DIR {settings.claude.workspace} is not a directory")
        missing = [program for program in SANDBOX_PROGRAMS if shutil.which(program) is None]
        if settings.claude.sandbox and missing:
            raise ConfigurationError(f"CLAUDE_CODED_SANDBOX: {' and '.join(missing)} cannot be found")
        binary = find_binary(settings.claude.binary, shutil.which)
        control = settings.control.socket or control_socket(settings, environment, offline=offline)
        return cls(settings, keys, environment, binary, offline, control, handed)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def handed_over(inherited: Sequence[Inherited]) -> Handed:
    """Return what of the sockets is for what. Raises ConfigurationError if there are two for the same."""
    return Handed.of(
        _only([item.socket for item in inherited if not item.is_unix], "TCP"),
        _only([item.socket for item in inherited if item.is_unix], "Unix"),
    )


def _only(found: Sequence[socket.socket], kind: str) -> socket.socket | None:
    if len(found) > 1:
        places = ", ".join(str(sock.getsockname()) for sock in found)
        raise ConfigurationError(
            f"one {kind} socket can be served, systemd hands over {len(found)}: {places}"
        )
    return found[0] if found else None


def control_socket(settings: Settings, environment: Mapping[str, str], *, offline: bool) -> Path:
    """Return where the control socket is where nobody says it."""
    if directory := environment.get("RUNTIME_DIRECTORY"):
        return Path(directory.split(":")[0]) / SOCKET_NAME
    if offline:
        return settings.state_dir / SOCKET_NAME  # nothing of it mixes with a real daemon
    if directory := environment.get("XDG_RUNTIME_DIR"):
        return Path(directory) / "claude-coded" / SOCKET_NAME
    system = SYSTEM_RUNTIME if SYSTEM_RUNTIME.exists() else SYSTEM_RUNTIME.parent
    if os.access(system, os.W_OK):
        return SYSTEM_RUNTIME / SOCKET_NAME
    return settings.state_dir / SOCKET_NAME


def for_offline(settings: Settings, environment: Mapping[str, str]) -> tuple[Settings, Mapping[str, str]]:
    """Return settings and environment in which nothing mixes with real conversations or a real login."""
    state = settings.state_dir / "offline"
    home = state / "home"
    kept = {
        name: value for name, value in environment.items() if not name.startswith(("ANTHROPIC_", "CLAUDE_"))
    }
    kept |= {"HOME": str(home), "IS_SANDBOX": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
    claude = replace(settings.claude, api_key="sk-ant-offline")
    return replace(settings, state_dir=state, claude=claude), kept


# The CLI's version -------------------------------------------------------------------------------------


async def cli_version(binary: Path, store: Store) -> str:
    """Return the CLI's version, remembered by the file's identity. Raises ConfigurationError if too old."""
    stat = binary.resolve().stat()
    identity = [str(binary.resolve()), stat.st_size, stat.st_mtime_ns]
    known = await store.fact("cli")
    if not known or known["identity"] != identity:
        known = {"identity": identity, "version": await ask_version(binary)}
        await store.remember("cli", known)
    version: str = known["version"]
    if parse_version(version) < MINIMUM_VERSION:
        least = ".".join(map(str, MINIMUM_VERSION))
        raise ConfigurationError(f"Claude Code {version or '?'} at {binary} is too old: {least} is needed")
    return version


async def ask_version(binary: Path) -> str:
    """Return what `claude --version` says. Raises ConfigurationError."""
    process = await asyncio.create_subprocess_exec(
        binary,
        "--version",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(VERSION_TIMEOUT):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise ConfigurationError(f"{binary} --version does not answer") from None
    if process.returncode:
        raise ConfigurationError(f"{binary} --version failed: {err.decode(errors='replace').strip()}")
    words = out.decode(errors="replace").split()
    return words[0] if words else ""
