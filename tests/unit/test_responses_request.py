"""Requests for responses: what their items and tools are in neutral terms, and what is refused."""

import time
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claude_coded.errors import InvalidRequest, UnsupportedParameter
from claude_coded.openai.responses.items import Item, history, listed
from claude_coded.openai.responses.request import ResponseRequest, parse_response
from claude_coded.openai.responses.tools import CUSTOM_PARAMETERS, Named
from claude_coded.openai.schemas import MAX_SCHEMA, MAX_SCHEMAS
from claude_coded.turn import Image, Message, Role, Text, ToolCall, ToolOutcome
from tests.support.schemas import check

Json = dict[str, Any]
PNG = "data:image/png;base64,iVBORw0KGgo="


def parse(given: Any = "hello", **fields: Any) -> ResponseRequest:
    return parse_response(msgspec.json.encode({"model": "claude-code", "input": given, **fields}))


def messages(items: list[Json], past: tuple[Message, ...] = ()) -> tuple[Message, ...]:
    asked = parse(items)
    return history(asked.items, past)[1]


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def said(text: str) -> Json:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}


def call(number: int, name: str = "get", **more: Any) -> Json:
    return {"type": "function_call", "call_id": f"call_{number}", "name": name, "arguments": "{}", **more}


def output(number: int, text: Any = "7") -> Json:
    return {"type": "function_call_output", "call_id": f"call_{number}", "output": text}


def refused(kind: type[InvalidRequest], param: str, given: Any = "hello", **fields: Any) -> None:
    def read() -> None:
        asked = parse(given, **fields)
        history(asked.items, ())

    with pytest.raises(kind) as caught:
        read()
    assert caught.value.param == param


# Items -------------------------------------------------------------------------------------------------


def test_a_text_is_a_users_message() -> None:
    asked = parse("hello")
    assert history(asked.items, ()) == ([], (Message.of(Role.USER, "hello"),))


def test_the_items_of_an_answer_are_one_message() -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}
    told = messages(
        [
            user("a"),
            said("b"),
            reasoning,
            said("\n\nc"),
            call(1),
            call(2, namespace="git"),
            output(2),
            output(1),
        ]
    )
    assert told[1] == Message(
        Role.ASSISTANT,
        (Text("b\n\nc"), ToolCall("call_1", "get", "{}"), ToolCall("call_2", "git__get", "{}")),
    )
    assert told[2] == Message(
        Role.USER, (ToolOutcome("call_2", (Text("7"),)), ToolOutcome("call_1", (Text("7"),)))
    )


def test_answers_that_nothing_parts_are_parted_by_a_blank_line() -> None:
    assert messages([user("a"), said("b"), said("c"), user("d")])[1] == Message.of(Role.ASSISTANT, "b\n\nc")


def test_a_custom_tools_call_has_one_argument() -> None:
    made = {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": 'a\n"b"'}
    returned = {"type": "custom_tool_call_output", "call_id": "c", "output": "done"}
    told = messages([user("a"), made, returned])
    assert told[1] == Message(Role.ASSISTANT, (ToolCall("c", "patch", '{"input":"a\\n\\"b\\""}'),))


def test_what_the_user_says_while_calls_wait_is_heard_after_their_outputs() -> None:
    plain = messages([user("a"), call(1), call(2), output(1), output(2), user("b")])
    assert messages([user("a"), call(1), call(2), user("b"), output(1), output(2)]) == plain
    assert messages([user("a"), call(1), call(2), output(1), user("b"), output(2)]) == plain


def test_outputs_answer_the_calls_of_the_response_before() -> None:
    past = (Message.of(Role.USER, "a"), Message(Role.ASSISTANT, (ToolCall("call_1", "get", "{}"),)))
    told = messages([output(1)], past)
    assert told == (*past, Message(Role.USER, (ToolOutcome("call_1", (Text("7"),)),)))


def test_outputs_may_show_images() -> None:
    parts = [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": PNG}]
    told = messages([user("a"), call(1), output(1, parts)])
    assert told[2].parts == (ToolOutcome("call_1", (Text("see"), Image("image/png", "iVBORw0KGgo="))),)


def test_system_messages_stand_beside_the_history() -> None:
    asked = parse(
        [{"role": "developer", "content": "be brief"}, user("a"), {"role": "system", "content": "x"}]
    )
    assert history(asked.items, ()) == (["be brief", "x"], (Message.of(Role.USER, "a"),))


def test_what_openais_servers_did_is_left_out_by_name() -> None:
    asked = parse([user("a"), {"type": "web_search_call", "id": "ws_1", "status": "completed"}, user("b")])
    assert asked.ignored == ("input[1]",)
    assert [message.text for message in history(asked.items, ())[1]] == ["a", "b"]


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([], "input"),
        ([said("a")], "input[0]"),
        ([{"role": "user", "content": " "}], "input[0].content"),
        ([{"type": "message", "content": "a"}], "input[0].role"),
        ([user("a"), output(1)], "input[1].call_id"),
        ([user("a"), call(1)], "input"),
        ([user("a"), call(1), output(1), output(1)], "input[3].call_id"),
        ([user("a"), call(1), call(1)], "input[2].call_id"),
        ([user("a"), call(1), call(2), output(1), said("b")], "input[4]"),
        ([user("a"), call(1), {"type": "function_call_output", "call_id": "call_1"}], "input[2].output"),
        ([user("a"), call(1, arguments="[1]"), output(1)], "input[1].arguments"),
        ([user("a"), call(1, name=""), output(1)], "input[1].name"),
        ([{"id": "msg_1"}], "input[0].id"),
        (
            [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}],
            "input[0].content[0].file_id",
        ),
        (
            [{"role": "user", "content": [{"type": "input_image", "image_url": "file:///etc/passwd"}]}],
            "input[0].content[0].image_url",
        ),
        (
            [{"role": "user", "content": [{"type": "input_file", "file_url": "https://a/b"}]}],
            "input[0].content[0].file_url",
        ),
        ([{"role": "robot", "content": "a"}], "input[0].role"),
    ],
)
def test_what_is_wrong_is_named(items: list[Json], param: str) -> None:
    refused(InvalidRequest, param, items)


def test_a_call_that_is_not_answered_is_told_by_its_id() -> None:
    with pytest.raises(InvalidRequest, match="call_2"):
        messages([user("a"), call(1), call(2), output(1), user("b")])


def test_items_are_listed_as_they_were_sent_with_ids() -> None:
    given = [user("a"), {**said("b"), "id": ""}, call(1), output(1)]
    ids = [item["id"] for item in listed(given, "0f")]
    assert ids == ["msg_0f_i0", "msg_0f_i1", "fc_0f_i2", "fco_0f_i3"]
    assert listed("a", "0f") == [
        {
            "id": "msg_0f_i0",
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_text", "text": "a"}],
        }
    ]


# Tools and options -------------------------------------------------------------------------------------

GET: Json = {"type": "function", "name": "get"}
PATCH: Json = {"type": "custom", "name": "patch", "description": "Changes files."}


def test_tools_of_all_kinds_have_names_of_their_own() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: WORD"}
    space = {
        "type": "namespace",
        "name": "git",
        "description": "",
        "tools": [GET, {**PATCH, "format": grammar}],
    }
    asked = parse(tools=[GET, PATCH, space, {"type": "web_search"}, {"type": "mcp", "server_label": "x"}])
    assert asked.toolbox.names == {
        "get": Named("get"),
        "patch": Named("patch", custom=True),
        "git__get": Named("get", "git"),
        "git__patch": Named("patch", "git", custom=True),
    }
    specs = {spec.name: spec for spec in asked.toolbox.tools.specs}
    assert specs["patch"].parameters == CUSTOM_PARAMETERS
    assert "start: WORD" in specs["git__patch"].description
    assert asked.ignored == ("tools[3]", "tools[4]")


@pytest.mark.parametrize(
    ("choice", "names", "required"),
    [
        (None, ["get", "patch"], False),
        ("auto", ["get", "patch"], False),
        ("none", [], False),
        ("required", ["get", "patch"], True),
        ({"type": "function", "name": "get"}, ["get"], True),
        ({"type": "custom", "name": "patch"}, ["patch"], True),
        ({"type": "allowed_tools", "mode": "auto", "tools": [GET, {"type": "web_search"}]}, ["get"], False),
        ({"type": "allowed_tools", "mode": "required", "tools": [PATCH]}, ["patch"], True),
    ],
)
def test_what_may_be_called_is_chosen(choice: Any, names: list[str], required: bool) -> None:
    tools = parse(tools=[GET, PATCH], tool_choice=choice, parallel_tool_calls=False).toolbox.tools
    assert ([spec.name for spec in tools.specs], tools.required, tools.parallel) == (names, required, False)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [GET, GET]}, "tools[1].name"),
        ({"tools": [{**GET, "parameters": {"type": "array"}}]}, "tools[0].parameters"),
        (
            {"tools": [{**GET, "strict": True, "parameters": {"type": "object", "a": 1, "required": 1}}]},
            "tools[0].parameters.required",
        ),
        ({"tools": [{"type": "shell"}]}, "tools[0].type"),
        (
            {"tools": [{"type": "namespace", "name": "a", "tools": [{"type": "web_search"}]}]},
            "tools[0].tools[0].type",
        ),
        ({"tools": [{**PATCH, "format": {"type": "grammar"}}]}, "tools[0].format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [GET], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name"),
        ({"tools": [GET], "tool_choice": {"type": "file_search"}}, "tool_choice.type"),
        (
            {"tools": [GET], "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": []}},
            "tool_choice.tools",
        ),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"reasoning": {"effort": "extreme"}}, "reasoning.effort"),
        ({"metadata": {"a": 1}}, "metadata[...]"),
        ({"model": ""}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"temperature": 3}, "temperature"),
        ({"conversation": "a", "previous_response_id": "resp_1"}, "previous_response_id"),
    ],
)
def test_what_cannot_be_is_named(fields: Json, param: str) -> None:
    refused(InvalidRequest, param, **fields)


def test_options_are_those_of_chat_requests() -> None:
    schema = {"type": "object", "properties": {}}
    asked = parse(
        text={"format": {"type": "json_schema", "name": "a", "schema": schema}, "verbosity": "low"},
        reasoning={"effort": "minimal", "summary": "auto"},
        max_output_tokens=9,
        conversation={"id": "c"},
        store=False,
    )
    assert (asked.options.max_tokens, asked.options.effort) == (9, "low")
    assert orjson.loads(asked.options.schema or "") == schema
    assert (asked.conversation, asked.store) == ("c", False)
    assert parse(model="claude-code:mine").conversation == "mine"


def test_background_and_prompts_are_refused() -> None:
    refused(UnsupportedParameter, "background", background=True)
    refused(UnsupportedParameter, "prompt", prompt={"id": "a"})
    assert parse(background=False, prompt=None).ignored == ()


# Anything ----------------------------------------------------------------------------------------------

WORDS = st.sampled_from(["", "a", "call_1", "get", "{}", "message", "function_call", "user", "assistant"])
PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["input_text", "output_text", "refusal", "input_image", "input_file", "x"])},
    optional={"text": WORDS, "refusal": WORDS, "image_url": WORDS, "file_data": WORDS, "file_id": WORDS},
)
CALLS = ["function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"]
KINDS = st.sampled_from(
    [*CALLS, "message", "reasoning", "item_reference", "web_search_call", "computer_call", "x"]
)
ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "type": KINDS,
        "id": WORDS,
        "role": st.sampled_from(["user", "assistant", "system", "developer"]),
        "content": WORDS | st.lists(PARTS, max_size=2),
        "call_id": st.sampled_from(["call_1", "call_2", ""]),
        "name": WORDS,
        "namespace": WORDS,
        "arguments": st.sampled_from(["", "{}", '{"a":1}', "[", "1"]),
        "input": WORDS,
        "output": WORDS | st.lists(PARTS, max_size=2),
    },
)


def outcome_of(items: list[Json]) -> tuple[Message, ...] | None:
    """Return the history; None where the items are refused, which names where they stand."""
    try:
        return messages(items)
    except InvalidRequest as error:
        place = error.param or ""
    assert place.startswith("input")
    return None


@settings(max_examples=300)
@given(st.lists(ITEMS, max_size=6))
def test_any_items_are_a_history_or_refused_by_name(items: list[Json]) -> None:
    if (told := outcome_of(items)) is None:
        return
    assert told[-1].role is Role.USER
    waiting: set[str] = set()
    for message in told:
        assert message.parts
        answered = {part.id for part in message.parts if isinstance(part, ToolOutcome)}
        assert answered == waiting  # each call by the message right after it
        waiting = {part.id for part in message.parts if isinstance(part, ToolCall)}


@given(st.lists(st.sampled_from(["user", "answer", "calls"]), min_size=1, max_size=6))
def test_what_was_told_as_output_is_the_same_history_as_input(kinds: list[str]) -> None:
    items: list[Json] = []
    for number, kind in enumerate(kinds):
        items.append(user(f"q{number}"))
        if kind == "answer":
            items.append(said(f"a{number}"))
        if kind == "calls":
            items += [said(f"a{number}"), call(number), output(number)]
    items.append(user("last"))
    told = messages(items)
    again = history([msgspec.convert(item, Item) for item in listed(items, "0f")])[1]
    assert again == told


def test_listed_messages_fit_the_schema() -> None:
    kinds = ["InputMessage", "OutputMessage", "FunctionToolCall", "FunctionCallOutputItemParam"]
    items = listed([user("a"), said("b"), call(1), output(1)], "0f")
    for kind, item in zip(kinds, items, strict=True):
        check(kind, item, exact=False)


def test_of_strict_schemas_there_may_be_so_much_in_all() -> None:
    parameters = {"type": "object", "description": "x" * (MAX_SCHEMA - 60)}
    tools = [
        {"type": "function", "name": f"f{n}", "parameters": parameters, "strict": True}
        for n in range(MAX_SCHEMAS // MAX_SCHEMA + 1)
    ]
    assert parse(tools=tools[1:]).toolbox.tools.specs
    refused(InvalidRequest, f"tools[{len(tools) - 1}].parameters", tools=tools)


def test_an_answer_may_be_told_in_any_number_of_pieces() -> None:
    """To begin it anew with each would take minutes."""
    count = 20_000
    calls, outputs = [call(n) for n in range(count)], [output(n) for n in range(count)]
    began = time.process_time()
    told = messages([user("q"), said("a"), *calls, *[said("b")] * count, *outputs, user("more")])
    assert time.process_time() - began < 5
    assert [len(message.parts) for message in told] == [1, count + 1, count, 1]
    assert told[1].parts[0] == Text("\n\n".join(["a", *["b"] * count]))
