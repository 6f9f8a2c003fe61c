"""The Falcon app on the control socket: who may ask, what can be asked, and every error as `api.Failure`.

Rights are those of the socket and its directory. A web page must get nothing, should something forward the
socket: requests for another Host are refused, and those with what only browsers send.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, TypeVar, cast

import falcon
import falcon.asgi
import msgspec

from claude_coded.accounts import SIDES
from claude_coded.browsers import FETCH_SITE, is_json
from claude_coded.configuration import Change
from claude_coded.control import api, views
from claude_coded.control.api import Kind, Route
from claude_coded.control.page import Page
from claude_coded.control.peers import connected_users
from claude_coded.control.stream import EventLog
from claude_coded.control.terminals import Terminals
from claude_coded.control.views import Identity
from claude_coded.errors import CodedError, ConfigurationError, InvalidRequest, NotFound
from claude_coded.events import EventKind, Events
from claude_coded.guard import ClientGone, ConnectionGuard
from claude_coded.operations import AmbiguousName, Operations, Which
from claude_coded.permissions import Decision, Desk, Request
from claude_coded.scheduler import worker_name
from claude_coded.server import App
from claude_coded.service import TurnService

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_BODY: Final = 65536
"""Bytes of a request's body: the longest holds a message to Claude."""

BODY_TIMEOUT: Final = 10.0
"""Seconds to send it."""

BROWSERS: Final = ("Origin", "Referer", FETCH_SITE)
"""Headers of browsers: no page has any business here, not even one that nobody else's page leads to."""

LOOKING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Controls:
    """What the app works with. `reload` raises ConfigurationError and changes nothing then.

    `place` is the socket's address, as the kernel tells it. `phase` returns starting, stopping, or nothing in
    between.
    """

    place: str
    service: TurnService
    operations: Operations
    desk: Desk
    events: Events
    identity: Identity
    terminals: Terminals
    phase: Callable[[], str]
    reload: Callable[[], Awaitable[Change]]
    config: Callable[[], list[api.Setting]]
    log_level: Callable[[], str]
    set_log_level: Callable[[str], None]


def create_control_app(controls: Controls) -> ConnectionGuard:
    """Return the ASGI app of the control socket."""
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App(middleware=[Doorkeeper(controls.place)])
    workers, conversations, requests = Workers(controls), Conversations(controls), Requests(controls)
    pool, settings = Pool(controls), Settings(controls)
    for path, resource, suffix in (
        (Route.PAGE, Page(), None),
        (Route.STATUS, Status(controls), None),
        (Route.READY, Status(controls), "ready"),
        (Route.WORKERS, workers, None),
        (Route.WORKER, workers, "one"),
        (Route.CONVERSATIONS, conversations, None),
        (Route.CONVERSATION, conversations, "one"),
        (Route.INTERRUPT, conversations, "interrupt"),
        (Route.ATTACH, conversations, "attach"),
        (Route.USAGE, Usage(controls.service), None),
        (Route.REQUESTS, requests, None),
        (Route.REQUEST, requests, "one"),
        (Route.DRAIN, pool, "drain"),
        (Route.RESUME, pool, "resume"),
        (Route.EVENTS, EventLog(controls.events), None),
        (Route.RELOAD, settings, "reload"),
        (Route.CONFIG, settings, "config"),
        (Route.LOG_LEVEL, settings, "log_level"),
    ):
        app.add_route(path, resource, suffix=suffix)
    app.set_error_serializer(_serialize)
    app.add_error_handler(CodedError, _on_coded_error)
    app.add_error_handler(ConfigurationError, _on_configuration_error)
    app.add_error_handler(Exception, _on_exception)
    app.add_error_handler(ClientGone, _on_client_gone)
    return ConnectionGuard(cast("App", app), max_body=MAX_BODY, body_timeout=BODY_TIMEOUT)


class Doorkeeper:
    """Refuses what a web page may have sent, and logs who changes what."""

    def __init__(self, socket: str) -> None:
        self._socket = socket

    async def process_request(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Check where the request comes from."""
        resp.set_header("X-Claude-Coded-Control", api.VERSION)
        if any(req.get_header(name) is not None for name in BROWSERS):
            raise falcon.HTTPForbidden(description="web pages have no access to the control interface")
        if req.host != api.HOST:
            raise falcon.HTTPForbidden(description=f"the Host of the control interface is {api.HOST}")
        if req.method not in LOOKING:
            users = sorted(connected_users(self._socket))
            # Several users at once cannot be told apart: all are named.
            log.info("control request", extra={"method": req.method, "path": req.path, "uids": users})


class Status:
    """How the daemon is, and whether it is ready for turns."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls

    async def on_get(self, _: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Show all."""
        _answer(resp, await self._status())

    async def on_get_ready(self, _: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Say whether turns are taken and workers start; 503 if not."""
        status = await self._status()
        reason = status.reason or ("" if status.state == "ok" else status.state)
        resp.status = falcon.HTTP_503 if reason else falcon.HTTP_200
        _answer(resp, api.Ready(not reason, reason))

    async def _status(self) -> api.Status:
        controls = self._controls
        return await views.status(
            controls.service,
            controls.identity,
            phase=controls.phase(),
            requests=len(controls.desk.open),
            log_level=controls.log_level(),
        )


class Workers:
    """The processes."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls

    async def on_get(self, _: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """List them."""
        _answer(resp, await views.workers(self._controls.service))

    async def on_get_one(self, _: falcon.asgi.Request, resp: falcon.asgi.Response, id: str) -> None:  # noqa: A002
        """Show one, how it came to where it is, and its last words on stderr."""
        _answer(resp, await views.story(self._controls.service, _worker_number(id)))

    async def on_delete_one(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, id: str) -> None:  # noqa: A002
        """Evict one at the end of its turn, or `?now=true`."""
        await self._controls.operations.evict_worker(_worker_number(id), now=_flag(req, "now"))
        _answer(resp, api.Evicted([id]))


class Conversations:
    """The conversations of all tenants."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls
        self._operations = controls.operations

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """List the hot ones; `?all=true` the stored ones too."""
        _answer(resp, await views.conversations(self._controls.service, stored=_flag(req, "all")))

    async def on_delete(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Evict the workers of `?which=idle` or `?which=all`, at the end of their turns, or `&now=true`."""
        try:
            which = Which(req.get_param("which") or "")
        except ValueError:
            raise InvalidRequest("which is idle or all", param="which") from None
        keys = await self._operations.evict_many(which, now=_flag(req, "now"))
        _answer(resp, api.Evicted([f"{key.tenant}/{key.id}" for key in keys]))

    async def on_get_one(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, id: str) -> None:  # noqa: A002
        """Show one, with its worker's story."""
        key = await self._operations.find(id, req.get_param("tenant"))
        _answer(resp, await views.conversation(self._controls.service, key))

    async def on_delete_one(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, id: str) -> None:  # noqa: A002
        """Evict its worker at the end of its turn, or `?now=true`. It resumes at the next request."""
        key = await self._operations.find(id, req.get_param("tenant"))
        released = await self._operations.evict(key, now=_flag(req, "now"))
        _answer(resp, api.Evicted([f"{key.tenant}/{key.id}"] if released else []))

    async def on_post_interrupt(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, id: str) -> None:  # noqa: A002
        """End its turn; the worker stays."""
        key = await self._operations.find(id, req.get_param("tenant"))
        _answer(resp, api.Interrupted(await self._operations.interrupt(key)))

    async def on_post_attach(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, id: str) -> None:  # noqa: A002
        """Hold it for a person for as long as the response's connection lives."""
        key = await self._operations.find(id, req.get_param("tenant"))
        stream = await self._controls.terminals.begin(key, now=_flag(req, "now"))
        resp.content_type = "text/event-stream"
        resp.set_header("Cache-Control", "no-cache")
        resp.stream = stream


class Usage:
    """What turns have used."""

    def __init__(self, service: TurnService) -> None:
        self._service = service

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """List the sums `?by=` day, tenant, model (commas between; without it, all) from `&since=` on."""
        given = req.get_param("by")
        by = set(filter(None, given.split(","))) if given is not None else set(SIDES)
        if unknown := by - set(SIDES):
            raise InvalidRequest(f"by is {', '.join(SIDES)}, not {min(unknown)!r}", param="by")
        _answer(resp, await views.usage(self._service, by, _day(req, "since")))


class Requests:
    """What Claude wants to do, and waits to be allowed."""

    def __init__(self, controls: Controls) -> None:
        self._desk = controls.desk

    async def on_get(self, _: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """List what waits for an answer, the oldest first."""
        _answer(resp, [_permission(request) for request in self._desk.open])

    async def on_post_one(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, id: str) -> None:  # noqa: A002
        """Allow or deny one."""
        given = await _body(req, api.Decision)
        if given.decision not in {"allow", "deny"}:
            raise InvalidRequest("decision is allow or deny", param="decision")
        decision = Decision(given.decision == "allow", given.message, given.always)
        _answer(resp, _permission(await self._desk.decide(id, decision)))


class Pool:
    """Taking turns, or not."""

    def __init__(self, controls: Controls) -> None:
        self._operations = controls.operations

    async def on_post_drain(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Take no new turns; answer when none runs any more, or after `?wait=SECONDS`."""
        wait = req.get_param_as_float("wait", min_value=0, max_value=3600) or 0.0
        drained = await self._operations.drain(wait)
        _answer(resp, api.Drain(drained.draining, drained.running, drained.parked))

    async def on_post_resume(self, _: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Take new turns again."""
        drained = self._operations.resume()
        _answer(resp, api.Drain(drained.draining, drained.running, drained.parked))


class Settings:
    """What the daemon was told to be."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls

    async def on_post_reload(self, _: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Take over the settings as they are written now; a bad configuration changes nothing."""
        change = await self._controls.reload()
        _answer(resp, api.Reloaded(list(change.changed), list(change.restart)))

    async def on_get_config(self, _: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """List the settings in force."""
        _answer(resp, self._controls.config())

    async def on_get_log_level(self, _: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Show how much is logged."""
        _answer(resp, api.LogLevel(self._controls.log_level()))

    async def on_put_log_level(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Log more or less, until the next reload or start."""
        given = await _body(req, api.LogLevel)
        if given.level not in {"debug", "info", "warning", "error"}:
            raise InvalidRequest("level is debug, info, warning or error", param="level")
        self._controls.set_log_level(given.level)
        self._controls.events.tell(EventKind.LOG_LEVEL, level=given.level)
        _answer(resp, api.LogLevel(self._controls.log_level()))


# Bodies ------------------------------------------------------------------------------------------------


def _answer(resp: falcon.asgi.Response, value: object) -> None:
    resp.content_type = falcon.MEDIA_JSON
    resp.data = msgspec.json.encode(value)


async def _body(req: falcon.asgi.Request, kind: type[T]) -> T:
    if not is_json(req.content_type):
        raise falcon.HTTPUnsupportedMediaType(description="the Content-Type must be application/json")
    try:
        return msgspec.json.decode(await req.stream.read(), type=kind)
    except msgspec.MsgspecError as error:
        raise InvalidRequest(str(error)) from None


def _flag(req: falcon.asgi.Request, name: str) -> bool:
    return bool(req.get_param_as_bool(name, default=False))


def _day(req: falcon.asgi.Request, name: str) -> str:
    """Return a day as it is written; nothing where there is none."""
    given = req.get_param(name) or ""
    try:
        return date.fromisoformat(given).isoformat() if given else ""
    except ValueError:
        raise InvalidRequest(f"{name} is a day, YYYY-MM-DD", param=name) from None


def _worker_number(text: str) -> int:
    number = api.worker_number(text)
    if number is None:
        raise NotFound(f"{text!r} is no worker's id: they are written w7")
    return number


def _permission(request: Request) -> api.Permission:
    return api.Permission(
        id=request.id,
        tenant=request.conversation.tenant,
        conversation=request.conversation.id,
        worker=worker_name(request.worker),
        tool=request.tool,
        summary=request.summary,
        input=dict(request.input),
        asked_at=request.asked_at,
        expires_at=request.expires_at,
        always=list(request.always),
    )


# Errors ------------------------------------------------------------------------------------------------


def _fail(resp: falcon.asgi.Response, status: int, fault: api.Fault) -> None:
    resp.status = falcon.code_to_http_status(status)
    _answer(resp, api.Failure(fault))


def _serialize(_: falcon.asgi.Request, resp: falcon.asgi.Response, error: falcon.HTTPError) -> None:
    kinds = {403: Kind.FORBIDDEN, 404: Kind.NOT_FOUND, 405: Kind.METHOD}
    messages = {404: "there is nothing at this path", 405: "this method is not allowed here"}
    kind = kinds.get(error.status_code, Kind.INVALID if error.status_code < 500 else Kind.INTERNAL)
    _answer(
        resp,
        api.Failure(api.Fault(kind, messages.get(error.status_code) or error.description or error.title)),
    )


async def _on_coded_error(
    _: falcon.asgi.Request, resp: falcon.asgi.Response, error: CodedError, _params: dict[str, Any]
) -> None:
    tenants = error.tenants if isinstance(error, AmbiguousName) else ()
    kinds = {400: Kind.INVALID, 404: Kind.NOT_FOUND, 500: Kind.INTERNAL}
    kind = Kind.AMBIGUOUS if tenants else kinds.get(error.status, Kind.REFUSED)
    status = error.status if error.status in {400, 404, 500} else 409
    _fail(resp, status, api.Fault(kind, error.message, list(tenants)))


async def _on_configuration_error(
    _: falcon.asgi.Request, resp: falcon.asgi.Response, error: ConfigurationError, _params: dict[str, Any]
) -> None:
    _fail(resp, 409, api.Fault(Kind.CONFIGURATION, str(error)))


async def _on_exception(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Exception, _params: dict[str, Any]
) -> None:
    if isinstance(error, falcon.HTTPError):
        resp.status = error.status
        resp.set_headers(error.headers or {})
        _serialize(req, resp, error)
        return
    log.error("control request failed", extra={"path": req.path}, exc_info=error)
    _fail(resp, 500, api.Fault(Kind.INTERNAL, "an internal error occurred"))


async def _on_client_gone(
    _req: falcon.asgi.Request, _resp: falcon.asgi.Response, error: ClientGone, _params: dict[str, Any]
) -> None:
    raise error
