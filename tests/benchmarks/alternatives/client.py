"""A request as any OpenAI client sends it, and when which piece of the answer came."""

import contextlib
import http.client
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

import orjson

from tests.benchmarks.harness import BenchmarkError

Json = dict[str, Any]

ANSWER_SECONDS: Final = 90.0
READ_SIZE: Final = 256 * 1024
DONE: Final = b"data: [DONE]"
FAILURES: Final = (OSError, ValueError, http.client.HTTPException, BenchmarkError)
"""What may become of a request."""

_DATA: Final = b"data:"


@dataclass(frozen=True, slots=True)
class Event:
    """What an answer said, and when: seconds from the moment before it was asked."""

    at: float
    body: Json


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, streamed or not: its events, or its one body. `total` is when its end came."""

    status: int
    headers: Mapping[str, str]
    events: Sequence[Event]
    total: float
    raw: bytes = field(repr=False)

    @property
    def contents(self) -> list[tuple[float, str]]:
        """Return the pieces of content that are not empty, and when each came."""
        found = [(event.at, part.get("content")) for event in self.events for part in parts(event.body)]
        return [(at, text) for at, text in found if isinstance(text, str) and text]

    @property
    def text(self) -> str:
        """Return the content."""
        return "".join(text for _, text in self.contents)

    @property
    def first(self) -> float | None:
        """Return when the first content came."""
        return self.contents[0][0] if self.contents else None

    @property
    def finish(self) -> str | None:
        """Return the reason of its end."""
        reasons = [choice.get("finish_reason") for choice in choices(event.body for event in self.events)]
        return next((str(reason) for reason in reversed(reasons) if reason), None)

    @property
    def calls(self) -> list[Json]:
        """Return the calls of tools, each of them whole."""
        return fold_calls(part for event in self.events for part in parts(event.body))

    @property
    def error(self) -> str | None:
        """Return what it says of an error, None if it has none."""
        told = [event.body["error"] for event in self.events if event.body.get("error")]
        if told:
            return str(told[0].get("message") if isinstance(told[0], dict) else told[0])
        return self.raw.decode(errors="replace") if self.status >= 400 else None


def choices(bodies: Iterable[Json]) -> Iterator[Json]:
    """Yield the choices of chunks, or of a whole answer."""
    for body in bodies:
        yield from body.get("choices") or ()


def parts(body: Json) -> Iterator[Json]:
    """Yield the deltas of a chunk, or the message of a whole answer."""
    for choice in choices([body]):
        yield choice.get("delta") or choice.get("message") or {}


def fold_calls(deltas: Iterable[Json]) -> list[Json]:
    """Return the calls that deltas tell of, their arguments joined."""
    calls: dict[int, Json] = {}
    for delta in deltas:
        for number, piece in enumerate(delta.get("tool_calls") or ()):
            told = piece.get("function") or {}
            call = calls.setdefault(
                piece.get("index", number),
                {"id": piece.get("id"), "type": "function", "function": {"name": "", "arguments": ""}},
            )
            call["function"]["name"] += told.get("name") or ""
            call["function"]["arguments"] += told.get("arguments") or ""
    return [calls[index] for index in sorted(calls)]


def read_events(pieces: Iterable[tuple[float, bytes]]) -> Iterator[Event]:
    """Yield the events of a stream; each came when its line was whole."""
    unread = b""
    for at, piece in pieces:
        *lines, unread = (unread + piece).split(b"\n")
        for line in lines:
            data = line.removeprefix(_DATA).strip()
            if line.startswith(_DATA) and data.startswith(b"{"):
                yield Event(at, orjson.loads(data))


class Exchange:
    """A request under way. Leaving the context closes the connection."""

    def __init__(self, port: int, path: str, body: Json, headers: Mapping[str, str]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
        self._connection.connect()
        data = orjson.dumps(body)
        self._response: http.client.HTTPResponse | None = None
        self.pieces: list[tuple[float, bytes]] = []
        self.started = time.perf_counter()
        self._connection.request("POST", path, data, dict(headers))

    def __enter__(self) -> "Exchange":
        return self

    def __exit__(self, *_: object) -> None:
        if self._response is not None:  # it may hold the socket alone
            self._response.close()
        self._connection.close()

    def until(self, enough: Callable[[bytes], bool]) -> http.client.HTTPResponse:
        """Read pieces until one has enough, or to the end."""
        response = self._response = self._connection.getresponse()
        tail = b""
        while piece := response.read1(READ_SIZE):
            self.pieces.append((self.now, piece))
            tail = tail[-len(DONE) :] + piece
            if enough(tail):
                break
        return response

    def reply(self) -> Reply:
        """Read to the end. Servers that leave the connection open have ended with `[DONE]`."""
        response = self.until(lambda tail: DONE in tail)
        total = self.now
        raw = b"".join(piece for _, piece in self.pieces)
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, headers, self._events(raw, total), total, raw)

    def glance(self, seconds: float) -> None:
        """Read what comes in so many seconds."""
        self._connection.sock.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            self.until(lambda _: self.now > seconds)

    @property
    def now(self) -> float:
        """Return the seconds since it was asked."""
        return time.perf_counter() - self.started

    def _events(self, raw: bytes, total: float) -> list[Event]:
        if not raw.lstrip().startswith(b"{"):
            return list(read_events(self.pieces))
        with contextlib.suppress(orjson.JSONDecodeError):
            return [Event(total, orjson.loads(raw))]
        return []


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks one server, each time on a new connection. `base` is where its API is."""

    port: int
    model: str
    named: bool = False
    base: str = "/v1"

    def open(
        self, messages: Sequence[Json], fields: Mapping[str, object], headers: Mapping[str, str] | None = None
    ) -> Exchange:
        """Send a chat request, streamed unless its further fields say otherwise."""
        body = {"model": self.model, "messages": messages, "stream": True, **fields}
        kind = {"Content-Type": "application/json"}
        return Exchange(self.port, f"{self.base}/chat/completions", body, {**kind, **(headers or {})})

    def post(self, path: str, body: Json) -> Reply:
        """Send something else to a path of its API."""
        kind = {"Content-Type": "application/json"}
        with Exchange(self.port, f"{self.base}/{path}", body, kind) as exchange:
            return exchange.reply()

    def converse(self) -> "Talk":
        """Begin a conversation."""
        return Talk(self, {"user": f"talk-{uuid4().hex}"} if self.named else {})

    def preflight(self, origin: str) -> tuple[int, str | None]:
        """Ask as a browser does for a page of another origin; return the status and what is allowed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        with contextlib.closing(connection):
            path = f"{self.base}/chat/completions"
            connection.request("OPTIONS", path, headers={"Origin": origin, **asked})
            response = connection.getresponse()
            return response.status, response.getheader("Access-Control-Allow-Origin")

    def knock(self) -> bool:
        """Tell whether the server answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/v1/models")
            return connection.getresponse().status < 500
        return False


@dataclass(slots=True)
class Talk:
    """A conversation whose client sends all that was said with each request, as OpenAI's do."""

    asker: Asker
    fields: Mapping[str, object]
    said: list[Json] = field(default_factory=list)

    def ask(self, content: object, headers: Mapping[str, str] | None = None, **fields: object) -> Reply:
        """Say something; what is answered becomes part of the history."""
        with self.open(content, headers, **fields) as exchange:
            reply = exchange.reply()
        message = said("assistant", reply.text)
        self.said.append({**message, "tool_calls": reply.calls} if reply.calls else message)
        return reply

    def open(self, content: object, headers: Mapping[str, str] | None = None, **fields: object) -> Exchange:
        """Say something, or send what was said where the content is None; reading is left to the caller."""
        if content is not None:
            self.said.append(said("user", content))
        return self.asker.open(self.said, {**self.fields, **fields}, headers)


def said(role: str, content: object) -> Json:
    """Return a message."""
    return {"role": role, "content": content}
