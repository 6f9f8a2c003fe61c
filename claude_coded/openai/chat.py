"""Chat completions: a request -> a TurnRequest's parts; AnswerEvents -> chunks, or their completion."""

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from claude_coded.errors import InvalidRequest, UnsupportedParameter
from claude_coded.openai.fields import review
from claude_coded.openai.wire import DONE, convert, decode, encode, error_event, usage_object
from claude_coded.turn import (
    AnswerEvent,
    FinishReason,
    Image,
    Message,
    Part,
    ReasoningDelta,
    Role,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
    ToolOutcome,
    TurnFailed,
    TurnFinished,
    Usage,
)

FINISH: Final[Mapping[FinishReason, str]] = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.TOOL_CALLS: "tool_calls",
    FinishReason.REFUSAL: "content_filter",
}


class ImageUrl(Struct, frozen=True):
    """OpenAI's `image_url` object."""

    url: str


class ContentPart(Struct, frozen=True):
    """A content part."""

    type: str
    text: str | None = None
    image_url: ImageUrl | None = None


class FunctionCall(Struct, frozen=True):
    """What a call calls; `arguments` is JSON text."""

    name: str
    arguments: str = ""


class Call(Struct, frozen=True):
    """A tool call of the assistant."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class ChatMessage(Struct, frozen=True):
    """A message as a client sends it; fields that are not known are let be."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    function_call: Any = None


class StreamOptions(Struct, frozen=True):
    """OpenAI's `stream_options`."""

    include_usage: bool | None = None


class ChatBody(Struct, frozen=True):
    """The fields that are honoured."""

    model: str
    messages: list[ChatMessage]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = None
    user: str | None = None
    prompt_cache_key: str | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request. `conversation` is the model's suffix, if it has one.

    `hint` tells apart who asks, where equal histories have to be told apart; `store` false leaves nothing.
    """

    model: str
    conversation: str | None
    system: str | None
    messages: tuple[Message, ...]
    stream: bool
    include_usage: bool
    ignored: list[str]
    hint: str
    store: bool


_FIELDS: Final = msgspec.json.Decoder(dict[str, Any])
_DATA_URL: Final = re.compile(r"data:(image/(?:png|jpeg|gif|webp));base64,([A-Za-z0-9+/=]+)")
_TEXT_PARTS: Final = {"text", "input_text", "output_text", "refusal"}


def parse_chat(body: bytes) -> ChatRequest:
    """Return the request. Raises InvalidRequest and UnsupportedParameter that name the parameter."""
    fields = decode(body, _FIELDS)
    chat = convert(fields, ChatBody)
    ignored = review(fields)
    model, colon, suffix = chat.model.partition(":")
    if not model:
        raise InvalidRequest("a model is needed", param="model")
    system, messages = _history(chat.messages)
    options = chat.stream_options or StreamOptions()
    return ChatRequest(
        model=model,
        conversation=suffix if colon else None,
        system=system,
        messages=messages,
        stream=bool(chat.stream),
        include_usage=bool(options.include_usage),
        ignored=ignored,
        hint=chat.prompt_cache_key or chat.user or "",
        store=chat.store is not False,
    )


def _history(given: list[ChatMessage]) -> tuple[str | None, tuple[Message, ...]]:
    """Return the system text and the messages, which end with the user's."""
    if not given:
        raise InvalidRequest("at least one message is needed", param="messages")
    system: list[str] = []
    messages: list[Message] = []
    calls = _Calls()
    for index, message in enumerate(given):
        place = f"messages[{index}]"
        if message.role in {"system", "developer"}:
            system.append("\n".join(_texts(message, place)))
        elif message.role == "tool":
            _add_outcome(messages, calls.answer(message, place))
        else:
            calls.check_answered()
            if parts := _parts(message, place):
                calls.note(message, place)
                role = Role.ASSISTANT if message.role == "assistant" else Role.USER
                messages.append(Message(role, parts))
    calls.check_answered()
    if not messages or messages[-1].role is not Role.USER:
        raise InvalidRequest("the last message must be the user's", param=f"messages[{len(given) - 1}].role")
    return "\n\n".join(system) if system else None, tuple(messages)


class _Calls:
    """The calls that wait for their outcomes: each has to come, in the messages right after the call."""

    def __init__(self) -> None:
        self._open: dict[str, str] = {}  # id -> where it was made

    def note(self, message: ChatMessage, place: str) -> None:
        self._open = {call.id: place for call in message.tool_calls or ()}

    def answer(self, message: ChatMessage, place: str) -> ToolOutcome:
        if message.tool_call_id is None or self._open.pop(message.tool_call_id, None) is None:
            raise InvalidRequest(
                f"no call {message.tool_call_id!r} of the assistant message before waits for a result",
                param=f"{place}.tool_call_id",
            )
        parts = tuple(part for part in _content(message, place) if isinstance(part, Text | Image))
        return ToolOutcome(message.tool_call_id, parts)

    def check_answered(self) -> None:
        if self._open:
            missing = ", ".join(self._open)
            place = next(iter(self._open.values()))
            raise InvalidRequest(f"these tool calls have no results: {missing}", param=f"{place}.tool_calls")


def _add_outcome(messages: list[Message], outcome: ToolOutcome) -> None:
    """Add a tool's outcome; those of one reply make one message."""
    last = messages[-1] if messages else None
    if last is not None and last.role is Role.USER and isinstance(last.parts[-1], ToolOutcome):
        messages[-1] = Message(Role.USER, (*last.parts, outcome))
    else:
        messages.append(Message(Role.USER, (outcome,)))


def _parts(message: ChatMessage, place: str) -> tuple[Part, ...]:
    """Return a user's or assistant's content; an assistant's may be empty, and is then nothing."""
    if message.role == "function" or message.function_call:
        raise UnsupportedParameter("functions are not supported; use tools", param=f"{place}.function_call")
    parts = [part for part in _content(message, place) if not _is_blank(part)]
    if message.role == "user" and not parts:
        raise InvalidRequest("a user message must not be empty", param=f"{place}.content")
    if message.tool_calls:
        parts += [_call(call, f"{place}.tool_calls[{n}]") for n, call in enumerate(message.tool_calls)]
    return tuple(parts)


def _is_blank(part: Part) -> bool:
    return isinstance(part, Text) and (not part.text or part.text.isspace())


def _call(call: Call, place: str) -> ToolCall:
    try:
        arguments = msgspec.json.decode(call.function.arguments or "{}")
    except msgspec.DecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidRequest("arguments are the JSON text of an object", param=f"{place}.function.arguments")
    return ToolCall(call.id, call.function.name, call.function.arguments or "{}")


def _content(message: ChatMessage, place: str) -> list[Part]:
    if isinstance(message.content, str):
        return [Text(message.content)]
    parts = enumerate(message.content or ())
    return [_content_part(part, message.role, f"{place}.content[{index}]") for index, part in parts]


def _content_part(part: ContentPart, role: str, place: str) -> Part:
    if part.type == "image_url" and role in {"user", "tool"}:
        return _image(part, place)
    if part.type in _TEXT_PARTS:
        return Text(_text(part, place))
    raise UnsupportedParameter(f"content of type {part.type!r} is not supported here", param=f"{place}.type")


def _texts(message: ChatMessage, place: str) -> list[str]:
    return [part.text for part in _content(message, place) if isinstance(part, Text)]


def _text(part: ContentPart, place: str) -> str:
    if part.text is None:
        raise InvalidRequest("a text part has a text", param=f"{place}.text")
    return part.text


def _image(part: ContentPart, place: str) -> Image:
    """Return an image of a data URL (RFC 2397), in a format that the model takes."""
    param = f"{place}.image_url.url"
    url = part.image_url.url if part.image_url is not None else ""
    found = _DATA_URL.fullmatch(url)
    if not url.startswith("data:"):
        raise UnsupportedParameter("images are taken as data URLs only", param=param)
    if found is None:
        raise InvalidRequest(
            "an image's data URL is data:image/png;base64,… with png, jpeg, gif or webp", param=param
        )
    try:
        base64.b64decode(found[2], validate=True)
    except ValueError:
        raise InvalidRequest("the image's data is no base64", param=param) from None
    return Image(found[1], found[2])


# Answers -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all chunks of an answer, or its completion, share. `created` in Unix seconds."""

    id: str
    created: int
    model: str


class ChunkEncoder:
    """Encodes a stream's events. The parts of a delta that never change are encoded once."""

    def __init__(self, envelope: Envelope, *, include_usage: bool) -> None:
        self._include_usage = include_usage
        head = {
            "id": envelope.id,
            "object": "chat.completion.chunk",
            "created": envelope.created,
            "model": envelope.model,
        }
        self._head = b"data: " + encode(head)[:-1]
        usage = b',"usage":null' if include_usage else b""
        self._delta = self._head + b',"choices":[{"index":0,"delta":'
        self._open_end = b',"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"
        self._close_end = usage + b"}\n\n"
        self._content = self._delta + b'{"content":'
        self._reasoning = self._delta + b'{"reasoning_content":'
        self._calls = self._delta + b'{"tool_calls":['

    def start(self) -> bytes:
        """Return the first chunk: the role, once."""
        return self._delta + b'{"role":"assistant","content":""}' + self._open_end

    def encode(self, events: Iterable[AnswerEvent]) -> bytes:
        """Return the chunks of some events, each an event of its own."""
        return b"".join(map(self._one, events))

    def _one(self, event: AnswerEvent) -> bytes:
        match event:
            case TextDelta(text):
                return self._content + encode(text) + b"}" + self._open_end
            case ReasoningDelta(text):
                return self._reasoning + encode(text) + b"}" + self._open_end
            case ToolCallStarted(index, call, name):
                function = {"name": name, "arguments": ""}
                started = {"index": index, "id": call, "type": "function", "function": function}
                return self._calls + encode(started) + b"]}" + self._open_end
            case ToolCallDelta(index, arguments):
                piece = {"index": index, "function": {"arguments": arguments}}
                return self._calls + encode(piece) + b"]}" + self._open_end
            case TurnFinished(reason, usage):
                return self._finish(reason, usage)
            case TurnFailed(error):
                return error_event(error)

    def _finish(self, reason: FinishReason, usage: Usage) -> bytes:
        last = b'{},"logprobs":null,"finish_reason":' + encode(FINISH[reason]) + b"}]" + self._close_end
        if not self._include_usage:
            return self._delta + last + DONE
        counts = self._head + b',"choices":[],"usage":' + encode(usage_object(usage)) + b"}\n\n"
        return self._delta + last + counts + DONE


@dataclass(slots=True)
class Completion:
    """The folded stream."""

    envelope: Envelope
    _content: list[str] = field(default_factory=list)
    _reasoning: list[str] = field(default_factory=list)
    _calls: list[tuple[str, str, list[str]]] = field(default_factory=list)  # id, name, arguments in pieces

    def add(self, events: Iterable[AnswerEvent]) -> dict[str, Any] | None:
        """Take in some events; return the completion at the turn's end. Raises a failed turn's error."""
        for event in events:
            match event:
                case TextDelta(text):
                    self._content.append(text)
                case ReasoningDelta(text):
                    self._reasoning.append(text)
                case ToolCallStarted(_, call, name):
                    self._calls.append((call, name, []))
                case ToolCallDelta(index, arguments):
                    self._calls[index][2].append(arguments)
                case TurnFinished(reason, usage):
                    return self._object(reason, usage)
                case TurnFailed(error):
                    raise error
        return None

    def _object(self, reason: FinishReason, usage: Usage) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(self._content),
            "refusal": None,
            "annotations": [],
        }
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._calls:
            message["content"] = message["content"] or None
            message["tool_calls"] = [
                {"id": call, "type": "function", "function": {"name": name, "arguments": "".join(arguments)}}
                for call, name, arguments in self._calls
            ]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": FINISH[reason]}
        return {
            "id": self.envelope.id,
            "object": "chat.completion",
            "created": self.envelope.created,
            "model": self.envelope.model,
            "choices": [choice],
            "usage": usage_object(usage),
        }
