"""What else a request asks of its answer: a format, an end, a length, an effort."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from claude_coded.errors import InvalidRequest, UnsupportedParameter
from claude_coded.openai.schemas import SchemaCheck, object_schema, rooted
from claude_coded.openai.tools import check_name
from claude_coded.openai.wire import convert
from claude_coded.turn import Options

ANY_OBJECT: Final[Mapping[str, Any]] = {"type": "object"}
MAX_STOPS: Final = 4
MAX_STOP: Final = 1000
"""Longest text that stops an answer, in characters: all that may be its beginning is compared to it."""

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
    if body.keys().isdisjoint(OptionFields.__struct_fields__):
        return Options()  # as in most requests
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
    for index, text in enumerate(stops):
        if len(text) > MAX_STOP:
            raise InvalidRequest(f"at most {MAX_STOP} characters", param=param.format(index))
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
            param = "response_format.json_schema.schema"
            return SchemaCheck()(
                object_schema(rooted(ANY_OBJECT if schema is None else schema), param), param
            )
        case ResponseFormat(type="json_schema"):
            raise InvalidRequest("this holds the schema", param="response_format.json_schema")
    raise UnsupportedParameter(
        f"answers in the format {given.type!r} are not supported", param="response_format.type"
    )
