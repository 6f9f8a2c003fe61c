"""OpenAI's own JSON Schemas of requests and answers."""

import json
from functools import cache
from typing import Any, Final

from jsonschema import Draft202012Validator

from tests.support.record import DATA

SCHEMAS: Final[dict[str, Any]] = json.loads((DATA / "openai-schemas.json").read_text())

OURS: Final = {"ChatCompletionResponseMessage", "ChatCompletionStreamResponseDelta"}
"""Where `reasoning_content` stands, which is not OpenAI's but which clients know."""


def check(name: str, body: object, *, exact: bool = True) -> None:
    """Check that a body fits a schema, and if `exact` has nothing besides."""
    errors = [
        f"{error.json_path}: {error.message}" for error in validator(name, exact=exact).iter_errors(body)
    ]
    assert not errors, (errors, body)


def check_event(event: dict[str, Any]) -> None:
    """Check that an event of a response's stream fits the schema of its type."""
    check(_events()[event["type"]], event, exact="response" not in event)


@cache
def _events() -> dict[str, str]:
    """Return the names of the schemas of events by type."""
    names = [one["$ref"].rpartition("/")[2] for one in SCHEMAS["$defs"]["ResponseStreamEvent"]["anyOf"]]
    return {properties(name)["type"]["enum"][0]: name for name in names}


@cache
def validator(name: str, *, exact: bool = False) -> Draft202012Validator:
    """Return what validates by a schema; an `exact` one forbids properties that it does not name."""
    definitions = SCHEMAS["$defs"]
    if exact:
        definitions = {key: _closed(value) for key, value in definitions.items()}
        for key in OURS:
            definitions[key]["properties"]["reasoning_content"] = {"type": "string"}
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": definitions})


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(inner) for key, inner in schema.items()}
    if isinstance(schema.get("properties"), dict):
        closed.setdefault("additionalProperties", False)
    return closed


def properties(name: str) -> dict[str, Any]:
    """Return the properties of a schema, those of what it is made of included."""
    return _properties(SCHEMAS["$defs"][name])


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return properties(schema["$ref"].rpartition("/")[2])
    found = dict(schema.get("properties", {}))
    for part in schema.get("allOf", ()):
        found |= _properties(part)
    return found
