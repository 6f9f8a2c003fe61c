"""Clients in crowds, slow ones, and those that leave at any moment: all that they took is given back."""

import json
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field

import psutil
import pytest

from tests.acceptance.conftest import Start
from tests.support.daemon import CHAT, Daemon, chat, eventually

CROWD = 500
ROOM = 24
"""File descriptors that the daemon may keep: a few connections of the tests' own, and its threads'."""

LEFTOVER = 24_000_000
"""Bytes of memory that may stay: what the allocator keeps of the worst moment."""


@dataclass
class Crowd:
    """Raw connections to a daemon."""

    daemon: Daemon
    stack: ExitStack = field(default_factory=ExitStack)

    def connect(self, sent: bytes = b"", *, buffer: int | None = None) -> socket.socket:
        """Return a new connection on which something was sent."""
        sock = socket.socket()
        if buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.settimeout(30)
        sock.connect(("127.0.0.1", self.daemon.port))
        sock.sendall(sent)
        self.stack.enter_context(closing(sock))
        return sock


def request(text: str, name: str, **more: object) -> bytes:
    """Return a whole chat request."""
    body = json.dumps(chat(text, **more)).encode()
    return head(len(body), name) + body


def head(length: int, name: str) -> bytes:
    return (
        f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"x-conversation-id: {name}\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


@pytest.fixture
def crowd(start: Start) -> Iterator[Crowd]:
    daemon = start(POOL_SIZE=4, CLAUDE_CODED_QUEUE_SIZE=2000, CLAUDE_CODED_BODY_TIMEOUT_MS=2000)
    crowd = Crowd(daemon)
    with crowd.stack:
        yield crowd


def test_five_hundred_that_say_nothing_or_little_keep_nobody_from_being_served(
    crowd: Crowd, name: str
) -> None:
    daemon = crowd.daemon
    assert daemon.ask("[[say hi]]", name).ok
    process = psutil.Process(daemon.pid)
    before = process.num_fds()
    whole = request("[[say hi]]", name)
    pieces = [b"", b"GET", whole[:40], whole[: whole.index(b"\r\n\r\n") + 4], whole[:-1]]
    socks = [crowd.connect(pieces[number % len(pieces)]) for number in range(CROWD)]
    eventually(lambda: process.num_fds() >= before + CROWD)
    started = time.monotonic()
    assert daemon.ask("[[say still]]", name).text == "still"
    assert time.monotonic() - started < 5
    # Those that announced a body and do not send it are told so in time.
    for sock in socks[3 :: len(pieces)]:
        assert sock.recv(12) == b"HTTP/1.1 408"
    crowd.stack.close()
    eventually(lambda: process.num_fds() <= before + ROOM)
    assert daemon.ask("[[recall]]", name).ok


def test_a_slow_sender_does_not_hold_its_request_open_for_ever(crowd: Crowd, name: str) -> None:
    sock = crowd.connect(head(100_000, name))
    with suppress(ConnectionError):
        for _ in range(200):
            sock.sendall(b" ")
            time.sleep(0.02)  # the slow client
    assert sock.recv(12) == b"HTTP/1.1 408"


def test_readers_that_never_read_hold_a_bounded_part_of_their_answers(crowd: Crowd, name: str) -> None:
    daemon = crowd.daemon
    assert daemon.ask("[[say hi]]", name).ok
    process = psutil.Process(daemon.pid)
    before = process.memory_info().rss
    for number in range(2):
        crowd.connect(request("[[words 100000]]", f"{name}-{number}", stream=True), buffer=4096)
    eventually(lambda: daemon.pool()["busy"] == 2)
    seen = [process.memory_info().rss]

    def levels_off() -> bool:
        seen.append(process.memory_info().rss)
        return len(seen) > 10 and max(seen[-10:]) - min(seen[-10:]) < 500_000

    eventually(levels_off, 30, every=0.1)
    assert max(seen) < before + LEFTOVER
    assert daemon.ask("[[say still]]", name).text == "still"
    crowd.stack.close()
    daemon.settled(30)


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_closes_its_half_leaves(crowd: Crowd, name: str, streamed: bool) -> None:
    sock = crowd.connect(request("[[delay 50]] [[words 1000]]", name, stream=streamed))
    eventually(lambda: crowd.daemon.pool()["busy"] == 1)
    sock.shutdown(socket.SHUT_WR)
    crowd.daemon.settled()
    assert crowd.daemon.ask("[[say hi]]", name).text.endswith("hi")


@dataclass
class Visitor:
    """A client that begins turns, and leaves at any moment: in its request, in its answer, or after it."""

    crowd: Crowd
    chance: random.Random
    until: float
    names: int
    ends: Counter[str] = field(default_factory=Counter)

    def run(self) -> None:
        while time.monotonic() < self.until:
            self.visit()

    def visit(self) -> None:
        name = f"visited-{self.chance.randrange(self.names)}"
        text = f"[[delay {self.chance.choice((1, 5))}]] [[words {self.chance.choice((1, 40, 200))}]]"
        sent = request(text, name, stream=self.chance.random() < 0.7)
        with closing(socket.create_connection(("127.0.0.1", self.crowd.daemon.port), 30)) as sock:
            if self.chance.random() < 0.1:
                sock.sendall(sent[: self.chance.randrange(len(sent))])
                self.ends["left in its request"] += 1
                return
            sock.sendall(sent)
            sock.settimeout(self.chance.uniform(0.001, 0.5) if self.chance.random() < 0.6 else 30)
            self.ends[read(sock)] += 1
            if self.chance.random() < 0.3:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # end by a reset


def read(sock: socket.socket) -> str:
    """Read an answer to its end, or until time is up; return how that ended."""
    answer = b""
    try:
        while not is_whole(answer):
            data = sock.recv(65536)
            assert data, answer
            answer += data
    except TimeoutError:
        return "left in its answer"
    status = answer[9:12].decode()
    assert status in {"200", "429"}, answer
    assert status == "429" or b"finish_reason" in answer
    return status


@pytest.mark.parametrize(
    ("seconds", "names"), [(3, 4), pytest.param(600, 12, marks=pytest.mark.soak)], ids=["short", "long"]
)
def test_what_clients_took_that_leave_at_any_moment_is_given_back(
    start: Start, seconds: float, names: int
) -> None:
    daemon = start(POOL_SIZE=4, CLAUDE_CODED_QUEUE_SIZE=100)
    crowd = Crowd(daemon)
    process = psutil.Process(daemon.pid)

    def visit(seed: int, seconds: float) -> Counter[str]:
        until = time.monotonic() + seconds
        visitors = [Visitor(crowd, random.Random(f"{seed} {n}"), until, names) for n in range(12)]
        with ThreadPoolExecutor(len(visitors)) as threads:
            for work in [threads.submit(visitor.run) for visitor in visitors]:
                work.result()
        daemon.settled(30)
        return sum((visitor.ends for visitor in visitors), Counter())

    visit(1, 2)
    eventually(lambda: daemon.pool()["queued"] == 0)
    before = process.num_fds(), process.memory_info().rss, process.num_threads()
    ends = visit(2, seconds)
    print(dict(ends))
    assert {"200", "left in its answer", "left in its request"} <= set(ends)
    eventually(lambda: process.num_fds() <= before[0] + 4)
    assert process.memory_info().rss < before[1] + LEFTOVER
    assert process.num_threads() <= before[2] + 2
    assert len(daemon.workers()) <= 4
    assert daemon.pool()["queued"] == 0
    assert '"exception"' not in daemon.log


def is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    if length := re.search(rb"(?i)\r\ncontent-length: (\d+)", head):
        return bool(end) and len(body) == int(length[1])
    return body.endswith(b"0\r\n\r\n")
