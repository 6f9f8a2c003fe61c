"""Benchmarks of large requests: what it costs to read one, and how long it keeps other streams waiting."""

import asyncio
import random
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any, Final

import orjson

from claude_coded import history
from claude_coded.openai.chat import parse_chat
from claude_coded.store import Store
from claude_coded.turn import TurnRequest
from tests.benchmarks.harness import HTTP_MARKS, READ_SIZE, BenchmarkError, Daemon, HttpConversation
from tests.benchmarks.matching import KEY, PROFILE, converse
from tests.benchmarks.measure import Figure, Pairs

READING_LIMIT: Final = 3.0
"""CPU time to decode, check and match a history, to that of parsing and hashing the same bytes once."""

STALL_LIMIT: Final = 20.0
"""Milliseconds that a large request may hold back a delta of another's stream."""

READ: Final = 1_000_000
LARGE: Final = 10_000_000
"""Bytes of the histories that are read, and of those that may not stall anybody."""

PACE: Final = 5
"""Milliseconds between two deltas of the stream that is watched."""

REST: Final = 1.0
"""Seconds between two large requests: the worker of the one before is done with its history by then."""

ANSWERED: Final = 60.0
"""Seconds within which a large request is answered."""

STALL_SETTINGS: Final = {"POOL_SIZE": "4"}

_CLOCK: Final = re.compile(rb'"content":"(\d+) "')


# Histories ---------------------------------------------------------------------------------------------


def _prose(dice: random.Random, size: int) -> str:
    """Return about so many bytes of text, with lines, quotes, and a few signs beyond ASCII."""
    words = ["".join(dice.choices("etaoinshrdlucm", k=dice.randint(2, 9))) for _ in range(200)]
    words += ["\n", '"so"', "—", "é"]
    return " ".join(dice.choices(words, k=size // 6))


def _said(dice: random.Random, size: int, message: int) -> list[dict[str, Any]]:
    """Return a history of about so many bytes, in messages of about `message` bytes."""
    roles = ("user", "assistant")
    texts = (_prose(dice, message) for _ in range(size // message // 2 * 2))
    return [{"role": roles[number % 2], "content": text} for number, text in enumerate(texts)]


def _called(dice: random.Random, size: int, message: int) -> list[dict[str, Any]]:
    """Return a history like it in which every question is answered with the help of a tool."""
    said: list[dict[str, Any]] = []
    for number in range(size // message // 4):
        arguments = orjson.dumps({"path": f"/src/{number}.py", "text": _prose(dice, message)}).decode()
        function = {"name": "write", "arguments": arguments}
        call = {"id": f"call_{number}", "type": "function", "function": function}
        said += (
            {"role": "user", "content": [{"type": "text", "text": _prose(dice, message)}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": _prose(dice, message)},
            {"role": "assistant", "content": _prose(dice, message)},
        )
    return said


def _body(said: list[dict[str, Any]], **fields: object) -> bytes:
    messages = [{"role": "system", "content": "You help."}, *said, {"role": "user", "content": "and now?"}]
    return orjson.dumps({"model": "claude-code", "messages": messages, **fields})


SHAPES: Final[Mapping[str, Callable[[random.Random], list[dict[str, Any]]]]] = {
    "messages of 300 bytes": lambda dice: _said(dice, READ, 300),
    "messages of 2.5 kB": lambda dice: _said(dice, READ, 2500),
    "messages of 50 kB": lambda dice: _said(dice, READ, 50_000),
    "calls of tools, parts of 1 kB": lambda dice: _called(dice, READ, 1000),
}


# Reading -----------------------------------------------------------------------------------------------


def reading(_: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure what the daemon's own work for a history costs, in process."""
    with tempfile.TemporaryDirectory(prefix="claude-coded-") as folder:
        yield from asyncio.run(_reading(Path(folder), 20 if quick else 100))


async def _reading(folder: Path, count: int) -> list[Figure]:
    figures = []
    for shape, make in SHAPES.items():
        body = _body(make(random.Random(shape)))
        store = Store(folder / shape)
        await store.open()
        try:
            # What is known is the whole history but the last question.
            await converse(store, KEY, _prefixes(body)[0])
            pairs = await _pairs(store, body, count)
        finally:
            await store.close()
        ours, theirs = (median(side) * 1000 for side in (pairs.ours, pairs.theirs))
        title = f"{len(body) / 1e6:.2f} MB in {shape}"
        interval = pairs.ratio_interval()
        figures += [
            Figure("reading", f"{title}, to loads + sha256", pairs.ratio, "", READING_LIMIT, interval, 1.0),
            Figure("reading", f"{title}, CPU; floor: loads + sha256", ours, "ms", floor=theirs),
        ]
    return figures


async def _pairs(store: Store, body: bytes, count: int) -> Pairs:
    """Measure CPU time, of all threads, of both sides in turns."""
    ours, theirs = [], []
    for _ in range(count):
        started = time.process_time()
        if len(await store.find(_prefixes(body))) != 1:
            raise BenchmarkError("the store did not find what it holds")
        matched = time.process_time()
        orjson.loads(body)
        sha256(body).digest()
        theirs.append(time.process_time() - matched)
        ours.append(matched - started)
    return Pairs(ours, theirs)


def _prefixes(body: bytes) -> list[bytes]:
    """Return the histories by which the daemon looks for a request's conversation."""
    chat = parse_chat(body)
    told = history.read(TurnRequest(KEY, PROFILE, chat.messages, chat.system, chat.stream, named=False))
    return [told.digests[length - 1] for length in told.ends]


# Stalls ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Large:
    """A large request; `status` is what it is answered with."""

    path: str
    body: bytes
    status: int = 200

    def send(self, port: int) -> None:
        """Send it and read its answer; it is all in C, where other threads run."""
        with socket.create_connection(("127.0.0.1", port), timeout=ANSWERED) as connection:
            head = f"POST {self.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall(
                f"{head}Connection: close\r\nContent-Length: {len(self.body)}\r\n\r\n".encode()
            )
            connection.sendall(self.body)
            answer = connection.recv(READ_SIZE)
            while connection.recv(READ_SIZE):
                pass
        if not answer.startswith(f"HTTP/1.1 {self.status} ".encode()):
            raise BenchmarkError(f"a large request was answered with {answer[:300]!r}")


CHAT: Final = "/v1/chat/completions"


def _kinds(number: int) -> dict[str, _Large]:
    """Return large requests of every kind, in the order in which they are sent."""
    said = {name: _said(random.Random(f"{name} {number}"), LARGE, 2500) for name in ("chat", "streamed")}
    first = {"role": "user", "content": "and now?"}
    replayed = {"role": "assistant", "content": "w0 "}  # as workers that replay answer everything
    foreign = _body(said["chat"])
    items = [*said["streamed"], {"role": "user", "content": "and for the Responses API?"}]
    return {
        "foreign": _Large(CHAT, foreign),
        "matching": _Large(CHAT, _body([*said["chat"], first, replayed])),
        "malformed": _Large(CHAT, foreign[:-9] + b"}]}", 400),
        "wrong in its last message": _Large(CHAT, foreign.replace(b'"and now?"', b"17"), 400),
        "streamed": _Large(CHAT, _body(said["streamed"], stream=True)),
        "of short messages": _Large(CHAT, _body(_said(random.Random(number), LARGE, 300))),
        "with calls": _Large(CHAT, _body(_called(random.Random(number), LARGE, 1000))),
        "response": _Large("/v1/responses", orjson.dumps({"model": "claude-code", "input": items})),
    }


def stalls(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure how late the deltas of a stream are while another client sends a large request."""
    rounds = 1 if quick else 3
    worst: dict[str, list[float]] = {}
    with closing(daemon.converse()) as stream:
        stream.ask("hello")
        for number in range(rounds):
            for kind, request in _kinds(number).items():
                delays = _delays_beside(daemon, stream, request)
                worst.setdefault(kind, []).append(delays[1])
                worst.setdefault("", []).append(delays[0])
    floor = worst.pop("")
    title = f"{LARGE // 10**6} MB"
    for kind, values in worst.items():
        yield Figure(
            "stalls", f"latest delta beside {title}, {kind}, median", median(values), "ms", STALL_LIMIT
        )
    longest = max(max(values) for values in worst.values())
    yield Figure("stalls", f"beside {title}, the worst of all", longest, "ms", STALL_LIMIT, floor=max(floor))
    yield Figure("stalls", "latest delta of as long a time with nothing beside, median", median(floor), "ms")


def _delays_beside(daemon: Daemon, stream: HttpConversation, request: _Large) -> tuple[float, float]:
    """Return the longest delay in milliseconds before the request was sent, and from then to its end."""
    answered = threading.Event()
    began = time.monotonic() + REST
    failures: list[Exception] = []

    def beside() -> None:
        time.sleep(REST)
        try:
            request.send(daemon.port)
        except (BenchmarkError, OSError) as error:
            failures.append(error)
        time.sleep(REST / 2)
        answered.set()

    sending = threading.Thread(target=beside)
    sending.start()
    before, during = 0.0, 0.0
    for stamp, delay in _stamped_until(answered, stream):
        if stamp < began:
            before = max(before, delay)
        else:
            during = max(during, delay)
    sending.join()
    if failures:
        raise failures[0]
    return before * 1000, during * 1000


def _stamped(stream: HttpConversation) -> Iterator[tuple[float, float]]:
    """Yield when each delta of a stream was written, and how long it took to us, in seconds."""
    tail = b""
    while True:
        data = tail + stream.socket.recv(READ_SIZE)
        now = time.monotonic()
        whole, end, rest = data.rpartition(b"\n\n")
        for stamp in _CLOCK.findall(whole):
            yield int(stamp) / 1e9, now - int(stamp) / 1e9
        tail = end + rest
        if data.endswith(HTTP_MARKS.close):
            return


def _stamped_until(over: threading.Event, stream: HttpConversation) -> Iterator[tuple[float, float]]:
    """Yield the same of one stream after the other, until one ends when it is over."""
    while not over.is_set():
        stream.begin(f"[[clock]] [[delay {PACE}]] [[words {int(REST * 5 * 1000 / PACE)}]]")
        yield from _stamped(stream)
