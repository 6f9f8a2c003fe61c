"""What else a request asks of its answer: a format, an end, a length, an effort."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from msgspec import Meta, Struct

from claude_coded.errors import InvalidRequest, UnsupportedParameter
from claude_coded.openai.tools import check_name, object_schema
from claude_coded.openai.wire import convert
from claude_coded.turn import Options

ANY_OBJECT: Final[Mapping[str, Any]] = {"type": "object"}
MAX_STOPS: Final = 4
MAX_SCHEMA: Final = 64 * 1024
"""Longest JSON text of a schema: to check one takes some 6 ms a KB, and nothing else runs meanwhile."""

EFFORTS: Final[Mapping[str, str]] = {
    "none": "low",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
"""OpenAI's `reasoning_effort` in Claude Code's levels, of which low is the lowest."""

Tokens = Annotated[int, Meta(ge=1)]


class JsonSchema(Struct, frozen=True):
    """OpenAI's `json_schema` object; what it describes is said by the schema."""

    name: str
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Struct, frozen=True):
    """OpenAI's `response_format`."""

    type: str
    json_schema: JsonSchema | None = None


class OptionFields(Struct, frozen=True):
    """The fields of a request that make its options."""

    response_format: ResponseFormat | None = None
    stop: str | list[str] | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None


def parse_options(body: Mapping[str, Any]) -> Options:
    """Return the options. Raises InvalidRequest and UnsupportedParameter."""
    fields = convert(body, OptionFields)
    return Options(
        stop=_stops(fields.stop),
        max_tokens=fields.max_completion_tokens or fields.max_tokens,
        effort=EFFORTS[fields.reasoning_effort] if fields.reasoning_effort else None,
        schema=_schema(fields.response_format),
    )


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    if stop is None or isinstance(stop, str):
        stops, param = [] if stop is None else [stop], "stop"
    else:
        stops, param = stop, "stop[{}]"
    if len(stops) > MAX_STOPS:
        raise InvalidRequest(f"at most {MAX_STOPS} texts stop an answer", param="stop")
    if "" in stops:
        raise InvalidRequest("nothing cannot stop an answer", param=param.format(stops.index("")))
    return tuple(stops)


# The format --------------------------------------------------------------------------------------------


def _schema(given: ResponseFormat | None) -> str | None:
    """Return the JSON text of the schema that the answer has to fit."""
    match given:
        case None | ResponseFormat(type="text"):
            return None
        case ResponseFormat(type="json_object"):
            return object_schema(ANY_OBJECT, "response_format")
        case ResponseFormat(type="json_schema", json_schema=JsonSchema(name, schema)):
            check_name(name, "response_format.json_schema.name")
            return _checked(ANY_OBJECT if schema is None else schema, "response_format.json_schema.schema")
        case ResponseFormat(type="json_schema"):
            raise InvalidRequest("this holds the schema", param="response_format.json_schema")
    raise UnsupportedParameter(
        f"answers in the format {given.type!r} are not supported", param="response_format.type"
    )


def _checked(schema: Mapping[str, Any], param: str) -> str:
    text = object_schema(_rooted(schema), param)
    if len(text) > MAX_SCHEMA:
        raise InvalidRequest(f"a schema is at most {MAX_SCHEMA} bytes long", param=param)
    if (fault := _fault(text)) is not None:
        path, message = fault
        raise InvalidRequest(f"this is no valid JSON Schema: {message}", param=param + path)
    return text


def _rooted(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema whose root is no reference: pydantic's is, of a model that holds itself."""
    seen: set[str] = set()
    while isinstance(reference := schema.get("$ref"), str) and "type" not in schema and reference not in seen:
        seen.add(reference)
        found = _lookup(schema, reference.split("/")[1:]) if reference.startswith("#/") else None
        if not isinstance(found, Mapping):
            break
        schema = {**found, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


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
        if not isinstance(_lookup(schema, reference.split("/")[1:]), Mapping | bool):
            return path, f"{reference!r:.80} leads nowhere"
    return None


def _lookup(value: Any, steps: list[str]) -> Any:  # noqa: ANN401 - any JSON
    """Return what a JSON pointer leads to; None where that is nowhere."""
    for step in steps:
        key = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


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
