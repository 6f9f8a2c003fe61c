"""What a request asks of its answer: format, end, length, effort."""

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.errors import InvalidRequest, UnsupportedParameter
from claude_coded.openai.chat import parse_chat
from claude_coded.openai.options import EFFORTS, parse_options
from claude_coded.openai.schemas import MAX_SCHEMA
from claude_coded.turn import Options
from tests.support.schemas import SCHEMAS
from tests.unit.test_chat import JSON, body

SCHEMA = "response_format.json_schema.schema"


def schema_of(schema: object, name: object = "output") -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, Options()),
        ({"stop": None}, Options()),
        ({"stop": []}, Options()),
        ({"stop": "END"}, Options(stop=("END",))),
        ({"stop": ["a", "b", "\n", " "]}, Options(stop=("a", "b", "\n", " "))),
        ({"max_tokens": 32000}, Options(max_tokens=32000)),
        ({"max_completion_tokens": 1}, Options(max_tokens=1)),
        ({"max_tokens": 7, "max_completion_tokens": 5}, Options(max_tokens=5)),
        ({"max_tokens": 7, "max_completion_tokens": None}, Options(max_tokens=7)),
        ({"reasoning_effort": None}, Options()),
        ({"reasoning_effort": "none"}, Options(effort="low")),
        ({"reasoning_effort": "minimal"}, Options(effort="low")),
        ({"reasoning_effort": "low"}, Options(effort="low")),
        ({"reasoning_effort": "medium"}, Options(effort="medium")),
        ({"reasoning_effort": "high"}, Options(effort="high")),
        ({"reasoning_effort": "xhigh"}, Options(effort="xhigh")),
        ({"reasoning_effort": "max"}, Options(effort="max")),
        ({"response_format": None}, Options()),
        ({"response_format": {"type": "text"}}, Options()),
        ({"response_format": {"type": "json_object"}}, Options(schema='{"type":"object"}')),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            Options(schema='{"type":"object"}'),
        ),
        (
            {"response_format": schema_of({"type": "object", "properties": {"b": {}, "a": {}}})},
            Options(schema='{"properties":{"a":{},"b":{}},"type":"object"}'),
        ),
    ],
)
def test_options(fields: dict[str, Any], options: Options) -> None:
    chat = parse_chat(body(**fields))
    assert chat.options == options
    assert not chat.ignored


def test_every_effort_of_openais_is_known() -> None:
    assert set(EFFORTS) == set(SCHEMAS["$defs"]["ReasoningEffort"]["anyOf"][0]["enum"])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stop": 7}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": ["a", 7]}, "stop[1]"),
        ({"stop": list("abcde")}, "stop"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_tokens": -1, "max_completion_tokens": 1}, "max_tokens"),
        ({"reasoning_effort": "hard"}, "reasoning_effort"),
        ({"reasoning_effort": 1}, "reasoning_effort"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {}}, "response_format"),
        ({"response_format": {"type": 1}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema"),
        ({"response_format": schema_of({"type": "object"}, "")}, "response_format.json_schema.name"),
        ({"response_format": schema_of({"type": "object"}, None)}, "response_format.json_schema.name"),
        ({"response_format": schema_of({"type": "object"}, "x" * 65)}, "response_format.json_schema.name"),
        ({"response_format": schema_of([])}, SCHEMA),
        ({"response_format": schema_of({})}, SCHEMA),
        ({"response_format": schema_of({"type": "array"})}, SCHEMA),
        ({"response_format": schema_of({"type": "object", "required": "x"})}, f"{SCHEMA}.required"),
        (
            {"response_format": schema_of({"type": "object", "properties": {"x": {"type": "strin"}}})},
            f"{SCHEMA}.properties.x.type",
        ),
        ({"response_format": schema_of({"type": "object", "allOf": [{}, 7]})}, f"{SCHEMA}.allOf[1]"),
        (
            {"response_format": schema_of({"type": "object", "properties": {"x": {"pattern": "("}}})},
            f"{SCHEMA}.properties.x.pattern",
        ),
        (
            {"response_format": schema_of({"type": "object", "items": {"$ref": "#/$defs/a"}})},
            f"{SCHEMA}.items.$ref",
        ),
        (
            {"response_format": schema_of({"type": "object", "anyOf": [{"$ref": "http://a.example/b"}]})},
            f"{SCHEMA}.anyOf[0].$ref",
        ),
        (
            {"response_format": schema_of({"type": "object", "items": {"$ref": "#anchor"}})},
            f"{SCHEMA}.items.$ref",
        ),
        (
            {"response_format": schema_of({"type": "object", "items": {"$ref": "#/required/9"}})},
            f"{SCHEMA}.items.$ref",
        ),
        ({"response_format": schema_of({"type": "object", "$schema": []})}, f"{SCHEMA}.$schema"),
        ({"response_format": schema_of({"type": "object", "$schema": "http://["})}, f"{SCHEMA}.$schema"),
        ({"response_format": schema_of({"type": "object", "title": "x" * MAX_SCHEMA})}, SCHEMA),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body(**fields))
    assert (caught.value.param, caught.value.code) == (param, None)


def test_a_format_that_is_not_known_is_refused() -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        parse_chat(body(response_format={"type": "grammar", "grammar": "x"}))
    assert caught.value.param == "response_format.type"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "$defs": {"a": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/a"}}},
        {"type": "object", "properties": {"child": {"$ref": "#"}, "$ref": {"type": "string"}}},
        {
            "type": "object",
            "$defs": {"a/b %": {"anyOf": [True]}},
            "items": {"$ref": "#/$defs/a~1b%20%25/anyOf/0"},
        },
        {
            "type": "object",
            "$schema": "http://json-schema.org/draft-07/schema#",
            "definitions": {"a": {"items": [{}, {}]}},
            "properties": {"x": {"$ref": "#/definitions/a"}},
        },
        {"type": "object", "$schema": "https://a.example/of-our-own"},
        {"type": "object", "$id": "https://a.example/s", "items": {"$ref": "#/$defs/a"}, "$defs": {"a": {}}},
    ],
)
def test_schemas_of_any_draft_and_with_references_are_taken(schema: dict[str, Any]) -> None:
    assert orjson.loads(parse_chat(body(response_format=schema_of(schema))).options.schema or "") == schema


def test_the_root_is_looked_for_only_so_far() -> None:
    away = {f"{n}": {"$ref": f"#/$defs/{n + 1}"} for n in range(100_000)}
    far = {"$ref": "#/$defs/0", "$defs": away, **{f"{n}": 1 for n in range(100_000)}}
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body(response_format=schema_of(far)))
    assert caught.value.param == SCHEMA


WORDS = st.sampled_from(
    ["$ref", "$id", "$schema", "$anchor", "$defs", "type", "items", "properties", "allOf"]
)
VALUES = st.sampled_from(["#", "#/items", "#/allOf/x", "#/type/0", "#a", "%", "http://[", "object", "//"])
SCHEMAS_OF_SORTS = st.recursive(
    VALUES | JSON,
    lambda inner: st.dictionaries(WORDS, inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=8,
)


@given(st.dictionaries(WORDS, SCHEMAS_OF_SORTS, max_size=3))
def test_no_schema_is_an_internal_error(schema: dict[str, Any]) -> None:
    data = body(response_format=schema_of({**schema, "type": "object"}))
    with contextlib.suppress(InvalidRequest):
        parse_chat(data)


def test_a_text_that_stops_has_its_bounds() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body(stop=["x", "y" * 1001]))
    assert caught.value.param == "stop[1]"


def test_a_root_that_is_a_reference_is_what_it_refers_to() -> None:
    person = {"type": "object", "properties": {"friend": {"$ref": "#/$defs/Person"}}}
    schema = {"$ref": "#/$defs/Again", "$defs": {"Again": {"$ref": "#/$defs/Person"}, "Person": person}}
    given = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    made = parse_options({"response_format": given}).schema
    assert made is not None
    assert orjson.loads(made) == {**person, "$defs": schema["$defs"]}
    for wrong in ("#/$defs/Self", "#/$defs/None", "https://example.com/x"):
        given["json_schema"] = {
            "name": "x",
            "schema": {"$ref": wrong, "$defs": {"Self": {"$ref": "#/$defs/Self"}}},
        }
        with pytest.raises(InvalidRequest):
            parse_options({"response_format": given})
