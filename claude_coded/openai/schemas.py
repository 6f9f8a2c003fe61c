"""JSON Schemas that clients send."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for

from claude_coded.errors import InvalidRequest
from claude_coded.openai.wire import canonical

MAX_SCHEMA: Final = 64 * 1024
"""Longest JSON text of a schema: to check one takes some 6 ms a KB, and nothing else runs meanwhile."""


def object_schema(schema: Mapping[str, Any], param: str) -> str:
    """Return the JSON text of a schema, keys sorted. Raises InvalidRequest when it is not of an object."""
    if (kind := schema.get("type")) != "object":
        raise InvalidRequest(f'this must be a JSON Schema of type "object", not {kind!r:.60}', param=param)
    return canonical(schema, param)


def checked_schema(schema: Mapping[str, Any], param: str) -> str:
    """Return the JSON text of a schema that can be told from others, and applied. Raises InvalidRequest."""
    text = object_schema(schema, param)
    if len(text) > MAX_SCHEMA:
        raise InvalidRequest(f"a schema is at most {MAX_SCHEMA} bytes long", param=param)
    if (fault := _fault(text)) is not None:
        path, message = fault
        raise InvalidRequest(f"this is no valid JSON Schema: {message}", param=param + path)
    return text


@lru_cache(maxsize=128)
def _fault(text: str) -> tuple[str, str] | None:
    """Return where a schema is wrong, and what is. Clients send the same schema again and again."""
    schema = orjson.loads(text)
    try:
        kind = _dialect(schema.get("$schema"))
        error = best_match(kind(kind.META_SCHEMA, format_checker=kind.FORMAT_CHECKER).iter_errors(schema))
    except ValueError:
        return ".$schema", "it is of no known kind"
    except RecursionError:
        return "", "it is nested too deep"
    if error is not None:
        return _path(error.absolute_path), f"{error.message:.200}"
    return _lost_reference(schema)


def _dialect(uri: object) -> type[Validator]:
    """Return what validates schemas of a draft; raises ValueError for what is no URI."""
    if isinstance(uri, str):
        return validator_for({"$schema": uri}, default=Draft202012Validator)
    return Draft202012Validator


def _lost_reference(schema: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return where a reference is no JSON pointer to a place in the schema: nothing is fetched."""
    for path, reference in _references(schema, ""):
        if reference != "#" and not reference.startswith("#/"):
            return path, "references are JSON pointers within the schema, as in #/$defs/name"
        if not _leads_somewhere(schema, reference.split("/")[1:]):
            return path, f"{reference!r:.80} leads nowhere"
    return None


def _leads_somewhere(value: object, steps: list[str]) -> bool:
    for step in steps:
        key = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return False
    return isinstance(value, Mapping | bool)


def _references(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == "$ref" and isinstance(inner, str):
                yield f"{path}.$ref", inner
            yield from _references(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _references(inner, f"{path}[{index}]")


def _path(steps: Any) -> str:  # noqa: ANN401 - keys and indices
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
