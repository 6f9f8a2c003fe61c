"""What an ASGI server leaves to its app: bounded bodies, and an end to work for clients that went away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from secrets import token_hex
from typing import Final, TypeVar

from claude_coded.server import App, Message, Receive, Scope, Send

T = TypeVar("T")

_SENDS_PER_YIELD: Final = 32
_CHUNKS_PER_YIELD: Final = 64
_SMALL: Final = 512
"""Bytes of a chunk that is more work for the server than for its client: many such are taken slowly."""

_PACE: Final = 0.002
_DISCONNECT: Final = "http.disconnect"
_UNWATCHED: Final = 0.005
"""Seconds that a request runs before its client is watched: one that is gone by then is seen then."""

_PAUSE: Final = 1.0
"""Seconds without a byte after which a refused client is taken to wait for its answer."""


class ClientGone(ConnectionError):
    """The client closed its connection before the response had ended."""


class BodyRefused(Exception):
    """Why a request's body is not taken, which the guard answers; `unread` when its client still sends."""

    def __init__(self, status: int, message: str, *, unread: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.unread = unread


class ConnectionGuard:
    """An ASGI app around another: bounds each body, and cancels the request when its client goes away.

    The app begins while the body is on its way, and gets it whole; its client is watched from then on. One
    that answers without it answers when the client has sent it: most clients read nothing before.
    `max_body` is in bytes (413 beyond it), `body_timeout` in seconds from the request's head to its last byte
    (408 beyond it). What a client still sends after its 413 is dropped, for as long again.
    A half-closed connection counts as gone.
    """

    def __init__(self, app: App, *, max_body: int, body_timeout: float) -> None:
        self._app = app
        self.configure(max_body=max_body, body_timeout=body_timeout)

    def configure(self, *, max_body: int, body_timeout: float) -> None:
        """Go on with other limits, from the next request on."""
        self._max_body = max_body
        self._body_timeout = body_timeout
        self._pause = min(_PAUSE, body_timeout)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            body = _Body(receive, _announced_length(scope), self._max_body, self._body_timeout)
            exchange = _Exchange(receive, send, body)
            await exchange.run(self._app, scope)
            if exchange.cut:  # who has left does not hear it
                raise BodyRefused(400, "The request ended within its body, or that is malformed.")
        except BodyRefused as refusal:
            await self._refuse(receive, send, refusal)

    async def _refuse(self, receive: Receive, send: Send, refusal: BodyRefused) -> None:
        rest = await _send_refusal(send, refusal)
        if refusal.unread:
            # Most clients read nothing before all is written: an end now would break their pipe instead.
            await self._discard(receive)
        await send({"type": "http.response.body", "body": rest})

    async def _discard(self, receive: Receive) -> None:
        """Drop what a client still sends, until it has sent all, or pauses: it may wait for its answer."""
        more = True
        with suppress(TimeoutError):
            async with asyncio.timeout(self._body_timeout):
                while more:
                    async with asyncio.timeout(self._pause):
                        more = (await receive()).get("more_body", False)  # a disconnect has no more, either


class _Body:
    """A request's body: its first piece is asked for at once, while the request's head is looked at.

    `length` is what was announced, None where nothing was; `bound` is in bytes, `seconds` are for all of it.
    """

    __slots__ = ("_bound", "_first", "_length", "_receive", "_seconds")

    def __init__(self, receive: Receive, length: int | None, bound: int, seconds: float) -> None:
        self._receive = receive
        self._length = length
        self._bound = bound
        self._seconds = seconds
        if length is not None and length > bound:
            raise self._too_large(f"{length} bytes", unread=True)
        self._first = None if length == 0 else asyncio.ensure_future(receive())

    @property
    def awaited(self) -> bool:
        """Return whether there is one that was not read yet."""
        return self._first is not None

    async def read(self) -> bytes:
        """Return all of it. Raises BodyRefused and ClientGone."""
        chunks: list[bytes] = []
        await self._collect(chunks.append)
        return b"".join(chunks)

    async def drop(self) -> None:
        """Wait for its end. Raises BodyRefused and ClientGone."""
        await self._collect(lambda _: None)

    def close(self) -> None:
        """Leave it."""
        first, self._first = self._first, None
        if first is not None:
            first.cancel()

    async def _collect(self, keep: Callable[[bytes], None]) -> None:
        first, self._first = self._first, None
        if first is None:
            return
        if first.done() and self._is_last(first.result()):  # no clock is needed
            await self._keep_all(await first, keep)
            return
        try:
            async with asyncio.timeout(self._seconds):
                await self._keep_all(await first, keep)
        except TimeoutError:
            raise BodyRefused(408, f"The request body took longer than {self._seconds:g} s.") from None

    async def _keep_all(self, message: Message, keep: Callable[[bytes], None]) -> None:
        size = number = 0
        while True:
            if message["type"] == _DISCONNECT:
                raise ClientGone("the client closed its connection before its request had ended")
            chunk = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(chunk)
            if size > self._bound:
                raise self._too_large(f"more than {self._bound} bytes", unread=more)
            keep(chunk)
            if not more or size == self._length:
                return
            message = await self._receive()
            number += 1
            if not number % _CHUNKS_PER_YIELD:  # those of a packet are there at once: let others run
                await asyncio.sleep(_PACE if size < number * _SMALL else 0)

    def _is_last(self, message: Message) -> bool:
        # The server would say one round later that a body of announced length was all.
        return not message.get("more_body", False) or len(message["body"]) == self._length

    def _too_large(self, size: str, *, unread: bool) -> BodyRefused:
        message = f"The request body has {size}; at most {self._bound} are accepted."
        return BodyRefused(413, message, unread=unread)


class _Exchange:
    """One request and its response."""

    __slots__ = (
        "_begin",
        "_body",
        "_ended",
        "_gone",
        "_over",
        "_read",
        "_receive",
        "_send",
        "_sends",
        "_task",
        "_watch",
        "cut",
    )

    def __init__(self, receive: Receive, send: Send, body: _Body) -> None:
        self._receive = receive
        self._send = send
        self._body = body
        self._read = False
        self._sends = 0
        self._ended = False
        self._gone = False
        self.cut = False  # in its body
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._begin: asyncio.Handle | None = None
        self._watch: asyncio.Future[Message] | None = None

    async def run(self, app: App, scope: Scope) -> None:
        self._task = task = asyncio.current_task()
        assert task is not None
        if not self._body.awaited:
            self._watch_soon()
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            if not self._gone or task.uncancel() > 0:  # what is left was asked for from outside
                raise
        except ClientGone:
            if not self._gone:
                raise
        finally:
            self._close()

    def _close(self) -> None:
        self._ended = True
        self._over.set()
        self._body.close()
        if self._begin is not None:
            self._begin.cancel()
        # Granian's futures hide what they hold from the collector: a circle through one is never freed.
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()

    def _watch_soon(self) -> None:
        # What the app does at once comes first, even before the timer is set: it asks a worker.
        self._begin = asyncio.get_running_loop().call_soon(self._watch_later)

    def _watch_later(self) -> None:
        # A response that is made at once never pays for the watch, and no other waits for its beginning.
        self._begin = asyncio.get_running_loop().call_later(_UNWATCHED, self._watch_client)

    def _watch_client(self) -> None:
        # Granian's receive() returns a future, and no task is made; other servers' coroutines become one.
        self._watch = asyncio.ensure_future(self._receive())
        self._watch.add_done_callback(self._received)

    def _received(self, watch: asyncio.Future[Message]) -> None:
        if watch.cancelled():
            return
        if watch.exception() is None and watch.result()["type"] != _DISCONNECT:
            self._watch_client()  # it was the end of a body that was read, or announced to be empty
            return
        self._over.set()
        if not self._ended and self._task is not None:  # a disconnect is reported after a normal end, too
            self._gone = True
            self._task.cancel()

    async def receive(self) -> Message:
        if not self._read:
            self._read = True
            return {"type": "http.request", "body": await self._take(self._body.read), "more_body": False}
        await self._over.wait()
        return {"type": _DISCONNECT}

    async def _take(self, get: Callable[[], Awaitable[T]]) -> T:
        """Return what comes of the body; its client is watched from then on."""
        awaited = self._body.awaited
        try:
            got = await get()
        except ClientGone:
            self._gone = self.cut = True
            raise
        if awaited:
            self._watch_soon()
        return got

    async def send(self, message: Message) -> None:
        if self._body.awaited:
            await self._take(self._body.drop)
        self._sends += 1
        if not self._sends % _SENDS_PER_YIELD:  # the server's send need not suspend: let others run
            await asyncio.sleep(0)
        if self._gone:
            raise ClientGone("the client closed its connection before the response had ended")
        if not message.get("more_body", False) and message["type"] == "http.response.body":
            self._ended = True  # before the send: its end may be reported as a disconnect at once
        await self._send(message)


def _announced_length(scope: Scope) -> int | None:
    """Return the length of the body, or None when only reading it tells."""
    length: int | None = 0
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            length = int(value)  # the server has refused whatever is no number
    return length


async def _send_refusal(send: Send, refusal: BodyRefused) -> bytes:
    """Send all of a refusal but its last byte, which is returned: the server closes after that one."""
    error = {"message": str(refusal), "type": "invalid_request_error", "param": None, "code": None}
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", f"req_{token_hex(16)}".encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body[:-1], "more_body": True})
    return body[-1:]
