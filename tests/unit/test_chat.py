"""Chat completions: requests in, chunks and completions out."""

import contextlib
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from claude_coded.errors import InvalidRequest, UnsupportedParameter
from claude_coded.history import chain
from claude_coded.openai.chat import parse_chat
from claude_coded.openai.fields import FIELDS
from claude_coded.openai.wire import IN_ONE_GO, check_conversation_id
from claude_coded.turn import (
    Image,
    Message,
    Role,
    Text,
    ToolCall,
    ToolOutcome,
)

HELLO: dict[str, Any] = {"role": "user", "content": "hello"}


def call(name: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": "f", "arguments": arguments}}


def result(name: str, content: object = "ok") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": content}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


DEEP = '{"x":' * 400 + "1" + "}" * 400
CUSTOM = {"id": "a", "type": "custom", "custom": {"name": "f", "input": "x"}}
FUNCTION: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "function_call": {"name": "f", "arguments": '{"x": 1}'},
}
CALLS: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [call("a"), call("b", '{"x": 1}')],
}


def body(**fields: object) -> bytes:
    return json.dumps({"model": "claude-code", "messages": [HELLO], **fields}).encode()


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
        (
            {"messages": [HELLO, {"role": "assistant", "tool_calls": [call("a"), call("b", "[]")]}]},
            "messages[1].tool_calls[1].function.arguments",
        ),
        (
            {"messages": [HELLO, {"role": "assistant", "tool_calls": [call("")]}]},
            "messages[1].tool_calls[0].id",
        ),
        (
            {"messages": [HELLO, {"role": "assistant", "tool_calls": [call("a"), call("a")]}]},
            "messages[1].tool_calls[1].id",
        ),
        (
            {"messages": [HELLO, {"role": "assistant", "tool_calls": [{"id": "a", "type": "function"}]}]},
            "messages[1].tool_calls[0].function",
        ),
        (
            {
                "messages": [
                    HELLO,
                    {"role": "assistant", "tool_calls": [call("a", DEEP)]},
                ]
            },
            "messages[1].tool_calls[0].function.arguments",
        ),
        ({"messages": [HELLO, {"role": "function", "name": "f", "content": "x"}]}, "messages[1].name"),
        ({"messages": [HELLO, FUNCTION, {"role": "function", "name": "g"}]}, "messages[2].name"),
        ({"messages": [HELLO, FUNCTION, {"role": "function", "content": "x"}]}, "messages[2].name"),
        ({"messages": [HELLO, FUNCTION, HELLO]}, "messages[1].function_call"),
        ({"messages": [HELLO, {**FUNCTION, "tool_calls": [call("a")]}]}, "messages[1].function_call"),
        (
            {"messages": [HELLO, {"role": "assistant", "function_call": {"name": "f", "arguments": "x"}}]},
            "messages[1].function_call.arguments",
        ),
        (
            {"messages": [HELLO, {"role": "assistant", "function_call": {"name": ""}}]},
            "messages[1].function_call.name",
        ),
        ({"model": 5}, "model"),
        ({"model": ""}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 3}}, "stream_options.include_usage"),
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
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"moderation": {"model": "m"}}, "moderation"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": [HELLO, {"role": "assistant", "audio": {"id": "a"}}, HELLO]}, "messages[1].audio"),
        (
            {"messages": [HELLO, {"role": "assistant", "tool_calls": [CUSTOM]}, HELLO]},
            "messages[1].tool_calls[0].type",
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


def test_user_messages_follow_outcomes() -> None:
    chat = parse_chat(body(messages=[HELLO, CALLS, result("a"), result("b"), HELLO, HELLO]))
    assert [len(message.parts) for message in chat.messages] == [1, 2, 2, 1, 1]


@pytest.mark.parametrize("said", ["I look.", [{"type": "text", "text": "I look."}]])
def test_text_that_is_told_after_the_calls_of_its_reply_was_said_before_them(said: Any) -> None:
    late = {"role": "assistant", "content": said}
    told = parse_chat(body(messages=[HELLO, CALLS, late, result("a"), result("b")]))
    assert (
        told.messages
        == parse_chat(body(messages=[HELLO, {**CALLS, **late}, result("a"), result("b")])).messages
    )
    with pytest.raises(InvalidRequest, match=r"no results: b$"):
        parse_chat(body(messages=[HELLO, CALLS, result("a"), late, result("b")]))


def test_what_the_user_says_between_calls_and_outcomes_is_heard_after_them() -> None:
    outcomes = [result("a"), result("b")]
    for place in (0, 1):
        between = [*outcomes[:place], HELLO, HELLO, *outcomes[place:]]
        assert (
            parse_chat(body(messages=[HELLO, CALLS, *between])).messages
            == parse_chat(body(messages=[HELLO, CALLS, *outcomes, HELLO, HELLO])).messages
        )
    with pytest.raises(InvalidRequest, match=r"no results: b$"):
        parse_chat(body(messages=[HELLO, CALLS, result("a"), HELLO]))


@given(st.lists(st.sampled_from([0, 1]), max_size=4), st.permutations([0, 1]), st.data())
def test_wherever_a_client_tells_them_they_have_one_order(
    questions: list[int], order: list[int], data: st.DataObject
) -> None:
    late = {"role": "assistant", "content": "I look."}
    outcomes = [[result("a"), result("b")][index] for index in order]
    asked = [{"role": "user", "content": str(number)} for number in questions]
    told: list[Any] = list(outcomes)
    places = sorted(data.draw(st.integers(0, len(outcomes))) for _ in asked)
    for place, question in reversed(list(zip(places, asked, strict=True))):
        told.insert(place, question)
    shuffled = parse_chat(body(messages=[HELLO, CALLS, late, *told]))
    assert (
        shuffled.messages == parse_chat(body(messages=[HELLO, {**CALLS, **late}, *outcomes, *asked])).messages
    )


def test_outcomes_that_are_missing_are_named() -> None:
    with pytest.raises(InvalidRequest, match=r"no results: a$"):
        parse_chat(body(messages=[HELLO, CALLS, result("b"), HELLO]))
    with pytest.raises(InvalidRequest, match=r"no results: a, b$"):
        parse_chat(body(messages=[HELLO, CALLS]))


def test_functions_of_the_history_are_calls_and_outcomes() -> None:
    found = {"role": "function", "name": "f", "content": "ok"}
    chat = parse_chat(body(messages=[HELLO, FUNCTION, found, {**FUNCTION, "content": "again"}, found]))
    assert chat.messages == (
        Message.of(Role.USER, "hello"),
        Message(Role.ASSISTANT, (ToolCall("function_call_1", "f", '{"x": 1}'),)),
        Message(Role.USER, (ToolOutcome("function_call_1", (Text("ok"),)),)),
        Message(Role.ASSISTANT, (Text("again"), ToolCall("function_call_3", "f", '{"x": 1}'))),
        Message(Role.USER, (ToolOutcome("function_call_3", (Text("ok"),)),)),
    )
    assert chat.functions is False  # what this request asks with decides


@pytest.mark.parametrize(
    "message",
    [
        {"content": "no"},
        {"content": [{"type": "text", "text": "no"}]},
        {"content": [{"type": "refusal", "refusal": "no"}]},
        {"refusal": "no"},
        {"content": None, "refusal": "no", "audio": None, "function_call": None, "tool_calls": None},
    ],
)
def test_what_an_assistant_refused_is_its_text(message: dict[str, Any]) -> None:
    chat = parse_chat(body(messages=[HELLO, {"role": "assistant", **message}, HELLO]))
    assert chat.messages[1] == Message.of(Role.ASSISTANT, "no")


def test_calls_are_the_assistants_alone() -> None:
    chat = parse_chat(body(messages=[{**HELLO, "tool_calls": [call("a")], "function_call": {"name": "f"}}]))
    assert chat.messages == (Message.of(Role.USER, "hello"),)


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


PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "file", "refusal", "input_audio"])},
    optional={
        "text": st.text(max_size=4) | JSON,
        "refusal": st.text(max_size=4) | JSON,
        "image_url": st.fixed_dictionaries(
            {"url": st.sampled_from(["data:image/png;base64,AA==", "http://[", ""])}
        )
        | JSON,
        "file": st.fixed_dictionaries({"file_data": st.text(max_size=4), "filename": st.just("a.pdf")})
        | JSON,
    },
)
CALLED = st.fixed_dictionaries(
    {"name": st.sampled_from("fg")},
    optional={"arguments": st.sampled_from(["", "{}", "[", "1", '{"x":1e999}'])},
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"])},
    optional={
        "content": st.text(max_size=4) | st.none() | st.lists(PARTS, max_size=2),
        "tool_calls": st.lists(
            st.fixed_dictionaries({"id": st.sampled_from("ab"), "function": CALLED}), max_size=2
        ),
        "function_call": CALLED,
        "tool_call_id": st.sampled_from("ab"),
        "name": st.sampled_from("fg"),
        "refusal": st.text(max_size=2),
    },
)


@given(st.lists(MESSAGES, max_size=6))
def test_a_history_is_refused_or_can_be_told_apart(messages: list[dict[str, Any]]) -> None:
    """What is taken ends with the user's, and has an outcome for every call right after it."""
    try:
        chat = parse_chat(body(messages=messages))
    except InvalidRequest:
        return
    assert len(chain(b"", chat.messages)) == len(chat.messages)
    assert chat.messages[-1].role is Role.USER
    for message, following in pairwise(chat.messages):
        called = {part.id for part in message.parts if isinstance(part, ToolCall)}
        assert called == {part.id for part in following.parts if isinstance(part, ToolOutcome)}


def outcome_of(messages: list[dict[str, Any]]) -> tuple[object, ...]:
    """Return what is read, or the error."""
    try:
        chat = parse_chat(body(messages=messages))
    except InvalidRequest as error:
        return type(error), str(error), error.param
    return chat.system, chat.messages


@given(st.lists(MESSAGES, max_size=6))
def test_a_string_is_a_list_of_one_text(messages: list[dict[str, Any]]) -> None:
    in_parts = [
        message | {"content": [{"type": "text", "text": message["content"]}]}
        if isinstance(message.get("content"), str)
        else message
        for message in messages
    ]
    assert outcome_of(in_parts) == outcome_of(messages)


@pytest.mark.parametrize("text", ["a", "My-chat_1.0", "0" * 128])
def test_conversation_ids(text: str) -> None:
    assert check_conversation_id(text, "id") == text


@pytest.mark.parametrize("text", ["", "-a", ".a", "a b", "a/b", "é", "0" * 129, "a\n"])
def test_bad_conversation_ids(text: str) -> None:
    with pytest.raises(InvalidRequest):
        check_conversation_id(text, "id")


PADDING = {"role": "user", "content": "x" * IN_ONE_GO}


@pytest.mark.parametrize("fields", [{}, {"unheard_of": 1}, {"seed": 1}])
def test_a_large_body_is_read_as_a_small_one(fields: dict[str, Any]) -> None:
    large, small = (parse_chat(body(messages=[one, HELLO], **fields)) for one in (PADDING, HELLO))
    assert large.messages[0].text == PADDING["content"]
    assert replace(large, messages=()) == replace(small, messages=())
    assert large.messages[1:] == small.messages[1:]


@pytest.mark.parametrize("fields", [{}, {"unheard_of": 1}])
@pytest.mark.parametrize(
    ("last", "param"),
    [(17, "messages[1]"), ({"role": "user", "content": 17}, "messages[1].content"), ({}, "messages[1]")],
)
def test_what_is_wrong_in_a_large_body_is_named(fields: dict[str, Any], last: object, param: str) -> None:
    for one in (PADDING, HELLO):
        with pytest.raises(InvalidRequest) as raised:
            parse_chat(body(messages=[one, last], **fields))
        assert raised.value.param == param
