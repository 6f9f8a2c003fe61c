"""What becomes of each field of a chat request: one table.

A field that cannot be honoured is refused where ignoring it would change what the answer means; else it is
ignored, and named in the response header `X-Claude-Coded-Ignored`. Null is the same as absent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from claude_coded.errors import InvalidRequest, UnsupportedParameter


class Treatment(Enum):
    """What is done with a field."""

    HONOURED = "honoured"
    IGNORED = "ignored"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Rule:
    """A field's treatment. `harmless` tells values that a refused field may have; `check` returns a fault."""

    treatment: Treatment
    harmless: Callable[[Any], bool] = lambda _: False
    check: Callable[[Any], str | None] = lambda _: None


def _range(low: float, high: float) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:  # noqa: ANN401 - any JSON
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "must be a number"
        return None if low <= value <= high else f"must be between {low} and {high}"

    return check


def _is(*values: object) -> Callable[[Any], bool]:
    return lambda value: value in values and not (value is True and True not in values)


def _plain_text(value: Any) -> bool:  # noqa: ANN401 - any JSON
    return isinstance(value, dict) and value.get("type") == "text"


def _honoured() -> Rule:
    return Rule(Treatment.HONOURED)


def _ignored(check: Callable[[Any], str | None] = lambda _: None) -> Rule:
    return Rule(Treatment.IGNORED, check=check)


def _refused(harmless: Callable[[Any], bool]) -> Rule:
    return Rule(Treatment.REFUSED, harmless=harmless)


FIELDS: Final[Mapping[str, Rule]] = {
    "model": _honoured(),
    "messages": _honoured(),
    "stream": _honoured(),
    "stream_options": _honoured(),
    "store": _honoured(),
    "tools": _refused(_is([])),
    "tool_choice": _refused(_is("none", "auto")),
    "functions": _refused(_is([])),
    "function_call": _refused(_is("none", "auto")),
    "response_format": _refused(_plain_text),
    "stop": _refused(_is([])),
    "n": _refused(_is(1)),
    "logprobs": _refused(_is(False)),
    "top_logprobs": _refused(_is(0)),
    "audio": _refused(lambda _: False),
    "modalities": _refused(_is(["text"])),
    "parallel_tool_calls": _ignored(),
    "max_tokens": _ignored(),
    "max_completion_tokens": _ignored(),
    "reasoning_effort": _ignored(),
    "temperature": _ignored(_range(0, 2)),
    "top_p": _ignored(_range(0, 1)),
    "presence_penalty": _ignored(_range(-2, 2)),
    "frequency_penalty": _ignored(_range(-2, 2)),
    "seed": _ignored(),
    "logit_bias": _ignored(),
    "user": _ignored(),
    "metadata": _ignored(),
    "service_tier": _ignored(),
    "safety_identifier": _ignored(),
    "prompt_cache_key": _ignored(),
    "prompt_cache_retention": _ignored(),
    "prediction": _ignored(),
    "verbosity": _ignored(),
    "web_search_options": _ignored(),
}


def review(body: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields that are ignored, those that nobody knows included.

    Raises InvalidRequest for a value out of range and UnsupportedParameter for what is refused.
    """
    ignored = []
    for name, value in body.items():
        rule = FIELDS.get(name, Rule(Treatment.IGNORED))
        if value is None or rule.treatment is Treatment.HONOURED:
            continue
        if (fault := rule.check(value)) is not None:
            raise InvalidRequest(f"{name} {fault}", param=name)
        if rule.treatment is Treatment.IGNORED:
            ignored.append(name)
        elif not rule.harmless(value):
            raise UnsupportedParameter(f"{name} is not supported with this value", param=name)
    return ignored
