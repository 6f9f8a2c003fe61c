"""As much of HTTP/1.1 as a client of our own server needs. `http.client` would be a third of its start."""

import re
import socket
from collections.abc import Iterator, Mapping
from io import BufferedReader
from typing import Final

LINE: Final = 65536
"""Bytes of the longest line that is read."""

PIECE: Final = 65536

_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: [^\r\n]*)?\r?\n")


class NotHttp(Exception):
    """Whoever answers speaks something else."""


class Broken(Exception):
    """The connection ended before the answer did."""


def request(method: str, target: str, host: str, body: bytes = b"") -> bytes:
    """Return a request, after which the connection is closed; a body is JSON."""
    head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAccept: */*\r\n"
    content = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    empty = "Content-Length: 0\r\n" if method in {"POST", "PUT"} and not body else ""
    return f"{head}{content}{empty}\r\n".encode("ascii") + body


class Response:
    """An answer, whose head has come. Whatever reads raises NotHttp, Broken, OSError."""

    def __init__(self, sock: socket.socket) -> None:
        self._file: BufferedReader = sock.makefile("rb")
        self.status = self._read_status()
        self._headers = self._read_headers()

    def close(self) -> None:
        """Read no more."""
        self._file.close()

    def read(self) -> bytes:
        """Return the whole body."""
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it comes."""
        if self._headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            return self._chunks()
        length = self._headers.get(b"content-length")
        return self._until_the_end() if length is None else self._counted(_number(length, 10))

    def _read_status(self) -> int:
        line = self._file.readline(LINE)
        if not line:
            raise Broken
        if (found := _STATUS.fullmatch(line)) is None:
            raise NotHttp
        return int(found[1])

    def _read_headers(self) -> Mapping[bytes, bytes]:
        headers = {}
        while line := self._line():
            name, colon, value = line.partition(b":")
            if not colon:
                raise NotHttp
            headers[name.strip().lower()] = value.strip()
        return headers

    def _line(self) -> bytes:
        line = self._file.readline(LINE)
        if not line.endswith(b"\n"):
            raise Broken
        return line.rstrip(b"\r\n")

    def _chunks(self) -> Iterator[bytes]:
        while size := _number(self._line().partition(b";")[0], 16):
            yield from self._counted(size)
            if self._line():
                raise NotHttp
        self._read_headers()

    def _counted(self, left: int) -> Iterator[bytes]:
        while left:
            piece = self._file.read1(min(left, PIECE))
            if not piece:
                raise Broken
            left -= len(piece)
            yield piece

    def _until_the_end(self) -> Iterator[bytes]:
        while piece := self._file.read1(PIECE):
            yield piece


def _number(text: bytes, base: int) -> int:
    try:
        value = int(text, base)
    except ValueError:
        raise NotHttp from None
    if value < 0:
        raise NotHttp
    return value
