"""The CLI, what it needs to reach the model, and as whom it runs."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from claude_coded import __version__
from claude_coded.check import probes
from claude_coded.check.findings import Finding, Machine, Mark
from claude_coded.claude.launch import (
    MINIMUM_VERSION,
    SANDBOX_HINT,
    arguments,
    die_with_parent,
    find_binary,
    parse_version,
    projects_directory,
)
from claude_coded.errors import ConfigurationError
from claude_coded.models import AGENT
from claude_coded.planning import launch_of

API: Final = "https://api.anthropic.com"
API_VERSION: Final = "2023-06-01"
TIMEOUT: Final = 20.0
"""Seconds that the CLI may take for each of what it is asked."""

_ELSEWHERE: Final = ("CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY")
"""Variables by which the CLI asks another cloud for its models."""

_HEADERS: Final = {
    "ANTHROPIC_API_KEY": ("x-api-key", ""),
    "ANTHROPIC_AUTH_TOKEN": ("Authorization", "Bearer "),
}
"""How the CLI sends each."""

_NO_SESSION: Final = "00000000-0000-4000-8000-000000000000"


def cli(machine: Machine) -> Iterator[Finding]:
    """Look for the CLI, at its version, and whether it starts."""
    try:
        binary = find_binary(machine.settings.claude.binary, shutil.which)
        ran = probes.run([binary, "--version"], machine.worker_environment, TIMEOUT)
    except (ConfigurationError, OSError) as error:
        advice = "pip install 'claude_coded[claude]', or name the executable with CLAUDE_CODED_CLAUDE_BIN"
        yield Finding("claude", Mark.FAILED, str(error), advice)
        return
    version = parse_version(ran.out)
    if ran.status or not version:
        text = f"{binary} --version says no version: {ran.err or ran.out or f'exit status {ran.status}'}"
        yield Finding("claude", Mark.FAILED, text, "is it Claude Code, for this machine? Install it anew")
    elif version < MINIMUM_VERSION:
        least = ".".join(map(str, MINIMUM_VERSION))
        text = f"Claude Code {ran.out.split()[0]} at {binary} is too old: {least} is needed"
        yield Finding("claude", Mark.FAILED, text, "update it")
    else:
        yield _start(machine, binary, ran.out.split()[0])


def _start(machine: Machine, binary: Path, version: str) -> Finding:
    """Start it as a worker is, and let it end at once."""
    launch = launch_of(AGENT, machine.settings)
    directory = launch.workspace if launch.workspace.is_dir() else None
    try:
        with _throw_away_home(machine.worker_environment) as surroundings:
            command = [str(binary), *arguments(launch, _NO_SESSION)]
            ran = probes.run(command, surroundings, TIMEOUT, directory)
    except OSError as error:
        return Finding("claude", Mark.FAILED, f"{binary} does not start: {error}")
    if ran.status:
        text = f"{binary} does not start: {ran.err or f'exit status {ran.status}'}"
        return Finding("claude", Mark.FAILED, text)
    return Finding("claude", Mark.OK, f"Claude Code {version} at {binary} starts")


@contextlib.contextmanager
def _throw_away_home(surroundings: Mapping[str, str]) -> Iterator[dict[str, str]]:
    kept = {name: value for name, value in surroundings.items() if name != "CLAUDE_CONFIG_DIR"}
    with tempfile.TemporaryDirectory(prefix="claude-coded-check-", ignore_cleanup_errors=True) as home:
        yield {**kept, "HOME": home}


def key(machine: Machine) -> Iterator[Finding]:
    """Try the model's key with a request that costs nothing, else ask the CLI for its login."""
    surroundings = machine.worker_environment
    elsewhere = any(surroundings.get(name, "") not in {"", "0", "false"} for name in _ELSEWHERE)
    given = [name for name in _HEADERS if surroundings.get(name)]
    if elsewhere or not given:
        yield _login(machine)
    elif bad := [name for name in given if not _is_clean(surroundings[name])]:
        text = f"{bad[0]} has characters that no key has: a space, or the end of a line?"
        yield Finding("key", Mark.FAILED, text, f"set {bad[0]} anew")
    else:
        yield _try(given, surroundings)


def _is_clean(key: str) -> bool:
    return key.isascii() and key.isprintable() and " " not in key


def _try(given: Sequence[str], surroundings: Mapping[str, str]) -> Finding:
    """Ask for the list of models, as the CLI would: with all keys that there are."""
    base = surroundings.get("ANTHROPIC_BASE_URL", "").rstrip("/") or API
    headers = {"anthropic-version": API_VERSION, "User-Agent": f"claude-coded/{__version__}"}
    for name in given:
        header, prefix = _HEADERS[name]
        headers[header] = prefix + surroundings[name]
    roots = surroundings.get("NODE_EXTRA_CA_CERTS")
    try:
        status, body = probes.get(f"{base}/v1/models?limit=1", headers, roots)
    except (OSError, ValueError) as error:
        advice = "look at the network, HTTPS_PROXY and ANTHROPIC_BASE_URL"
        return Finding("key", Mark.FAILED, f"{base} cannot be reached: {error}", advice)
    return _judge(" and ".join(given), base, status, body)


def _judge(name: str, base: str, status: int, body: bytes) -> Finding:
    """Return what an answer says of the key."""
    if status == 200:
        return Finding("key", Mark.OK, f"{base} takes {name}")
    said = _message(body)
    if status in {401, 403}:
        text = f"{base} refuses {name} ({status}{said})"
        return Finding("key", Mark.FAILED, text, f"set {name} to a key that is valid there")
    text = f"{base} answers {status}{said} when it is asked for its models: the key could not be tried"
    return Finding("key", Mark.WARNING, text, "is ANTHROPIC_BASE_URL right? Else try again later")


def _message(body: bytes) -> str:
    try:
        return f": {json.loads(body)['error']['message']}"
    except (ValueError, LookupError, TypeError):
        return ""


def _login(machine: Machine) -> Finding:
    """Ask the CLI what it would use; where it has never been, with a HOME that is thrown away."""
    surroundings = machine.worker_environment
    with contextlib.ExitStack() as stack:
        if not projects_directory(surroundings).parent.is_dir():
            surroundings = stack.enter_context(_throw_away_home(surroundings))
        try:
            binary = find_binary(machine.settings.claude.binary, shutil.which)
            ran = probes.run([binary, "auth", "status", "--json"], surroundings, TIMEOUT)
            told: dict[str, Any] = json.loads(ran.out)
        except (ConfigurationError, OSError, ValueError):
            text = "no ANTHROPIC_API_KEY is set, and the CLI does not tell of a login of its own"
            return Finding("key", Mark.WARNING, text, "set ANTHROPIC_API_KEY")
    if told.get("loggedIn"):
        way, where = told.get("authMethod"), told.get("apiProvider")
        return Finding("key", Mark.OK, f"the CLI has a login of its own ({way}, {where}); it was not tried")
    place = projects_directory(machine.worker_environment).parent
    text = f"no ANTHROPIC_API_KEY is set, and the CLI has no login in {place}"
    advice = f"set ANTHROPIC_API_KEY, or run `claude auth login` as {probes.user()}"
    return Finding("key", Mark.FAILED, text, advice)


def _root_hint(machine: Machine) -> str:
    settings = machine.settings
    modes = {settings.claude.permission_mode, *(model.permission_mode for model in settings.models)}
    bypass = "bypassPermissions" in modes and os.geteuid() == 0
    return SANDBOX_HINT if bypass and machine.environment.get("IS_SANDBOX") != "1" else ""


def user(machine: Machine) -> Iterator[Finding]:
    """Look at who runs this: as root the CLI does not do everything."""
    if hint := _root_hint(machine):
        yield Finding("user", Mark.FAILED, "root, and Claude may do everything unasked", hint)
    elif os.geteuid() == 0:
        yield Finding("user", Mark.OK, "root (IS_SANDBOX=1, or a permission mode that root may have)")
    else:
        yield Finding("user", Mark.OK, probes.user())


def end(_: Machine) -> Iterator[Finding]:
    """Look for what ends workers with the daemon."""
    if die_with_parent(shutil.which):
        yield Finding("setpriv", Mark.OK, "workers end with the daemon, even if that is killed")
    else:
        text = "setpriv was not found: if the daemon is killed, its workers may live on"
        yield Finding("setpriv", Mark.WARNING, text, "install util-linux")
