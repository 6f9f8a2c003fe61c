"""What becomes of each field of a chat request: one table.

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


def _honoured() -> Rule:
    return Rule(Treatment.HONOURED)


def _ignored(kind: Any = Any, items: Any = Any) -> Rule:  # noqa: ANN401 - types are values here
    return Rule(Treatment.IGNORED, kind, items)


def _refused(kind: Any, *harmless: object) -> Rule:  # noqa: ANN401 - types are values here
    return Rule(Treatment.REFUSED, kind, harmless=lambda value: value in harmless)


FIELDS: Final[Mapping[str, Rule]] = {
    "model": _honoured(),
    "messages": _honoured(),
    "stream": _honoured(),
    "stream_options": _honoured(),
    "store": _honoured(),
    "tools": _honoured(),
    "tool_choice": _honoured(),
    "parallel_tool_calls": _honoured(),
    "functions": _honoured(),
    "function_call": _honoured(),
    "response_format": _honoured(),
    "stop": _honoured(),
    "max_tokens": _honoured(),
    "max_completion_tokens": _honoured(),
    "reasoning_effort": _honoured(),
    "n": _refused(Annotated[int, Meta(ge=1, le=128)], 1),
    "logprobs": _refused(bool, False),
    "top_logprobs": _refused(Annotated[int, Meta(ge=0, le=20)], 0),
    "audio": _refused(dict),
    "modalities": _refused(list[Literal["text", "audio"]], [], ["text"]),
    "moderation": _refused(dict),
    "temperature": _ignored(Annotated[float, Meta(ge=0, le=2)]),
    "top_p": _ignored(Annotated[float, Meta(ge=0, le=1)]),
    "presence_penalty": _ignored(Penalty),
    "frequency_penalty": _ignored(Penalty),
    "seed": _ignored(Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]),
    "logit_bias": _ignored(dict, Annotated[float, Meta(ge=-100, le=100)]),
    "user": _ignored(str),
    "metadata": _ignored(dict, str),
    "service_tier": _ignored(Literal["auto", "default", "flex", "scale", "priority", "fast"]),
    "safety_identifier": _ignored(Annotated[str, Meta(max_length=64)]),
    "prompt_cache_key": _ignored(str),
    "prompt_cache_options": _ignored(dict),
    "prompt_cache_retention": _ignored(Literal["in_memory", "in-memory", "24h"]),
    "prediction": _ignored(Prediction),
    "verbosity": _ignored(Literal["low", "medium", "high"]),
    "web_search_options": _ignored(dict),
}


def review(body: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields that are ignored, those that nobody knows included.

    Raises InvalidRequest for a value that cannot be and UnsupportedParameter for what is refused.
    """
    ignored = []
    for name, value in body.items():
        rule = FIELDS.get(name, Rule(Treatment.IGNORED))
        if value is None or rule.treatment is Treatment.HONOURED:
            continue
        _check(name, value, rule)
        if rule.treatment is Treatment.IGNORED:
            ignored.append(name)
        elif not rule.harmless(value):
            raise UnsupportedParameter(f"{name} is not supported with this value", param=name)
    return ignored


def _check(name: str, value: Any, rule: Rule) -> None:  # noqa: ANN401 - any JSON
    convert(value, rule.kind, name)
    if rule.items is not Any:
        for key, item in value.items():
            convert(item, rule.items, f"{name}.{key}")
