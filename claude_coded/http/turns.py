"""What requests for a turn share: what they say besides their body, and how their answers are sent."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from os import urandom
from typing import Final, Protocol

import falcon
import falcon.asgi

from claude_coded import logs
from claude_coded.aside import LARGE, Aside
from claude_coded.browsers import is_json
from claude_coded.errors import UnsupportedMediaType
from claude_coded.http.batches import Batches
from claude_coded.http.choices import HEADERS as CHOICES
from claude_coded.http.idempotency import KEY_HEADER, Begun, Claim, Follower
from claude_coded.http.limits import KeyLimits
from claude_coded.metrics import Traffic
from claude_coded.openai.schemas import may_have_schema
from claude_coded.openai.wire import KEEP_ALIVE, check_conversation_id
from claude_coded.service import TurnService
from claude_coded.settings import ServerSettings
from claude_coded.turn import AnswerEvent, TurnFailed, TurnFinished, TurnRequest

CONVERSATION_HEADER: Final = "X-Conversation-ID"
IGNORED_HEADER: Final = "X-Claude-Coded-Ignored"
MAX_IGNORED: Final = 100
"""Names in that header: proxies and clients take some kilobytes of headers."""
DECIDING: Final = (CONVERSATION_HEADER, *CHOICES)
"""The headers that make another request of the same body."""


class Context(falcon.Context):
    """What the middleware finds out about a request."""

    request_id: str = ""
    tenant: str = ""
    arrived: float = 0.0  # when all of the body had come, in seconds of the monotonic clock


class Request(falcon.asgi.Request):
    """A request with a typed context."""

    context_type = Context
    context: Context


class Encoder(Protocol):
    """What makes bytes of a turn's events."""

    def start(self) -> bytes:
        """Return what comes first."""

    def encode(self, events: Iterable[AnswerEvent]) -> bytes:
        """Return what tells of some events."""


@dataclass(frozen=True, slots=True)
class Ends:
    """What is done at the end of an answer.

    `conclude` is awaited before its last bytes go out. `left` is called after them, or when the client has
    left before.
    """

    conclude: Callable[[], Awaitable[None]]
    left: Callable[[], None]


def random_name() -> str:
    """Return 32 random hexadecimal digits, which nobody can guess."""
    return urandom(16).hex()  # `secrets` comes to the same, by four more calls


async def begin(service: TurnService, limits: KeyLimits, request: TurnRequest) -> tuple[Begun, Batches]:
    """Begin a turn, one of its key's until its end is known; it is to be closed, whatever happens.

    A worker that waits for it has been asked by then: what the answer begins with is made while the CLI
    works. Raises TooManyTurns, and what keeps it off.
    """
    leave = limits.enter(request.key.tenant)
    try:
        located = await service.locate(request)
    except BaseException:
        leave()
        raise
    name = located.request.key.id
    logs.note(conversation=name)
    batches = Batches(service.run(located), leave)
    async with closed_on_failure(batches):
        if service.is_ready(located):
            await batches.ask()
    return Begun(name, random_name(), int(service.now()), batches), batches


@asynccontextmanager
async def closed_on_failure(batches: Batches | Follower) -> AsyncIterator[None]:
    """End a turn whose answer cannot be made, or is not wanted any more."""
    try:
        yield
    except BaseException:
        await batches.aclose()
        raise


async def json_body(req: Request) -> bytes:
    """Return the body. Raises UnsupportedMediaType."""
    if not is_json(req.content_type):
        raise UnsupportedMediaType("the Content-Type must be application/json")
    body = bytes(await req.stream.read())
    req.context.arrived = time.monotonic()
    return body


def weight(body: bytes) -> int:
    """Return a body's size, as far as parsing goes: to check a schema is as much work as a large one."""
    # What is large is parsed aside anyway: to look through it would take milliseconds here.
    return LARGE if len(body) < LARGE and may_have_schema(body) else len(body)


def named(req: Request, resp: falcon.asgi.Response) -> str | None:
    """Return the conversation that the header names, which the answer has too, whatever becomes of it."""
    if (header := req.get_header(CONVERSATION_HEADER)) is not None:
        resp.set_header(CONVERSATION_HEADER, check_conversation_id(header, CONVERSATION_HEADER))
    return header


def name_conversation(resp: falcon.asgi.Response, name: str) -> None:
    """Say which conversation it is, in the answer and in what is logged from here on."""
    resp.set_header(CONVERSATION_HEADER, name)
    logs.note(conversation=name)


def hint(req: Request) -> str:
    """Return what a client calls its session: no key, since it may ask other things beside under the same."""
    return req.get_header("X-Session-ID") or req.get_header("X-Session-Affinity") or ""


def trace(req: Request) -> dict[str, str]:
    """Return what a request says of the trace that it belongs to (W3C's trace context)."""
    parent = req.get_header("traceparent")
    return {"traceparent": parent, "tracestate": req.get_header("tracestate") or ""} if parent else {}


async def claim(req: Request, body: bytes, aside: Aside) -> Claim | None:
    """Return what the request's idempotency key claims; None without one. Raises InvalidRequest."""
    if (key := req.get_header(KEY_HEADER)) is None:
        return None
    deciding = [req.path, *map(req.get_header, DECIDING), body]
    return await aside.run(len(body), Claim.of, req.context.tenant, key, *deciding)


def name_ignored(resp: falcon.asgi.Response, names: Iterable[str]) -> None:
    """Say what of a request is ignored, up to a bound: how much that is is the client's doing."""
    if safe := sorted(map(_header_safe, islice(names, MAX_IGNORED))):
        resp.set_header(IGNORED_HEADER, ", ".join(safe))


def _header_safe(name: str) -> str:
    return "".join(c for c in name[:64] if c.isascii() and (c.isalnum() or c in "_-.[]"))


async def send(
    resp: falcon.asgi.Response,
    batches: Batches | Follower,
    encoder: Encoder,
    server: ServerSettings,
    *,
    traffic: Traffic,
    ends: Ends | None = None,
) -> None:
    """Answer with a stream.

    Its bytes are added to the traffic. Raises what fails before the model begins to answer, within the time
    that the status line waits for that.
    """
    start = encoder.start()
    first = await batches.next(server.header_hold)
    if first and isinstance(first[0], TurnFailed):
        raise first[0].error
    resp.content_type = "text/event-stream"
    resp.set_header("Cache-Control", "no-cache")
    resp.set_header("X-Accel-Buffering", "no")
    resp.stream = EventStream(batches, first, start, encoder, server.keep_alive, traffic=traffic, ends=ends)


class EventStream:
    """The bytes of a streamed answer: Falcon iterates over it, and closes it whatever happens."""

    def __init__(
        self,
        batches: Batches | Follower,
        first: list[AnswerEvent] | None,
        start: bytes,
        encoder: Encoder,
        keep_alive: float,
        *,
        traffic: Traffic,
        ends: Ends | None,
    ) -> None:
        self._batches = batches
        self._keep_alive = keep_alive
        self._traffic = traffic
        self._encoder = encoder
        self._first: list[AnswerEvent] | None = first
        self._start = start
        self._ends = ends
        self._begun = False
        self._ended = False

    def __aiter__(self) -> "EventStream":
        return self

    async def __anext__(self) -> bytes:
        data = await self._next()
        self._traffic.streamed += len(data)
        return data

    async def _next(self) -> bytes:
        if not self._begun:
            self._begun = True
            return self._start + await self._begin()
        if self._ended:
            # The turn's iterator is run to its end: it concludes the turn.
            await self.close()
            raise StopAsyncIteration
        events = await self._batches.next(self._keep_alive)
        return await self._encode(events) if events else KEEP_ALIVE

    async def _begin(self) -> bytes:
        if self._first is None:
            return KEEP_ALIVE
        return await self._encode(self._first) if self._first else b""  # the model begins to answer

    async def _encode(self, events: list[AnswerEvent]) -> bytes:
        self._ended = isinstance(events[-1], TurnFinished | TurnFailed)
        data = self._encoder.encode(events)
        if self._ended and self._ends is not None:
            await self._ends.conclude()
        return data

    async def close(self) -> None:
        """End the turn, if it has not ended."""
        try:
            await self._batches.aclose()
        finally:
            if self._ends is not None:
                self._ends.left()
