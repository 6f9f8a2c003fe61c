"""Whether the arguments of a call fit its tool's schema. Loads jsonschema: import it where that is asked.

Schema and arguments are a client's doing, and nothing else runs while one is held against the other: a few
references that branch, or a regular expression, would take for ever.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, UnknownType, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

STEPS: Final = 20_000
"""How much is looked at: keywords, and what they go through. A step takes some 5 to 25 µs."""

BY_EXPRESSION: Final = '"patternProperties"'
"""Where this is, no property is known without a regular expression."""

Faults = Iterator[ValidationError] | None
Keyword = Callable[[Validator, Any, Any, Any], Faults]


class _TooLong(Exception):
    """The steps are used up."""


def fault_of(text: str, parameters: str) -> str:
    """Return how arguments (JSON text) miss a schema; "" where they fit, or nobody can tell.

    Strings are not held against a `pattern`.
    """
    try:
        arguments: Any = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        return f"The arguments are no JSON: {error}"
    if BY_EXPRESSION in parameters:
        return ""
    schema = msgspec.json.decode(parameters)
    checker = _checker(validator_for(schema, default=Draft202012Validator))
    try:
        fault = checker.fault_of(arguments, schema)
    except (SchemaError, UnknownType, Unresolvable, RecursionError, _TooLong):
        return ""
    return f"The arguments do not fit the tool's schema: {fault.json_path}: {fault.message}" if fault else ""


@lru_cache(maxsize=8)
def _checker(kind: type[Validator]) -> "_Checker":
    return _Checker(kind)


class _Checker:
    """A draft's validator that gives up after so many steps, and knows no expressions."""

    def __init__(self, kind: type[Validator]) -> None:
        keywords = {name: self._limited(name, keyword) for name, keyword in kind.VALIDATORS.items()}
        self._kind: type[Validator] = extend(kind, {**keywords, "pattern": _unknown})  # type: ignore[no-untyped-call]
        self._left = 0

    def fault_of(self, instance: Any, schema: Any) -> ValidationError | None:  # noqa: ANN401 - any JSON
        """Return the first fault. Raises what jsonschema does, and _TooLong."""
        self._left = STEPS
        # The registry fetches nothing.
        return next(self._kind(schema, registry=Registry()).iter_errors(instance), None)

    def _limited(self, name: str, keyword: Keyword) -> Keyword:
        power = 2 if name == "uniqueItems" else 1  # each item with each other

        def run(validator: Validator, value: Any, instance: Any, schema: Any) -> Faults:  # noqa: ANN401
            self._left -= 1 + _length(value) + _length(instance) ** power
            if self._left < 0:
                raise _TooLong
            return keyword(validator, value, instance, schema)

        return run


def _unknown(*_: object) -> None:
    """Hold nothing against a keyword."""


def _length(value: object) -> int:
    return len(value) if isinstance(value, dict | list) else 0
