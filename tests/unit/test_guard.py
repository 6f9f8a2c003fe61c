"""The connection guard: on a real listener, with raw clients on loopback, its body handling by property."""

import asyncio
import gc
import json
import socket
import struct
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.guard import BodyRefused, ClientGone, ConnectionGuard
from claude_coded.listener import Listener, bind_tcp
from claude_coded.server import App, Message, Receive, Scope, Send

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\n"
SOON = 1.0
"""Seconds within which a client's end must be noticed."""


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


def start(*headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": 200, "headers": headers}


def body(content: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


async def answer(send: Send, content: bytes) -> None:
    await send(start((b"content-length", str(len(content)).encode())))
    await send(body(content))


async def turns() -> None:
    """Let everything that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


class Probe:
    """An app that echoes, or does as a subclass says, and records how each of its requests ended."""

    def __init__(self) -> None:
        self.running = asyncio.Event()
        self.ends: asyncio.Queue[BaseException | None] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.task = asyncio.current_task()
        self.running.set()
        try:
            await self.answer(scope, receive, send)
        except BaseException as error:
            self.ends.put_nowait(error)
            raise
        self.ends.put_nowait(None)

    async def answer(self, _scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        await answer(send, message["body"])

    async def end(self) -> BaseException | None:
        async with asyncio.timeout(SOON):
            return await self.ends.get()


class Waiting(Probe):
    """Never answers."""

    async def answer(self, _scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        await asyncio.Event().wait()


class Streaming(Probe):
    """Sends one chunk and then waits for ever."""

    async def answer(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start((b"content-type", b"text/event-stream")))
        await send(body(b"data: 1\n\n", more=True))
        await asyncio.Event().wait()


class Flooding(Probe):
    """Sends for ever, awaiting nothing else, and stops for no cancellation."""

    async def answer(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start((b"content-type", b"text/event-stream")))
        while True:
            with suppress(asyncio.CancelledError):
                await send(body(b"data: 1\n\n", more=True))


class Client:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def response(self) -> tuple[int, dict[bytes, bytes], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(b": ") for line in head[1:-2])}
        content = await self.reader.readexactly(int(headers[b"content-length"]))
        return int(head[0].split()[1]), headers, content

    def half_close(self) -> None:
        self.writer.write_eof()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Leave = Callable[[Client], None]
each_way_to_leave = pytest.mark.parametrize("leave", [Client.close, Client.reset, Client.half_close])


class Harness:
    """A served app, and clients of it that are closed at the end."""

    def __init__(self, listener: Listener) -> None:
        self._port = int(listener.address.rpartition(":")[2])
        self._clients: list[Client] = []

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self._port))
        self._clients.append(client)
        return client

    async def close(self) -> None:
        for client in self._clients:
            client.close()
            with suppress(ConnectionError):
                await client.writer.wait_closed()


@asynccontextmanager
async def serving(app: App, *, max_body: int = 1000, body_timeout: float = 10) -> AsyncIterator[Harness]:
    guard = ConnectionGuard(app, max_body=max_body, body_timeout=body_timeout)
    listener = Listener(guard, bind_tcp("127.0.0.1", 0))
    served = asyncio.create_task(listener.serve())
    await listener.started()
    harness = Harness(listener)
    try:
        yield harness
    finally:
        await harness.close()
        listener.stop()
        await served


# --- clients that go away


@each_way_to_leave
@pytest.mark.parametrize("kind", [Waiting, Streaming])
@pytest.mark.parametrize("request_", [GET, POST + b"content-length: 2\r\n\r\nhi"])
def test_a_client_that_leaves_cancels_its_request(
    kind: type[Probe], leave: Leave, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        app = kind()
        async with serving(app) as harness:
            client = await harness.connect()
            await client.request(request_)
            if kind is Streaming:
                await client.reader.readuntil(b"data: 1")
            await app.running.wait()
            leave(client)
            assert isinstance(await app.end(), asyncio.CancelledError)

    run(test())
    assert not caplog.records  # it is no error of the server's


def test_a_producer_that_never_suspends_is_stopped() -> None:
    async def test() -> None:
        app = Flooding()
        async with serving(app) as harness:
            client = await harness.connect()
            await client.request(GET)
            await client.reader.readuntil(b"data: 1")
            client.reset()
            assert isinstance(await app.end(), ClientGone)

    run(test())


def test_a_client_that_leaves_an_idle_connection_cancels_nothing() -> None:
    async def test() -> None:
        app = Probe()
        async with serving(app) as harness:
            client = await harness.connect()
            await client.request(GET)
            await client.response()
            client.reset()
        assert await app.end() is None

    run(test())


@each_way_to_leave
@pytest.mark.parametrize(
    "length", [b"content-length: 100\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n64\r\n"]
)
def test_a_client_that_leaves_within_its_body_ends_its_request(
    leave: Leave, length: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        app = Probe()
        async with serving(app) as harness:
            client = await harness.connect()
            await client.request(POST + length + b"hi")
            leave(client)
            assert isinstance(await app.end(), ClientGone)

    run(test())
    assert not caplog.records


def test_a_receive_beside_the_request_gets_the_disconnect() -> None:
    class Listening(Probe):
        async def answer(self, _scope: Scope, receive: Receive, _send: Send) -> None:
            await receive()
            second = asyncio.ensure_future(receive())
            with suppress(asyncio.CancelledError):
                await asyncio.shield(second)
            assert (await second)["type"] == "http.disconnect"

    async def test() -> None:
        app = Listening()
        async with serving(app) as harness:
            client = await harness.connect()
            await client.request(GET)
            await app.running.wait()
            client.close()
            assert await app.end() is None

    run(test())


# --- clients that stay


def test_a_connection_serves_one_request_after_the_other() -> None:
    class Slow(Probe):
        """Suspends before and after its response, so that a stray cancellation would be seen."""

        async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
            await turns()
            await super().answer(scope, receive, send)
            await turns()

    async def test() -> None:
        app = Slow()
        async with serving(app) as harness:
            client = await harness.connect()
            for content in (b"one", b"two", b"three"):
                await client.request(POST + b"content-length: %d\r\n\r\n" % len(content) + content)
                assert (await client.response())[::2] == (200, content)
                assert await app.end() is None
            await client.request(GET)
            assert (await client.response())[::2] == (200, b"")
            assert await app.end() is None

    run(test())


def test_nothing_is_left_of_the_requests_of_a_connection() -> None:
    seen: list[weakref.ref[asyncio.Task[None]]] = []

    class Slow(Probe):
        """Suspends, so that its client is watched."""

        async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
            assert self.task is not None
            seen.append(weakref.ref(self.task))
            self.task = None
            await turns()
            await super().answer(scope, receive, send)

    async def test() -> None:
        app = Slow()
        async with serving(app) as harness:
            client = await harness.connect()
            for _ in range(5):
                await client.request(POST + b"content-length: 3\r\n\r\none")
                await client.response()
                await app.end()
            await turns()
            gc.collect()
            assert [task() for task in seen] == [None] * 5

    run(test())


def test_work_after_the_response_is_not_cancelled() -> None:
    class Trailing(Probe):
        def __init__(self) -> None:
            super().__init__()
            self.go_on = asyncio.Event()

        async def answer(self, _scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await asyncio.sleep(0)
            await answer(send, b"done")
            assert (await receive())["type"] == "http.disconnect"
            await self.go_on.wait()

    async def test() -> None:
        app = Trailing()
        async with serving(app) as harness:
            client = await harness.connect()
            await client.request(GET)
            assert (await client.response())[2] == b"done"
            client.close()
            await client.writer.wait_closed()
            app.go_on.set()
            assert await app.end() is None

    run(test())


def test_a_cancellation_from_outside_propagates() -> None:
    async def test() -> None:
        app = Waiting()
        async with serving(app) as harness:
            client = await harness.connect()
            await client.request(GET)
            await app.running.wait()
            assert app.task is not None
            app.task.cancel()
            assert isinstance(await app.end(), asyncio.CancelledError)
            assert (await client.reader.readline()).startswith(b"HTTP/1.1 500 ")  # the server was told

    run(test())


# --- bodies


def fed(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


def is_refusal(response: tuple[int, dict[bytes, bytes], bytes], status: int) -> bool:
    error = json.loads(response[2])["error"]
    assert response[1][b"content-type"] == b"application/json"
    assert response[1][b"connection"] == b"close"
    assert {**error, "message": ""} == {
        "message": "",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    return response[0] == status


def test_a_big_body_is_refused_by_its_announced_length_alone() -> None:
    async def test() -> None:
        app = Probe()
        async with serving(app) as harness:
            client = await harness.connect()
            await client.request(POST + b"content-length: 1001\r\n\r\n")  # and not one byte of it
            response = await client.response()
            assert is_refusal(response, 413)
            assert b"1001 bytes; at most 1000" in response[2]
        assert not app.running.is_set()

    run(test())


def test_a_client_that_writes_all_before_it_reads_gets_its_refusal(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with serving(Probe()) as harness:
            client = await harness.connect()
            size = 30_000_000  # more than the kernel holds for one connection
            await client.request(POST + b"content-length: %d\r\n\r\n" % size + size * b"x")
            assert is_refusal(await client.response(), 413)
            assert await client.reader.read() == b""

    run(test())
    assert not caplog.records


def test_a_client_that_writes_on_slowly_after_its_refusal_has_begun_gets_all_of_it() -> None:
    async def test() -> None:
        async with serving(Probe()) as harness:
            client = await harness.connect()
            await client.request(POST + b"content-length: 3000000\r\n\r\n")
            begin = await client.reader.readexactly(12)
            for _ in range(300):
                await client.request(10_000 * b"x")
                await asyncio.sleep(0.001)  # the slow client
            client.reader = fed(begin + await client.reader.read())
            assert is_refusal(await client.response(), 413)

    run(test())


def test_a_refused_client_that_sends_nothing_is_dropped() -> None:
    async def test() -> None:
        async with serving(Probe(), body_timeout=0.05) as harness:
            client = await harness.connect()
            await client.request(POST + b"content-length: 1001\r\n\r\n")
            assert is_refusal(await client.response(), 413)
            assert await client.reader.read() == b""

    run(test())


def test_a_chunked_body_is_refused_once_it_is_too_big() -> None:
    async def test() -> None:
        app = Probe()
        async with serving(app) as harness:
            client = await harness.connect()
            await client.request(POST + b"transfer-encoding: chunked\r\n\r\n")
            for _ in range(3):  # 1200 bytes, and no end
                await client.request(b"190\r\n" + 400 * b"x" + b"\r\n")
            assert is_refusal(await client.response(), 413)
            assert isinstance(await app.end(), BodyRefused)

    run(test())


@pytest.mark.parametrize("chunk", [b"ZZ\r\n", b"-1\r\n", b"3\r\nabcd\r\n", b"1;" + 100_000 * b"x" + b"\r\n"])
def test_what_is_no_chunk_is_refused(chunk: bytes) -> None:
    async def test() -> None:
        app = Probe()
        async with serving(app) as harness:
            client = await harness.connect()
            await client.request(POST + b"transfer-encoding: chunked\r\n\r\n" + chunk)
            assert is_refusal(await client.response(), 400)
            assert isinstance(await app.end(), ClientGone)

    run(test())


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"content-length: 1000\r\n\r\n" + 1000 * b"x",
        POST + b"transfer-encoding: chunked\r\n\r\n3e8\r\n" + 1000 * b"x" + b"\r\n0\r\n\r\n",
    ],
)
def test_a_body_may_be_as_big_as_the_bound(request_: bytes) -> None:
    async def test() -> None:
        async with serving(Probe()) as harness:
            client = await harness.connect()
            await client.request(request_)
            assert (await client.response())[::2] == (200, 1000 * b"x")

    run(test())


def test_a_slow_body_is_refused() -> None:
    async def test() -> None:
        app = Probe()
        async with serving(app, body_timeout=0.05) as harness:
            client = await harness.connect()
            await client.request(POST + b"content-length: 100\r\n\r\nhi")
            assert is_refusal(await client.response(), 408)
            assert await client.reader.read() == b""
            assert isinstance(await app.end(), BodyRefused)


class Refusing(Probe):
    """Answers without a look at the body."""

    async def answer(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, b"no")


def test_an_answer_that_needs_no_body_waits_for_its_end() -> None:
    async def test() -> None:
        app = Refusing()
        async with serving(app, max_body=40_000_000) as harness:
            client = await harness.connect()
            size = 30_000_000  # more than the kernel holds for one connection
            await client.request(POST + b"content-length: %d\r\n\r\n" % size)
            await app.running.wait()  # it has begun, and is told nothing yet
            await client.request(size * b"x")
            assert (await client.response())[::2] == (200, b"no")
            await client.request(GET)
            assert (await client.response())[::2] == (200, b"no")  # on the same connection

    run(test())


def test_a_client_that_leaves_within_a_body_that_is_not_needed_ends_its_request() -> None:
    async def test() -> None:
        app = Refusing()
        async with serving(app) as harness:
            client = await harness.connect()
            await client.request(POST + b"content-length: 100\r\n\r\nhi")
            client.close()
            assert isinstance(await app.end(), ClientGone)

    run(test())


def test_a_slow_body_that_is_not_needed_is_refused() -> None:
    async def test() -> None:
        async with serving(Refusing(), body_timeout=0.05) as harness:
            client = await harness.connect()
            await client.request(POST + b"content-length: 100\r\n\r\nhi")
            assert is_refusal(await client.response(), 408)

    run(test())

    run(test())


def test_the_time_for_a_body_does_not_bound_the_response() -> None:
    class Slow(Probe):
        async def answer(self, _scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await asyncio.sleep(0.1)  # the time itself is what is tested
            await answer(send, b"done")

    async def test() -> None:
        async with serving(Slow(), body_timeout=0.05) as harness:
            client = await harness.connect()
            await client.request(POST + b"content-length: 2\r\n\r\nhi")
            assert (await client.response())[::2] == (200, b"done")

    run(test())


# --- without a server


class FakeServer:
    """Gives the messages of a script, then disconnects when told to; receive() is a coroutine here."""

    def __init__(self, *chunks: bytes) -> None:
        last = len(chunks) - 1
        self.unread = [
            {"type": "http.request", "body": chunk, "more_body": index < last}
            for index, chunk in enumerate(chunks)
        ]
        self.gone = asyncio.Event()
        self.asked = asyncio.Event()  # for what the script does not hold
        self.sent: list[Message] = []
        self.waiting = 0

    async def receive(self) -> Message:
        if self.unread:
            return self.unread.pop(0)
        self.waiting += 1
        self.asked.set()
        try:
            await self.gone.wait()
        finally:
            self.waiting -= 1
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)


CHUNKED: Scope = {"type": "http", "headers": [(b"transfer-encoding", b"chunked")]}
EMPTY: Scope = {"type": "http", "headers": []}


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=20))
def test_any_chunking_gives_the_app_the_same_body(chunks: list[bytes]) -> None:
    bodies: list[Message] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        bodies.append(await receive())
        await answer(send, b"")

    server = FakeServer(*chunks)
    guard = ConnectionGuard(app, max_body=800, body_timeout=10)
    asyncio.run(guard(CHUNKED, server.receive, server.send))
    assert bodies == [{"type": "http.request", "body": b"".join(chunks), "more_body": False}]


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=20))
def test_the_server_is_not_asked_for_what_comes_after_the_announced_length(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, (await receive())["body"])

    server = FakeServer(*chunks, b"")
    length = (b"content-length", str(len(whole)).encode())
    guard = ConnectionGuard(app, max_body=800, body_timeout=10)
    asyncio.run(guard({"type": "http", "headers": [length]}, server.receive, server.send))
    assert server.sent[1]["body"] == whole
    assert [message["body"] for message in server.unread] == [b""]


@pytest.mark.parametrize("size", [1, 1000])
def test_others_run_while_a_body_comes_in_many_chunks_at_once(size: int) -> None:
    async def test() -> None:
        steps, server = 0, FakeServer(*[b"x" * size] * 1000)

        async def app(_scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await answer(send, b"")

        async def others() -> None:
            nonlocal steps
            while not server.sent:
                await asyncio.sleep(0)
                steps += 1

        guard = ConnectionGuard(app, max_body=1_000_000, body_timeout=10)
        await asyncio.gather(guard(CHUNKED, server.receive, server.send), others())
        assert steps > 10

    run(test())


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=20), st.integers(0, 100))
def test_the_bound_is_on_the_sum_of_all_chunks(chunks: list[bytes], bound: int) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, b"")

    server = FakeServer(*chunks)
    asyncio.run(ConnectionGuard(app, max_body=bound, body_timeout=10)(CHUNKED, server.receive, server.send))
    fits = len(b"".join(chunks)) <= bound
    assert server.sent[0]["status"] == (200 if fits else 413)
    assert fits or (b"connection", b"close") in server.sent[0]["headers"]


def test_a_response_made_in_one_go_asks_the_server_nothing() -> None:
    async def test() -> None:
        server = FakeServer(b"")

        async def app(_scope: Scope, receive: Receive, send: Send) -> None:
            assert (await receive())["body"] == b""
            await answer(send, b"ok")

        await ConnectionGuard(app, max_body=1, body_timeout=1)(EMPTY, server.receive, server.send)
        await turns()
        assert server.sent[1]["body"] == b"ok"
        assert len(server.unread) == 1

    run(test())


def test_the_watch_ends_with_its_request() -> None:
    async def test() -> None:
        server = FakeServer(b"")

        async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
            await server.asked.wait()
            assert server.waiting == 1

        await ConnectionGuard(app, max_body=1, body_timeout=1)(EMPTY, server.receive, server.send)
        await turns()
        assert server.waiting == 0

    run(test())


def test_a_server_that_fails_while_it_is_watched_has_lost_its_client() -> None:
    async def failing() -> Message:
        raise OSError("broken")

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.Event().wait()

    server = FakeServer()
    run(ConnectionGuard(app, max_body=1, body_timeout=1)(EMPTY, failing, server.send))


def test_send_raises_once_the_client_is_gone() -> None:
    raised: list[BaseException] = []

    async def test() -> None:
        server = FakeServer(b"")

        async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
            await send(start())
            server.gone.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            try:
                await send(body(b"x", more=True))
            except ClientGone as error:
                raised.append(error)
                raise

        await ConnectionGuard(app, max_body=1, body_timeout=1)(EMPTY, server.receive, server.send)
        assert len(server.sent) == 1

    run(test())
    assert isinstance(raised[0], ConnectionError)


def test_a_cancellation_from_outside_counts_although_the_client_is_gone() -> None:
    async def test() -> None:
        server = FakeServer(b"")
        cancelled = asyncio.Event()

        async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
                await asyncio.Event().wait()  # cleaning up, when the second one comes

        guard = ConnectionGuard(app, max_body=1, body_timeout=1)
        task = asyncio.create_task(guard(EMPTY, server.receive, server.send))
        server.gone.set()
        await cancelled.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(test())


def test_an_error_of_the_app_is_not_swallowed() -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ClientGone("some other client")

    server = FakeServer(b"")
    guard = ConnectionGuard(app, max_body=1, body_timeout=1)
    with pytest.raises(ClientGone):
        asyncio.run(guard(EMPTY, server.receive, server.send))


def test_a_producer_lets_others_run() -> None:
    async def test() -> None:
        server = FakeServer(b"")
        others = 0

        async def other() -> None:
            nonlocal others
            while True:
                others += 1
                await asyncio.sleep(0)

        async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
            beside = asyncio.create_task(other())
            for _ in range(320):
                await send(body(b"x", more=True))
            beside.cancel()

        await ConnectionGuard(app, max_body=1, body_timeout=1)(EMPTY, server.receive, server.send)
        assert others == 10

    run(test())
