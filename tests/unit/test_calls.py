"""Calls of the client's tools on their way to the client."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.claude.calls import Calls
from claude_coded.claude.fitting import fault_of
from claude_coded.claude.wire import Block
from claude_coded.turn import ToolCallDelta, ToolCallStarted, ToolSpec, TurnEvent

SCHEMA = '{"properties":{"a":{"type":"integer"}},"required":["a"],"type":"object"}'
TOOLS = {
    "mcp__client__get": ToolSpec("get", "", "{}"),
    "mcp__client__put": ToolSpec("put", "", "{}"),
    "mcp__client__exact": ToolSpec("exact", "", SCHEMA, strict=True),
}


def block(call: str, name: str = "get", arguments: Any = None) -> Block:
    return Block("tool_use", id=call, name=f"mcp__client__{name}", input=arguments)


def stream(calls: Calls, it: Block, *pieces: str) -> list[TurnEvent]:
    """Stream a call as the CLI tells it: the whole block comes before its end."""
    told = calls.begin(it)
    for piece in pieces:
        told += calls.add(piece)
    told += calls.whole(it)
    return told + calls.end()


def folded(events: list[TurnEvent]) -> list[tuple[str, str, str]]:
    """Return id, name and arguments of each call, whose indices have to count up."""
    made: list[tuple[str, str, str]] = []
    for event in events:
        match event:
            case ToolCallStarted(index, call, name):
                assert index == len(made)
                made.append((call, name, ""))
            case ToolCallDelta(index, piece):
                call, name, arguments = made[index]
                made[index] = (call, name, arguments + piece)
            case _:
                raise AssertionError(event)
    return made


PIECES = st.lists(st.text(max_size=5), max_size=5)
MADE = st.lists(st.tuples(st.sampled_from(["get", "put"]), PIECES), max_size=6)


@given(MADE)
def test_calls_are_told_as_they_are_made(made: list[tuple[str, list[str]]]) -> None:
    calls, told = Calls(TOOLS, parallel=True), list[TurnEvent]()
    for number, (name, pieces) in enumerate(made):
        told += stream(calls, block(f"t{number}", name), *pieces)
    expected = [(f"t{n}", name, "".join(pieces) or "{}") for n, (name, pieces) in enumerate(made)]
    assert folded(told) == expected
    assert list(calls.told) == sorted(calls.open) == [call for call, _, _ in expected]


@given(MADE)
def test_one_at_a_time_the_others_wait_in_order(made: list[tuple[str, list[str]]]) -> None:
    calls, told = Calls(TOOLS, parallel=False), list[list[TurnEvent]]()
    first = [
        event
        for n, (name, pieces) in enumerate(made)
        for event in stream(calls, block(f"t{n}", name), *pieces)
    ]
    told.append(first)
    while more := calls.go_on(TOOLS, parallel=False):
        told.append(more)
    assert [folded(events) for events in told if events] == [
        [(f"t{n}", name, "".join(pieces) or "{}")] for n, (name, pieces) in enumerate(made)
    ]
    assert calls.open == {f"t{n}" for n in range(len(made))}


def test_a_call_that_comes_whole_is_told_at_once() -> None:
    calls = Calls(TOOLS, parallel=True)
    assert folded(calls.whole(block("t1", arguments={"a": [1]}))) == [("t1", "get", '{"a":[1]}')]
    assert calls.whole(block("t1", arguments={"a": [1]})) == []


def test_claudes_own_tools_are_none_of_the_clients() -> None:
    calls = Calls(TOOLS, parallel=True)
    told = calls.begin(block("t1"))
    told += stream(calls, Block("tool_use", id="own", name="Bash"), '{"command":"x"}')
    assert folded(told) == [("t1", "get", "")]
    assert calls.open == {"t1"}


def test_a_strict_tools_call_is_told_when_it_is_whole_and_fits() -> None:
    calls = Calls(TOOLS, parallel=True)
    assert calls.begin(block("t1", "exact")) == calls.add('{"a"') == []
    assert calls.open == {"t1"}
    assert calls.add(":1}") == []
    assert folded(calls.end()) == [("t1", "exact", '{"a":1}')]


def test_a_strict_tools_call_that_does_not_fit_is_not_told() -> None:
    calls = Calls(TOOLS, parallel=True)
    for number, arguments in enumerate(('{"a":"x"}', "{}", '{"a"')):
        assert stream(calls, block(f"t{number}", "exact"), arguments) == []
    assert calls.refused.keys() == {"t0", "t1", "t2"}
    assert "$.a: 'x' is not of type 'integer'" in calls.refused["t0"]
    assert not calls.open
    assert not calls.told


@given(st.dictionaries(st.text(), st.integers() | st.text()))
def test_what_is_told_of_a_strict_tool_always_fits(arguments: dict[str, Any]) -> None:
    calls = Calls(TOOLS, parallel=True)
    told = folded(stream(calls, block("t", "exact"), json.dumps(arguments)))
    assert bool(told) == (type(arguments.get("a")) is int)


def branching(depth: int) -> dict[str, Any]:
    """Return a schema that is looked at twice as often at each depth."""
    definitions: dict[str, Any] = {
        f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(depth)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{depth}": {}}}


ENDLESS: list[tuple[dict[str, Any], Any]] = [
    ({"pattern": "^(x+)+y$"}, "x" * 60),
    ({"patternProperties": {"^(x+)+y$": {}}}, {"x" * 60: 1}),
    ({"patternProperties": {"^(x+)+y$": {}}, "additionalProperties": False}, {"x" * 60: 1}),
    (branching(60), 1),
    ({"allOf": [{"items": {}}] * 20_000}, [0] * 100_000),
    ({"uniqueItems": True}, [[n, {}] for n in range(50_000)]),
]


@pytest.mark.parametrize("draft", [None, "http://json-schema.org/draft-07/schema#"])
@pytest.mark.parametrize(("schema", "value"), ENDLESS, ids=range(len(ENDLESS)))
def test_a_schema_that_takes_for_ever_is_given_up(schema: Any, value: Any, draft: str | None) -> None:
    parameters = {"type": "object", "properties": {"a": schema}, "$defs": schema.get("$defs", {})}
    parameters |= {"$schema": draft} if draft else {}
    began = time.process_time()
    assert fault_of(json.dumps({"a": value}), json.dumps(parameters)) == ""
    assert time.process_time() - began < 2


def test_a_long_list_is_held_against_its_schema() -> None:
    items = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    schema = json.dumps({"type": "object", "properties": {"a": {"type": "array", "items": items}}})
    values: list[Any] = [{"x": n} for n in range(1_000)]
    assert fault_of(json.dumps({"a": values}), schema) == ""
    assert "$.a[1000]: 'x' is a required property" in fault_of(json.dumps({"a": [*values, {}]}), schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/nowhere", "type": "object"},
        {"$ref": "https://json-schema.org/draft/2020-12/schema#/x", "type": "object"},
        {"properties": {"a": {"type": "strange"}}, "type": "object"},
        {"properties": {"a": {"pattern": "("}}, "type": "object"},
        {"properties": {"a": {"$ref": "#/$defs/a"}}, "type": "object", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"patternProperties": {"^(a+)+$": {"type": "integer"}}, "additionalProperties": False},
        {"properties": {"a": {"type": "string", "pattern": "^(x+)+y$"}}, "type": "object"},
    ],
)
def test_a_schema_that_cannot_be_held_against_a_call_refuses_none(schema: Any) -> None:
    spec = ToolSpec("odd", "", json.dumps(schema), strict=True)
    calls = Calls({"mcp__client__odd": spec}, parallel=True)
    assert folded(stream(calls, block("t", "odd"), '{"a": "x"}')) == [("t", "odd", '{"a": "x"}')]
