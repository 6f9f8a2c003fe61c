"""Answers: AnswerEvents -> the chunks of a stream, or their completion."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import Struct

from claude_coded.openai.wire import DONE, encode, error_event, usage_object
from claude_coded.turn import (
    AnswerEvent,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
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


class Envelope(Struct, frozen=True):
    """What all chunks of an answer, or its completion, share. `created` in Unix seconds.

    `functions`: the client knows the deprecated `function_call` only, of which an answer has one at most.
    """

    id: str
    created: int
    model: str
    functions: bool = False

    def finish(self, reason: FinishReason) -> str:
        """Return the `finish_reason`."""
        if self.functions and reason is FinishReason.TOOL_CALLS:
            return "function_call"
        return FINISH[reason]


class ChunkEncoder:
    """Encodes a stream's events. The parts of a delta that never change are encoded once."""

    def __init__(self, envelope: Envelope, *, include_usage: bool) -> None:
        self._envelope = envelope
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
        self._function = self._delta + b'{"function_call":'

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
            case ToolCallStarted() | ToolCallDelta():
                return self._function_call(event) if self._envelope.functions else self._tool_call(event)
            case TurnFinished(reason, usage):
                return self._finish(reason, usage)
            case TurnFailed(error):
                return error_event(error)

    def _tool_call(self, event: ToolCallStarted | ToolCallDelta) -> bytes:
        made: dict[str, Any] = {"index": event.index}
        if isinstance(event, ToolCallStarted):
            made |= {"id": event.id, "type": "function"}
        made["function"] = _piece(event)
        return self._calls + encode(made) + b"]}" + self._open_end

    def _function_call(self, event: ToolCallStarted | ToolCallDelta) -> bytes:
        return self._function + encode(_piece(event)) + b"}" + self._open_end if event.index == 0 else b""

    def _finish(self, reason: FinishReason, usage: Usage) -> bytes:
        last = b'{},"logprobs":null,"finish_reason":' + encode(self._envelope.finish(reason)) + b"}]"
        last += self._close_end
        if not self._include_usage:
            return self._delta + last + DONE
        counts = self._head + b',"choices":[],"usage":' + encode(usage_object(usage)) + b"}\n\n"
        return self._delta + last + counts + DONE


def _piece(event: ToolCallStarted | ToolCallDelta) -> dict[str, str]:
    """Return what a chunk tells of a function that is called."""
    if isinstance(event, ToolCallStarted):
        return {"name": event.name, "arguments": ""}
    return {"arguments": event.arguments}


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
            message.update(self._called())
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": self.envelope.finish(reason),
        }
        return {
            "id": self.envelope.id,
            "object": "chat.completion",
            "created": self.envelope.created,
            "model": self.envelope.model,
            "choices": [choice],
            "usage": usage_object(usage),
        }

    def _called(self) -> dict[str, Any]:
        """Return the field of the message that holds what it calls."""
        calls = [(id_, {"name": name, "arguments": "".join(pieces)}) for id_, name, pieces in self._calls]
        if self.envelope.functions:
            return {"function_call": calls[0][1]}
        return {
            "tool_calls": [{"id": id_, "type": "function", "function": function} for id_, function in calls]
        }
