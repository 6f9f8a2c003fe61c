"""What can be asked over TCP, one class a resource."""

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import falcon
import falcon.asgi

from claude_coded.http.batches import Batches
from claude_coded.http.choices import choose
from claude_coded.http.idempotency import Begun, Follower, Replays
from claude_coded.http.limits import KeyLimits
from claude_coded.http.turns import (
    CONVERSATION_HEADER,
    Request,
    begin,
    claim,
    closed_on_failure,
    hint,
    json_body,
    name_conversation,
    name_ignored,
    named,
    random_name,
    send,
    trace,
    weight,
)
from claude_coded.metrics import Metrics, Standing, Traffic
from claude_coded.openai.answers import ChunkEncoder, Completion, Envelope
from claude_coded.openai.chat import ChatRequest, parse_chat
from claude_coded.openai.wire import check_conversation_id, encode_list, model_object, usage_object
from claude_coded.proc import Tree, ended_children, trees
from claude_coded.service import RECORD_SIZE, Listed, TurnService
from claude_coded.turn import ConversationKey, TurnRequest


@dataclass(frozen=True, slots=True)
class About:
    """What does not change while the daemon runs. `started` in Unix seconds, `now` returns them."""

    version: str
    claude_version: str
    started: float
    now: Callable[[], float]


class ChatCompletions:
    """`POST /v1/chat/completions`."""

    def __init__(self, service: TurnService, replays: Replays, limits: KeyLimits, traffic: Traffic) -> None:
        self._service = service
        self._replays = replays
        self._limits = limits
        self._traffic = traffic

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Run a turn."""
        header = named(req, resp)
        body = await json_body(req)
        aside, size = self._service.aside, len(body)
        chat = await aside.run(weight(body), parse_chat, body)
        name = _conversation(header, chat)
        if name is not None:
            resp.set_header(CONVERSATION_HEADER, name)
        profile = self._service.models.profile(chat.model)
        request = TurnRequest(
            key=ConversationKey(req.context.tenant, name or f"conv-{random_name()}"),
            profile=profile,
            messages=chat.messages,
            system=chat.system,
            streamed=chat.stream,
            named=name is not None,
            hint=hint(req) or chat.hint,
            ephemeral=not chat.store,
            tools=chat.tools,
            options=choose(
                chat.options, req.get_header, self._service.settings.claude, profile, req.context.tenant
            ),
            size=size,
            trace=trace(req),
            arrived=req.context.arrived,
        )
        claimed = await claim(req, body, aside)
        begun = await self._replays.begin(claimed, partial(self._begin, request))
        async with closed_on_failure(begun.batches):
            await self._answer(resp, chat, begun)

    async def _answer(self, resp: falcon.asgi.Response, chat: ChatRequest, begun: Begun) -> None:
        name_conversation(resp, begun.conversation)
        name_ignored(resp, chat.ignored)
        envelope = Envelope(f"chatcmpl-{begun.serial}", begun.created, chat.model, functions=chat.functions)
        if chat.stream:
            encoder = ChunkEncoder(envelope, include_usage=chat.include_usage)
            server = self._service.settings.server
            await send(resp, begun.batches, encoder, server, traffic=self._traffic)
        else:
            resp.media = await _completed(begun.batches, Completion(envelope))

    async def _begin(self, request: TurnRequest) -> Begun:
        begun, _ = await begin(self._service, self._limits, request)
        return begun


async def _completed(batches: Batches | Follower, completion: Completion) -> dict[str, Any]:
    async with contextlib.aclosing(batches):
        while (made := completion.add(await batches.next(math.inf) or ())) is None:
            pass
    return made


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
        """Say how the daemon is; 503 when it takes no turns. Callers without a key get no details.

        The pool's are everybody's, the conversations the caller's own.
        """
        pool = self._service.pool
        status = "draining" if pool.draining else "unhealthy" if pool.failure else "ok"
        resp.status = falcon.HTTP_200 if status == "ok" else falcon.HTTP_503
        tenant = req.context.tenant
        if not tenant:
            resp.media = {"status": status}
            return
        resp.media = {
            "status": status,
            **({"reason": pool.failure} if pool.failure else {}),
            "version": self._about.version,
            "uptime_s": round(self._about.now() - self._about.started, 3),
            "claude": {"version": self._about.claude_version},
            "pool": {"size": self._service.settings.pool.size, **asdict(self._service.figures)},
            "conversations": {
                "hot": self._service.hot(tenant),
                "stored": await self._service.store.count(tenant),
            },
        }


class MetricsPage:
    """`GET /metrics`, for Prometheus."""

    def __init__(self, service: TurnService, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Show all that is counted."""
        ended = ended_children()  # before the others are looked at: who ends meanwhile is not counted twice
        measured = await asyncio.to_thread(trees, self._service.pool.pids)
        self._metrics.look(await self._standing(sum(measured.values(), Tree(cpu=ended))))
        resp.data, resp.content_type = await asyncio.to_thread(self._metrics.page, req.accept)

    async def _standing(self, used: Tree) -> Standing:
        service, pool = self._service, self._service.pool
        figures = asdict(pool.figures)
        workers, queued = figures.pop("workers"), figures.pop("queued")
        return Standing(
            workers={**figures, "stopping": workers - sum(figures.values())},
            size=pool.size,
            queued=queued,
            running=service.running,
            hot=service.hot(),
            stored=await service.store.count(),
            ready=not (pool.draining or pool.failure),
            memory=used.memory,
            processes=used.processes,
            cpu=used.cpu,
        )


class Conversations:
    """`GET /conversations`."""

    def __init__(self, service: TurnService) -> None:
        self._service = service

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """List the hot conversations of the tenant; `?all=true` the stored ones too."""
        stored = req.get_param_as_bool("all", default=False)
        listed = await self._service.conversations(req.context.tenant, stored=bool(stored))
        resp.data = await self._service.aside.run(RECORD_SIZE * len(listed), _conversation_list, listed)
        resp.content_type = falcon.MEDIA_JSON


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


def _conversation(header: str | None, chat: ChatRequest) -> str | None:
    """Return the conversation's id: the header's or the model suffix's; None where it is to be found."""
    if header is None and chat.conversation is not None:
        return check_conversation_id(chat.conversation, "model")
    return header


def _key(req: Request, name: str) -> ConversationKey:
    return ConversationKey(req.context.tenant, check_conversation_id(name, "id"))


def _conversation_list(listed: Iterable[Listed]) -> bytes:
    return b'{"object":"list","data":%b}' % encode_list(map(_conversation_object, listed))


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
