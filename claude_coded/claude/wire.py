"""Lines of the CLI's stream-json: framing, and typed messages.

One JSON object a line each way. What is not known is kept as `Unknown`, never fatal: the CLI gains
message types with every release.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

LINE_LIMIT: Final = 128 * 1024 * 1024
"""Longest line in bytes that is kept; images and large tool results make lines of many megabytes."""


class LineTooLong(Exception):
    """The CLI wrote more than LINE_LIMIT bytes without a line end: the stream cannot be trusted any more."""


class LineSplitter:
    """Cuts a byte stream into lines, whatever its chunks."""

    __slots__ = ("_held", "_limit", "_rest")

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._rest: list[bytes] = []
        self._held = 0
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes, without their ends."""
        lines = data.split(b"\n")
        if len(lines) == 1:
            self._hold(data)
            return []
        if self._rest:
            lines[0] = b"".join((*self._rest, lines[0]))
            self._rest.clear()
            self._held = 0
        if tail := lines.pop():
            self._hold(tail)
        return lines

    def _hold(self, data: bytes) -> None:
        self._rest.append(data)
        self._held += len(data)
        if self._held > self._limit:
            self._rest.clear()
            self._held = 0
            raise LineTooLong(f"a line of the CLI exceeds {self._limit} bytes")


# What a turn is made of: Anthropic's streaming events, wrapped by the CLI --------------------------------


class Delta(Struct, frozen=True):
    """The change in a `content_block_delta` or `message_delta`."""

    type: str = ""
    text: str = ""
    thinking: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class Block(Struct, frozen=True):
    """A content block of a message, of any type."""

    type: str
    text: str = ""
    thinking: str = ""
    id: str = ""
    name: str = ""
    input: Any = None
    tool_use_id: str = ""
    is_error: bool | None = None
    content: Any = None


class OutputDetails(Struct, frozen=True):
    """Anthropic's `output_tokens_details`."""

    thinking_tokens: int = 0


class ApiUsage(Struct, frozen=True):
    """Anthropic's usage object."""

    input_tokens: int | None = 0
    output_tokens: int | None = 0
    cache_read_input_tokens: int | None = 0
    cache_creation_input_tokens: int | None = 0
    output_tokens_details: OutputDetails | None = None


class ApiMessage(Struct, frozen=True):
    """A message of Anthropic's Messages API."""

    content: str | list[Block] = ""
    id: str = ""
    model: str = ""
    usage: ApiUsage | None = None

    @property
    def blocks(self) -> list[Block]:
        """Return the content as blocks; a plain string is one text block."""
        if isinstance(self.content, str):
            return [Block("text", text=self.content)] if self.content else []
        return self.content


class ApiEvent(Struct, frozen=True):
    """One event of Anthropic's stream. Only the fields of its type are set."""

    type: str
    delta: Delta | None = None
    message: ApiMessage | None = None
    content_block: Block | None = None
    usage: ApiUsage | None = None


class StreamEvent(Struct, frozen=True, tag="stream_event"):
    """An event of the model's answer; `parent_tool_use_id` names the subagent's call that it belongs to."""

    event: ApiEvent
    parent_tool_use_id: str | None = None


class Assistant(Struct, frozen=True, tag="assistant"):
    """A finished content block of the answer."""

    message: ApiMessage
    uuid: str = ""
    parent_tool_use_id: str | None = None


class User(Struct, frozen=True, tag="user"):
    """A tool result, or (`synthetic`) a line that the CLI added to the history."""

    message: ApiMessage
    uuid: str = ""
    parent_tool_use_id: str | None = None
    synthetic: bool = msgspec.field(name="isSynthetic", default=False)


class Result(Struct, frozen=True, tag="result"):
    """The end of a turn, or (num_turns 0) the receipt of a seeded message."""

    subtype: str = ""
    is_error: bool = False
    result: str | None = None
    structured_output: Any = None
    num_turns: int = 0
    api_error_status: int | None = None
    total_cost_usd: float | None = None
    usage: ApiUsage | None = None
    errors: list[str] = []
    user_message_uuids: list[str] = []


class System(Struct, frozen=True, tag="system"):
    """News of the CLI: init, status, session_state_changed, api_retry, background_tasks_changed, …."""

    subtype: str = ""
    state: str = ""
    attempt: int = 0
    error_status: int | None = None
    tasks: list[Any] | None = None
    user_message_uuids: list[str] = []


class Answer(Struct, frozen=True):
    """What a control request of ours came to."""

    subtype: str
    request_id: str
    response: dict[str, Any] | None = None
    error: str = ""

    @property
    def ok(self) -> bool:
        """Return whether the CLI did it."""
        return self.subtype == "success"


class ControlResponse(Struct, frozen=True, tag="control_response"):
    """An answer to a control request of ours."""

    response: Answer


class ControlRequest(Struct, frozen=True, tag="control_request"):
    """A question of the CLI to its host."""

    request_id: str
    request: dict[str, Any]


class ControlCancel(Struct, frozen=True, tag="control_cancel_request"):
    """The CLI no longer needs the answer to a question of its own."""

    request_id: str


class Unknown(Struct, frozen=True):
    """A message of a type, or a shape, that is not known here."""

    type: str
    raw: bytes


CliMessage = (
    StreamEvent | Assistant | User | Result | System | ControlResponse | ControlRequest | ControlCancel
)
Line = CliMessage | Unknown

_DECODER: Final[msgspec.json.Decoder[CliMessage]] = msgspec.json.Decoder(CliMessage)


class _Kind(Struct):
    type: str | UnsetType = UNSET


_KIND: Final = msgspec.json.Decoder(_Kind)


def parse(line: bytes) -> Line | None:
    """Return the message of a line; None for what is no message at all (a stray print, a blank line)."""
    if not line.startswith(b"{"):
        return None
    try:
        return _DECODER.decode(line)
    except msgspec.ValidationError:
        pass
    except RecursionError:
        return None  # nested as deep as no message is
    except msgspec.DecodeError:
        mended = _mend(line)
        return parse(mended) if mended is not None else None
    try:
        kind = _KIND.decode(line).type
    except (msgspec.DecodeError, RecursionError):
        kind = UNSET
    return Unknown(kind if isinstance(kind, str) else "", line)


def _mend(line: bytes) -> bytes | None:
    """Return the line without halves of surrogate pairs, which JavaScript leaves where it cuts a text."""
    try:
        text = json.dumps(json.loads(line), ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    mended = text.encode(errors="replace")
    return mended if mended != line else None


def messages(splitter: LineSplitter, data: bytes) -> Iterator[Line]:
    """Yield the messages that `data` completes."""
    for line in splitter.feed(data):
        message = parse(line)
        if message is not None:
            yield message
