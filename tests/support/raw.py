"""Requests as bytes, for what no decent client sends; loopback only."""

import json
import socket
from dataclasses import dataclass
from typing import Any, Final

SECONDS: Final = 60.0


@dataclass(frozen=True)
class Raw:
    """A response: `body` is what follows the head, whatever its encoding."""

    status: int
    head: str
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


def send(address: tuple[str, int] | str, data: bytes) -> Raw:
    """Send bytes on a connection of their own, TCP or the Unix socket at a path; return the response.

    The status is 0 where there is none.
    """
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as connection:
        connection.settimeout(SECONDS)
        connection.connect(address)
        received = b""
        try:
            connection.sendall(data)
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionError:
            pass  # refused before it had read all
    head, _, body = received.partition(b"\r\n\r\n")
    status = int(head.split()[1]) if head.startswith(b"HTTP/") else 0
    return Raw(status, head.decode("latin-1"), body)


def request(method: str, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> bytes:
    """Return a request's bytes; the connection is closed after it."""
    fixed = [(b"Connection", b"close"), (b"Content-Length", b"%d" % len(body))]
    lines = [b"%b: %b" % pair for pair in [*headers, *fixed]]
    return b"\r\n".join([b"%b %b HTTP/1.1" % (method.encode(), target), *lines, b"", body])
