"""Responses: their events and the object at their end, by OpenAI's schemas and its SDK's types."""

from collections.abc import Sequence
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from claude_coded.errors import CodedError, ContextLengthExceeded, UpstreamRateLimited, WorkerDied
from claude_coded.openai.responses.items import history
from claude_coded.openai.responses.output import Answer, EventEncoder, Head
from claude_coded.openai.responses.request import parse_response
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
from tests.support.schemas import check, check_event

SERIAL = "0123456789abcdef0123456789abcdef"
USAGE = Usage(input=10, output=4, cache_read=6, cache_write=1, reasoning=2)
STREAM_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "name": "get", "parameters": {"type": "object", "properties": {}}},
    {"type": "custom", "name": "patch", "description": "Change files."},
    {"type": "namespace", "name": "git", "description": "", "tools": [{"type": "function", "name": "log"}]},
]


def answer(**fields: Any) -> Answer:
    body = {"model": "claude-code", "input": "hello", "tools": TOOLS, **fields}
    return Answer(Head(SERIAL, 7, "conv-1", parse_response(msgspec.json.encode(body))))


def read(data: bytes) -> list[Any]:
    """Return the events; every one is framed as it has to be, and fits the schema."""
    *told, done, rest = data.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    events = []
    for number, frame in enumerate(told):
        name, _, body = frame.partition("\n")
        event = orjson.loads(body.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        check_event(event)
        STREAM_EVENT.validate_python(event)
        events.append(event)
    return events


def stream(events: Sequence[AnswerEvent], **fields: Any) -> list[Any]:
    encoder = EventEncoder(answer(**fields))
    return read(encoder.start() + encoder.encode(events))


def complete(events: Sequence[AnswerEvent], **fields: Any) -> dict[str, Any]:
    """Return the response, which fits the schema."""
    made = answer(**fields)
    made.fold(events)
    check("Response", made.body, exact=False)
    Response.model_validate(made.body)
    return made.body


def types(events: Sequence[Any]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


# Items -------------------------------------------------------------------------------------------------


def test_text_is_a_message_of_one_part() -> None:
    events = stream([TextDelta("a"), TextDelta("b"), TurnFinished(usage=USAGE, at=9.5)])
    assert types(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    done = events[-1]["response"]
    assert events[0]["response"]["status"] == events[1]["response"]["status"] == "in_progress"
    assert (done["status"], done["completed_at"]) == ("completed", 9)
    assert done["output"] == [events[-2]["item"]]
    assert done["output"][0]["content"] == [
        {"type": "output_text", "text": "ab", "annotations": [], "logprobs": []}
    ]
    assert done["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 1},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 14,
    }


def test_reasoning_is_a_summary_in_an_item_of_its_own() -> None:
    events = stream([ReasoningDelta("hm"), TextDelta("a"), ReasoningDelta("[Bash] ls"), TurnFinished()])
    output = events[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "reasoning"]
    assert [item["summary"][0]["text"] for item in output[::2]] == ["hm", "[Bash] ls"]
    assert all("encrypted_content" not in item for item in output)


def test_reasoning_can_be_had_to_be_sent_back() -> None:
    include = ["reasoning.encrypted_content"]
    output = complete([ReasoningDelta("hm"), TextDelta("a"), TurnFinished()], include=include)["output"]
    assert output[0]["encrypted_content"]
    again = {"model": "m", "input": [*output, {"role": "user", "content": "and?"}]}
    asked = parse_response(msgspec.json.encode(again))
    _, messages = history(asked.items, ())
    assert [message.text for message in messages] == ["a", "and?"]


CALLS: list[AnswerEvent] = [
    ToolCallStarted(0, "toolu_1", "get"),
    ToolCallDelta(0, '{"a"'),
    ToolCallDelta(0, ":1}"),
    ToolCallStarted(1, "toolu_2", "patch"),
    ToolCallDelta(1, '{"inp'),
    ToolCallDelta(1, 'ut":"*** a\\n"}'),
    ToolCallStarted(2, "toolu_3", "git__log"),
    TurnFinished(FinishReason.TOOL_CALLS, USAGE),
]


def test_calls_are_items_by_the_clients_names() -> None:
    events = stream([TextDelta("I look."), *CALLS])
    output = events[-1]["response"]["output"]
    assert events[-1]["type"] == "response.completed"
    ids = [f"fc_{SERIAL}_1", f"ctc_{SERIAL}_2", f"fc_{SERIAL}_3"]
    assert output[1:] == [
        {
            "id": ids[0],
            "type": "function_call",
            "call_id": "toolu_1",
            "name": "get",
            "arguments": '{"a":1}',
            "status": "completed",
        },
        {
            "id": ids[1],
            "type": "custom_tool_call",
            "call_id": "toolu_2",
            "name": "patch",
            "input": "*** a\n",
        },
        {
            "id": ids[2],
            "type": "function_call",
            "call_id": "toolu_3",
            "name": "log",
            "namespace": "git",
            "arguments": "",
            "status": "completed",
        },
    ]
    pieces = [event["delta"] for event in events if "arguments.delta" in event["type"]]
    assert pieces == ['{"a"', ":1}"]


def test_what_is_cut_is_incomplete() -> None:
    body = complete([TextDelta("a"), TurnFinished(FinishReason.LENGTH, USAGE)])
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert body["output"][0]["status"] == "incomplete"
    assert body["completed_at"] is None
    body = complete([TurnFinished(FinishReason.REFUSAL, USAGE)])
    assert body["incomplete_details"] == {"reason": "content_filter"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WorkerDied("gone"), "server_error"),
        (UpstreamRateLimited("slow down"), "rate_limit_exceeded"),
    ],
)
def test_a_failure_is_told_with_what_there_was(error: CodedError, code: str) -> None:
    events = stream([TextDelta("a"), TurnFailed(error)])
    failed = events[-1]["response"]
    assert (failed["status"], failed["error"]) == ("failed", {"code": code, "message": error.message})
    assert failed["output"][0]["content"][0]["text"] == "a"
    with pytest.raises(type(error)):
        complete([TextDelta("a"), TurnFailed(error)])


def test_a_history_too_long_is_told_by_the_code_that_clients_know() -> None:
    encoder = EventEncoder(answer())
    data = encoder.start() + encoder.encode([TurnFailed(ContextLengthExceeded("too long"))])
    assert b'"code":"context_length_exceeded"' in data


def test_a_cancelled_response_stays_so() -> None:
    made = answer()
    encoder = EventEncoder(made)
    data = encoder.start() + encoder.encode([TextDelta("a")])
    made.cancel()
    assert made.snapshot()["status"] == "cancelled"
    events = read(data + encoder.encode([TextDelta("b")]) + encoder.encode([TurnFinished(usage=USAGE)]))
    assert types(events)[-1] == "failed"
    assert events[-1]["response"]["status"] == "cancelled"
    assert made.snapshot()["output"][0]["content"][0]["text"] == "a"


def test_what_was_asked_is_repeated() -> None:
    body = complete(
        [TurnFinished()],
        instructions="be brief",
        metadata={"a": "b"},
        temperature=0.5,
        tool_choice={"type": "function", "name": "get"},
        reasoning={"effort": "high", "summary": "auto"},
        text={"format": {"type": "json_object"}},
        max_output_tokens=99,
        user="me",
        safety_identifier="s",
        prompt_cache_key="k",
    )
    assert (body["instructions"], body["metadata"], body["temperature"]) == ("be brief", {"a": "b"}, 0.5)
    assert body["tool_choice"] == {"type": "function", "name": "get"}
    assert body["tools"][0] == {**TOOLS[0], "description": None, "strict": False}
    assert body["reasoning"] == {"effort": "high", "summary": "auto"}
    assert body["text"]["format"] == {"type": "json_object"}
    assert body["conversation"] == {"id": "conv-1"}


REQUIRED = frozenset(
    {
        "id",
        "object",
        "created_at",
        "completed_at",
        "status",
        "error",
        "incomplete_details",
        "instructions",
        "metadata",
        "model",
        "output",
        "parallel_tool_calls",
        "temperature",
        "tool_choice",
        "tools",
        "top_p",
        "previous_response_id",
        "truncation",
        "text",
        "reasoning",
        "presence_penalty",
        "frequency_penalty",
        "top_logprobs",
        "usage",
        "max_output_tokens",
        "max_tool_calls",
        "store",
        "background",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
    }
)
"""What a response has in the specification of Open Responses, null or not."""


def test_a_response_has_all_fields_at_any_time() -> None:
    events = stream([TextDelta("a"), TurnFinished()])
    bodies = [event["response"] for event in events if "response" in event]
    assert len(bodies) == 3
    assert all(body.keys() >= REQUIRED for body in bodies)


# Any order ---------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@st.composite
def turns(draw: st.DrawFn) -> list[AnswerEvent]:
    """Return what a turn may tell: pieces in any order, a call's right after its start, and an end."""
    events: list[AnswerEvent] = []
    for _ in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(["text", "reasoning", "call"]))
        if kind == "call":
            number = sum(isinstance(event, ToolCallStarted) for event in events)
            name = draw(st.sampled_from(["get", "patch", "git__log"]))
            events.append(ToolCallStarted(number, f"toolu_{number}", name))
            arguments = orjson.dumps({"input": draw(TEXTS)}).decode()
            at = draw(st.integers(0, len(arguments)))
            events += [ToolCallDelta(number, arguments[:at]), ToolCallDelta(number, arguments[at:])]
        else:
            events.append((TextDelta if kind == "text" else ReasoningDelta)(draw(TEXTS)))
    ends: list[AnswerEvent] = [
        TurnFailed(WorkerDied("gone")),
        *(TurnFinished(reason, USAGE) for reason in FinishReason),
    ]
    return [*events, draw(st.sampled_from(ends))]


@settings(max_examples=50)
@given(turns(), st.data())
def test_any_turn_gives_a_legal_sequence(events: list[AnswerEvent], data: st.DataObject) -> None:
    encoder = EventEncoder(answer())
    sent = encoder.start()
    at = data.draw(st.integers(0, len(events) - 1))
    for batch in (events[:at], events[at:]):
        sent += encoder.encode(batch)
    told = read(sent)
    open_items: dict[int, str] = {}
    grown: dict[str, str] = {}
    ended: list[Any] = []
    for event in told[2:-1]:
        kind, index = event["type"].removeprefix("response."), event["output_index"]
        if kind == "output_item.added":
            assert index == len(ended) + len(open_items)
            assert not open_items
            open_items[index] = event["item"]["id"]
        elif kind == "output_item.done":
            assert event["item"]["id"] == open_items.pop(index)
            ended.append(event["item"])
        else:
            assert event["item_id"] == open_items[index]
            grown[event["item_id"]] = grown.get(event["item_id"], "") + event.get("delta", "")
    assert told[-1]["type"].removeprefix("response.") in {"completed", "incomplete", "failed"}
    output = told[-1]["response"]["output"]
    if told[-1]["type"] != "response.failed":
        assert not open_items
        assert output == ended
    for item in output:
        assert _text(item) == grown.get(item["id"], "") or item["type"] == "custom_tool_call"


def _text(item: dict[str, Any]) -> str:
    match item["type"]:
        case "message":
            return str(item["content"][0]["text"])
        case "reasoning":
            return str(item["summary"][0]["text"])
        case _:
            return str(item.get("arguments", item.get("input")))


@settings(max_examples=25)
@given(turns())
def test_streamed_and_not_are_the_same(events: list[AnswerEvent]) -> None:
    if isinstance(events[-1], TurnFailed):
        return
    assert stream(events)[-1]["response"] == complete(events)
