"""The Falcon app on TCP: routes, who may call, and every error in OpenAI's shape."""

import logging
import re
import time
from collections.abc import Mapping
from typing import Any, Final, cast

import falcon
import falcon.asgi
from falcon import media

from claude_coded import logs
from claude_coded.errors import CodedError
from claude_coded.guard import BodyRefused, ClientGone, ConnectionGuard
from claude_coded.http.access import METRICS_PATH, Access, Gate
from claude_coded.http.idempotency import Replays
from claude_coded.http.limits import KeyLimits
from claude_coded.http.resources import (
    About,
    ChatCompletions,
    ConversationItem,
    Conversations,
    Health,
    MetricsPage,
    Model,
    Models,
)
from claude_coded.http.responses import Responses
from claude_coded.http.turns import Request, random_name
from claude_coded.metrics import Metrics
from claude_coded.openai.wire import encode
from claude_coded.server import App, Message, Receive, Scope, Send
from claude_coded.service import TurnService
from claude_coded.settings import Settings

log = logging.getLogger(__name__)

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Api:
    """The ASGI app. `keys` are the clients' by tenant; none: everybody is the tenant `default`."""

    def __init__(self, service: TurnService, keys: Mapping[str, str], about: About, metrics: Metrics) -> None:
        settings, server = service.settings, service.settings.server
        self._limits = KeyLimits(time.monotonic_ns)
        self._limits.configure(rate=settings.access.key_rate, turns=settings.access.key_concurrency)
        self._gate = Gate(Access.of(settings, keys), self._limits)
        self._logs_requests = settings.logs.requests
        # Falcon's annotations are narrower than ASGI's: it takes any mapping for a message.
        app = _head_first(cast("App", create_app(service, about, self._gate, metrics)))
        self._guard = ConnectionGuard(app, max_body=server.max_body_bytes, body_timeout=server.body_timeout)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self._logs_requests:
            await self._serve_logged(scope, receive, send)
        else:
            await self._guard(scope, receive, send)

    async def _serve_logged(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.monotonic(), 0

        async def send_noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._guard(scope, receive, send_noted)
        finally:
            host, _ = scope.get("client") or ("", 0)
            told = {"method": scope["method"], "path": scope["path"], "status": status, "client": host}
            log.info("request", extra={**told, "seconds": round(time.monotonic() - began, 3)})

    def configure(self, settings: Settings, keys: Mapping[str, str]) -> None:
        """Go on with other settings and keys, from the next request on."""
        self._gate.access = Access.of(settings, keys)
        self._logs_requests = settings.logs.requests
        self._limits.configure(rate=settings.access.key_rate, turns=settings.access.key_concurrency)
        server = settings.server
        self._guard.configure(max_body=server.max_body_bytes, body_timeout=server.body_timeout)


def create_app(service: TurnService, about: About, gate: Gate, metrics: Metrics) -> falcon.asgi.App[Any, Any]:
    """Return the Falcon app, with its routes."""
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App(request_type=Request, middleware=[RequestIds(), gate])
    app.resp_options.media_handlers[falcon.MEDIA_JSON] = media.JSONHandler(dumps=encode)
    replays = Replays(time.monotonic)
    responses = Responses(service, replays, gate.limits, metrics.traffic)
    app.add_route("/v1/chat/completions", ChatCompletions(service, replays, gate.limits, metrics.traffic))
    app.add_route("/v1/responses", responses)
    app.add_route("/v1/responses/{name}", responses, suffix="one")
    app.add_route("/v1/responses/{name}/cancel", responses, suffix="cancel")
    app.add_route("/v1/responses/{name}/input_items", responses, suffix="input_items")
    app.add_route("/v1/models", Models(service, about))
    app.add_route("/v1/models/{name}", Model(service, about))
    app.add_route("/health", Health(service, about))
    app.add_route(METRICS_PATH, MetricsPage(service, metrics))
    app.add_route("/conversations", Conversations(service))
    app.add_route("/conversations/{name}", ConversationItem(service))
    app.set_error_serializer(_serialize)
    app.add_error_handler(CodedError, _on_coded_error)
    app.add_error_handler(Exception, _on_exception)
    app.add_error_handler(ClientGone, _pass_on)
    app.add_error_handler(BodyRefused, _pass_on)
    return app


class RequestIds:
    """Gives each request an id, the client's own where it sent one, and each response that id."""

    async def process_request(self, req: Request, _: falcon.asgi.Response) -> None:
        """Choose the id."""
        given = req.get_header("X-Request-ID") or ""
        req.context.request_id = given if _REQUEST_ID.fullmatch(given) else f"req_{random_name()}"
        logs.note(request=req.context.request_id)

    async def process_response(
        self, req: Request, resp: falcon.asgi.Response, _resource: object, _succeeded: object
    ) -> None:
        """Say it."""
        resp.set_header("X-Request-ID", req.context.request_id)


def _serialize(_: Request, resp: falcon.asgi.Response, error: falcon.HTTPError) -> None:
    messages = {
        404: "there is nothing at this path",
        405: "this method is not allowed here",
    }
    text = messages.get(error.status_code, error.description or error.title)
    body = {"message": text, "type": "invalid_request_error", "param": None, "code": None}
    resp.media = {"error": body}


async def _on_coded_error(
    req: Request, resp: falcon.asgi.Response, error: CodedError, _: dict[str, Any]
) -> None:
    if error.status >= 500:
        log.warning("request failed", extra={"error": error.message})
    # Where one of its frames has a name for it, it holds itself, and all that they have of the request.
    error.__traceback__ = None
    resp.status = falcon.code_to_http_status(error.status)
    resp.media = error.body()
    resp.set_headers(dict(error.headers()))


async def _on_exception(
    req: Request, resp: falcon.asgi.Response, error: Exception, _: dict[str, Any]
) -> None:
    if isinstance(error, falcon.HTTPError):
        resp.status = error.status
        resp.set_headers(error.headers or {})
        _serialize(req, resp, error)
        return
    log.error("request failed", exc_info=error)
    await _on_coded_error(req, resp, CodedError("an internal error occurred"), {})


async def _pass_on(_req: Request, _resp: falcon.asgi.Response, error: Exception, _: dict[str, Any]) -> None:
    raise error  # the guard's


def _head_first(app: App) -> App:
    """Have Falcon look at a request's head, and at who calls, while the body is on its way.

    It would wait for the first piece, of which it is given an empty one.
    """

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def receive_on() -> Message:
            nonlocal begun
            if begun:
                return await receive()
            begun = True
            return {"type": "http.request", "body": b"", "more_body": True}

        await app(scope, receive_on, send)

    return call
