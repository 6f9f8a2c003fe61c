"""JSON Schemas that clients send."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from claude_coded.errors import InvalidRequest
from claude_coded.openai.wire import canonical

MAX_SCHEMA: Final = 64 * 1024
"""Longest JSON text of a schema: to check one takes some 2 to 7 ms a KB."""
MAX_SCHEMAS: Final = 256 * 1024
"""Longest text of all that are checked of a request."""

MAX_HOPS: Final = 16
"""References from one to the next at a schema's root: each copies what is beside it."""

DISGUISES: Final = (b"\\u005", b"\\u006", b"\\u007")
"""What is in the JSON text of a word of letters that does not have it as it is."""


def may_have_schema(body: bytes) -> bool:
    """Return whether a request may have a schema that is checked."""
    if b'"json_schema"' in body or b'"strict"' in body:
        return True
    return b"\\u00" in body and any(letters in body for letters in DISGUISES)


def object_schema(schema: Mapping[str, Any], param: str) -> str:
    """Return the JSON text of a schema, keys sorted. Raises InvalidRequest when it is not of an object."""
    if (kind := schema.get("type")) != "object":
        raise InvalidRequest(f'this must be a JSON Schema of type "object", not {kind!r:.60}', param=param)
    return canonical(schema, param)


class SchemaCheck:
    """Checks the schemas of one request, of which there may be so much."""

    def __init__(self) -> None:
        self._left = MAX_SCHEMAS

    def __call__(self, text: str, param: str) -> str:
        """Return the JSON text of a schema. Raises InvalidRequest when it is none, or too long."""
        self._left -= len(text)
        if len(text) > MAX_SCHEMA:
            raise InvalidRequest(f"a schema is at most {MAX_SCHEMA} bytes long", param=param)
        if self._left < 0:
            raise InvalidRequest(f"strict schemas are at most {MAX_SCHEMAS} bytes long in all", param=param)
        # jsonschema takes 3.6 MB and 45 ms to load: most clients send no schema.
        from claude_coded.openai.metaschema import fault_of  # noqa: PLC0415

        if (fault := fault_of(text)) is not None:
            path, message = fault
            raise InvalidRequest(f"this is no valid JSON Schema: {message}", param=param + path)
        return text


def rooted(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema whose root is no reference: pydantic's is, of a model that holds itself."""
    seen: set[str] = set()
    while isinstance(reference := schema.get("$ref"), str) and "type" not in schema and reference not in seen:
        if len(seen) == MAX_HOPS:
            break
        seen.add(reference)
        found = look_up(schema, reference) if reference.startswith("#/") else None
        if not isinstance(found, Mapping):
            break
        schema = {**found, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def look_up(value: Any, reference: str) -> Any:  # noqa: ANN401 - any JSON
    """Return what a JSON pointer leads to; None where that is nowhere."""
    for step in reference.split("/")[1:]:
        key = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, list) and len(key) < 10 and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value
