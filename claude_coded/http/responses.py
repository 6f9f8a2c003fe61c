"""`/v1/responses`: turns by OpenAI's Responses API, and what became of them."""

import contextlib
import logging
import math
import re
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import falcon
import falcon.asgi

from claude_coded.errors import (
    CodedError,
    Interrupted,
    InvalidRequest,
    NotFound,
    NotRecorded,
    PreviousResponseNotFound,
)
from claude_coded.http.batches import Batches
from claude_coded.http.choices import choose
from claude_coded.http.idempotency import Begun, Follower, Replays
from claude_coded.http.limits import KeyLimits
from claude_coded.http.turns import (
    CONVERSATION_HEADER,
    Ends,
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
from claude_coded.kept import KeptResponse
from claude_coded.metrics import Traffic
from claude_coded.openai.responses.items import (
    Item,
    answers_calls,
    history,
    kept_items,
    listed,
    only_says,
    page,
)
from claude_coded.openai.responses.output import Answer, EventEncoder, Head, response_id
from claude_coded.openai.responses.request import ResponseRequest, parse_response
from claude_coded.openai.wire import check_conversation_id, encode, encode_list, field_of
from claude_coded.service import TurnService
from claude_coded.turn import After, ConversationKey, Message, Profile, TurnRequest

log = logging.getLogger(__name__)

ITEM_ID: Final = re.compile(r"[a-z]{1,8}_([0-9a-f]{32})_i?\d+")
"""An item's id names the response that it is of."""

PAGE: Final = 20
MAX_PAGE: Final = 100


@dataclass(slots=True)
class Live:
    """A response that is being made. `answers` are what its readers have of it: one, without a key."""

    tenant: str
    batches: Batches
    answers: list[Answer] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Return whether its turn has ended, and nobody reads it any more."""
        return self.batches.closed and not self.answers


@dataclass(frozen=True, slots=True)
class Placed:
    """A request with what was said before it, and where. `system` is what a response after it has, too.

    A `brief` one has its past where it stands: all of it is not needed, nearly always.
    """

    past: tuple[Message, ...] = ()
    system: str = ""
    after: After | None = None
    brief: bool = False


class Responses:
    """`POST /v1/responses`, and `GET` and `DELETE /v1/responses/{id}` with what lies below."""

    def __init__(self, service: TurnService, replays: Replays, limits: KeyLimits, traffic: Traffic) -> None:
        self._service = service
        self._replays = replays
        self._limits = limits
        self._traffic = traffic
        self._live: dict[str, Live] = {}

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Run a turn."""
        try:
            await self._respond(req, resp)
        except CodedError as error:
            if error.param == "messages":  # what stands for them in such a request
                error.param = "input"
            raise

    async def _respond(self, req: Request, resp: falcon.asgi.Response) -> None:
        header = named(req, resp)
        body = await json_body(req)
        asked = await self._service.aside.run(weight(body), parse_response, body)
        name = header
        if header is None and asked.conversation is not None:
            place = "conversation" if asked.fields.get("conversation") is not None else "model"
            name = check_conversation_id(asked.conversation, place)
            resp.set_header(CONVERSATION_HEADER, name)
        request, system = await self._turn(req, asked, name)
        claimed = await claim(req, body, self._service.aside)
        begun = await self._replays.begin(claimed, partial(self._begin, request))
        async with closed_on_failure(begun.batches):
            name_conversation(resp, begun.conversation)
            name_ignored(resp, asked.ignored)
            answer = Answer(Head(begun.serial, begun.created, begun.conversation, asked))
            ends = self._join(ConversationKey(req.context.tenant, begun.conversation), answer, system)
            await self._answer(resp, begun, answer, ends)

    async def _answer(self, resp: falcon.asgi.Response, begun: Begun, answer: Answer, ends: Ends) -> None:
        try:
            if answer.head.request.stream:
                encoder, server = EventEncoder(answer), self._service.settings.server
                await send(resp, begun.batches, encoder, server, traffic=self._traffic, ends=ends)
                return
            resp.media = await _completed(begun.batches, answer)
            await ends.conclude()
        except BaseException:
            ends.left()
            raise
        ends.left()

    async def on_get_one(self, req: Request, resp: falcon.asgi.Response, name: str) -> None:
        """Show a response, also while it is made."""
        if req.get_param_as_bool("stream"):
            raise InvalidRequest("a response is streamed while it is made, not later", param="stream")
        live = self._live_of(req, name)
        if live is not None and live.answers:
            resp.media = live.answers[0].snapshot()
            return
        resp.data = (await self._kept(req, name)).body
        resp.content_type = falcon.MEDIA_JSON

    async def on_delete_one(self, req: Request, resp: falcon.asgi.Response, name: str) -> None:
        """Forget a response; the conversation keeps what was said."""
        if not await self._service.store.forget_response(req.context.tenant, name):
            raise _unknown(name)
        resp.media = {"id": name, "object": "response", "deleted": True}

    async def on_post_cancel(self, req: Request, resp: falcon.asgi.Response, name: str) -> None:
        """Stop the turn that a response is made by; one that has ended stays as it is."""
        live = self._live_of(req, name)
        if live is None or not live.answers:
            resp.data = (await self._kept(req, name)).body
            resp.content_type = falcon.MEDIA_JSON
            return
        first = live.answers[0]
        for answer in live.answers:
            answer.cancel()
        live.batches.fail(Interrupted("the response was cancelled"))
        await live.batches.aclose()
        resp.media = first.snapshot()

    async def on_get_input_items(self, req: Request, resp: falcon.asgi.Response, name: str) -> None:
        """List the items of a response's input: `limit`, `order` (desc or asc) and `after`."""
        given = (await self._kept(req, name)).input
        newest_first = req.get_param("order", default="desc") != "asc"
        limit = req.get_param_as_int("limit", min_value=1, max_value=MAX_PAGE, default=PAGE)
        after, aside = req.get_param("after"), self._service.aside
        resp.data = await aside.run(len(given), page, given, limit, newest_first=newest_first, after=after)
        resp.content_type = falcon.MEDIA_JSON

    # Turns ---------------------------------------------------------------------------------------------

    async def _turn(self, req: Request, asked: ResponseRequest, name: str | None) -> tuple[TurnRequest, str]:
        """Return the turn that is asked for, and the system text that goes on to what follows it."""
        tenant, aside, size = req.context.tenant, self._service.aside, len(asked.body)
        profile = self._service.models.profile(asked.model)
        placed = await self._placed(tenant, asked, name, profile)
        items = await self._items(tenant, asked)
        texts, messages = await aside.run(size, history, items, placed.past)
        carried = "\n\n".join(text for text in (placed.system, *texts) if text)
        system = "\n\n".join(text for text in (asked.instructions, carried) if text)
        said_any = bool(texts) or asked.instructions is not None or asked.previous is not None
        request = TurnRequest(
            key=ConversationKey(tenant, name or f"conv-{random_name()}"),
            profile=profile,
            messages=messages,
            system=system if said_any else None,
            streamed=asked.stream,
            named=name is not None,
            hint=hint(req) or asked.hint,
            after=placed.after,
            brief=placed.brief,
            ephemeral=not asked.store,
            tools=asked.toolbox.tools,
            options=choose(
                asked.options, req.get_header, self._service.settings.claude, profile, req.context.tenant
            ),
            size=size,
            trace=trace(req),
            arrived=req.context.arrived,
        )
        return request, carried

    async def _placed(
        self, tenant: str, asked: ResponseRequest, name: str | None, profile: Profile
    ) -> Placed:
        """Return what was said before: up to a response, or in a conversation whose calls are answered."""
        if asked.previous is not None:
            stand = await self._service.store.stand(tenant, asked.previous)
            if stand is None:
                raise PreviousResponseNotFound(
                    f"there is no response {asked.previous!r:.80} to go on after",
                    param="previous_response_id",
                )
            if stand.whole and stand.agent is profile.agent and only_says(asked.items):
                return Placed((), stand.system, stand.after, brief=True)
            past = await self._service.store.said_until(stand.after.turn)
            return Placed(past, stand.system, stand.after)
        aside, size = self._service.aside, len(asked.body)
        if name is not None and await aside.run(size, answers_calls, asked.items):
            return Placed(await self._service.store.messages(ConversationKey(tenant, name)))
        return Placed()

    async def _items(self, tenant: str, asked: ResponseRequest) -> list[Item]:
        """Return the items, with those that others stand for in their places; unknown ones stay."""
        places: dict[str, list[tuple[int, str]]] = {}
        for index, id_ in asked.references:
            if (found := ITEM_ID.fullmatch(id_)) is not None:
                places.setdefault(response_id(found[1]), []).append((index, id_))
        items, left = list(asked.items), self._service.settings.server.max_body_bytes
        for name, wanted in places.items():
            for index, (item, size) in (await self._referred(tenant, name, wanted)).items():
                left -= size
                if left < 0:
                    raise InvalidRequest(
                        "what is referred to is too long, all in all", param=f"input[{index}]"
                    )
                items[index] = item
        return items

    async def _referred(
        self, tenant: str, name: str, wanted: list[tuple[int, str]]
    ) -> dict[int, tuple[Item, int]]:
        """Return the items of a response that stand in some places, each with its length."""
        kept = await self._service.store.response(tenant, name)
        if kept is None:
            return {}
        size, ids = len(kept.body) + len(kept.input), {id_ for _, id_ in wanted}
        known = await self._service.aside.run(size, kept_items, kept.body, kept.input, ids)
        return {index: known[id_] for index, id_ in wanted if id_ in known}

    async def _begin(self, request: TurnRequest) -> Begun:
        begun, batches = await begin(self._service, self._limits, request)
        id_ = response_id(begun.serial)
        self._live[id_] = Live(request.key.tenant, batches)
        batches.on_close(partial(self._forget_over, id_))
        return begun

    def _join(self, key: ConversationKey, answer: Answer, system: str) -> Ends:
        """Note a reader of a response; what is replayed has been kept, and may have been forgotten since."""
        live = self._live.get(answer.head.id)
        if live is not None:
            live.answers.append(answer)
        kept = answer.head.request.store and live is not None
        return Ends(
            partial(self._keep, key, answer, system) if kept else _nothing, partial(self._left, answer)
        )

    async def _keep(self, key: ConversationKey, answer: Answer, system: str) -> None:
        """Keep a response that has ended. What was said is recorded already: the client gets it anyway."""
        head = answer.head
        body = head.request.body
        items = await self._service.aside.run(len(body), _input_of, body, head.serial)
        kept = KeptResponse(head.id, key, answer.turn, system, encode(answer.body), items, head.created)
        try:
            await self._service.store.keep_response(kept)
        except NotRecorded as error:
            log.warning(
                "a response could not be kept", extra={"conversation": key.id, "error": error.message}
            )

    def _left(self, answer: Answer) -> None:
        """Forget a reader of a response."""
        if (live := self._live.get(answer.head.id)) is not None:
            live.answers = [other for other in live.answers if other is not answer]
            self._forget_over(answer.head.id)

    def _forget_over(self, id_: str) -> None:
        if id_ in self._live and self._live[id_].over:
            del self._live[id_]

    # What is known -------------------------------------------------------------------------------------

    def _live_of(self, req: Request, name: str) -> Live | None:
        live = self._live.get(name)
        return live if live is not None and live.tenant == req.context.tenant else None

    async def _kept(self, req: Request, name: str) -> KeptResponse:
        kept = await self._service.store.response(req.context.tenant, name)
        if kept is None:
            raise _unknown(name)
        return kept


async def _nothing() -> None:
    """Keep nothing."""


async def _completed(batches: Batches | Follower, answer: Answer) -> dict[str, Any]:
    """Return the response of a turn. Raises a failed turn's error, unless it was cancelled."""
    async with contextlib.aclosing(batches):
        while answer.turn is None and not answer.over:
            answer.fold(await batches.next(math.inf) or ())
    return answer.body


def _input_of(body: bytes, serial: str) -> bytes:
    """Return the items of a request as they are listed later, as JSON."""
    return encode_list(listed(field_of(body, "input"), serial))


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no response {name!r:.80}", param="response_id")
