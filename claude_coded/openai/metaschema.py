"""Whether a JSON Schema is one. Loads jsonschema: import it where there is one to check."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for

from claude_coded.bounded import Checker, TooLong
from claude_coded.openai.schemas import look_up

STEPS: Final = 16
"""How much is looked at for each character of a schema: a dense one takes 13."""

MIN_STEPS: Final = 50_000

FAULTS: Final = 16
"""So many are held against each other, for the one that tells the most."""


@lru_cache(maxsize=128)
def fault_of(text: str) -> tuple[str, str] | None:
    """Return where a schema is wrong, and what is. Clients send the same schema again and again."""
    schema = orjson.loads(text)
    try:
        kind = _dialect(schema.get("$schema"))
        steps = max(STEPS * len(text), MIN_STEPS)
        faults = _checker(kind).faults(schema, kind.META_SCHEMA, steps, format_checker=kind.FORMAT_CHECKER)
        error = best_match(islice(faults, FAULTS))
    except ValueError:
        return ".$schema", "it is of no known kind"
    except RecursionError:
        return "", "it is nested too deep"
    except TooLong:
        return "", "it takes too long to check"
    if error is not None:
        return _path(error.absolute_path), f"{error.message:.200}"
    return _lost_reference(schema)


@lru_cache(maxsize=8)
def _checker(kind: type[Validator]) -> Checker:
    return Checker(kind)


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
        if not isinstance(look_up(schema, reference), Mapping | bool):
            return path, f"{reference!r:.80} leads nowhere"
    return None


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
