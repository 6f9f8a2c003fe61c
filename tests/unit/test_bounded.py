"""JSON Schema's validators, bounded."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from claude_coded.bounded import Checker, TooLong
from claude_coded.openai.metaschema import fault_of

DRAFT = "https://json-schema.org/draft/2020-12/schema"
CHECKER = Checker(Draft202012Validator, unknown=("pattern",))
STEPS = 10_000


def given_up(schema: Any, instance: Any) -> bool:
    """Return whether a check is given up; it takes no long time however it ends."""
    began = time.process_time()
    try:
        list(CHECKER.faults(instance, schema, STEPS))
    except TooLong:
        return True
    finally:
        assert time.process_time() - began < 0.5
    return False


def way(length: int) -> Any:
    """Return a schema that is so deep inside."""
    return {"a": way(length - 1)} if length else {}


FLAT = [1] * 5_000
LONG = {
    "a list of much": ({"items": {"items": {"type": "integer"}}}, [FLAT] * 10),
    "much, told again and again": ({"anyOf": [{"type": "string"}] * 3_000}, [[0] * 50_000]),
    "much to compare": ({"allOf": [{"not": {"const": [[*FLAT, 2]]}}] * 500}, [[*FLAT, 3]]),
    "much to choose from": ({"allOf": [{"not": {"enum": [[[*FLAT, 2]]]}}] * 500}, [[*FLAT, 3]]),
    "much that is alike": ({"uniqueItems": True}, [[[*FLAT, n]] for n in range(20)]),
    "references": ({"items": {"$ref": "#/$defs/e"}, "$defs": {"e": {"$ref": "#/$defs/f"}, "f": {}}}, FLAT),
    "a long way": ({"items": {"$ref": "#/$defs" + "/a" * 90}, "$defs": way(90)}, [1] * 100),
}


@pytest.mark.parametrize(("schema", "instance"), LONG.values(), ids=LONG)
def test_what_would_take_long_is_given_up(schema: Any, instance: Any) -> None:
    assert given_up(schema, instance)


@pytest.mark.parametrize("draft", [DRAFT, "http://json-schema.org/draft-07/schema#"])
def test_a_schema_within_that_names_its_draft_is_bounded_too(draft: str) -> None:
    within = {"properties": {"a": {"$schema": draft, "allOf": [{"items": {}}] * 20_000}}}
    assert given_up(within, {"a": [0] * 100})
    exponential = {"properties": {"a": {"$schema": draft, "pattern": "^(x+)+y$"}}}
    assert not given_up(exponential, {"a": "x" * 60})


JSONS = st.recursive(
    st.none() | st.booleans() | st.sampled_from([0, 0.0, 1, 1.0, -1, "", "a", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)
SCHEMAS = st.fixed_dictionaries(
    {},
    optional={
        "uniqueItems": st.booleans(),
        "enum": st.lists(JSONS, min_size=1, max_size=3),
        "const": JSONS,
        "items": st.fixed_dictionaries({"const": JSONS}),
        "type": st.sampled_from(["array", "object", "integer"]),
        "$schema": st.just(DRAFT),
    },
)


@given(SCHEMAS, JSONS)
def test_what_is_wrong_is_what_jsonschema_finds(schema: Any, instance: Any) -> None:
    bounded = CHECKER.faults(instance, schema, STEPS)
    expected = Draft202012Validator(schema).iter_errors(instance)
    assert [fault.message for fault in bounded] == [fault.message for fault in expected]


SCHEMAS_THAT_TAKE_LONG = {
    "things that cannot be sorted": {"required": [{str(n): 1} for n in range(5_000)]},
    "faults": {"anyOf": [1] * 20_000},
    "schemas": {"anyOf": [{}] * 20_000},
    "deep schemas": json.loads('{"anyOf":[' * 300 + "{}" + "]}" * 300),
}


@pytest.mark.parametrize("schema", SCHEMAS_THAT_TAKE_LONG.values(), ids=SCHEMAS_THAT_TAKE_LONG)
def test_no_schema_takes_long_to_check(schema: Any) -> None:
    began = time.process_time()
    fault_of(json.dumps({"type": "object", **schema}))
    assert time.process_time() - began < 6


def test_a_large_schema_is_checked_to_its_end() -> None:
    properties: dict[str, Any] = {f"p{n}": {"type": "string"} for n in range(2_300)}
    schema = {"type": "object", "properties": properties}
    assert fault_of(json.dumps(schema)) is None
    properties["last"] = {"type": "strange"}
    path, _ = fault_of(json.dumps(schema)) or ("", "")
    assert path == ".properties.last.type"
