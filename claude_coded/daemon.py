"""The daemon: its object graph, the order of its start and of its stop, and its reload."""

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from claude_coded import __version__, logs
from claude_coded.cgroups import GroupLimits, Groups, limited, take_over
from claude_coded.claude.launch import die_with_parent, environment, projects_directory, scratch_directory
from claude_coded.configuration import Change, Source, change, describe
from claude_coded.control import api
from claude_coded.control.app import Controls, create_control_app
from claude_coded.control.door import guarded
from claude_coded.control.peers import is_of_a_worker
from claude_coded.control.terminals import Terminals
from claude_coded.control.views import Identity
from claude_coded.errors import ConfigurationError
from claude_coded.events import EventKind, Events
from claude_coded.http.app import Api
from claude_coded.http.resources import About
from claude_coded.listener import Listener, bind_tcp, bind_unix
from claude_coded.metrics import Metrics
from claude_coded.models import AGENT, Models
from claude_coded.offline import OfflineModel
from claude_coded.operations import Operations
from claude_coded.orphans import adopted
from claude_coded.permissions import Desk
from claude_coded.plan import Plan, cli_version
from claude_coded.planning import launch_of
from claude_coded.pool import Pool
from claude_coded.scheduler import Limits
from claude_coded.server import App
from claude_coded.service import TurnService
from claude_coded.settings import Settings
from claude_coded.store import Store
from claude_coded.systemd import Notifier, attended, extending, watchdog_interval
from claude_coded.tracing import NoTracing, Several, Tracing
from claude_coded.tracing import begin as begin_tracing
from claude_coded.worker import Cli

log = logging.getLogger(__name__)

HANDOVER: Final = 0.25
"""Seconds for requests of who has just connected, when the TCP socket is left to the next daemon."""

STOP_GRACE: Final = 15.0
"""Seconds that workers may take to end, after the turns."""

CLOSING: Final = 5.0
"""Seconds that clients may take, when all turns have ended, to read the rest of their responses."""

STARTING: Final = "starting"
SERVING: Final = ""
STOPPING: Final = "stopping"


@dataclass(frozen=True, slots=True)
class Graph:
    """What a daemon is made of. `base` is the environment that workers' are made of."""

    base: Mapping[str, str]
    cli: Cli
    events: Events
    tracing: Tracing
    store: Store
    desk: Desk
    models: Models
    pool: Pool
    service: TurnService
    api: Api


class Daemon:
    """All parts, in the order of their start. `source` is where a reload reads the settings again."""

    def __init__(self, plan: Plan, source: Source) -> None:
        self._plan = plan
        self._source = source
        self._settings = source.load()  # as they are written; the plan's may be those of an offline daemon
        self._places = source.places()  # of those in force: the file may be another, or a bad one, by now
        self._stopping = asyncio.Event()
        self._notifier = Notifier(plan.environment)
        self._groups = take_over(plan.environment)
        self._phase = STARTING
        self._graph: Graph | None = None

    async def run(self) -> None:
        """Serve until told to stop. Raises ConfigurationError, OSError."""
        async with adopted(), contextlib.AsyncExitStack() as stack:
            tcp, control = self._sockets(stack)
            base = dict(self._plan.environment)
            if self._plan.offline:
                base["ANTHROPIC_BASE_URL"] = await stack.enter_async_context(offline_model(base))
            store = Store(self._plan.settings.state_dir)
            await store.open()
            stack.push_async_callback(store.close)
            version = await cli_version(self._plan.binary, store)
            about = About(__version__, version, time.time(), time.time)
            self._graph = graph = self._build(store, base, about)
            await self._serve(graph, Listener(graph.api, tcp), control, about)

    def stop(self) -> None:
        """Begin to stop; a second time, stop at once."""
        if self._stopping.is_set():
            os._exit(1)
        self._stopping.set()

    def _sockets(self, stack: contextlib.AsyncExitStack) -> tuple[socket.socket, socket.socket]:
        """Return the listening sockets, which nobody else can have from now on."""
        plan, server = self._plan, self._plan.settings.server
        tcp = plan.handed.tcp or bind_tcp(server.host, server.port)
        stack.callback(tcp.close)
        if (control := plan.handed.control) is None:
            control = bind_unix(plan.control, plan.settings.control.group)
            stack.callback(plan.control.unlink, missing_ok=True)
        stack.callback(control.close)
        return tcp, control

    def _build(self, store: Store, base: Mapping[str, str], about: About) -> Graph:
        settings = self._plan.settings
        cli, events, models = self._cli(base), Events(time.time), Models(settings.models)
        desk = Desk(
            store,
            timeout=lambda: self._plan.settings.turns.permission_timeout,
            wall=time.time,
            tell=lambda kind, fields: events.tell(kind, **fields),
        )
        pool = Pool(
            limits(settings), cli, launch_of(AGENT, settings), models=models.learn, desk=desk, events=events
        )
        projects = projects_directory(cli.environment)
        metrics = Metrics(about.version, about.claude_version, time.monotonic)
        events.listen(metrics.hear)
        tracing = self._tracing(metrics)
        service = TurnService(
            store,
            pool,
            models,
            settings,
            events,
            traces=(projects, scratch_directory(cli.environment, os.getuid())),
            projects=projects,
            wall=time.time,
            clock=partial(time.clock_gettime, time.CLOCK_BOOTTIME),
            tracing=tracing,
        )
        http = Api(service, self._plan.keys, about, metrics)
        return Graph(base, cli, events, tracing, store, desk, models, pool, service, http)

    def _tracing(self, metrics: Metrics) -> Tracing:
        """Return what is told of each turn."""
        traced = begin_tracing(self._plan.environment, __version__)
        return metrics if isinstance(traced, NoTracing) else Several(metrics, traced)

    def _cli(self, base: Mapping[str, str]) -> Cli:
        turns = self._plan.settings.turns
        given = environment(base, api_key=self._plan.settings.claude.api_key, retries=turns.upstream_retries)
        return Cli(
            self._plan.binary,
            given,
            turns.upstream_retries,
            die_with_parent(shutil.which),
            self._limited_groups(),
            turns.answer_timeout,
        )

    def _limited_groups(self) -> Groups | None:
        pool = self._plan.settings.pool
        return limited(self._groups, GroupLimits(pool.worker_memory, pool.worker_tasks))

    # Start and stop ------------------------------------------------------------------------------------

    async def _serve(self, graph: Graph, http: Listener, control: socket.socket, about: About) -> None:
        graph.pool.start()
        async with self._controlled(graph, control, http.address, about):
            serving = asyncio.ensure_future(http.serve())
            housekeeping = asyncio.ensure_future(graph.service.housekeeping())
            try:
                await http.started()
                self._note_serving(graph.events, http.address, about)
                async with self._attended(graph.pool):
                    stop = asyncio.ensure_future(self._stopping.wait())
                    await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
                    await self._drain(graph, http, serving)
            finally:
                housekeeping.cancel()
                await graph.pool.close()
                await graph.service.settle()
                await http.close(CLOSING)
                await serving
                graph.service.close()
                await asyncio.to_thread(graph.tracing.close)
        log.info("stopped")

    def _note_serving(self, events: Events, address: str, about: About) -> None:
        self._phase = SERVING
        events.tell(EventKind.DAEMON_SERVING, version=about.version, address=address)
        told = {
            "address": address,
            "claude": about.claude_version,
            "workspace": self._plan.settings.claude.workspace,
            "control": self._socket,
        }
        log.info("serving", extra=told)

    @contextlib.asynccontextmanager
    async def _controlled(
        self, graph: Graph, sock: socket.socket, address: str, about: About
    ) -> AsyncIterator[None]:
        """Serve the control socket while the context lasts."""
        place = str(sock.getsockname())  # as connections tell it: not always the path
        identity = Identity(
            about.version, about.claude_version, os.getpid(), address, self._socket, about.started
        )
        operations = Operations(graph.service, graph.events)
        projects = projects_directory(graph.cli.environment)
        terminals = Terminals(graph.service, operations, graph.cli, projects, place)
        controls = Controls(
            place=place,
            service=graph.service,
            operations=operations,
            desk=graph.desk,
            events=graph.events,
            identity=identity,
            terminals=terminals,
            phase=lambda: self._phase,
            reload=self.reload,
            config=self._describe,
            log_level=logs.level,
            set_log_level=logs.set_level,
        )
        state = self._plan.settings.state_dir
        async with (
            guarded(sock, state, bars=is_of_a_worker) as door,
            listening(create_control_app(controls), door.inside),
        ):
            try:
                yield
            finally:
                door.close()
                terminals.close()
                graph.events.close()

    @contextlib.asynccontextmanager
    async def _attended(self, pool: Pool) -> AsyncIterator[None]:
        """Tell systemd that the daemon serves, how it does, and that it stops."""
        interval = watchdog_interval(self._plan.environment, os.getpid())
        async with attended(self._notifier, interval, pool.beat, partial(status_line, pool)):
            self._notifier.ready()
            yield

    async def _drain(self, graph: Graph, http: Listener, serving: asyncio.Future[None]) -> None:
        log.info("stopping")
        self._phase = STOPPING
        graph.events.tell(EventKind.DAEMON_STOPPING)
        seconds = self._plan.settings.turns.drain_timeout
        self._notifier.stopping()
        with extending(self._notifier, seconds + STOP_GRACE):
            if self._plan.handed.tcp is not None:
                # Whoever connects from now on waits for the next daemon; who has connected is still served.
                end = time.monotonic() + seconds
                http.leave()
                await asyncio.sleep(HANDOVER)
                http.stop()
                await asyncio.wait({serving}, timeout=seconds)
                seconds = max(0.0, end - time.monotonic())
            await graph.service.drain(seconds)

    @property
    def _socket(self) -> str:
        return self._plan.handed.path or str(self._plan.control)

    # Reload --------------------------------------------------------------------------------------------

    def reload_soon(self) -> None:
        """Reload, as SIGHUP wants it: what is wrong is logged."""
        task = asyncio.get_running_loop().create_task(self._reload_logged())
        task.add_done_callback(lambda done: done.exception())

    async def _reload_logged(self) -> None:
        try:
            await self.reload()
        except ConfigurationError:
            pass  # logged already
        except Exception:
            log.exception("the reload has failed")

    async def reload(self) -> Change:
        """Go on with the settings as they are written now; no turn is dropped.

        Raises ConfigurationError, and nothing has changed then.
        """
        if self._graph is None or self._phase != SERVING:
            log.warning("no reload while the daemon is starting or stopping")
            raise ConfigurationError("the daemon is starting or stopping")
        self._notifier.reloading()
        try:
            return self._reload(self._graph)
        except ConfigurationError as error:
            log.error("the new configuration is bad, the old one stays", extra={"error": str(error)})  # noqa: TRY400
            self._graph.events.tell(EventKind.SETTINGS_REFUSED, error=str(error))
            raise
        finally:
            self._notifier.ready()

    def _reload(self, graph: Graph) -> Change:
        written, places = self._source.load(), self._source.places()
        self._check(written)
        wanted = change(self._settings, written)
        plan = self._check(wanted.settings)
        if plan.keys != self._plan.keys:
            wanted = wanted.with_changed("API keys")
        self._settings, self._plan = wanted.settings, plan
        self._places = {**places, **{name: self._places.get(name, "default") for name in wanted.restart}}
        logs.set_level(plan.settings.logs.level)
        graph.models.configure(plan.settings.models)
        graph.service.configure(plan.settings)
        graph.api.configure(plan.settings, plan.keys)
        graph.pool.configure(limits(plan.settings), self._cli(graph.base), launch_of(AGENT, plan.settings))
        told = {"changed": list(wanted.changed), "restart": list(wanted.restart)}
        graph.events.tell(EventKind.SETTINGS_RELOADED, **told)
        log.info("reloaded", extra=told)
        return wanted

    def _check(self, settings: Settings) -> Plan:
        plan = self._plan
        return Plan.make(settings, self._source.environment, offline=plan.offline, handed=plan.handed)

    def _describe(self) -> list[api.Setting]:
        described = describe(self._plan.settings, self._places)
        return [api.Setting(spec.variable, value, place, spec.restart) for spec, value, place in described]


def limits(settings: Settings) -> Limits:
    """Return the pool's limits."""
    return Limits(
        settings.pool.size,
        settings.pool.spares,
        settings.pool.idle_timeout,
        settings.pool.queue_size,
        settings.pool.queue_timeout,
        settings.turns.park_timeout,
        starts=len(os.sched_getaffinity(0)),
    )


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
async def listening(app: App, sock: socket.socket) -> AsyncIterator[str]:
    """Serve an app on a socket while the context lasts; yields its address."""
    listener = Listener(app, sock)
    serving = asyncio.ensure_future(listener.serve())
    try:
        await listener.started()
        yield listener.address
    finally:
        await listener.close(CLOSING)
        await serving


@contextlib.asynccontextmanager
async def offline_model(base: Mapping[str, str]) -> AsyncIterator[str]:
    """Serve the scripted model on a free loopback port while the context lasts; yields its URL."""
    Path(base["HOME"]).mkdir(parents=True, exist_ok=True, mode=0o700)
    async with listening(OfflineModel(), bind_tcp("127.0.0.1", 0)) as address:
        yield address
