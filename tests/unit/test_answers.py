"""Answers: chunks and completions, by OpenAI's schemas and by its SDK's types."""

import importlib
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from claude_coded.activity import Activity
from claude_coded.errors import CodedError, UpstreamOverloaded
from claude_coded.openai.answers import ChunkEncoder, Completion, Envelope
from claude_coded.openai.wire import error_event, model_object
from claude_coded.turn import (
    AnswerEvent,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolActivity,
    ToolCallDelta,
    ToolCallStarted,
    TurnEvent,
    TurnFailed,
    TurnFinished,
    Usage,
)
from tests.support.schemas import check

ENVELOPE = Envelope("chatcmpl-1", 7, "claude-code")
DEPRECATED = Envelope("chatcmpl-1", 7, "claude-code", functions=True)
USAGE = Usage(input=10, output=4, cache_read=6, cache_write=1, reasoning=2)


def chunks(data: bytes) -> list[Any]:
    events = data.decode().split("\n\n")
    assert events.pop() == ""
    assert all(event.startswith("data: ") for event in events)
    return [event[6:] if event == "data: [DONE]" else orjson.loads(event[6:]) for event in events]


def stream(events: Sequence[AnswerEvent], *, usage: bool = False, envelope: Envelope = ENVELOPE) -> list[Any]:
    """Return a stream's chunks; every one fits the schema."""
    encoder = ChunkEncoder(envelope, include_usage=usage)
    made = chunks(encoder.start() + encoder.encode(events))
    for chunk in made:
        if isinstance(chunk, dict) and "error" in chunk:
            check("ErrorResponse", chunk)
        elif chunk != "[DONE]":
            check("CreateChatCompletionStreamResponse", chunk)
            ChatCompletionChunk.model_validate(chunk)
    return made


def complete(events: Sequence[AnswerEvent], envelope: Envelope = ENVELOPE) -> dict[str, Any]:
    """Return the completion, which fits the schema, and its choice."""
    made = Completion(envelope).add(events)
    assert made is not None
    check("CreateChatCompletionResponse", made)
    ChatCompletion.model_validate(made)
    (choice,) = made["choices"]
    assert isinstance(choice, dict)
    return choice


def deltas(made: list[Any]) -> list[dict[str, Any]]:
    return [
        chunk["choices"][0]["delta"] for chunk in made if isinstance(chunk, dict) and chunk.get("choices")
    ]


def test_a_stream() -> None:
    made = stream([ReasoningDelta("hm"), TextDelta("a\n"), TextDelta('"b"'), TurnFinished(usage=USAGE)])
    assert deltas(made) == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "hm"},
        {"content": "a\n"},
        {"content": '"b"'},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in made[:-1]] == [None] * 4 + ["stop"]
    assert made[-1] == "[DONE]"
    assert {(c["id"], c["created"], c["model"], c["object"]) for c in made[:-1]} == {
        ("chatcmpl-1", 7, "claude-code", "chat.completion.chunk")
    }
    assert all("usage" not in chunk for chunk in made[:-1])


def test_usage_comes_last_when_asked_for() -> None:
    made = stream([TextDelta("a"), TurnFinished(usage=USAGE)], usage=True)
    assert [chunk["usage"] for chunk in made[:-2]] == [None] * 3
    assert made[-2]["choices"] == []
    usage = made[-2]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (10, 4, 14)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 6
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 2
    assert made[-1] == "[DONE]"


def test_an_error_in_a_stream_is_an_event_and_the_last() -> None:
    made = stream([TextDelta("a"), TurnFailed(UpstreamOverloaded("too much"))])
    assert made[-1] == {
        "error": {"message": "too much", "type": "server_error", "param": None, "code": "overloaded"}
    }


@pytest.mark.parametrize(
    ("where", "content", "reasoning"),
    [
        ("reasoning", "ab", "hm\n[Bash] ls\n[Bash failed: exit 1]\n"),
        ("content", "a\n[Bash] ls\n[Bash failed: exit 1]\nb", "hm"),
        ("off", "ab", "hm"),
    ],
)
def test_tool_activity_shows_where_the_setting_says(where: str, content: str, reasoning: str) -> None:
    events: list[TurnEvent] = [
        ReasoningDelta("hm"),
        TextDelta("a"),
        ToolActivity("Bash", "ls"),
        ToolActivity("Bash", "", failure="exit 1"),
        TextDelta("b"),
        TurnFinished(),
    ]
    activity = Activity(where)
    made = deltas(stream(activity.show(events)))
    assert "".join(delta.get("content", "") for delta in made) == content
    assert "".join(delta.get("reasoning_content", "") for delta in made) == reasoning
    assert activity.used == 1


def test_a_completion() -> None:
    completion = Completion(ENVELOPE)
    assert completion.add([ReasoningDelta("hm"), TextDelta("a")]) is None
    made = completion.add([TextDelta("b"), TurnFinished(FinishReason.REFUSAL, USAGE)])
    assert made is not None
    assert made["object"] == "chat.completion"
    assert made["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "ab",
                "refusal": None,
                "annotations": [],
                "reasoning_content": "hm",
            },
            "logprobs": None,
            "finish_reason": "content_filter",
        }
    ]
    assert made["usage"]["total_tokens"] == 14


def test_a_failed_turn_is_no_completion() -> None:
    with pytest.raises(UpstreamOverloaded):
        Completion(ENVELOPE).add([TextDelta("a"), TurnFailed(UpstreamOverloaded("x"))])


# Calls -------------------------------------------------------------------------------------------------

CALLS: list[AnswerEvent] = [
    TextDelta("so"),
    ToolCallStarted(0, "call_a", "get.it"),
    ToolCallDelta(0, '{"x"'),
    ToolCallDelta(0, ":1}"),
    ToolCallStarted(1, "call_b", "g"),
    ToolCallDelta(1, "{}"),
    TurnFinished(FinishReason.TOOL_CALLS, USAGE),
]


def test_streamed_calls() -> None:
    made = stream(CALLS)
    assert [delta.get("tool_calls") for delta in deltas(made)[2:-1]] == [
        [{"index": 0, "id": "call_a", "type": "function", "function": {"name": "get.it", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": '{"x"'}}],
        [{"index": 0, "function": {"arguments": ":1}"}}],
        [{"index": 1, "id": "call_b", "type": "function", "function": {"name": "g", "arguments": ""}}],
        [{"index": 1, "function": {"arguments": "{}"}}],
    ]
    assert made[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_calls_of_a_completion() -> None:
    choice = complete(CALLS)
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "so"
    assert choice["message"]["tool_calls"] == [
        {"id": "call_a", "type": "function", "function": {"name": "get.it", "arguments": '{"x":1}'}},
        {"id": "call_b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert complete(CALLS[1:])["message"]["content"] is None


def test_to_functions_the_answer_is_a_function_call() -> None:
    made = stream(CALLS, envelope=DEPRECATED)
    assert deltas(made) == [
        {"role": "assistant", "content": ""},
        {"content": "so"},
        {"function_call": {"name": "get.it", "arguments": ""}},
        {"function_call": {"arguments": '{"x"'}},
        {"function_call": {"arguments": ":1}"}},
        {},
    ]
    assert made[-2]["choices"][0]["finish_reason"] == "function_call"
    choice = complete(CALLS, DEPRECATED)
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "get.it", "arguments": '{"x":1}'}
    assert "tool_calls" not in choice["message"]


# Schemas -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        (FinishReason.STOP, "stop"),
        (FinishReason.LENGTH, "length"),
        (FinishReason.REFUSAL, "content_filter"),
        (FinishReason.TOOL_CALLS, "tool_calls"),
    ],
)
@pytest.mark.parametrize("text", ["", "I cannot"])
def test_every_end_has_its_name(reason: FinishReason, told: str, text: str) -> None:
    events: list[AnswerEvent] = [TextDelta(text), TurnFinished(reason, USAGE)]
    choice = complete(events)
    assert (choice["finish_reason"], choice["message"]["content"]) == (told, text)
    assert choice["message"]["refusal"] is None
    assert stream(events)[-2]["choices"][0]["finish_reason"] == told


def test_reasoning_stands_beside_the_content() -> None:
    message = complete([ReasoningDelta("hm"), TextDelta("a"), TurnFinished()])["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm", "a")


importlib.import_module("claude_coded.daemon")  # and so all modules that define errors


def kinds(kind: type[CodedError]) -> list[type[CodedError]]:
    return [kind, *(inner for sub in kind.__subclasses__() for inner in kinds(sub))]


@pytest.mark.parametrize("kind", kinds(CodedError))
def test_every_error_is_openais(kind: type[CodedError]) -> None:
    for error in (kind("what went wrong"), kind("x", param="messages[0]", retry_after=2.0)):
        check("ErrorResponse", error.body())
        (event,) = chunks(error_event(error))
        assert event == error.body()
        assert 400 <= error.status < 600


def test_models_are_openais() -> None:
    models = [model_object(name, 7) for name in ("claude-code", "sonnet")]
    check("ListModelsResponse", {"object": "list", "data": models})
    for model in models:
        check("Model", model)
        Model.model_validate(model)


@pytest.mark.parametrize(
    "wrong",
    [
        {"object": "list", "data": [{"id": "x"}]},
        {"object": "list", "data": [], "extra": 1},
        {"object": "lists", "data": []},
    ],
)
def test_the_check_finds_what_is_wrong(wrong: object) -> None:
    with pytest.raises(AssertionError):
        check("ListModelsResponse", wrong)


@st.composite
def answers(draw: st.DrawFn) -> list[AnswerEvent]:
    """Return an answer's events: pieces in any order, calls begun before they go on, and an end."""
    events: list[AnswerEvent] = []
    begun = 0
    for kind in draw(st.lists(st.sampled_from(["text", "reasoning", "call", "arguments"]), max_size=12)):
        piece = draw(st.text(max_size=6))
        if kind == "call":
            events.append(ToolCallStarted(begun, f"call_{begun}", piece))
            begun += 1
        elif kind == "arguments" and begun:
            events.append(ToolCallDelta(draw(st.integers(0, begun - 1)), piece))
        else:
            events.append(ReasoningDelta(piece) if kind == "reasoning" else TextDelta(piece))
    return [*events, TurnFinished(draw(st.sampled_from(FinishReason)), USAGE)]


@given(answers(), st.booleans(), st.booleans())
def test_the_completion_is_the_folded_stream(events: list[AnswerEvent], usage: bool, functions: bool) -> None:
    envelope = DEPRECATED if functions else ENVELOPE
    made = stream(events, usage=usage, envelope=envelope)
    choice = complete(events, envelope)
    message = choice["message"]
    assert (message["content"] or "") == "".join(delta.get("content", "") for delta in deltas(made))
    assert message.get("reasoning_content", "") == "".join(
        delta.get("reasoning_content", "") for delta in deltas(made)
    )
    assert told_calls(message) == fold(deltas(made))
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in made[:-1] if chunk["choices"]]
    assert reasons == [None] * (len(reasons) - 1) + [choice["finish_reason"]]
    assert made[-1] == "[DONE]"


def told_calls(message: dict[str, Any]) -> list[tuple[str, str]]:
    functions = [message["function_call"]] if "function_call" in message else []
    functions += [call["function"] for call in message.get("tool_calls", [])]
    return [(function["name"], function["arguments"]) for function in functions]


def fold(made: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the calls that deltas come to, as clients put them together."""
    calls: dict[int, tuple[str, str]] = {}
    for delta in made:
        pieces = list(delta.get("tool_calls", []))
        if "function_call" in delta:
            pieces.append({"index": 0, "function": delta["function_call"]})
        for piece in pieces:
            name, arguments = calls.get(piece["index"], ("", ""))
            function = piece["function"]
            calls[piece["index"]] = (name + function.get("name", ""), arguments + function["arguments"])
    return list(calls.values())


@given(answers())
def test_a_stream_that_fails_ends_with_the_error(events: list[AnswerEvent]) -> None:
    made = stream([*events[:-1], TurnFailed(UpstreamOverloaded("x"))])
    assert made[-1]["error"]["code"] == "overloaded"
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in made[:-1])
