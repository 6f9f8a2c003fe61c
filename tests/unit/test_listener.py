"""The listener: on a real socket, on loopback."""

import asyncio
import errno
import inspect
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from granian import _granian
from granian._granian import SocketHolder
from granian.server.embed import Server

from claude_coded.listener import Listener, bind_tcp
from claude_coded.server import Message, Receive, Scope, Send

GET = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


def start(status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]}


def body(content: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


async def hello(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send(start())
    await send(body(b"hello"))


@asynccontextmanager
async def serving(listener: Listener) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(listener.serve())
    await listener.started()
    yield task
    listener.stop()
    await task


async def connect(listener: Listener) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    scheme, _, place = listener.address.partition(":")
    if scheme == "unix":
        return await asyncio.open_unix_connection(place)
    host, _, port = place.removeprefix("//").rpartition(":")
    return await asyncio.open_connection(host.strip("[]"), int(port))


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def fetch(listener: Listener, request: bytes = GET) -> bytes:
    reader, writer = await connect(listener)
    writer.write(request)
    answer = await reader.read()
    await close(writer)
    return answer


async def refused(listener: Listener) -> None:
    """Return once a new connection is refused; the server needs a few turns of the loop for that."""
    while True:
        try:
            _, writer = await connect(listener)
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except ConnectionResetError:
            continue
        await close(writer)


# --- binding


def test_a_taken_port_is_an_error_that_names_it() -> None:
    with bind_tcp("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1 port {port}: ") as caught:
            bind_tcp("127.0.0.1", port)
    assert caught.value.errno == errno.EADDRINUSE


def test_not_even_a_socket_that_would_share_gets_the_port() -> None:
    with bind_tcp("127.0.0.1", 0) as first, socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(first.getsockname())


def test_an_unknown_host_is_named() -> None:
    with pytest.raises(OSError, match=r"cannot listen on no-such-host\.invalid port 1: "):
        bind_tcp("no-such-host.invalid", 1)


def resolved_to(*addresses: tuple[str, int]) -> Callable[..., list[Any]]:
    return lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]


def test_a_name_gets_the_first_address_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = ("192.0.2.1", 0)  # of a net kept for documentation: no machine has it
    monkeypatch.setattr(socket, "getaddrinfo", resolved_to(foreign, ("127.0.0.1", 0)))
    with bind_tcp("two-faced", 0) as sock:
        assert sock.getsockname()[0] == "127.0.0.1"


def test_a_port_taken_on_the_first_address_is_not_sought_on_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with bind_tcp("127.0.0.1", 0) as first:
        monkeypatch.setattr(socket, "getaddrinfo", resolved_to(first.getsockname(), ("127.0.0.1", 0)))
        with pytest.raises(OSError, match="cannot listen on two-faced port 0: "):
            bind_tcp("two-faced", 0)


def test_serves_on_ipv6() -> None:
    try:
        sock = bind_tcp("::1", 0)
    except OSError as error:
        pytest.skip(str(error))
    port = sock.getsockname()[1]
    listener = Listener(hello, sock)

    async def test() -> None:
        async with serving(listener):
            assert (await fetch(listener)).endswith(b"hello")

    assert listener.address == f"http://[::1]:{port}"
    run(test())


# --- serving


def test_serves_beside_other_tasks_of_the_loop() -> None:
    async def test() -> None:
        handed: asyncio.Queue[asyncio.Task[None] | None] = asyncio.Queue()

        async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
            await handed.put(asyncio.current_task())
            await send(start())
            await send(body(b"hello"))

        listener = Listener(app, bind_tcp("127.0.0.1", 0))
        async with serving(listener):
            fetched = asyncio.create_task(fetch(listener))
            task = await handed.get()
            assert task is not None
            assert task.get_loop() is asyncio.get_running_loop()
            assert (await fetched).startswith(b"HTTP/1.1 200 OK\r\n")

    run(test())


def test_two_listeners_share_a_loop() -> None:
    async def test() -> None:
        first, second = (Listener(hello, bind_tcp("127.0.0.1", 0)) for _ in range(2))
        async with serving(first), serving(second):
            answers = await asyncio.gather(fetch(first), fetch(second))
        assert [answer.endswith(b"hello") for answer in answers] == [True, True]

    run(test())


def test_serves_a_unix_socket_and_leaves_its_file(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def test() -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        sock.listen()
        listener = Listener(hello, sock)
        assert listener.address == f"unix:{path}"
        async with serving(listener):
            assert (await fetch(listener)).endswith(b"hello")

    run(test())
    assert path.exists()


def test_idle_connections_do_not_shut_others_out() -> None:
    async def test() -> None:
        listener = Listener(hello, bind_tcp("127.0.0.1", 0))
        async with serving(listener):
            idle = [await connect(listener) for _ in range(200)]
            assert (await fetch(listener)).endswith(b"hello")
            for _, writer in idle:
                await close(writer)

    run(test())


def test_a_request_head_is_bounded() -> None:
    async def test() -> None:
        listener = Listener(hello, bind_tcp("127.0.0.1", 0), header_buffer=8192)
        async with serving(listener):
            head = GET.replace(b"\r\n\r\n", b"\r\nx-long: " + 9000 * b"x" + b"\r\n\r\n")
            assert (await fetch(listener, head)).startswith(b"HTTP/1.1 431 ")

    run(test())


def test_http2_is_not_spoken() -> None:
    async def test() -> None:
        listener = Listener(hello, bind_tcp("127.0.0.1", 0))
        async with serving(listener):
            assert not (await fetch(listener, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")).startswith(b"\x00")

    run(test())


# --- starting and stopping


def test_a_stop_lets_a_stream_finish_and_refuses_new_connections() -> None:
    async def test() -> None:
        gate = asyncio.Event()

        async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
            await send(start())
            await send(body(b"first.", more=True))
            await gate.wait()
            await send(body(b"last."))

        listener = Listener(app, bind_tcp("127.0.0.1", 0))
        served = asyncio.create_task(listener.serve())
        await listener.started()
        reader, writer = await connect(listener)
        writer.write(GET)
        await reader.readuntil(b"first.")
        listener.stop()
        await refused(listener)
        assert not served.done()
        gate.set()
        assert b"last." in await reader.read()
        await served
        await close(writer)

    run(test())


def test_serve_outlasts_work_after_a_response() -> None:
    async def test() -> None:
        gate = asyncio.Event()
        finished: list[bool] = []

        async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
            await send(start())
            await send(body(b"hello"))
            await gate.wait()
            finished.append(True)

        listener = Listener(app, bind_tcp("127.0.0.1", 0))
        served = asyncio.create_task(listener.serve())
        await listener.started()
        assert (await fetch(listener)).endswith(b"hello")  # and the connection is closed
        listener.stop()
        await refused(listener)
        gate.set()
        await served
        assert finished

    run(test())


def test_a_call_that_nothing_can_end_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        ends: list[BaseException] = []

        async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
            await send(start())
            await send(body(b"hello"))
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                ends.append(error)
                raise

        listener = Listener(app, bind_tcp("127.0.0.1", 0))
        async with serving(listener):
            await fetch(listener)
        assert len(ends) == 1

    run(test())
    assert not caplog.records


@pytest.mark.parametrize("sent", [b"GET / HT", GET, GET.replace(b"GET", b"POST")])
def test_a_close_cuts_off_who_sends_or_reads_no_more(sent: bytes) -> None:
    async def test() -> None:
        called = asyncio.Event()

        async def endless(scope: Scope, _receive: Receive, send: Send) -> None:
            called.set()
            await send(start())
            while scope["method"] == "GET":
                await send(body(bytes(1 << 20), more=True))
            await asyncio.Event().wait()

        listener = Listener(endless, bind_tcp("127.0.0.1", 0))
        task = asyncio.create_task(listener.serve())
        await listener.started()
        _, writer = await connect(listener)
        writer.write(sent)
        if sent.endswith(b"\r\n\r\n"):
            await called.wait()
        await listener.close(0.1)
        await task
        await close(writer)

    run(test())


def test_the_port_is_free_again_after_a_stop() -> None:
    async def test() -> None:
        listener = Listener(hello, bind_tcp("127.0.0.1", 0))
        port = int(listener.address.rpartition(":")[2])
        async with serving(listener):
            await fetch(listener)
        bind_tcp("127.0.0.1", port).close()

    run(test())


def test_a_stop_before_the_start_is_not_lost() -> None:
    async def test() -> None:
        listener = Listener(hello, bind_tcp("127.0.0.1", 0))
        listener.stop()
        await listener.serve()
        await refused(listener)

    run(test())


def test_a_cancelled_serve_stops() -> None:
    async def test() -> None:
        listener = Listener(hello, bind_tcp("127.0.0.1", 0))
        served = asyncio.create_task(listener.serve())
        await listener.started()
        served.cancel()
        with pytest.raises(asyncio.CancelledError):
            await served
        await refused(listener)

    run(test())


def test_a_server_that_cannot_begin_ends_both_serve_and_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise TypeError("no such arguments")

    async def test() -> None:
        listener = Listener(hello, bind_tcp("127.0.0.1", 0))
        served, started = asyncio.create_task(listener.serve()), asyncio.create_task(listener.started())
        with pytest.raises(TypeError, match="no such arguments"):
            await served
        with pytest.raises(RuntimeError, match=f"{listener.address} ended before"):
            await started
        await refused(listener)

    monkeypatch.setattr(_granian, "ASGIWorker", refuse)
    run(test())


def test_the_logging_of_the_process_is_left_alone() -> None:
    class Watched(logging.Handler):
        closed = False

        def close(self) -> None:
            self.closed = True
            super().close()

    root = logging.getLogger()
    handler = Watched()
    root.addHandler(handler)
    before = (root.level, list(root.handlers))
    try:
        with bind_tcp("127.0.0.1", 0) as sock:
            Listener(hello, sock)
        assert (root.level, list(root.handlers)) == before
        assert not handler.closed
    finally:
        root.removeHandler(handler)
        handler.close()
    assert logging.getLogger("_granian").handlers == []


# --- the contract with granian, of which some things are used that are not public


def test_granian_still_gives_a_worker_what_is_passed_on() -> None:
    given = inspect.signature(Server._spawn_asgi_worker).parameters
    assert [name for name in given if name != "loop"] == [
        *("worker_id", "shutdown_event", "callback", "sock"),
        *("runtime_threads", "runtime_blocking_threads", "blocking_threads", "blocking_threads_idle_timeout"),
        *("backpressure", "task_impl", "http_mode", "http1_settings", "http2_settings", "websockets"),
        *("static_path", "log_access_fmt", "ssl_ctx", "scope_opts"),
    ]


def test_granian_still_asks_one_method_for_its_socket() -> None:
    assert "self._init_shared_socket()" in inspect.getsource(Server.startup)
    assert "(self._ssp, self._shd)" in inspect.getsource(Server._spawn_worker)


def test_granian_would_fail_to_bind_by_itself() -> None:
    """So that a hand-over that is skipped ends the start, and never opens another port."""
    server = Server(hello, address="http://127.0.0.1:1", log_enabled=False)
    with pytest.raises(Exception, match="invalid"):
        server._init_shared_socket()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("is_uds", [False, True])
def test_granian_still_takes_a_descriptor(is_uds: bool) -> None:
    with socket.socket(socket.AF_UNIX if is_uds else socket.AF_INET) as sock:
        holder = SocketHolder(sock.fileno(), is_uds, 1024)  # type: ignore[call-arg]
        assert holder.get_fd() == sock.fileno()
        assert holder.is_uds() is is_uds


def test_granian_takes_the_socket_over_and_closes_it() -> None:
    async def test() -> None:
        sock = bind_tcp("127.0.0.1", 0)
        listener = Listener(hello, sock)
        async with serving(listener):
            assert sock.fileno() == -1
            assert (await fetch(listener)).endswith(b"hello")
        await refused(listener)

    run(test())


def test_who_has_connected_is_served_when_the_socket_is_left_and_others_wait_for_the_next() -> None:
    async def scenario() -> None:
        shared = bind_tcp("127.0.0.1", 0)
        with shared:
            first = Listener(hello, shared.dup())
            async with serving(first):
                reader, writer = await connect(first)
                assert b"hello" in await fetch(first)
                first.leave()
                waiting = asyncio.ensure_future(fetch(first))
                writer.write(GET)
                assert b"hello" in await reader.read()
                await close(writer)
                await asyncio.sleep(0.05)
                assert not waiting.done()
            assert not waiting.done()
            async with serving(Listener(hello, shared.dup())):
                assert b"hello" in await waiting

    run(scenario())


def test_a_piece_of_a_response_does_not_wait_until_the_one_before_is_acknowledged() -> None:
    async def test() -> None:
        listener = Listener(hello, bind_tcp("127.0.0.1", 0))
        async with serving(listener):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(listener.address.split(":")[-1]))
            writer.write(GET.replace(b"close", b"keep-alive"))
            await reader.readuntil(b"hello")
            served = served_at(writer.get_extra_info("sockname"))
            assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            served.close()
            writer.close()

    run(test())


def served_at(client: tuple[str, int]) -> socket.socket:
    """Return the server's end, in this process, of a client's connection."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found = socket.socket(fileno=os.dup(int(descriptor.name)))
            with suppress(OSError):
                if found.family == socket.AF_INET and found.getpeername() == client:
                    return found
            found.close()
    raise AssertionError("nobody serves this connection")
