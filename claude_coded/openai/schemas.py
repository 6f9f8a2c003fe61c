"""JSON Schemas that clients send."""

from collections.abc import Mapping
from typing import Any, Final

from claude_coded.errors import InvalidRequest
from claude_coded.openai.wire import canonical

MAX_SCHEMA: Final = 64 * 1024
"""Longest JSON text of a schema: to check one takes some 6 ms a KB, and nothing else runs meanwhile."""


def object_schema(schema: Mapping[str, Any], param: str) -> str:
    """Return the JSON text of a schema, keys sorted. Raises InvalidRequest when it is not of an object."""
    if (kind := schema.get("type")) != "object":
        raise InvalidRequest(f'this must be a JSON Schema of type "object", not {kind!r:.60}', param=param)
    return canonical(schema, param)


def check_schema(text: str, param: str) -> str:
    """Return the JSON text of a schema. Raises InvalidRequest when it is none, or too long."""
    if len(text) > MAX_SCHEMA:
        raise InvalidRequest(f"a schema is at most {MAX_SCHEMA} bytes long", param=param)
    # jsonschema takes 3.6 MB and 45 ms to load: most clients send no schema.
    from claude_coded.openai.metaschema import fault_of  # noqa: PLC0415

    if (fault := fault_of(text)) is not None:
        path, message = fault
        raise InvalidRequest(f"this is no valid JSON Schema: {message}", param=param + path)
    return text
