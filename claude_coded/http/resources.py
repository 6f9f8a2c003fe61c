"""What can be asked over TCP, one class a resource."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final
from uuid import uuid4

import falcon
import falcon.asgi

from claude_coded.errors import UnsupportedMediaType
from claude_coded.http.batches import Batches
from claude_coded.http.choices import HEADERS as CHOICES
from claude_coded.http.choices import choose
from claude_coded.http.idempotency import KEY_HEADER, Begun, Claim, Follower, Replays
from claude_coded.openai.answers import ChunkEncoder, Completion, Envelope
from claude_coded.openai.chat import ChatRequest, parse_chat
from claude_coded.openai.wire import KEEP_ALIVE, check_conversation_id, model_object, usage_object
from claude_coded.service import Listed, TurnService
from claude_coded.turn import AnswerEvent, ConversationKey, TurnFailed, TurnFinished, TurnRequest

CONVERSATION_HEADER: Final = "X-Conversation-ID"
IGNORED_HEADER: Final = "X-Claude-Coded-Ignored"
DECIDING: Final = (CONVERSATION_HEADER, *CHOICES)
"""The headers that make another request of the same body."""


class Context(falcon.Context):
    """What the middleware finds out about a request."""

    request_id: str = ""
    tenant: str = ""


class Request(falcon.asgi.Request):
    """A request with a typed context."""

    context_type = Context
    context: Context


@dataclass(frozen=True, slots=True)
class About:
    """What does not change while the daemon runs. `started` in Unix seconds, `now` returns them."""

    version: str
    claude_version: str
    started: float
    now: Callable[[], float]


class ChatCompletions:
    """`POST /v1/chat/completions`."""

    def __init__(self, service: TurnService, replays: Replays) -> None:
        self._service = service
        self._replays = replays

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Run a turn."""
        if (header := req.get_header(CONVERSATION_HEADER)) is not None:
            resp.set_header(CONVERSATION_HEADER, check_conversation_id(header, CONVERSATION_HEADER))
        body = await _json_body(req)
        chat = parse_chat(body)
        name = _conversation(header, chat)
        if name is not None:
            resp.set_header(CONVERSATION_HEADER, name)
        profile = self._service.models.profile(chat.model)
        request = TurnRequest(
            key=ConversationKey(req.context.tenant, name or f"conv-{uuid4().hex}"),
            profile=profile,
            messages=chat.messages,
            system=chat.system,
            streamed=chat.stream,
            named=name is not None,
            hint=_hint(req) or chat.hint,
            ephemeral=not chat.store,
            tools=chat.tools,
            options=choose(chat.options, req.get_header, self._service.settings.claude, profile),
        )
        claim = Claim.of(req.context.tenant, req.get_header(KEY_HEADER), *_deciding(req), body)
        begun = await self._replays.begin(claim, partial(self._begin, request, chat))
        resp.set_header(CONVERSATION_HEADER, begun.conversation)
        if chat.ignored:
            resp.set_header(IGNORED_HEADER, ", ".join(sorted(map(_header_safe, chat.ignored))))
        if chat.stream:
            await self._stream(resp, begun, include_usage=chat.include_usage)
        else:
            await self._complete(resp, begun)

    async def _begin(self, request: TurnRequest, chat: ChatRequest) -> Begun:
        located = await self._service.locate(request)
        made = int(self._service.now())
        envelope = Envelope(f"chatcmpl-{uuid4().hex}", made, chat.model, functions=chat.functions)
        return Begun(located.request.key.id, envelope, Batches(self._service.run(located)))

    async def _complete(self, resp: falcon.asgi.Response, begun: Begun) -> None:
        completion = Completion(begun.envelope)
        async with contextlib.aclosing(begun.batches) as batches:
            while (made := completion.add(await batches.next(math.inf) or ())) is None:
                pass
        resp.media = made

    async def _stream(self, resp: falcon.asgi.Response, begun: Begun, *, include_usage: bool) -> None:
        batches = begun.batches
        try:
            first = await batches.next(self._service.settings.server.header_hold)
            if first and isinstance(first[0], TurnFailed):
                raise first[0].error
        except BaseException:
            await batches.aclose()
            raise
        encoder = ChunkEncoder(begun.envelope, include_usage=include_usage)
        resp.content_type = "text/event-stream"
        resp.set_header("Cache-Control", "no-cache")
        resp.set_header("X-Accel-Buffering", "no")
        resp.stream = EventStream(batches, first, encoder, self._service.settings.server.keep_alive)


class EventStream:
    """The bytes of a streamed answer: Falcon iterates over it, and closes it whatever happens."""

    def __init__(
        self,
        batches: Batches | Follower,
        first: list[AnswerEvent] | None,
        encoder: ChunkEncoder,
        keep_alive: float,
    ) -> None:
        self._batches = batches
        self._keep_alive = keep_alive
        self._encoder = encoder
        self._first: list[AnswerEvent] | None = first
        self._begun = False
        self._ended = False

    def __aiter__(self) -> "EventStream":
        return self

    async def __anext__(self) -> bytes:
        if not self._begun:
            self._begun = True
            return self._encoder.start() + (self._encode(self._first) if self._first else KEEP_ALIVE)
        if self._ended:
            # The turn's iterator is run to its end: it concludes the turn.
            await self.close()
            raise StopAsyncIteration
        events = await self._batches.next(self._keep_alive)
        return KEEP_ALIVE if events is None else self._encode(events)

    def _encode(self, events: list[AnswerEvent]) -> bytes:
        self._ended = isinstance(events[-1], TurnFinished | TurnFailed)
        return self._encoder.encode(events)

    async def close(self) -> None:
        """End the turn, if it has not ended."""
        await self._batches.aclose()


class Models:
    """`GET /v1/models`."""

    def __init__(self, service: TurnService, about: About) -> None:
        self._service = service
        self._about = about

    async def on_get(self, _: Request, resp: falcon.asgi.Response) -> None:
        """List the models."""
        created = int(self._about.started)
        models = [model_object(name, created) for name in self._service.models.names]
        resp.media = {"object": "list", "data": models}


class Model:
    """`GET /v1/models/{id}`."""

    def __init__(self, service: TurnService, about: About) -> None:
        self._service = service
        self._about = about

    async def on_get(self, _: Request, resp: falcon.asgi.Response, name: str) -> None:
        """Show a model."""
        profile = self._service.models.profile(name)
        resp.media = model_object(profile.name, int(self._about.started))


class Health:
    """`GET /health`."""

    def __init__(self, service: TurnService, about: About) -> None:
        self._service = service
        self._about = about

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Say how the daemon is; 503 when it takes no turns. Callers without a key get no details."""
        pool = self._service.pool
        status = "draining" if pool.draining else "unhealthy" if pool.failure else "ok"
        resp.status = falcon.HTTP_200 if status == "ok" else falcon.HTTP_503
        if not req.context.tenant:
            resp.media = {"status": status}
            return
        resp.media = {
            "status": status,
            **({"reason": pool.failure} if pool.failure else {}),
            "version": self._about.version,
            "uptime_s": round(self._about.now() - self._about.started, 3),
            "claude": {"version": self._about.claude_version},
            "pool": {"size": self._service.settings.pool.size, **asdict(self._service.figures)},
            "conversations": {"hot": self._service.hot, "stored": await self._service.store.count()},
        }


class Conversations:
    """`GET /conversations`."""

    def __init__(self, service: TurnService) -> None:
        self._service = service

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """List the hot conversations of the tenant; `?all=true` the stored ones too."""
        stored = req.get_param_as_bool("all", default=False)
        listed = await self._service.conversations(req.context.tenant, stored=bool(stored))
        resp.media = {"object": "list", "data": [_conversation_object(item) for item in listed]}


class ConversationItem:
    """`GET` and `DELETE /conversations/{id}`."""

    def __init__(self, service: TurnService) -> None:
        self._service = service

    async def on_get(self, req: Request, resp: falcon.asgi.Response, name: str) -> None:
        """Show a conversation and what was said in it."""
        listed, messages = await self._service.conversation(_key(req, name))
        said = [{"role": message.role.value, "content": message.text} for message in messages]
        resp.media = {**_conversation_object(listed), "messages": said}

    async def on_delete(self, req: Request, resp: falcon.asgi.Response, name: str) -> None:
        """Evict its worker, interrupting its turn; `?purge=true` forgets it."""
        purge = req.get_param_as_bool("purge", default=False)
        await self._service.release(_key(req, name), purge=bool(purge))
        resp.media = {"id": name, "object": "conversation.deleted", "deleted": True}


async def _json_body(req: Request) -> bytes:
    if "json" not in (req.content_type or "").lower():
        raise UnsupportedMediaType("the Content-Type must be application/json")
    return bytes(await req.stream.read())


def _conversation(header: str | None, chat: ChatRequest) -> str | None:
    """Return the conversation's id: the header's or the model suffix's; None where it is to be found."""
    if header is None and chat.conversation is not None:
        return check_conversation_id(chat.conversation, "model")
    return header


def _hint(req: Request) -> str:
    """Return what a client calls its session: no key, since it may ask other things beside under the same."""
    return req.get_header("X-Session-ID") or req.get_header("X-Session-Affinity") or ""


def _deciding(req: Request) -> list[str | None]:
    """Return what decides about a request's turn beside its body."""
    return [req.path, *(req.get_header(name) for name in DECIDING)]


def _key(req: Request, name: str) -> ConversationKey:
    return ConversationKey(req.context.tenant, check_conversation_id(name, "id"))


def _header_safe(name: str) -> str:
    return "".join(c for c in name if c.isascii() and (c.isalnum() or c in "_-."))[:64]


def _conversation_object(listed: Listed) -> dict[str, Any]:
    conversation = listed.conversation
    return {
        "id": conversation.key.id,
        "object": "conversation",
        "state": "busy" if listed.state == "attached" else listed.state,
        "model": conversation.profile.name,
        "created_at": int(conversation.created_at),
        "last_used_at": int(conversation.last_used_at),
        "turns": conversation.turns,
        "workspace": str(conversation.workspace),
        "usage": {**usage_object(conversation.usage), "cost_usd": round(conversation.usage.cost_usd, 6)},
    }
