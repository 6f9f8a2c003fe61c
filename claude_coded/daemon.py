"""`claude-coded`: builds the object graph, starts it, stops it."""

import asyncio
import contextlib
import gc
import ipaddress
import logging
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click

from claude_coded import __version__, logs
from claude_coded.claude.launch import (
    MINIMUM_VERSION,
    SANDBOX_HINT,
    die_with_parent,
    environment,
    find_binary,
    parse_version,
    projects_directory,
    scratch_directory,
)
from claude_coded.errors import ConfigurationError
from claude_coded.http.app import create_app
from claude_coded.http.resources import About
from claude_coded.listener import Listener, bind_tcp
from claude_coded.models import AGENT, Models
from claude_coded.offline import OfflineModel
from claude_coded.permissions import Desk
from claude_coded.planning import launch_of
from claude_coded.pool import Pool
from claude_coded.scheduler import Limits
from claude_coded.service import TurnService
from claude_coded.settings import Settings, Spec, load, read_keys, specs
from claude_coded.store import Store
from claude_coded.systemd import (
    Inherited,
    Notifier,
    attended,
    extending,
    inherited_sockets,
    watchdog_interval,
)
from claude_coded.worker import Cli

log = logging.getLogger(__name__)

HANDOVER: Final = 0.25
"""Seconds for requests on their way when the TCP socket is left to the next daemon."""

STOP_GRACE: Final = 15.0
"""Seconds that workers may take to end, after the turns."""

VERSION_TIMEOUT: Final = 20.0
"""Seconds that `claude --version` may take."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a daemon is to be, checked before anything is touched."""

    settings: Settings
    keys: Mapping[str, str]
    environment: Mapping[str, str]
    binary: Path
    offline: bool
    tcp: socket.socket | None = None  # handed over by systemd

    @classmethod
    def make(
        cls,
        settings: Settings,
        environment: Mapping[str, str],
        *,
        offline: bool,
        inherited: Sequence[Inherited] = (),
    ) -> "Plan":
        """Check settings against each other and the machine. Raises ConfigurationError."""
        if offline:
            settings, environment = for_offline(settings, environment)
        keys = read_keys(settings.access, environment)
        tcp = inherited_tcp(inherited)
        host = tcp.getsockname()[0] if tcp is not None else settings.server.host
        if not keys and not settings.access.allow_no_keys and not is_loopback(host):
            named = "the address of systemd's socket," if tcp is not None else "HOST"
            raise ConfigurationError(
                f"{named} {host} is not loopback and no API keys are set: whoever reaches it "
                "gets a shell here. Set CLAUDE_CODED_API_KEYS, or CLAUDE_CODED_ALLOW_NO_KEYS=1"
            )
        modes = {settings.claude.permission_mode, *(model.permission_mode for model in settings.models)}
        if "bypassPermissions" in modes and os.geteuid() == 0 and environment.get("IS_SANDBOX") != "1":
            raise ConfigurationError(SANDBOX_HINT)
        if not settings.claude.workspace.is_dir():
            raise ConfigurationError(f"WORKSPACE_DIR {settings.claude.workspace} is not a directory")
        binary = find_binary(settings.claude.binary, shutil.which)
        return cls(settings, keys, environment, binary, offline, tcp)


def inherited_tcp(inherited: Sequence[Inherited]) -> socket.socket | None:
    """Return the TCP socket among those that were handed over. Raises ConfigurationError if there are two."""
    found = [item.socket for item in inherited if not item.is_unix]
    if len(found) > 1:
        places = ", ".join(str(sock.getsockname()) for sock in found)
        raise ConfigurationError(f"one TCP socket can be served, systemd hands over {len(found)}: {places}")
    return found[0] if found else None


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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


class Daemon:
    """All parts, in the order of their start."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._stopping = asyncio.Event()
        self._notifier = Notifier(plan.environment)

    async def run(self) -> None:
        """Serve until told to stop. Raises ConfigurationError, OSError."""
        settings = self._plan.settings
        sock = self._plan.tcp or bind_tcp(settings.server.host, settings.server.port)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(sock.close)
            base = dict(self._plan.environment)
            if self._plan.offline:
                base["ANTHROPIC_BASE_URL"] = await stack.enter_async_context(offline_model(base))
            store = Store(settings.state_dir)
            await store.open()
            stack.push_async_callback(store.close)
            version = await cli_version(self._plan.binary, store)
            await self._serve(sock, self._service(store, base), version)

    def stop(self) -> None:
        """Begin to stop; a second time, stop at once."""
        if self._stopping.is_set():
            os._exit(1)
        self._stopping.set()

    def _service(self, store: Store, base: Mapping[str, str]) -> TurnService:
        settings = self._plan.settings
        turns, claude = settings.turns, settings.claude
        cli = Cli(
            self._plan.binary,
            environment(base, api_key=claude.api_key, retries=turns.upstream_retries),
            turns.upstream_retries,
            die_with_parent(shutil.which),
        )
        limits = Limits(
            settings.pool.size,
            settings.pool.spares,
            settings.pool.idle_timeout,
            settings.pool.queue_size,
            settings.pool.queue_timeout,
            turns.park_timeout,
        )
        models = Models(settings.models)
        desk = Desk(store, timeout=lambda: turns.permission_timeout, wall=time.time)
        pool = Pool(limits, cli, launch_of(AGENT, settings), models.learn, desk)
        traces = projects_directory(cli.environment), scratch_directory(cli.environment, os.getuid())
        return TurnService(store, pool, models, settings, traces=traces, wall=time.time)

    async def _serve(self, sock: socket.socket, service: TurnService, version: str) -> None:
        settings = self._plan.settings
        about = About(__version__, version, time.time(), time.time)
        listener = Listener(create_app(service, settings, self._plan.keys, about), sock)
        service.pool.start()
        serving = asyncio.ensure_future(listener.serve())
        housekeeping = asyncio.ensure_future(service.housekeeping())
        try:
            await listener.started()
            log.info(
                "serving",
                extra={
                    "address": listener.address,
                    "claude": version,
                    "workspace": settings.claude.workspace,
                },
            )
            async with self._attended(service.pool):
                stop = asyncio.ensure_future(self._stopping.wait())
                await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
                log.info("stopping")
                await self._drain(service, listener)
        finally:
            housekeeping.cancel()
            await service.pool.close()
            await service.settle()
            listener.stop()
            await serving
        log.info("stopped")

    @contextlib.asynccontextmanager
    async def _attended(self, pool: Pool) -> AsyncIterator[None]:
        """Tell systemd that the daemon serves, how it does, and that it stops."""
        interval = watchdog_interval(self._plan.environment, os.getpid())
        async with attended(self._notifier, interval, pool.beat, lambda: status_line(pool)):
            self._notifier.ready()
            yield

    async def _drain(self, service: TurnService, listener: Listener) -> None:
        seconds = self._plan.settings.turns.drain_timeout
        self._notifier.stopping()
        if self._plan.tcp is not None:
            # Whoever connects from now on waits for the next daemon; who has connected is still served.
            listener.stop()
            await asyncio.sleep(HANDOVER)
        with extending(self._notifier, seconds + STOP_GRACE):
            await service.drain(seconds)


def status_line(pool: Pool) -> str:
    """Return how the pool stands, in a line for `systemctl status`."""
    now = pool.figures
    counts = {
        "busy": now.busy,
        "waiting for their client's tools": now.parked,
        "idle": now.idle,
        "spare": now.spare,
        "starting": now.starting,
    }
    phases = ", ".join(f"{count} {phase}" for phase, count in counts.items() if count)
    draining = "draining; " if pool.draining else ""
    failure = f"; workers do not start: {pool.failure.splitlines()[0][:200]}" if pool.failure else ""
    return (
        f"{draining}{now.workers} of {pool.size} workers{': ' if phases else ''}{phases}; "
        f"{now.queued} queued{failure}"
    )


@contextlib.asynccontextmanager
async def offline_model(base: Mapping[str, str]) -> AsyncIterator[str]:
    """Serve the scripted model on a free loopback port while the context lasts; yields its URL."""
    Path(base["HOME"]).mkdir(parents=True, exist_ok=True, mode=0o700)
    sock = bind_tcp("127.0.0.1", 0)
    listener = Listener(OfflineModel(), sock)
    serving = asyncio.ensure_future(listener.serve())
    try:
        await listener.started()
        yield listener.address
    finally:
        listener.stop()
        await serving
        sock.close()


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


# The command line --------------------------------------------------------------------------------------


def setting_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command a flag for every setting."""
    for spec in reversed(list(specs())):
        command = click.option(
            spec.flag, spec.key, metavar=spec.unit.upper() or "VALUE", help=help_text(spec)
        )(command)
    return command


def help_text(spec: Spec) -> str:
    """Return a flag's help: what it does, its default, its variable."""
    default = "" if spec.default in {None, ()} or spec.secret else f" Default: {spec.show(spec.default)}."
    return f"{spec.help}{default} [{spec.variable}]"


def hide_secrets(given: Mapping[str, str]) -> None:
    """Start anew with secrets in the environment if there are any among the flags: `ps` shows those."""
    secrets = {spec.flag: spec.variable for spec in specs() if spec.secret and spec.key in given}
    if not secrets:
        return
    arguments = iter(sys.argv[1:])
    kept = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag in secrets:
            os.environ[secrets[flag]] = value if equals else next(arguments)
        else:
            kept.append(argument)
    os.execv(sys.executable, [sys.executable, "-m", "claude_coded", *kept])  # noqa: S606 - ourselves


class DefaultGroup(click.Group):
    """A group that runs `serve` when no command is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `serve` first where neither a command nor a flag of the group is."""
        if not args or (args[0] not in self.commands and args[0] not in {"--help", "--version"}):
            args = ["serve", *args]
        return super().parse_args(ctx, args)


@click.group(cls=DefaultGroup)
@click.version_option(__version__, prog_name="claude-coded")
def main() -> None:
    """Serve an OpenAI-compatible API in front of a pool of Claude Code processes."""


@main.command()
@click.option(
    "--config", type=click.Path(path_type=Path), help="TOML file of settings. [CLAUDE_CODED_CONFIG]"
)
@click.option("--offline", is_flag=True, help="Use a built-in scripted model: no key, no network.")
@setting_flags
def serve(config: Path | None, offline: bool, **flags: str | None) -> None:
    """Run the daemon (what `claude-coded` alone does)."""
    given = {key: value for key, value in flags.items() if value is not None}
    hide_secrets(given)
    try:
        settings = load(given, os.environ, config)
        logs.configure(settings.logs.level, settings.logs.format)
        inherited = inherited_sockets(os.environ, os.getpid())
        plan = Plan.make(settings, os.environ, offline=offline, inherited=inherited)
        asyncio.run(_main(plan))
        status = 0
    except (ConfigurationError, OSError) as error:
        click.echo(f"claude-coded: {error}", err=True)
        status = 1
    # The server's native threads may abort a normal exit of the interpreter.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


async def _main(plan: Plan) -> None:
    daemon = Daemon(plan)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stop)
    # What stands now stays: the collector need not look at it again and again.
    gc.freeze()
    await daemon.run()
