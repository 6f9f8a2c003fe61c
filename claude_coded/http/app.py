"""The Falcon app on TCP: routes, who may call, and every error in OpenAI's shape."""

import hmac
import ipaddress
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, cast
from uuid import uuid4

import falcon
import falcon.asgi
from falcon import media

from claude_coded import logs, reading
from claude_coded.errors import CodedError, Forbidden, InvalidApiKey
from claude_coded.guard import BodyRefused, ClientGone, ConnectionGuard
from claude_coded.http.idempotency import Replays
from claude_coded.http.resources import (
    About,
    ChatCompletions,
    ConversationItem,
    Conversations,
    Health,
    Model,
    Models,
)
from claude_coded.http.responses import Responses
from claude_coded.http.turns import Request
from claude_coded.listener import App, Message, Receive, Scope, Send
from claude_coded.openai.wire import encode
from claude_coded.service import TurnService
from claude_coded.settings import Settings

log = logging.getLogger(__name__)

DEFAULT_TENANT: Final = "default"
OPEN_PATHS: Final = frozenset({"/health"})
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Api:
    """The ASGI app. `keys` are the clients' by tenant; none: everybody is the tenant `default`."""

    def __init__(self, service: TurnService, keys: Mapping[str, str], about: About) -> None:
        self._gate = Gate(Access.of(service.settings, keys))
        server = service.settings.server
        # Falcon's annotations are narrower than ASGI's: it takes any mapping for a message.
        app = _head_first(cast("App", create_app(service, about, self._gate)))
        self._guard = ConnectionGuard(app, max_body=server.max_body_bytes, body_timeout=server.body_timeout)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._guard(scope, receive, send)

    def configure(self, settings: Settings, keys: Mapping[str, str]) -> None:
        """Go on with other settings and keys, from the next request on."""
        self._gate.access = Access.of(settings, keys)
        server = settings.server
        self._guard.configure(max_body=server.max_body_bytes, body_timeout=server.body_timeout)


def create_app(service: TurnService, about: About, gate: "Gate") -> falcon.asgi.App[Any, Any]:
    """Return the Falcon app, with its routes."""
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App(request_type=Request, middleware=[RequestIds(), gate])
    app.resp_options.media_handlers[falcon.MEDIA_JSON] = media.JSONHandler(dumps=encode)
    replays = Replays(time.monotonic)
    responses = Responses(service, replays)
    app.add_route("/v1/chat/completions", ChatCompletions(service, replays))
    app.add_route("/v1/responses", responses)
    app.add_route("/v1/responses/{name}", responses, suffix="one")
    app.add_route("/v1/responses/{name}/cancel", responses, suffix="cancel")
    app.add_route("/v1/responses/{name}/input_items", responses, suffix="input_items")
    app.add_route("/v1/models", Models(service, about))
    app.add_route("/v1/models/{name}", Model(service, about))
    app.add_route("/health", Health(service, about))
    app.add_route("/conversations", Conversations(service))
    app.add_route("/conversations/{name}", ConversationItem(service))
    app.set_error_serializer(_serialize)
    app.add_error_handler(CodedError, _on_coded_error)
    app.add_error_handler(Exception, _on_exception)
    app.add_error_handler(ClientGone, _pass_on)
    app.add_error_handler(BodyRefused, _pass_on)
    return app


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call: keys as digests by tenant, host names, origins."""

    digests: Mapping[str, bytes]
    hosts: frozenset[str]
    origins: frozenset[str]

    @classmethod
    def of(cls, settings: Settings, keys: Mapping[str, str]) -> "Access":
        """Return what the settings say."""
        hosts = {"localhost", settings.server.host.lower(), *map(str.lower, settings.access.allowed_hosts)}
        digests = {tenant: reading.digest(key) for tenant, key in keys.items()}
        return cls(digests, frozenset(hosts), frozenset(settings.access.allowed_origins))

    def tenant(self, authorization: str | None) -> str | None:
        """Return the tenant of an Authorization header; None when its key is not one of ours."""
        if not self.digests:
            return DEFAULT_TENANT
        scheme, _, key = (authorization or "").partition(" ")
        digest = sha256(key.strip().encode()).digest()
        found = None
        for tenant, known in self.digests.items():  # all of them: the time tells nothing
            if hmac.compare_digest(known, digest):
                found = tenant
        return found if scheme.lower() == "bearer" else None

    def host_allowed(self, host: str) -> bool:
        """Return whether a Host header names us: a page that rebinds its name to our address does not."""
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        name = name.strip("[]").lower()
        if "*" in self.hosts or name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def origin_allowed(self, origin: str) -> bool:
        """Return whether a web page of this origin may call."""
        return "*" in self.origins or origin in self.origins


class RequestIds:
    """Gives each request an id, the client's own where it sent one, and each response that id."""

    async def process_request(self, req: Request, _: falcon.asgi.Response) -> None:
        """Choose the id."""
        given = req.get_header("X-Request-ID") or ""
        req.context.request_id = given if _REQUEST_ID.fullmatch(given) else f"req_{uuid4().hex}"
        logs.note(request=req.context.request_id)

    async def process_response(
        self, req: Request, resp: falcon.asgi.Response, _resource: object, _succeeded: object
    ) -> None:
        """Say it."""
        resp.set_header("X-Request-ID", req.context.request_id)


class Gate:
    """Lets in who may call, before the body is looked at."""

    def __init__(self, access: Access) -> None:
        self.access = access

    async def process_request(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Check Host, Origin and key."""
        if not self.access.host_allowed(req.get_header("Host") or "localhost"):
            raise Forbidden("this Host is not allowed (CLAUDE_CODED_ALLOWED_HOSTS)")
        origin = req.get_header("Origin")
        if origin is not None:
            self._check_origin(origin, req, resp)
        tenant = self.access.tenant(req.get_header("Authorization"))
        req.context.tenant = tenant or ""
        if tenant is None and req.path not in OPEN_PATHS and not resp.complete:
            raise InvalidApiKey("a valid API key is needed: Authorization: Bearer KEY")

    def _check_origin(self, origin: str, req: Request, resp: falcon.asgi.Response) -> None:
        if not self.access.origin_allowed(origin):
            raise Forbidden("this Origin is not allowed (CLAUDE_CODED_ALLOWED_ORIGINS)")
        resp.set_header("Access-Control-Allow-Origin", origin)
        resp.append_header("Vary", "Origin")
        if req.method == "OPTIONS" and req.get_header("Access-Control-Request-Method"):
            resp.set_header("Access-Control-Allow-Methods", "GET, POST, DELETE")
            resp.set_header(
                "Access-Control-Allow-Headers", req.get_header("Access-Control-Request-Headers") or "*"
            )
            resp.set_header("Access-Control-Max-Age", "600")
            resp.status = falcon.HTTP_204
            resp.complete = True


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
        begun = scope["type"] != "http"

        async def receive_on() -> Message:
            nonlocal begun
            if begun:
                return await receive()
            begun = True
            return {"type": "http.request", "body": b"", "more_body": True}

        await app(scope, receive_on, send)

    return call
