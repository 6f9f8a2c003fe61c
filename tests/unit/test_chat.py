"""Chat completions: requests in, chunks and completions out."""

import contextlib
import json
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.activity import Activity
from claude_coded.errors import InvalidRequest, UnsupportedParameter, UpstreamOverloaded
from claude_coded.openai.chat import ChunkEncoder, Completion, Envelope, parse_chat
from claude_coded.openai.fields import FIELDS, Treatment
from claude_coded.openai.wire import check_conversation_id
from claude_coded.turn import (
    AnswerEvent,
    FinishReason,
    Image,
    Message,
    ReasoningDelta,
    Role,
    Text,
    TextDelta,
    ToolActivity,
    ToolCall,
    ToolOutcome,
    TurnEvent,
    TurnFailed,
    TurnFinished,
    Usage,
)

HELLO: dict[str, Any] = {"role": "user", "content": "hello"}
ENVELOPE = Envelope("chatcmpl-1", 7, "claude-code")
USAGE = Usage(input=10, output=4, cache_read=6, cache_write=1, reasoning=2)


IMAGE_URL = "messages[0].content[0].image_url.url"


def call(name: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": "f", "arguments": arguments}}


def result(name: str, content: object = "ok") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": content}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


CALLS: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [call("a"), call("b", '{"x": 1}')],
}


def body(**fields: object) -> bytes:
    return orjson.dumps({"model": "claude-code", "messages": [HELLO], **fields})


def test_a_request() -> None:
    chat = parse_chat(
        body(
            model="claude-code:my-chat",
            messages=[
                {"role": "system", "content": "one"},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"role": "assistant", "content": "answer", "refusal": None, "reasoning_content": "hm"},
                {"role": "developer", "content": "two"},
                {"role": "user", "content": "c", "name": "joe", "cache_control": {"type": "ephemeral"}},
            ],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert (chat.model, chat.conversation, chat.system) == ("claude-code", "my-chat", "one\n\ntwo")
    assert chat.messages == (
        Message(Role.USER, (Text("a"), Text("b"))),
        Message.of(Role.ASSISTANT, "answer"),
        Message.of(Role.USER, "c"),
    )
    assert (chat.stream, chat.include_usage, chat.ignored) == (True, True, [])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [HELLO, {"content": "x"}]}, "messages[1]"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "  "}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0]"),
        ({"messages": [HELLO, {"role": "assistant", "content": "x"}]}, "messages[1].role"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages[0].role"),
        (
            {"messages": [HELLO, {"role": "tool", "content": "x", "tool_call_id": "t"}]},
            "messages[1].tool_call_id",
        ),
        ({"messages": [HELLO, CALLS, HELLO]}, "messages[1].tool_calls"),
        ({"messages": [HELLO, CALLS]}, "messages[1].tool_calls"),
        ({"messages": [HELLO, CALLS, result("b"), result("b")]}, "messages[3].tool_call_id"),
        ({"messages": [HELLO, {"role": "assistant", "tool_calls": [{}]}]}, "messages[1].tool_calls[0]"),
        (
            {"messages": [HELLO, {"role": "assistant", "tool_calls": [call("a", "no json")]}]},
            "messages[1].tool_calls[0].function.arguments",
        ),
        ({"messages": [{"role": "user", "content": [image("data:image/bmp;base64,AA==")]}]}, IMAGE_URL),
        ({"messages": [{"role": "user", "content": [image("data:image/png;base64,A")]}]}, IMAGE_URL),
        ({"model": 5}, "model"),
        ({"model": ""}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 3}}, "stream_options.include_usage"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body(**fields))
    assert caught.value.param == param
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"stop": "x"}, "stop"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [image("https://a.example/b.png")]}]},
            "messages[0].content[0].image_url.url",
        ),
    ],
)
def test_what_would_change_the_answers_meaning_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        parse_chat(body(**fields))
    assert (caught.value.param, caught.value.code) == (param, "unsupported_parameter")


def test_the_rest_is_ignored_by_name() -> None:
    chat = parse_chat(
        body(temperature=0.5, seed=1, user="u", n=1, stop=None, tools=[], logprobs=False, made_up={"a": 1})
    )
    assert sorted(chat.ignored) == ["made_up", "seed", "temperature", "user"]


def test_calls_outcomes_and_images_keep_their_places() -> None:
    said = [{"type": "text", "text": "see"}, image("data:image/png;base64,AA==")]
    chat = parse_chat(
        body(messages=[{"role": "user", "content": said}, CALLS, result("b"), result("a"), HELLO])
    )
    assert chat.messages == (
        Message(Role.USER, (Text("see"), Image("image/png", "AA=="))),
        Message(Role.ASSISTANT, (ToolCall("a", "f", "{}"), ToolCall("b", "f", '{"x": 1}'))),
        Message(Role.USER, (ToolOutcome("b", (Text("ok"),)), ToolOutcome("a", (Text("ok"),)))),
        Message.of(Role.USER, "hello"),
    )


def test_outcomes_may_be_what_is_asked_and_empty_answers_are_nothing() -> None:
    empty = {"role": "assistant", "content": ""}
    chat = parse_chat(body(messages=[HELLO, empty, HELLO, CALLS, result("a", ""), result("b")]))
    assert [message.role for message in chat.messages] == [Role.USER, Role.USER, Role.ASSISTANT, Role.USER]


def test_null_is_the_same_as_absent() -> None:
    assert parse_chat(body(**dict.fromkeys(set(FIELDS) - {"model", "messages"}))).ignored == []


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"model":"x"}'])
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_chat(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)) | st.text(max_size=8), JSON, max_size=6))
def test_no_body_is_an_internal_error(fields: dict[str, Any]) -> None:
    data = json.dumps({"model": "m", "messages": [HELLO], **fields}).encode()
    with contextlib.suppress(InvalidRequest):
        parse_chat(data)


def test_fields_are_honoured_in_the_types_that_say_so() -> None:
    honoured = {name for name, rule in FIELDS.items() if rule.treatment is Treatment.HONOURED}
    assert honoured == {"model", "messages", "stream", "stream_options", "store"}


@pytest.mark.parametrize("text", ["a", "My-chat_1.0", "0" * 128])
def test_conversation_ids(text: str) -> None:
    assert check_conversation_id(text, "id") == text


@pytest.mark.parametrize("text", ["", "-a", ".a", "a b", "a/b", "é", "0" * 129, "a\n"])
def test_bad_conversation_ids(text: str) -> None:
    with pytest.raises(InvalidRequest):
        check_conversation_id(text, "id")


# Answers -----------------------------------------------------------------------------------------------


def chunks(data: bytes) -> list[Any]:
    events = data.decode().split("\n\n")
    assert events.pop() == ""
    assert all(event.startswith("data: ") for event in events)
    return [event[6:] if event == "data: [DONE]" else orjson.loads(event[6:]) for event in events]


def stream(events: Sequence[AnswerEvent], *, usage: bool = False) -> list[Any]:
    encoder = ChunkEncoder(ENVELOPE, include_usage=usage)
    return chunks(encoder.start() + encoder.encode(events))


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


EVENTS = st.lists(st.builds(TextDelta, st.text()) | st.builds(ReasoningDelta, st.text()))


@given(events=EVENTS)
def test_the_completion_is_the_folded_stream(events: list[AnswerEvent]) -> None:
    ended = [*events, TurnFinished(usage=USAGE)]
    made = deltas(stream(ended))
    whole = Completion(ENVELOPE).add(ended)
    assert whole is not None
    message = whole["choices"][0]["message"]
    assert message["content"] == "".join(delta.get("content", "") for delta in made)
    assert message.get("reasoning_content", "") == "".join(d.get("reasoning_content", "") for d in made)
