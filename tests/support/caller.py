"""A program that Claude's Bash runs: it asks the control socket as a command may, and writes down the answer.

Arguments: how (plain, or orphan: a grandchild whose parent has ended), the socket, a method, a path, a body,
the file for the status.
"""

import http.client
import os
import socket
import sys
import time
from pathlib import Path


def become_an_orphan() -> None:
    """Go on in a process in a session of its own, whose parent is gone."""
    if os.fork():
        os._exit(0)
    os.setsid()
    parent = os.getpid()
    if os.fork():
        os._exit(0)
    while os.getppid() == parent:
        time.sleep(0.001)


def main(how: str, place: str, method: str, path: str, body: str, file: str) -> None:
    if how == "orphan":
        become_an_orphan()
    connection = http.client.HTTPConnection("localhost", timeout=20)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(place)
    connection.request(method, path, body or None, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    made = Path(f"{file}.part")
    made.write_text(str(answer.status))
    made.rename(file)


if __name__ == "__main__":
    main(*sys.argv[1:])
