"""A scripted Anthropic Messages API, so that the real Claude Code CLI runs with no key and no network.

The newest user message is the script: its ``[[...]]`` directives, run in order, say what the model answers.
A directive ends at the first ``]]``, but for the JSON of ``[[tool NAME JSON]]``, which may hold some.
Without a directive the answer repeats the message. `python -m claude_coded.offline` serves it.
"""

import argparse
import asyncio
import hashlib
import itertools
import logging
import os
import re
import secrets
import signal
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from json import JSONDecoder
from typing import Any, Final, TypeAlias

import orjson

from claude_coded.listener import Listener, Message, Receive, Scope, Send, bind_tcp

Json: TypeAlias = dict[str, Any]

MODELS: Final = ("claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5")
REQUESTS_KEPT: Final = 2000
PREFIXES_KEPT: Final = 4096
FAULTS_KEPT: Final = 4096
BATCH_EVENTS: Final = 64
BATCH_BYTES: Final = 16 * 1024
PING_SECONDS: Final = 1.0
STOP_SECONDS: Final = 0.5

ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


# --- The script -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Say:
    """Text, sent word by word."""

    text: str


@dataclass(frozen=True, slots=True)
class Words:
    """The deltas ``w0 ``, ``w1 `` and so on."""

    count: int


@dataclass(frozen=True, slots=True)
class Delay:
    """Seconds between deltas from here on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Seconds of waiting, once; pings go out meanwhile."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Think:
    """A thinking block."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call; ``arguments`` is the text of a JSON object."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Tools:
    """The calls that end one reply; the next step runs after their results came."""

    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """Says what the request holds: a key of `ANSWERS`."""

    topic: str


@dataclass(frozen=True, slots=True)
class Fail:
    """An API error: an HTTP status if it comes first, else an ``error`` event; ``times`` None is always."""

    status: int
    times: int | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection breaks here."""

    times: int | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Ends the reply with this ``stop_reason``."""

    reason: str


Step: TypeAlias = Say | Words | Delay | Pause | Think | Tools | Ask | Fail | Cut | Stop

_OPENING: Final = re.compile(r"\[\[([A-Za-z][\w-]*)")
_TOOL_NAME: Final = re.compile(r"\s+([\w.:-]+)\s*")
_CLOSING: Final = re.compile(r"\s*\]\]")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_JSON: Final = JSONDecoder(parse_constant=_no_constant)


def _read_call(text: str, position: int) -> tuple[Call, int] | None:
    """Read ``NAME JSON]]`` at position, no JSON being ``{}``; return the call and its end."""
    name = _TOOL_NAME.match(text, position)
    if name is None:
        return None
    start = end = name.end()
    if not text.startswith("]]", start):
        try:
            value, end = _JSON.raw_decode(text, start)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict):
            return None
    closing = _CLOSING.match(text, end)
    return (Call(name[1], text[start:end] or "{}"), closing.end()) if closing else None


def _read_simple(text: str, opening: re.Match[str]) -> tuple[Step, int] | None:
    """Read any directive but a good tool call; None if it's never closed."""
    end = text.find("]]", opening.end())
    if end < 0:
        return None
    argument = text[opening.end() : end]
    shape, build = _DIRECTIVES.get(opening[1], (None, None))
    found = shape.fullmatch(argument[1:]) if shape and argument[:1].strip() == "" else None
    if build is None or found is None:
        return Say(f"unknown directive: {text[opening.start() + 2 : end]}"), end + 2
    return build(*found.groups()), end + 2


def parse_script(text: str) -> tuple[Step, ...]:
    """Return the steps that a user's text asks for, none if it holds no directive; never raises."""
    steps: list[Step] = []
    end = 0
    while opening := _OPENING.search(text, end):
        between = text[end : opening.start()]
        call = _read_call(text, opening.end()) if opening[1] == "tool" else None
        if call:
            before = steps[-1] if steps and not between.strip() else None
            if isinstance(before, Tools):
                steps[-1] = Tools((*before.calls, call[0]))
            else:
                steps.append(Tools((call[0],)))
            end = call[1]
        elif read := _read_simple(text, opening):
            steps.append(read[0])
            end = read[1]
        else:
            break
    return tuple(steps)


# --- The request ------------------------------------------------------------------------------------------

_REMINDER: Final = re.compile(r"<system-reminder>.*?</system-reminder>\s*", re.DOTALL)
_MID_TURN: Final = re.compile(
    r"^The user sent a new message while you were working:\n(.*?)\n\nThis is how Claude Code surfaces",
    re.DOTALL | re.MULTILINE,
)
_CLI_LINES: Final = {  # how the CLI's own lines begin, and what each says of the reply before it
    "Output token limit hit": "stopped",
    "Your response above was stopped by a safety classifier": "stopped",
    "Your response above was cut off mid-stream": "cut",
    "<system-reminder>\n[SYSTEM NOTIFICATION": "notified",
    "[structured-output-enforce]": "notified",
    "[Request interrupted by user": "",
    "[Image: source: ": "",
    "<local-command-": "",
    "<command-name>": "",
    "This session is being continued from a previous conversation": "",
}


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a request's history says.

    ``texts`` are the user's own, in order. ``passed`` tells of each reply since the newest of them what came
    back: ``results`` of its tools, ``stopped`` or ``cut`` (the CLI asks to go on), ``notified`` (other news).
    """

    body: Json
    texts: tuple[str, ...]
    passed: tuple[str, ...]
    results: str


def _blocks(content: object) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def _texts(content: object) -> list[str]:
    return [str(block.get("text", "")) for block in _blocks(content) if block.get("type") == "text"]


def _entries(body: Json) -> Iterator[tuple[str, Json]]:
    """Yield role and block of the whole history as the user and the model know it."""
    for message in body["messages"]:
        blocks = _blocks(message.get("content"))
        if message.get("role") == "system":  # the CLI's own, but for what the user wrote in mid-turn
            blocks = [_text(found) for text in _texts(blocks) for found in _MID_TURN.findall(text)]
            yield from (("user", block) for block in blocks)
            continue
        for block, following in zip(blocks, [*blocks[1:], {}], strict=False):
            yield str(message.get("role")), _unjoined(block, following)


def _text(text: str) -> Json:
    return {"type": "text", "text": text}


def _unjoined(block: Json, following: Json) -> Json:
    """Take off the line end that the CLI puts between the texts of two messages that it merges."""
    if block.get("type") == following.get("type") == "text":
        return _text(str(block.get("text", "")).removesuffix("\n"))
    return block


def _cli_event(text: str) -> str | None:
    return next((event for start, event in _CLI_LINES.items() if text.startswith(start)), None)


def _own_text(block: Json) -> str:
    """Return what the user (or the model) wrote of a text block; empty if it's all the CLI's."""
    text = str(block.get("text", ""))
    kept = "" if _cli_event(text) is not None else _REMINDER.sub("", text)
    return kept if kept.strip() else ""


def _result_text(block: Json) -> str:
    return ("error: " if block.get("is_error") else "") + "\n".join(_texts(block.get("content")))


def read_conversation(body: Json) -> Conversation:
    """Return the conversation that a Messages API request carries."""
    reader = _Reader()
    for role, block in _entries(body):
        reader.take(role, block)
    return Conversation(body, tuple(reader.texts), tuple(reader.passed), "\n".join(reader.results))


class _Reader:
    """Gathers a conversation block by block."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.passed: list[str] = []
        self.results: list[str] = []
        self._before = ""

    def take(self, role: str, block: Json) -> None:
        kind = "answer" if role == "assistant" else str(block.get("type"))
        if kind == "tool_result":
            self._result(block)
        elif kind == "text" and not self._user_text(block):
            return  # a reminder: what it stands between stays neighbours
        self._before = kind

    def _result(self, block: Json) -> None:
        if self._before != "tool_result":
            self.passed.append("results")
            self.results.clear()
        self.results.append(_result_text(block))

    def _user_text(self, block: Json) -> bool:
        event = _cli_event(str(block.get("text", "")))
        if own := _own_text(block):
            self.texts.append(own)
            self.passed.clear()
        elif event in _ENDED_BY or (event == "notified" and self._before == "answer"):
            self.passed.append(event)
        return bool(own or event)


def _offered(body: Json) -> list[str]:
    return [str(tool.get("name")) for tool in _blocks(body.get("tools"))]


def _image_count(content: object) -> int:
    blocks = _blocks(content)
    nested = sum(_image_count(block.get("content")) for block in blocks if block.get("type") == "tool_result")
    return nested + len([block for block in blocks if block.get("type") == "image"])


def _images(body: Json) -> int:
    return sum(_image_count(message.get("content")) for message in body["messages"])


_NORMAL: Final[dict[str, Callable[[Json], Json]]] = {
    "text": lambda block: {"text": _own_text(block)},
    "thinking": lambda block: {"thinking": block.get("thinking")},
    "tool_use": lambda block: {"tool_use": block.get("name"), "input": block.get("input")},
    "tool_result": lambda block: {"tool_result": _result_text(block)},
}


def _history(body: Json) -> list[Json]:
    """Return the history as one entry a block, without the CLI's own lines."""
    normal = (
        {"role": role, **_NORMAL.get(str(block.get("type")), _other)(block)} for role, block in _entries(body)
    )
    return [entry for entry in normal if entry.get("text") != ""]


def _other(block: Json) -> Json:
    return {"type": block.get("type")}


def _system(body: Json) -> str:
    """Return the system prompt without the CLI's line for billing, which is no prompt."""
    texts = _texts(body.get("system"))
    return "\n".join(text for text in texts if not text.startswith("x-anthropic-billing-header:"))


def _dumps(value: object) -> str:
    return orjson.dumps(value).decode()


ANSWERS: Final[dict[str, Callable[[Conversation], str]]] = {
    "result": lambda it: it.results,
    "recall": lambda it: _dumps(it.texts),
    "history": lambda it: _dumps(_history(it.body)),
    "system": lambda it: _system(it.body),
    "offered": lambda it: _dumps(_offered(it.body)),
    "images": lambda it: str(_images(it.body)),
    "model": lambda it: str(it.body.get("model")),
    "max_tokens": lambda it: str(it.body.get("max_tokens")),
}

_ANY: Final = re.compile(r"(.*)", re.DOTALL)
_NOTHING: Final = re.compile(r"\s*")
_NUMBER: Final = re.compile(r"([0-9]{1,9})\s*")
_FAULT: Final = re.compile(r"([45][0-9]{2})(?:\s+times\s+([0-9]{1,9}))?(?:\s+saying\s+(.*))?\s*", re.DOTALL)
_TIMES: Final = re.compile(r"(?:times\s+([0-9]{1,9}))?\s*")
_REASON: Final = re.compile(r"(max_tokens|refusal)\s*")

_DIRECTIVES: Final[dict[str, tuple[re.Pattern[str], Callable[..., Step]]]] = {
    "say": (_ANY, Say),
    "think": (_ANY, Think),
    "words": (_NUMBER, lambda count: Words(int(count))),
    "delay": (_NUMBER, lambda ms: Delay(int(ms) / 1000)),
    "pause": (_NUMBER, lambda ms: Pause(int(ms) / 1000)),
    "hang": (_NOTHING, partial(Pause, float("inf"))),
    "stop": (_REASON, Stop),
    "cut": (_TIMES, lambda times: Cut(times and int(times))),
    "error": (_FAULT, lambda status, times, message: Fail(int(status), times and int(times), message)),
    **{topic: (_NOTHING, partial(Ask, topic)) for topic in ANSWERS},
}


_ENDED_BY: Final[dict[str, tuple[type[Step], ...]]] = {"stopped": (Stop,), "cut": (Cut, Fail)}


def _resolve(steps: Iterable[Step], offered: Sequence[str]) -> Iterator[Step]:
    """Give each call the full name of a tool on offer, or say that there's none."""
    for step in steps:
        if not isinstance(step, Tools):
            yield step
            continue
        calls = []
        for call in step.calls:
            longer = [name for name in offered if name.endswith(f"__{call.name}")]
            if call.name in offered:
                calls.append(call)
            elif len(longer) == 1:
                calls.append(Call(longer[0], call.arguments))
            else:
                yield Say(f"no such tool on offer: {call.name}")
        if calls:
            yield Tools(tuple(calls))


def _resume(steps: Sequence[Step], passed: Iterable[str]) -> int:
    """Return the index of the first step that the replies so far have not run."""
    at = 0
    for event in passed:
        tools = _first(steps, at, Tools)
        if event == "results":
            at = tools + 1
        elif event in _ENDED_BY:
            end = _first(steps, at, *_ENDED_BY[event])
            at = end + 1 if end < tools else tools  # none: max_tokens cut it, and what text was left is lost
        else:
            at = len(steps)
    return at


def _first(steps: Sequence[Step], at: int, *kinds: type[Step]) -> int:
    """Return the first index from `at` of a step of these kinds, the length if there's none."""
    return next((index for index in range(at, len(steps)) if isinstance(steps[index], kinds)), len(steps))


# --- The reply --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """A content block begins (and ends the one before)."""

    block: Json


@dataclass(frozen=True, slots=True)
class Piece:
    """One delta of the block begun last."""

    text: str


Part: TypeAlias = Begin | Piece | Pause | Fail | Cut | Stop

_WORD: Final = re.compile(r"\s*\S+\s*|\s+")
_PIECE_CHARS: Final = 32
_NOTHING_LEFT: Final = {"stopped": "continued", "cut": "continued", "notified": "noted"}
_ENDINGS: Final = (Tools, Fail, Cut, Stop)


class _Composer:
    """Turns the steps of one reply into parts; keeps the pace and the kind of block that is open."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._delay = 0.0
        self._kind = ""
        self._begun = False

    def parts(self, steps: Iterable[Step]) -> Iterator[Part]:
        """Yield the parts of a reply, a `Stop`, `Fail` or `Cut` last."""
        for step in steps:
            yield from self._step(step)
            if isinstance(step, _ENDINGS):
                return
        yield Stop("end_turn")

    def _step(self, step: Step) -> Iterator[Part]:
        match step:
            case Say(text):
                yield from self._block("text", _words(text))
            case Words(count):
                yield from self._block("text", (f"w{index} " for index in range(count)))
            case Ask(topic):
                yield from self._block("text", _words(ANSWERS[topic](self._conversation)))
            case Think(text):
                yield from self._block("thinking", _words(text))
            case Tools(calls):
                for call in calls:
                    yield from self._block("tool_use", _slices(call.arguments), call.name)
                yield Stop("tool_use")
            case Delay(seconds):
                self._delay = seconds
            case _:
                yield step

    def _block(self, kind: str, pieces: Iterator[str], name: str = "") -> Iterator[Part]:
        first = next(pieces, None)
        if first is None:
            return
        if kind != "text" or self._kind != "text":  # neighbouring texts share a block, as a model's would
            yield Begin(_empty_block(kind, name))
        self._kind = kind
        for piece in itertools.chain((first,), pieces):
            if self._delay and self._begun:
                yield Pause(self._delay)
            self._begun = True
            yield Piece(piece)


def _words(text: str) -> Iterator[str]:
    return (found[0] for found in _WORD.finditer(text))


def _slices(text: str) -> Iterator[str]:
    return (text[at : at + _PIECE_CHARS] for at in range(0, len(text), _PIECE_CHARS))


def _empty_block(kind: str, name: str) -> Json:
    if kind == "text":
        return {"type": kind, "text": ""}
    if kind == "thinking":
        return {"type": kind, "thinking": "", "signature": ""}
    return {"type": kind, "id": f"toolu_{secrets.token_hex(12)}", "name": name, "input": {}}


def _limited(parts: Iterable[Part], limit: int) -> Iterator[Part]:
    """Stop with max_tokens before the delta that goes beyond the limit."""
    sent = 0
    for part in parts:
        if sent == limit and isinstance(part, Piece | Begin):
            yield Stop("max_tokens")
            return
        sent += isinstance(part, Piece)
        yield part


def _signature(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=24).hexdigest()


def _error_body(status: int, message: str | None) -> Json:
    kind = ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message or f"offline {kind}"}}


def _event(kind: str, **fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


PING: Final = _event("ping")
_DELTAS: Final = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}


class _EventEncoder:
    """Encodes parts as the API's server-sent events."""

    def __init__(self, head: Json) -> None:
        self._head = head
        self._index = -1
        self._kind = ""
        self._prefix = b""
        self._thought: list[str] = []
        self._sent = 0

    def start(self) -> bytes:
        """Return the first event."""
        usage = {**self._head["usage"], "output_tokens": 1}
        return _event("message_start", message={**self._head, "usage": usage})

    def encode(self, part: Part) -> bytes:
        """Return the events of one part."""
        match part:
            case Piece(text):
                self._sent += 1
                if self._kind == "thinking":
                    self._thought.append(text)
                return b"%b%b}}\n\n" % (self._prefix, orjson.dumps(text))
            case Begin(block):
                return self._finish() + self._begin(block)
            case Stop(reason):
                return self._finish() + self._end(reason)
            case Fail(status, _, message):
                return _event("error", error=_error_body(status, message)["error"])
            case _:
                return b""

    def _begin(self, block: Json) -> bytes:
        self._index += 1
        self._kind = block["type"]
        kind, field = _DELTAS[self._kind]
        self._prefix = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"%b","%b":' % (self._index, kind.encode(), field.encode())
        )
        start = _event("content_block_start", index=self._index, content_block=block)
        return start if self._index else start + PING

    def _finish(self) -> bytes:
        """End the open block, if any; a thinking block is signed."""
        if self._index < 0:
            return b""
        signed = b""
        if self._kind == "thinking":
            delta = {"type": "signature_delta", "signature": _signature("".join(self._thought))}
            signed = _event("content_block_delta", index=self._index, delta=delta)
            self._thought.clear()
        return signed + _event("content_block_stop", index=self._index)

    def _end(self, reason: str) -> bytes:
        delta = {"stop_reason": reason, "stop_sequence": None}
        usage = {**self._head["usage"], "output_tokens": self._sent}
        return _event("message_delta", delta=delta, usage=usage) + _event("message_stop")


def _is_json(text: str) -> bool:
    try:
        _JSON.decode(text)
    except ValueError:
        return False
    return True


def _whole_block(block: Json, text: str) -> Json:
    if block["type"] == "tool_use":
        # Kept as written; a reply cut by max_tokens holds half an object.
        return {**block, "input": orjson.Fragment(text) if _is_json(text) else {}}
    signed = {"signature": _signature(text)} if block["type"] == "thinking" else {}
    return {**block, _DELTAS[block["type"]][1]: text, **signed}


def _whole(head: Json, parts: Sequence[Part]) -> Json:
    """Return the message that the parts make."""
    blocks: list[tuple[Json, list[str]]] = []
    reason = "end_turn"
    for part in parts:
        match part:
            case Begin(block):
                blocks.append((block, []))
            case Piece(text):
                blocks[-1][1].append(text)
            case Stop(reason):
                pass
    content = [_whole_block(block, "".join(texts)) for block, texts in blocks]
    usage = {**head["usage"], "output_tokens": sum(len(texts) for _, texts in blocks)}
    return {**head, "content": content, "stop_reason": reason, "usage": usage}


# --- Usage ------------------------------------------------------------------------------------------------


def _prompt(body: Json) -> list[list[Json]]:
    """Return the blocks of the system prompt and of each message."""
    return [_blocks(body.get("system")), *(_blocks(message.get("content")) for message in body["messages"])]


def _canonical(blocks: Iterable[Json]) -> bytes:
    """Return blocks as bytes that stay the same when cache marks move."""
    kept = ({key: value for key, value in block.items() if key != "cache_control"} for block in blocks)
    return b"".join(map(orjson.dumps, kept))


class PromptCache:
    """Imitates prompt caching: knows the longest earlier request that a request begins with."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def usage(self, body: Json) -> Json:
        """Return the input usage, in tokens of four bytes, and remember the request as a prefix.

        The newest message is ``input_tokens``, what came before it is read from the cache or written to it.
        """
        digest = hashlib.blake2b(digest_size=16)
        total = newest = cached = 0
        for blocks in _prompt(body):
            data = _canonical(blocks)
            digest.update(b"%d:%b" % (len(data), data))
            newest = len(data) // 4
            total += newest
            if digest.digest() in self._known:
                cached = total
        self._remember(digest.digest())
        fresh = min(newest, total - cached)
        return {
            "input_tokens": fresh,
            "cache_creation_input_tokens": total - cached - fresh,
            "cache_read_input_tokens": cached,
        }

    def _remember(self, key: bytes) -> None:
        self._known[key] = None
        self._known.move_to_end(key)
        if len(self._known) > PREFIXES_KEPT:
            self._known.popitem(last=False)


# --- The application --------------------------------------------------------------------------------------


class ClientGoneError(Exception):
    """The client went away before the end of the answer."""


class CutConnectionError(Exception):
    """Raised out of the application so that the server breaks the connection off in mid-answer."""


class BadRequestError(Exception):
    """The body is not a Messages API request."""


class _Exchange:
    """One HTTP request and its answer."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._left: asyncio.Task[Message] | None = None

    async def body(self) -> bytes:
        """Read the whole body, then watch for the client's leaving."""
        chunks = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            chunks.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        self._left = asyncio.ensure_future(self._receive())
        return b"".join(chunks)

    def close(self) -> None:
        """Stop watching."""
        if self._left:
            self._left.cancel()

    async def wait(self, seconds: float) -> None:
        """Wait, or raise ClientGoneError as soon as the client leaves."""
        if self._left is None:
            await asyncio.sleep(seconds)
        elif (await asyncio.wait({self._left}, timeout=seconds))[0]:
            raise ClientGoneError

    async def start(self, status: int, kind: bytes) -> None:
        """Send status and headers."""
        headers = [(b"content-type", kind), (b"request-id", f"req_{secrets.token_hex(12)}".encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def chunk(self, data: bytes, *, more: bool = True) -> None:
        """Send a part of the body; raise ClientGoneError if nobody reads it any more."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        await asyncio.sleep(0)  # a server's send may never suspend: the watching task has to run
        if more and self._left and self._left.done():
            raise ClientGoneError

    async def json(self, value: object, status: int = 200) -> None:
        """Send a whole JSON answer."""
        await self.start(status, b"application/json")
        await self.chunk(orjson.dumps(value), more=False)

    async def error(self, status: int, message: str | None = None) -> None:
        """Send a whole error answer."""
        await self.json(_error_body(status, message), status)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request as it came: seconds of the monotonic clock, and the decoded body."""

    at: float
    body: Json


def _decode(raw: bytes) -> Json:
    """Return the body of a Messages API request, or raise BadRequestError saying what is wrong."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"The request body is not valid JSON: {error}") from error
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list) or not all(isinstance(item, dict) for item in messages):
        raise BadRequestError("messages: Field required, a list of objects")
    if not messages:
        raise BadRequestError("messages: at least one message is required")
    return {**body}


class OfflineModel:
    """The API as an ASGI application; the instance holds all state."""

    def __init__(self) -> None:
        self.requests: deque[Recorded] = deque(maxlen=REQUESTS_KEPT)
        self.received = 0
        self.active = 0
        self.disconnects = 0
        self._cache = PromptCache()
        self._fired: OrderedDict[bytes, int] = OrderedDict()
        self._routes: dict[tuple[str, str], Callable[[_Exchange], Awaitable[None]]] = {
            ("POST", "/v1/messages"): self._messages,
            ("POST", "/v1/messages/count_tokens"): self._count_tokens,
            ("GET", "/v1/models"): self._models,
            ("GET", "/"): self._alive,
            ("HEAD", "/"): self._alive,
            ("GET", "/_offline/requests"): self._recorded,
            ("DELETE", "/_offline/requests"): self._forget,
            ("GET", "/_offline/stats"): self._stats,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        exchange = _Exchange(receive, send)
        route = self._routes.get((scope["method"], scope["path"]))
        try:
            if route is None:
                await exchange.error(404, f"no such endpoint: {scope['method']} {scope['path']}")
            else:
                await route(exchange)
        except ClientGoneError:
            pass  # nobody is there to be answered
        except BadRequestError as error:
            await exchange.error(400, str(error))
        finally:
            exchange.close()

    async def _messages(self, exchange: _Exchange) -> None:
        body = _decode(await exchange.body())
        self.requests.append(Recorded(time.monotonic(), body))
        self.received += 1
        self.active += 1
        try:
            await self._answer(exchange, read_conversation(body))
        except ClientGoneError:
            self.disconnects += 1
        finally:
            self.active -= 1

    async def _answer(self, exchange: _Exchange, conversation: Conversation) -> None:
        body = conversation.body
        steps = self._reply(conversation)
        if isinstance(steps[0], Fail):
            await exchange.error(steps[0].status, steps[0].message)
            return
        limit = body.get("max_tokens")
        parts = _Composer(conversation).parts(steps)
        if isinstance(limit, int):
            parts = _limited(parts, limit)
        answer = self._stream if body.get("stream") else self._send_whole
        await answer(exchange, parts, self._head(body))

    def _reply(self, conversation: Conversation) -> list[Step]:
        """Return the steps of this reply: up to what ends it, without the faults that are used up."""
        texts = conversation.texts
        newest = texts[-1] if texts else ""
        script = parse_script(newest) or (Say(f"You said: {newest[:200]}"),)
        steps = list(_resolve(script, _offered(conversation.body)))
        reply: list[Step] = []
        for index in range(_resume(steps, conversation.passed), len(steps)):
            step = steps[index]
            if isinstance(step, Fail | Cut) and not self._fires(conversation, index, step.times):
                continue
            reply.append(step)
            if isinstance(step, _ENDINGS):
                break
        return reply or [Say(_NOTHING_LEFT.get("".join(conversation.passed[-1:]), "done"))]

    def _fires(self, conversation: Conversation, index: int, times: int | None) -> bool:
        """Count one more run of a fault and tell whether it's still to happen."""
        if times is None:
            return True
        session = conversation.body.get("metadata")
        key = hashlib.blake2b(orjson.dumps([session, conversation.texts, index]), digest_size=16).digest()
        fired = self._fired.pop(key, 0)
        self._fired[key] = fired + 1
        if len(self._fired) > FAULTS_KEPT:
            self._fired.popitem(last=False)
        return fired < times

    def _head(self, body: Json) -> Json:
        """Return the message without content."""
        return {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": body.get("model"),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self._cache.usage(body),
        }

    async def _stream(self, exchange: _Exchange, parts: Iterable[Part], head: Json) -> None:
        """Send the parts as events, many in one send while nothing makes them wait."""
        encoder = _EventEncoder(head)
        await exchange.start(200, b"text/event-stream; charset=utf-8")
        batch, size = [encoder.start()], 0
        for part in parts:
            if isinstance(part, Pause | Cut):
                await exchange.chunk(b"".join(batch))
                batch, size = [], 0
                await _interlude(exchange, part)
                continue
            batch.append(encoder.encode(part))
            size += len(batch[-1])
            if len(batch) >= BATCH_EVENTS or size >= BATCH_BYTES:
                await exchange.chunk(b"".join(batch))
                batch, size = [], 0
        await exchange.chunk(b"".join(batch), more=False)

    async def _send_whole(self, exchange: _Exchange, parts: Iterable[Part], head: Json) -> None:
        kept = []
        for part in parts:
            match part:
                case Pause(seconds):
                    await exchange.wait(seconds)
                case Fail(status, _, message):
                    await exchange.error(status, message)
                    return
                case Cut():
                    await exchange.start(200, b"application/json")
                    await exchange.chunk(b'{"type":')
                    raise CutConnectionError
                case _:
                    kept.append(part)
        await exchange.json(_whole(head, kept))

    async def _count_tokens(self, exchange: _Exchange) -> None:
        body = _decode(await exchange.body())
        await exchange.json({"input_tokens": sum(len(_canonical(blocks)) // 4 for blocks in _prompt(body))})

    async def _models(self, exchange: _Exchange) -> None:
        created = "2025-01-01T00:00:00Z"
        data = [{"type": "model", "id": it, "display_name": it, "created_at": created} for it in MODELS]
        await exchange.json({"data": data, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]})

    async def _alive(self, exchange: _Exchange) -> None:
        await exchange.json({"status": "ok"})

    async def _recorded(self, exchange: _Exchange) -> None:
        await exchange.json(list(self.requests))

    async def _forget(self, exchange: _Exchange) -> None:
        self.requests.clear()
        await exchange.json({})

    async def _stats(self, exchange: _Exchange) -> None:
        counts = {"requests": self.received, "active": self.active, "disconnects": self.disconnects}
        await exchange.json(counts)


async def _interlude(exchange: _Exchange, part: Pause | Cut) -> None:
    """Wait with a ping each second, or break the connection."""
    if isinstance(part, Cut):
        raise CutConnectionError
    left = part.seconds
    while left > PING_SECONDS:
        await exchange.wait(PING_SECONDS)
        await exchange.chunk(PING)
        left -= PING_SECONDS
    await exchange.wait(left)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


# --- The command ------------------------------------------------------------------------------------------


def main() -> None:
    """Serve on 127.0.0.1 until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        prog="python -m claude_coded.offline", description="A scripted Messages API."
    )
    parser.add_argument("--port", type=int, default=0, help="TCP port of 127.0.0.1; 0 chooses a free one")
    asyncio.run(_serve(parser.parse_args().port))


async def _serve(port: int) -> None:
    listener = Listener(OfflineModel(), bind_tcp("127.0.0.1", port))
    logging.getLogger("_granian").setLevel(logging.CRITICAL)  # a cut connection is no news
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    serving = asyncio.ensure_future(listener.serve())
    await listener.started()
    sys.stdout.write(f"listening on {listener.address}\n")
    sys.stdout.flush()
    await told.wait()
    listener.stop()
    await asyncio.wait({serving}, timeout=STOP_SECONDS)
    os._exit(0)  # replies that hang are cut; and an ordinary exit may abort in the server's native threads


if __name__ == "__main__":
    main()
