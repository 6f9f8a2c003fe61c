"""The control socket's door, on real sockets: who is sent away, who is passed on; nobody comes round it."""

import asyncio
import http.client
import os
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from claude_coded.control import api
from claude_coded.control.door import guarded, nameless, refusal
from claude_coded.listener import bind_unix


async def shout(inside: socket.socket) -> None:
    """Serve on a socket: give each visitor's bytes back in capitals, until they end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data.upper())
            await writer.drain()
        writer.write(b"!")
        writer.close()

    async with await asyncio.start_unix_server(serve, sock=inside.dup()) as server:
        await server.serve_forever()


def run_behind_a_door(
    place: Path, visit: Callable[[Path], bytes], bars: Callable[[socket.socket], bool] = lambda _: False
) -> bytes:
    async def test() -> bytes:
        async with guarded(bind_unix(place), place.parent, bars) as door:
            shouting = asyncio.create_task(shout(door.inside))
            try:
                return await asyncio.to_thread(visit, place)
            finally:
                shouting.cancel()

    return asyncio.run(test())


def connect(place: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(str(place))
    return sock


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "s"


def test_what_both_say_is_passed_on_whatever_its_size(place: Path) -> None:
    said = os.urandom(100).hex().encode() * 5000

    def visit(place: Path) -> bytes:
        with connect(place) as sock:
            sock.sendall(said[:10])
            first = sock.recv(10, socket.MSG_WAITALL)
            sock.sendall(said[10:])
            heard = sock.recv(len(said) - 10, socket.MSG_WAITALL)
            sock.shutdown(socket.SHUT_WR)
            return first + heard + read_all(sock)

    assert run_behind_a_door(place, visit) == said.upper() + b"!"


def test_who_is_barred_reads_why_though_its_request_is_not_read(place: Path) -> None:
    def visit(place: Path) -> bytes:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = connect(place)
        connection.request("POST", "/v1/drain", b"x" * 100_000)
        answer = connection.getresponse()
        assert (answer.status, answer.headers["X-Claude-Coded-Control"]) == (403, api.VERSION)
        return answer.read()

    told = run_behind_a_door(place, visit, bars=lambda _: True)
    assert msgspec.json.decode(told, type=api.Failure).error.kind == api.Kind.FORBIDDEN
    assert refusal().endswith(told)


def test_who_is_barred_keeps_out_nobody_else(place: Path) -> None:
    barred = iter([True, False, True])

    def visit(place: Path) -> bytes:
        with connect(place), connect(place) as second, connect(place):
            second.sendall(b"a")
            return second.recv(1)

    assert run_behind_a_door(place, visit, bars=lambda _: next(barred)) == b"A"


def test_nothing_is_left_of_the_socket_inside_but_its_handle(tmp_path: Path) -> None:
    sock, handle = nameless(tmp_path)
    with sock, socket.socket(socket.AF_UNIX) as visitor:
        assert not list(tmp_path.iterdir())
        with pytest.raises(OSError, match=r"No such file"):
            visitor.connect(sock.getsockname())
        visitor.connect(f"/proc/self/fd/{handle}")
        os.close(handle)


def test_a_closed_door_lets_nobody_in_and_nobody_out(place: Path) -> None:
    async def test() -> None:
        async with guarded(bind_unix(place), place.parent, bars=lambda _: False) as door:
            shouting = asyncio.create_task(shout(door.inside))
            reader, writer = await asyncio.open_unix_connection(place)
            writer.write(b"a")
            assert await reader.read(1) == b"A"
            door.close()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_unix_connection(place)
            writer.write(b"b")
            assert await reader.read(1) == b"B"
        assert await reader.read() == b""
        writer.close()
        shouting.cancel()

    asyncio.run(test())
