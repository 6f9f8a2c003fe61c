"""What becomes of each field of a request: a table, here that of chat requests.

A field that cannot be honoured is refused where ignoring it would change what the answer means; else it is
ignored, and named in the response header `X-Claude-Coded-Ignored`. Null is the same as absent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from claude_coded.errors import UnsupportedParameter
from claude_coded.openai.wire import convert


class Treatment(Enum):
    """What is done with a field."""

    HONOURED = "honoured"
    IGNORED = "ignored"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Rule:
    """A field's treatment.

    `kind` is the type that a value has to fit, and `items` that of a map's items. A refused field may have
    a `harmless` value. What fields that are honoured have to fit stands where they are read.
    """

    treatment: Treatment
    kind: Any = Any
    items: Any = Any
    harmless: Callable[[Any], bool] = lambda _: False


class Prediction(Struct, frozen=True):
    """OpenAI's `prediction`."""

    type: Literal["content"]
    content: str | list[dict[str, Any]]


Penalty = Annotated[float, Meta(ge=-2, le=2)]


def honoured() -> Rule:
    """Return the rule of a field that is honoured."""
    return Rule(Treatment.HONOURED)


def ignored(kind: Any = Any, items: Any = Any) -> Rule:  # noqa: ANN401 - types are values here
    """Return the rule of a field that is ignored, and whose values have to be of a kind."""
    return Rule(Treatment.IGNORED, kind, items)


def refused(kind: Any, *harmless: object) -> Rule:  # noqa: ANN401 - types are values here
    """Return the rule of a field that is refused, unless its value is harmless."""
    return Rule(Treatment.REFUSED, kind, harmless=lambda value: value in harmless)


SHARED: Final[Mapping[str, Rule]] = {
    "top_logprobs": refused(Annotated[int, Meta(ge=0, le=20)], 0),
    "moderation": refused(dict),
    "temperature": ignored(Annotated[float, Meta(ge=0, le=2)]),
    "top_p": ignored(Annotated[float, Meta(ge=0, le=1)]),
    "presence_penalty": ignored(Penalty),
    "frequency_penalty": ignored(Penalty),
    "user": ignored(str),
    "service_tier": ignored(Literal["auto", "default", "flex", "scale", "priority", "fast"]),
    "safety_identifier": ignored(Annotated[str, Meta(max_length=64)]),
    "prompt_cache_key": ignored(str),
    "prompt_cache_options": ignored(dict),
    "prompt_cache_retention": ignored(Literal["in_memory", "in-memory", "24h"]),
}
"""What chat requests and those of the Responses API have both, and is the same there."""

FIELDS: Final[Mapping[str, Rule]] = {
    **SHARED,
    "model": honoured(),
    "messages": honoured(),
    "stream": honoured(),
    "stream_options": honoured(),
    "store": honoured(),
    "tools": honoured(),
    "tool_choice": honoured(),
    "parallel_tool_calls": honoured(),
    "functions": honoured(),
    "function_call": honoured(),
    "response_format": honoured(),
    "stop": honoured(),
    "max_tokens": honoured(),
    "max_completion_tokens": honoured(),
    "reasoning_effort": honoured(),
    "n": refused(Annotated[int, Meta(ge=1, le=128)], 1),
    "logprobs": refused(bool, False),
    "audio": refused(dict),
    "modalities": refused(list[Literal["text", "audio"]], [], ["text"]),
    "seed": ignored(Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]),
    "logit_bias": ignored(dict, Annotated[float, Meta(ge=-100, le=100)]),
    "metadata": ignored(dict, str),
    "prediction": ignored(Prediction),
    "verbosity": ignored(Literal["low", "medium", "high"]),
    "web_search_options": ignored(dict),
}


UNKNOWN: Final = Rule(Treatment.IGNORED)


def review(body: Mapping[str, Any], table: Mapping[str, Rule] = FIELDS) -> list[str]:
    """Return the names of the fields that are ignored, those that nobody knows included.

    Raises InvalidRequest for a value that cannot be and UnsupportedParameter for what is refused.
    """
    let_be = []
    for name, value in body.items():
        rule = table.get(name, UNKNOWN)
        if value is None or rule.treatment is Treatment.HONOURED:
            continue
        _check(name, value, rule)
        if rule.treatment is Treatment.IGNORED:
            let_be.append(name)
        elif not rule.harmless(value):
            raise UnsupportedParameter(f"{name} is not supported with this value", param=name)
    return let_be


def _check(name: str, value: Any, rule: Rule) -> None:  # noqa: ANN401 - any JSON
    convert(value, rule.kind, name)
    if rule.items is not Any:
        for key, item in value.items():
            convert(item, rule.items, f"{name}.{key}")
