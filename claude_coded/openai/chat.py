"""Chat completions: a request -> a TurnRequest's parts; TurnEvents -> chunks, or the completion they make."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from claude_coded.errors import InvalidRequest, UnsupportedParameter
from claude_coded.openai.fields import review
from claude_coded.openai.wire import DONE, decode, encode, error_event, usage_object
from claude_coded.turn import (
    FinishReason,
    Message,
    ReasoningDelta,
    Role,
    TextDelta,
    ToolActivity,
    TurnEvent,
    TurnFailed,
    TurnFinished,
    Usage,
)

FINISH: Final[Mapping[FinishReason, str]] = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.REFUSAL: "content_filter",
}


class Part(Struct, frozen=True):
    """A content part."""

    type: str
    text: str | None = None


class ChatMessage(Struct, frozen=True):
    """A message as a client sends it; fields that are not known are let be."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    tool_calls: list[Any] | None = None
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


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request. `conversation` is the model's suffix, if it has one."""

    model: str
    conversation: str | None
    system: str | None
    messages: tuple[Message, ...]
    stream: bool
    include_usage: bool
    ignored: list[str]


_BODY: Final = msgspec.json.Decoder(ChatBody)
_FIELDS: Final = msgspec.json.Decoder(dict[str, Any])
_TEXT_PARTS: Final = {"text", "input_text", "output_text", "refusal"}


def parse_chat(body: bytes) -> ChatRequest:
    """Return the request. Raises InvalidRequest and UnsupportedParameter that name the parameter."""
    fields = decode(body, _FIELDS)
    chat = decode(body, _BODY)
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
    )


def _history(given: list[ChatMessage]) -> tuple[str | None, tuple[Message, ...]]:
    """Return the system text and the messages, which end with the user's."""
    if not given:
        raise InvalidRequest("at least one message is needed", param="messages")
    system: list[str] = []
    messages: list[Message] = []
    for index, message in enumerate(given):
        place = f"messages[{index}]"
        text = _text(message, place)
        if message.role in {"system", "developer"}:
            system.append(text)
        elif message.role == "assistant":
            if text:
                messages.append(Message(Role.ASSISTANT, text))
        else:
            if not text.strip():
                raise InvalidRequest("a user message must not be empty", param=f"{place}.content")
            messages.append(Message(Role.USER, text))
    if not messages or messages[-1].role is not Role.USER:
        raise InvalidRequest("the last message must be the user's", param=f"messages[{len(given) - 1}].role")
    return "\n\n".join(system) if system else None, tuple(messages)


def _text(message: ChatMessage, place: str) -> str:
    if message.role in {"tool", "function"}:
        raise UnsupportedParameter("tool results are not supported", param=f"{place}.role")
    if message.tool_calls or message.function_call:
        raise UnsupportedParameter("tool calls are not supported", param=f"{place}.tool_calls")
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    texts = []
    for index, part in enumerate(message.content):
        if part.type not in _TEXT_PARTS:
            raise UnsupportedParameter(
                f"content of type {part.type!r} is not supported", param=f"{place}.content[{index}].type"
            )
        if part.text is None:
            raise InvalidRequest("a text part has a text", param=f"{place}.content[{index}].text")
        texts.append(part.text)
    return "\n".join(texts)


# Answers -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all chunks of an answer, or its completion, share. `created` in Unix seconds."""

    id: str
    created: int
    model: str


@dataclass(slots=True)
class Activity:
    """Puts Claude's own tool use into words, each on a line of its own; `where` is the setting's value."""

    where: str
    _at_line_start: bool = True

    def say(self, event: ToolActivity) -> str:
        """Return the line, with a line end before it where the text so far has none."""
        what = f"{event.name} failed: {event.failure}" if event.failure is not None else event.name
        line = f"[{what}] {event.summary}".rstrip() + "\n"
        start = "" if self._at_line_start else "\n"
        self._at_line_start = True
        return start + line

    def note(self, text: str) -> None:
        """Take note of other text in the same place."""
        self._at_line_start = text.endswith("\n")


def plain(events: Iterable[TurnEvent], activity: Activity) -> Iterable[TurnEvent]:
    """Yield the events with tool activity turned into text or reasoning, or left out."""
    shown: Mapping[str, type[TextDelta | ReasoningDelta]] = {
        "content": TextDelta,
        "reasoning": ReasoningDelta,
    }
    kind = shown.get(activity.where)
    for event in events:
        if isinstance(event, ToolActivity):
            if kind is not None:
                yield kind(activity.say(event))
            continue
        if isinstance(event, TextDelta | ReasoningDelta) and kind is not None and isinstance(event, kind):
            activity.note(event.text)
        yield event


class ChunkEncoder:
    """Encodes a stream's events. The parts of a delta that never change are encoded once."""

    def __init__(self, envelope: Envelope, activity: str, *, include_usage: bool) -> None:
        self._activity = Activity(activity)
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

    def start(self) -> bytes:
        """Return the first chunk: the role, once."""
        return self._delta + b'{"role":"assistant","content":""}' + self._open_end

    def encode(self, events: Iterable[TurnEvent]) -> bytes:
        """Return the chunks of some events, each an event of its own."""
        return b"".join(map(self._one, plain(events, self._activity)))

    def _one(self, event: TurnEvent) -> bytes:
        match event:
            case TextDelta(text):
                return self._content + encode(text) + b"}" + self._open_end
            case ReasoningDelta(text):
                return self._reasoning + encode(text) + b"}" + self._open_end
            case TurnFinished(reason, usage):
                return self._finish(reason, usage)
            case TurnFailed(error):
                return error_event(error)
            case ToolActivity():
                raise AssertionError("tool activity was put into words before")

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
    activity: Activity
    _content: list[str] = field(default_factory=list)
    _reasoning: list[str] = field(default_factory=list)

    def add(self, events: Iterable[TurnEvent]) -> dict[str, Any] | None:
        """Take in some events; return the completion at the turn's end. Raises a failed turn's error."""
        for event in plain(events, self.activity):
            match event:
                case TextDelta(text):
                    self._content.append(text)
                case ReasoningDelta(text):
                    self._reasoning.append(text)
                case TurnFinished(reason, usage):
                    return self._object(reason, usage)
                case TurnFailed(error):
                    raise error
                case ToolActivity():
                    raise AssertionError("tool activity was put into words before")
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
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": FINISH[reason]}
        return {
            "id": self.envelope.id,
            "object": "chat.completion",
            "created": self.envelope.created,
            "model": self.envelope.model,
            "choices": [choice],
            "usage": usage_object(usage),
        }
