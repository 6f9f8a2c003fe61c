"""The embedded server: what it hands an app, on a real socket, on loopback."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar

import pytest

from claude_coded.listener import Listener, bind_tcp
from claude_coded.server import Message, Receive, Scope, Send

NAME: ContextVar[str] = ContextVar("name")

Answer = Callable[[Scope, Receive, Send], Awaitable[None]]


async def ok(send: Send, content: bytes = b"") -> None:
    length = str(len(content)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": content})


@asynccontextmanager
async def served(app: Answer) -> AsyncIterator[int]:
    """Serve an app; yields its port."""
    listener = Listener(app, bind_tcp("127.0.0.1", 0))
    serving = asyncio.create_task(listener.serve())
    await listener.started()
    yield int(listener.address.rpartition(":")[2])
    listener.stop()
    await serving


def ask(app: Answer, *pieces: bytes) -> bytes:
    """Return what comes of a connection on which these are sent, each when the app has the one before."""
    called = asyncio.Event()

    async def noted(scope: Scope, receive: Receive, send: Send) -> None:
        called.set()
        await app(scope, receive, send)

    async def exchange() -> bytes:
        async with served(noted) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for piece in pieces:
                writer.write(piece)
                await called.wait()
            answer = await reader.read()
            writer.close()
        return answer

    return asyncio.run(asyncio.wait_for(exchange(), 10))


async def get(port: int) -> bytes:
    """Return the answer to a request of a new connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("GET"))
    answer = await reader.read()
    writer.close()
    return answer


def request(method: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} / HTTP/1.1", "host: x", "connection: close", *headers, "", ""]).encode()


async def read_all(receive: Receive) -> list[tuple[bytes, bool]]:
    messages = []
    more = True
    while more:
        message: Message = await receive()
        more = message["more_body"]
        messages.append((message["body"], more))
    return messages


def test_a_body_is_asked_for_before_the_app_is_called() -> None:
    done: list[bool] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.05)  # as long as an app looks at the head
        asked = asyncio.ensure_future(receive())
        done.append(asked.done())
        assert (await asked)["body"] == b"hello"
        await ok(send)

    ask(app, request("POST", "content-length: 5") + b"hello")
    assert done == [True]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET"])
def test_a_body_comes_once_and_whole(method: str) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await ok(send, repr(b"".join(body for body, _ in await read_all(receive))).encode())

    head = request(method, "content-length: 10")
    assert ask(app, head + b"hello", b"world").endswith(b"b'helloworld'")


def test_one_without_a_body_gets_an_empty_one() -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await ok(send, repr(await read_all(receive)).encode())

    assert ask(app, request("POST", "content-length: 0")).endswith(b"[(b'', False)]")
    assert ask(app, request("GET")).endswith(b"[(b'', False)]")


def test_an_app_that_asks_for_no_body_answers() -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await ok(send, b"no, thanks")

    assert ask(app, request("POST", "content-length: 5") + b"hello").endswith(b"no, thanks")


def test_who_waits_to_be_told_to_send_a_body_is_told_when_the_app_asks() -> None:
    async def refusing(_scope: Scope, _receive: Receive, send: Send) -> None:
        await ok(send, b"too much")

    async def reading(_scope: Scope, receive: Receive, send: Send) -> None:
        await ok(send, repr(await read_all(receive)).encode())

    head = request("POST", "content-length: 5", "expect: 100-continue")
    assert b"100 Continue" not in ask(refusing, head)
    assert ask(reading, head, b"hello").startswith(b"HTTP/1.1 100 Continue")


def test_each_call_has_a_context_of_its_own() -> None:
    seen: list[str | None] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        seen.append(NAME.get(None))
        NAME.set("changed")
        await ok(send)

    NAME.set("the server's")
    ask(app, request("GET").replace(b"close", b"keep-alive") + request("GET"))
    assert seen == ["the server's", "the server's"]


def test_what_an_app_raises_is_logged_and_answered_with_500(caplog: pytest.LogCaptureFixture) -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ValueError("no such luck")

    assert ask(app, request("GET")).startswith(b"HTTP/1.1 500 ")
    assert "no such luck" in caplog.text


def test_each_call_runs_in_a_task_that_waited_for_it() -> None:
    ran: list[asyncio.Task[None] | None] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        ran.append(asyncio.current_task())
        await ok(send)

    async def exchange() -> None:
        async with served(app) as port:
            for _ in range(3):
                waiting = asyncio.all_tasks()
                await get(port)
                assert ran[-1] in waiting
        assert len(set(ran)) == 3
        assert asyncio.all_tasks() == {asyncio.current_task()}, "one waits that is not needed any more"

    asyncio.run(exchange())


def test_more_calls_at_once_than_tasks_wait_for() -> None:
    async def exchange() -> None:
        inside = asyncio.Barrier(8)

        async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
            await inside.wait()
            await ok(send, b"together")

        async with served(app) as port:
            answers = await asyncio.gather(*(get(port) for _ in range(8)))
        assert all(answer.endswith(b"together") for answer in answers)

    asyncio.run(asyncio.wait_for(exchange(), 10))


def test_a_task_that_waits_for_a_call_can_be_cancelled() -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await ok(send, b"served")

    async def exchange() -> None:
        async with served(app) as port:
            before = asyncio.all_tasks()
            await get(port)
            for task in asyncio.all_tasks() - before:
                task.cancel()
            assert (await get(port)).endswith(b"served")  # by one that is made for it

    asyncio.run(asyncio.wait_for(exchange(), 10))
