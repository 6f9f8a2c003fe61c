"""The API as an ASGI application."""

import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from claude_coded.offline.exchange import BadRequestError, ClientGoneError, CutConnectionError, Exchange
from claude_coded.offline.memory import Faults, PromptCache, count_tokens
from claude_coded.offline.reply import Part, compose, plan
from claude_coded.offline.request import Json, read_conversation
from claude_coded.offline.script import Cut, Fail, Pause
from claude_coded.offline.wire import PING, EventEncoder, message_head, whole_message
from claude_coded.server import Receive, Scope, Send

MODELS: Final = ("claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5")
REFUSED: Final = b"refused"
"""What a key that is not valid contains."""

REQUESTS_KEPT: Final = 2000
BATCH_BYTES: Final = 8 * 1024
PING_SECONDS: Final = 1.0


class OfflineModel:
    """The API as an ASGI application; the instance holds all state."""

    def __init__(self) -> None:
        self.requests: deque[Json] = deque(maxlen=REQUESTS_KEPT)
        """The newest requests: `at`, in seconds of the monotonic clock, and the decoded `body`."""
        self.received = 0
        self.active = 0
        self.disconnects = 0
        self._cache = PromptCache()
        self._faults = Faults()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange(receive, send)
        try:
            if scope["path"].startswith("/v1/") and REFUSED in _key(scope):
                await exchange.error(401, "invalid x-api-key")
            else:
                await self._route(exchange, scope["method"], scope["path"])
        except ClientGoneError:
            pass  # nobody is there to be answered
        except BadRequestError as error:
            await exchange.error(400, str(error))
        finally:
            exchange.close()

    async def _route(self, exchange: Exchange, method: str, path: str) -> None:
        match method, path:
            case "POST", "/v1/messages":
                await self._messages(exchange, await exchange.request())
            case "POST", "/v1/messages/count_tokens":
                await exchange.json({"input_tokens": count_tokens(await exchange.request())})
            case "GET", "/v1/models":
                await exchange.json(_models())
            case "GET" | "HEAD", "/":
                await exchange.json({"status": "ok"})
            case "GET", "/_offline/requests":
                await exchange.json(list(self.requests))
            case "DELETE", "/_offline/requests":
                self.requests.clear()
                await exchange.json({})
            case "GET", "/_offline/stats":
                await exchange.json(self._stats())
            case _:
                await exchange.error(404, f"no such endpoint: {method} {path}")

    def _stats(self) -> Json:
        return {"requests": self.received, "active": self.active, "disconnects": self.disconnects}

    async def _messages(self, exchange: Exchange, body: Json) -> None:
        self.requests.append({"at": time.monotonic(), "body": body})
        self.received += 1
        self.active += 1
        try:
            await self._answer(exchange, body)
        except ClientGoneError:
            self.disconnects += 1
        finally:
            self.active -= 1

    async def _answer(self, exchange: Exchange, body: Json) -> None:
        conversation = read_conversation(body)
        steps = plan(conversation, self._faults)
        if isinstance(steps[0], Fail):
            await exchange.error(steps[0].status, steps[0].message)
            return
        head = message_head(body.get("model"), self._cache.usage(body))
        answer = _stream if body.get("stream") else _send_whole
        await answer(exchange, compose(conversation, steps), head)


async def _stream(exchange: Exchange, parts: Iterable[Part], head: Json) -> None:
    """Send the parts as events, many in one send while nothing makes them wait."""
    encoder = EventEncoder(head)
    await exchange.start(200, b"text/event-stream; charset=utf-8")
    batch = bytearray(encoder.start())
    for part in parts:
        batch += encoder.encode(part)
        if len(batch) >= BATCH_BYTES or isinstance(part, Pause | Cut):
            await exchange.chunk(bytes(batch))
            batch.clear()
        if isinstance(part, Pause):
            await _wait_with_pings(exchange, part.seconds)
        elif isinstance(part, Cut):
            raise CutConnectionError
    await exchange.chunk(bytes(batch), more=False)


async def _wait_with_pings(exchange: Exchange, seconds: float) -> None:
    while seconds > PING_SECONDS:
        await exchange.wait(PING_SECONDS)
        await exchange.chunk(PING)
        seconds -= PING_SECONDS
    await exchange.wait(seconds)


async def _send_whole(exchange: Exchange, parts: Iterable[Part], head: Json) -> None:
    kept = []
    for part in parts:
        match part:
            case Pause(seconds):
                await exchange.wait(seconds)
            case Fail(status, _, message):
                await exchange.error(status, message)
                return
            case Cut():
                await exchange.start(200, b"application/json")
                await exchange.chunk(b'{"type":')
                raise CutConnectionError
            case _:
                kept.append(part)
    await exchange.json(whole_message(head, kept))


def _key(scope: Scope) -> bytes:
    """Return the key and the token of a request."""
    kept = (value for name, value in scope.get("headers", ()) if name in {b"x-api-key", b"authorization"})
    return b" ".join(kept)


def _models() -> Json:
    created = "2025-01-01T00:00:00Z"
    data = [{"type": "model", "id": it, "display_name": it, "created_at": created} for it in MODELS]
    return {"data": data, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}
