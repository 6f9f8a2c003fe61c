"""The client's tools: what a request offers, and what it chooses of them."""

import time
from typing import Any

import orjson
import pytest

from claude_coded.errors import InvalidRequest, UnsupportedParameter
from claude_coded.openai.chat import parse_chat
from claude_coded.openai.schemas import MAX_SCHEMA, MAX_SCHEMAS
from claude_coded.turn import Tools, ToolSpec
from tests.unit.test_chat import body

PARAMETERS = {"type": "object", "required": ["x"], "properties": {"y": {}, "x": {"type": "string"}}}
F = {"name": "f", "description": "what f does", "parameters": PARAMETERS, "strict": True}
SPEC_F = ToolSpec(
    "f",
    "what f does",
    '{"properties":{"x":{"type":"string"},"y":{}},"required":["x"],"type":"object"}',
    strict=True,
)
SPEC_G = ToolSpec("g.h", "", '{"properties":{},"type":"object"}')


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


def chosen(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    return {
        "type": "allowed_tools",
        "allowed_tools": {"mode": mode, "tools": [chosen(name) for name in names]},
    }


TOOLS = [{"type": "function", "function": F}, tool("g.h", cache_control={"type": "ephemeral"})]


@pytest.mark.parametrize(
    ("choice", "tools"),
    [
        (None, Tools((SPEC_F, SPEC_G))),
        ("auto", Tools((SPEC_F, SPEC_G))),
        ("none", Tools()),
        ("required", Tools((SPEC_F, SPEC_G), required=True)),
        (chosen("g.h"), Tools((SPEC_G,), required=True)),
        (allowed("auto", "g.h"), Tools((SPEC_G,))),
        (allowed("required", "g.h", "f", "f"), Tools((SPEC_F, SPEC_G), required=True)),
        (allowed("auto"), Tools()),
    ],
)
def test_a_choice_leaves_what_may_be_called(choice: object, tools: Tools) -> None:
    chat = parse_chat(body(tools=TOOLS, tool_choice=choice))
    assert chat.tools == tools
    assert not chat.functions
    assert not chat.ignored


@pytest.mark.parametrize(("given", "parallel"), [(None, True), (True, True), (False, False)])
def test_one_at_a_time_or_more(given: object, parallel: bool) -> None:
    chat = parse_chat(body(tools=TOOLS, parallel_tool_calls=given))
    assert chat.tools == Tools((SPEC_F, SPEC_G), parallel=parallel)


@pytest.mark.parametrize(
    ("choice", "tools"),
    [
        (None, Tools((SPEC_F, SPEC_G), parallel=False)),
        ("auto", Tools((SPEC_F, SPEC_G), parallel=False)),
        ("none", Tools(parallel=False)),
        ({"name": "f"}, Tools((SPEC_F,), required=True, parallel=False)),
    ],
)
def test_functions_are_tools_of_which_one_is_called(choice: object, tools: Tools) -> None:
    chat = parse_chat(body(functions=[F, {"name": "g.h"}], function_call=choice))
    assert chat.tools == tools
    assert chat.functions


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tools": []},
        {"tools": None, "tool_choice": None, "functions": [], "function_call": None},
        {"tool_choice": "auto"},
        {"tool_choice": "none", "function_call": "none", "parallel_tool_calls": True},
        {"function_call": "auto"},
    ],
)
def test_there_may_be_none(fields: dict[str, Any]) -> None:
    assert parse_chat(body(**fields)).tools == Tools()


@pytest.mark.parametrize("parameters", [None, {}, {"properties": {}, "type": "object"}])
def test_parameters_that_are_missing_are_none(parameters: object) -> None:
    (spec,) = parse_chat(body(tools=[tool("f", parameters=parameters)])).tools.specs
    assert orjson.loads(spec.parameters) == {"type": "object", "properties": {}}


def test_the_order_of_keys_is_no_difference() -> None:
    one, other = (
        parse_chat(body(tools=[tool("f", parameters=parameters)])).tools
        for parameters in (PARAMETERS, dict(reversed(PARAMETERS.items())))
    )
    assert one == other


DEEP: dict[str, Any] = {"type": "object"}
for _ in range(400):
    DEEP = {"type": "object", "properties": {"x": DEEP}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": "f"}, "tools"),
        ({"tools": ["f"]}, "tools[0]"),
        ({"tools": [{"function": {"name": "f"}}]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "name": "f"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function"),
        ({"tools": [tool("f"), tool("")]}, "tools[1].function.name"),
        ({"tools": [tool(" ")]}, "tools[0].function.name"),
        ({"tools": [tool("a\nb")]}, "tools[0].function.name"),
        ({"tools": [tool("x" * 65)]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": 7}}]}, "tools[0].function.name"),
        ({"tools": [tool("f"), tool("g"), tool("f")]}, "tools[2].function.name"),
        ({"tools": [tool("f", description=7)]}, "tools[0].function.description"),
        ({"tools": [tool("f", strict="yes")]}, "tools[0].function.strict"),
        ({"tools": [tool("f", parameters="x")]}, "tools[0].function.parameters"),
        ({"tools": [tool("f", parameters={"type": "string"})]}, "tools[0].function.parameters"),
        ({"tools": [tool("f", parameters={"type": ["object", "null"]})]}, "tools[0].function.parameters"),
        ({"tools": [tool("f", parameters={"properties": {"x": {}}})]}, "tools[0].function.parameters"),
        ({"tools": [tool("f", parameters=DEEP)]}, "tools[0].function.parameters"),
        ({"tools": TOOLS, "tool_choice": "some"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": 7}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
        ({"tools": TOOLS, "tool_choice": chosen("h")}, "tool_choice.function.name"),
        (
            {"tools": TOOLS, "tool_choice": allowed("auto", "f", "h")},
            "tool_choice.allowed_tools.tools[1].function.name",
        ),
        ({"tools": TOOLS, "tool_choice": allowed("required")}, "tool_choice.allowed_tools.tools"),
        ({"tools": TOOLS, "tool_choice": allowed("maybe", "f")}, "tool_choice.allowed_tools.mode"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [], "tool_choice": chosen("f")}, "tool_choice"),
        ({"functions": [F], "tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"functions": [F], "tools": TOOLS}, "functions"),
        ({"functions": [{"name": ""}]}, "functions[0].name"),
        ({"functions": [F, F]}, "functions[1].name"),
        ({"functions": [{"name": "f", "parameters": {"type": "array"}}]}, "functions[0].parameters"),
        ({"functions": [F], "function_call": "required"}, "function_call"),
        ({"functions": [F], "function_call": {"name": "g"}}, "function_call.name"),
        ({"function_call": {"name": "f"}}, "function_call.name"),
        ({"tools": TOOLS, "function_call": {"name": "f"}}, "function_call.name"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body(**fields))
    assert (caught.value.param, caught.value.code) == (param, None)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [tool("f"), {"type": "custom", "custom": {"name": "g"}}]}, "tools[1].type"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": TOOLS, "tool_choice": {"type": "custom", "custom": {"name": "f"}}}, "tool_choice.type"),
        (
            {
                "tools": TOOLS,
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [{"type": "mcp", "server_label": "x"}]},
                },
            },
            "tool_choice.allowed_tools.tools[0].type",
        ),
    ],
)
def test_tools_that_are_no_functions_are_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        parse_chat(body(**fields))
    assert caught.value.param == param


@pytest.mark.parametrize(
    "wrong",
    [{"type": "nothing"}, {"pattern": "("}, {"$ref": "#/nowhere"}, {"$ref": "http://127.0.0.1/schema"}],
)
def test_a_strict_tools_schema_can_be_applied(wrong: dict[str, Any]) -> None:
    parameters = {"type": "object", "properties": {"a": wrong}}
    assert parse_chat(body(tools=[tool("f", parameters=parameters)])).tools.specs
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body(tools=[tool("f", parameters=parameters, strict=True)]))
    assert (caught.value.param or "").startswith("tools[0].function.parameters")


def test_of_strict_schemas_there_may_be_so_much_in_all() -> None:
    def tools(count: int, *, strict: bool) -> list[Any]:
        parameters = {"type": "object", "description": "x" * (MAX_SCHEMA - 60)}
        return [tool(f"f{n}", parameters=parameters, strict=strict) for n in range(count)]

    fitting = MAX_SCHEMAS // MAX_SCHEMA
    assert parse_chat(body(tools=tools(fitting, strict=True))).tools.specs
    assert parse_chat(body(tools=tools(fitting + 1, strict=False))).tools.specs
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body(tools=tools(fitting + 1, strict=True)))
    assert caught.value.param == f"tools[{fitting}].function.parameters"


def test_any_number_of_tools_may_be_chosen() -> None:
    """To look for each among all would take minutes."""
    names = [f"f{n}" for n in range(20_000)]
    began = time.process_time()
    chat = parse_chat(body(tools=[tool(name) for name in names], tool_choice=allowed("auto", *names)))
    assert time.process_time() - began < 3
    assert len(chat.tools.specs) == len(names)
