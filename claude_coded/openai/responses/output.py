"""What a turn answers, as a response: AnswerEvents -> its items, its events, and the object at its end.

The order of events is OpenAI's: each item is added, grows by its deltas, and is done, one after the other.
`sequence_number` counts all events of a response, from 0 and with no gap.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from msgspec import Struct

from claude_coded.errors import CodedError
from claude_coded.openai.responses.request import ResponseRequest
from claude_coded.openai.responses.tools import CUSTOM_INPUT, Named
from claude_coded.openai.wire import DONE, encode
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

Json = dict[str, Any]

IN_PROGRESS: Final = "in_progress"
COMPLETED: Final = "completed"
INCOMPLETE: Final = "incomplete"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"

INCOMPLETE_REASONS: Final[Mapping[FinishReason, str]] = {
    FinishReason.LENGTH: "max_output_tokens",
    FinishReason.REFUSAL: "content_filter",
}

ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
"""The types of the events that end a stream."""

ERROR_CODES: Final = frozenset({"rate_limit_exceeded", "context_length_exceeded"})
"""The codes of ours that a failed response may have. The second is none of OpenAI's specification, but what
its servers say and clients act on."""

REPEATED: Final[Mapping[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_p": 1.0,
    "truncation": "disabled",
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "store": True,
}
"""The fields of a request that its response repeats, with what they are where they were not sent."""


class Head(Struct, frozen=True):
    """What all of a response's events share. `serial` is unique, `created` in Unix seconds."""

    serial: str
    created: int
    conversation: str
    request: ResponseRequest

    @property
    def id(self) -> str:
        """Return the response's id."""
        return response_id(self.serial)

    def body(self, status: str, output: list[Json], **more: object) -> Json:
        """Return the response object."""
        fields = self.request.fields
        repeated = {
            name: fields[name] if fields.get(name) is not None else default
            for name, default in REPEATED.items()
        }
        reasoning, text = fields.get("reasoning") or {}, fields.get("text") or {}
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": None,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": self.request.model,
            "output": output,
            "conversation": {"id": self.conversation},
            "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
            "text": {
                "format": text.get("format") or {"type": "text"},
                "verbosity": text.get("verbosity") or "medium",
            },
            "tools": [_tool(tool) for tool in fields.get("tools") or ()],
            "service_tier": "default",
            "usage": usage_object(Usage()),  # of one that has not ended: null is not in the specification
            **repeated,
            **({"user": fields["user"]} if fields.get("user") else {}),
            **more,
        }


def response_id(serial: str) -> str:
    """Return the id of a response."""
    return f"resp_{serial}"


def _tool(tool: Mapping[str, Any]) -> Json:
    """Return a tool as it is repeated: with the fields that a response's has to have."""
    match tool.get("type"):
        case "function":
            return {"description": None, "parameters": None, **tool, "strict": bool(tool.get("strict"))}
        case "custom":
            return {"format": {"type": "text"}, **tool}
        case _:
            return dict(tool)


class Event(Struct, frozen=True):
    """An event of the stream, without its number."""

    type: str
    fields: Json


class Output:
    """The items of a response as they come: one is open at a time."""

    def __init__(self, head: Head) -> None:
        self.ended: list[Json] = []
        self._head = head
        self._open: _Message | _Reasoning | _Call | None = None

    def add(self, event: TextDelta | ReasoningDelta | ToolCallStarted | ToolCallDelta) -> Iterator[Event]:
        """Take in a piece of the answer; yield the events that tell of it."""
        match event:
            case TextDelta(text):
                if not isinstance(self._open, _Message):
                    yield from self._begin(_Message(self._head.serial, self._next))
                assert isinstance(self._open, _Message)
                yield self._open.grow(text)
            case ReasoningDelta(text):
                if not isinstance(self._open, _Reasoning):
                    encrypted = self._head.request.encrypted
                    yield from self._begin(_Reasoning(self._head.serial, self._next, encrypted=encrypted))
                assert isinstance(self._open, _Reasoning)
                yield self._open.grow(text)
            case ToolCallStarted(_, call, name):
                named = self._head.request.toolbox.names.get(name, Named(name))
                yield from self._begin(_Call(self._head.serial, self._next, call, named))
            case ToolCallDelta(_, arguments):
                assert isinstance(self._open, _Call), "a call's arguments come before anything else"
                if (grown := self._open.grow(arguments)) is not None:
                    yield grown

    def end(self, *, cut: bool = False) -> Iterator[Event]:
        """End the item that is open; it is incomplete if it was cut."""
        if self._open is not None:
            item = self._open.item(INCOMPLETE if cut else COMPLETED)
            yield from self._open.done(item)
            yield Event("response.output_item.done", {"output_index": self._open.index, "item": item})
            self.ended.append(item)
            self._open = None

    def so_far(self) -> list[Json]:
        """Return the items, the open one as far as it has come."""
        return [*self.ended, *([self._open.item(INCOMPLETE)] if self._open is not None else [])]

    @property
    def _next(self) -> int:
        """Return the number of the item that comes next."""
        return len(self.ended) + (self._open is not None)

    def _begin(self, item: "_Message | _Reasoning | _Call") -> Iterator[Event]:
        yield from self.end()
        self._open = item
        yield Event(
            "response.output_item.added", {"output_index": item.index, "item": item.item(IN_PROGRESS)}
        )
        yield from item.begun()


class _Message:
    """A message that grows."""

    def __init__(self, serial: str, index: int) -> None:
        self.index = index
        self._at = {"item_id": f"msg_{serial}_{index}", "output_index": index, "content_index": 0}
        self._pieces: list[str] = []

    def item(self, status: str) -> Json:
        content = [] if status == IN_PROGRESS else [self._part()]
        return {
            "id": self._at["item_id"],
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def begun(self) -> Iterator[Event]:
        yield Event("response.content_part.added", {**self._at, "part": self._part()})

    def grow(self, text: str) -> Event:
        self._pieces.append(text)
        return Event("response.output_text.delta", {**self._at, "delta": text, "logprobs": []})

    def done(self, _: Json) -> Iterator[Event]:
        part = self._part()
        yield Event("response.output_text.done", {**self._at, "text": part["text"], "logprobs": []})
        yield Event("response.content_part.done", {**self._at, "part": part})

    def _part(self) -> Json:
        return {"type": "output_text", "text": "".join(self._pieces), "annotations": [], "logprobs": []}


class _Reasoning:
    """Reasoning that grows: a summary of one part.

    What is `encrypted` holds nothing: a client may keep it and send it back, as it does with OpenAI's.
    """

    def __init__(self, serial: str, index: int, *, encrypted: bool) -> None:
        self.index = index
        self._encrypted = encrypted
        self._id = f"rs_{serial}_{index}"
        self._at = {"item_id": self._id, "output_index": index, "summary_index": 0}
        self._pieces: list[str] = []

    def item(self, status: str) -> Json:
        summary = [] if status == IN_PROGRESS else [self._part()]
        item = {"id": self._id, "type": "reasoning", "summary": summary, "status": status}
        return {**item, "encrypted_content": self._id} if self._encrypted else item

    def begun(self) -> Iterator[Event]:
        yield Event("response.reasoning_summary_part.added", {**self._at, "part": self._part()})

    def grow(self, text: str) -> Event:
        self._pieces.append(text)
        return Event("response.reasoning_summary_text.delta", {**self._at, "delta": text})

    def done(self, _: Json) -> Iterator[Event]:
        part = self._part()
        yield Event("response.reasoning_summary_text.done", {**self._at, "text": part["text"]})
        yield Event("response.reasoning_summary_part.done", {**self._at, "part": part})

    def _part(self) -> Json:
        return {"type": "summary_text", "text": "".join(self._pieces)}


class _Call:
    """A call of a tool of the client's; a custom tool's input is told when it is whole."""

    def __init__(self, serial: str, index: int, call: str, named: Named) -> None:
        self.index = index
        self._call = call
        self._named = named
        self._at = {"item_id": f"{'ctc' if named.custom else 'fc'}_{serial}_{index}", "output_index": index}
        self._pieces: list[str] = []

    def item(self, status: str) -> Json:
        named = self._named
        item = {
            "id": self._at["item_id"],
            "type": "custom_tool_call" if named.custom else "function_call",
            "call_id": self._call,
            "name": named.name,
            **({"namespace": named.namespace} if named.namespace else {}),
        }
        if named.custom:
            return {**item, "input": "" if status == IN_PROGRESS else self._input()}
        return {**item, "arguments": "".join(self._pieces), "status": status}

    def begun(self) -> Iterator[Event]:
        yield from ()

    def grow(self, piece: str) -> Event | None:
        self._pieces.append(piece)
        if self._named.custom:
            return None
        return Event("response.function_call_arguments.delta", {**self._at, "delta": piece})

    def done(self, item: Json) -> Iterator[Event]:
        if self._named.custom:
            yield Event("response.custom_tool_call_input.delta", {**self._at, "delta": item["input"]})
            yield Event("response.custom_tool_call_input.done", {**self._at, "input": item["input"]})
        else:
            fields = {**self._at, "name": self._named.name, "arguments": item["arguments"]}
            yield Event("response.function_call_arguments.done", fields)

    def _input(self) -> str:
        try:
            arguments = orjson.loads("".join(self._pieces) or "{}")
        except ValueError:  # it was cut
            return ""
        return str(arguments.get(CUSTOM_INPUT, "")) if isinstance(arguments, dict) else ""


@dataclass(slots=True)
class Answer:
    """The response as it comes: its events, and the object that it is at any time."""

    head: Head
    body: Json = field(default_factory=dict)
    turn: int | None = None
    over: bool = False
    _output: Output = field(init=False)

    def __post_init__(self) -> None:
        self._output = Output(self.head)
        self.body = self.head.body(IN_PROGRESS, [])

    def begin(self) -> list[Event]:
        """Return the first events."""
        told = {"response": self.body}
        return [Event("response.created", told), Event("response.in_progress", told)]

    def add(self, events: Iterable[AnswerEvent]) -> list[Event]:
        """Take in some events of the turn; return those that tell of them."""
        told: list[Event] = []
        for event in events:
            match event:
                case TurnFinished() if not self.over:
                    told += self._finish(event)
                case TurnFailed(error) if not self.over:
                    told += self._fail(error)
                case TurnFinished() | TurnFailed():  # it was cancelled
                    told.append(Event("response.failed", {"response": self.body}))
                case _ if not self.over:
                    told += self._output.add(event)
        return told

    def fold(self, events: Iterable[AnswerEvent]) -> None:
        """Take in some events that nobody is told of.

        Raises a failed turn's error, if the response was not cancelled.
        """
        for event in events:
            if isinstance(event, TurnFailed) and not self.over:
                raise event.error
            self.add((event,))

    def snapshot(self) -> Json:
        """Return the response as far as it has come."""
        return self.body if self.over else {**self.body, "output": self._output.so_far()}

    def cancel(self) -> None:
        """End it as cancelled."""
        if not self.over:
            self.over = True
            self.body = self.head.body(CANCELLED, self._output.so_far())

    def _finish(self, end: TurnFinished) -> list[Event]:
        reason = INCOMPLETE_REASONS.get(end.reason)
        told = list(self._output.end(cut=reason is not None))
        status = INCOMPLETE if reason is not None else COMPLETED
        self.body = self.head.body(
            status,
            self._output.ended,
            usage=usage_object(end.usage),
            completed_at=int(end.at) if reason is None else None,
            incomplete_details={"reason": reason} if reason is not None else None,
        )
        self.turn, self.over = end.turn, True
        return [*told, Event(f"response.{status}", {"response": self.body})]

    def _fail(self, error: CodedError) -> list[Event]:
        self.over = True
        code = error.code if error.code in ERROR_CODES else "server_error"
        told = {"code": code, "message": error.message}
        self.body = self.head.body(FAILED, self._output.so_far(), error=told)
        return [Event("response.failed", {"response": self.body})]


class EventEncoder:
    """Encodes a response's events, numbered."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._number = 0

    def start(self) -> bytes:
        """Return the first events."""
        return self._encode(self._answer.begin())

    def encode(self, events: Iterable[AnswerEvent]) -> bytes:
        """Return the events that tell of some of the turn's."""
        told = self._answer.add(events)
        data = self._encode(told)
        return data + DONE if told and told[-1].type in ENDS else data

    def _encode(self, events: Iterable[Event]) -> bytes:
        return b"".join(map(self._one, events))

    def _one(self, event: Event) -> bytes:
        told = {"type": event.type, **event.fields, "sequence_number": self._number}
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (event.type.encode(), encode(told))


def usage_object(usage: Usage) -> Json:
    """Return OpenAI's ResponseUsage; `input_tokens` includes what was read from and put into the cache."""
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }
