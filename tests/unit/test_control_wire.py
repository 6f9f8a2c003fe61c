"""The control client's HTTP: what comes out is what was sent, however it is cut, or an error."""

import contextlib
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.control.wire import Broken, NotHttp, Response, request

HEAD = b"HTTP/1.1 200 OK\r\nX-Other: a: b\r\n"


def answered(data: bytes) -> tuple[int, bytes]:
    """Return status and body of an answer, after which the connection ends."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        with contextlib.closing(Response(ours)) as response:
            return response.status, response.read()


def chunked(chunks: list[bytes]) -> bytes:
    framed = b"".join(b"%x;x=y\r\n%s\r\n" % (len(it), it) for it in chunks if it)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\nX-Trailer: t\r\n\r\n"


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_bodies_of_every_framing_are_read(chunks: list[bytes]) -> None:
    body = b"".join(chunks)
    assert answered(chunked(chunks)) == (200, body)
    assert answered(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body + b"more") == (200, body)
    assert answered(HEAD + b"\r\n" + body) == (200, body)


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=4), st.data())
def test_what_breaks_off_is_never_taken_for_the_whole(chunks: list[bytes], data: st.DataObject) -> None:
    whole = chunked(chunks)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises((Broken, NotHttp)):
        answered(whole[:cut])
    body = b"".join(chunks)
    counted = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with pytest.raises((Broken, NotHttp)):
        answered(counted[: data.draw(st.integers(0, len(counted) - 1))])


@given(st.binary(max_size=80))
def test_anything_else_is_an_error_of_ours(noise: bytes) -> None:
    for data in (noise, HEAD + noise, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + noise):
        with contextlib.suppress(Broken, NotHttp):
            answered(data)


def test_requests() -> None:
    asked = request("GET", "/v1/x?a=b", "localhost")
    assert asked.startswith(b"GET /v1/x?a=b HTTP/1.1\r\nHost: localhost\r\n")
    assert asked.endswith(b"\r\n\r\n")
    assert b"Content-Length: 0\r\n" in request("POST", "/", "localhost")
    assert request("PUT", "/", "localhost", b"{}").endswith(b"Content-Length: 2\r\n\r\n{}")
