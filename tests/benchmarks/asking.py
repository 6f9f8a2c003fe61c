"""Asks a control socket again and again, in a process of its own, and prints how long each answer took.

`python -m tests.benchmarks.asking SOCKET RESOURCE COUNT`: seconds, a line each.
"""

import http.client
import socket
import sys
import time


class UnixConnection(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def ask(path: str, resource: str) -> float:
    """Return the seconds that a new connection and an answer take."""
    connection = UnixConnection(path)
    started = time.perf_counter()
    connection.request("GET", f"/v1/{resource}")
    response = connection.getresponse()
    response.read()
    taken = time.perf_counter() - started
    connection.close()
    if response.status != 200:
        raise RuntimeError(f"the control socket answered {response.status}")
    return taken


if __name__ == "__main__":
    for _ in range(int(sys.argv[3])):
        print(ask(sys.argv[1], sys.argv[2]))
