"""One HTTP request over ASGI, and its answer."""

import asyncio
import secrets

import orjson

from claude_coded.offline.request import Json
from claude_coded.offline.wire import error_body
from claude_coded.server import Message, Receive, Send


class ClientGoneError(Exception):
    """The client went away before the end of the answer."""


class CutConnectionError(Exception):
    """Raised out of the application so that the server breaks the connection off in mid-answer."""


class BadRequestError(Exception):
    """The body is not a Messages API request."""


class Exchange:
    """One HTTP request and its answer."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._left: asyncio.Task[Message] | None = None

    async def request(self) -> Json:
        """Read a Messages API request, then watch for the client's leaving; may raise BadRequestError."""
        body = bytearray()
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self._left = asyncio.ensure_future(self._receive())
        return _decode(body)

    def close(self) -> None:
        """Stop watching."""
        if self._left:
            self._left.cancel()

    async def wait(self, seconds: float) -> None:
        """Wait, or raise ClientGoneError as soon as the client leaves; the request was read before."""
        assert self._left
        if (await asyncio.wait({self._left}, timeout=seconds))[0]:
            raise ClientGoneError

    async def start(self, status: int, kind: bytes) -> None:
        """Send status and headers."""
        headers = [(b"content-type", kind), (b"request-id", f"req_{secrets.token_hex(12)}".encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def chunk(self, data: bytes, *, more: bool = True) -> None:
        """Send a part of the body; raise ClientGoneError if nobody reads it any more."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        await asyncio.sleep(0)  # a server's send may never suspend: the watching task has to run
        if more and self._left and self._left.done():
            raise ClientGoneError

    async def json(self, value: object, status: int = 200) -> None:
        """Send a whole JSON answer."""
        await self.start(status, b"application/json")
        await self.chunk(orjson.dumps(value), more=False)

    async def error(self, status: int, message: str | None = None) -> None:
        """Send a whole error answer."""
        await self.json(error_body(status, message), status)


def _decode(raw: bytes | bytearray) -> Json:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"The request body is not valid JSON: {error}") from error
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list) or not all(isinstance(item, dict) for item in messages):
        raise BadRequestError("messages: Field required, a list of objects")
    if not messages:
        raise BadRequestError("messages: at least one message is required")
    return {**body}
