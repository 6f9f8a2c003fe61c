"""Whether the arguments of a call fit its tool's schema. Loads jsonschema: import it where that is asked."""

from functools import lru_cache
from typing import Any, Final

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, UnknownType
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing.exceptions import Unresolvable

from claude_coded.bounded import Checker, TooLong

STEPS: Final = 12_000
"""How much is looked at, while nothing else runs: some 20 ms at most."""

BY_EXPRESSION: Final = '"patternProperties"'
"""Where this is, no property is known without a regular expression."""


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
        fault = next(checker.faults(arguments, schema, STEPS), None)
    except (SchemaError, UnknownType, Unresolvable, RecursionError, TooLong):
        return ""
    return f"The arguments do not fit the tool's schema: {fault.json_path}: {fault.message}" if fault else ""


@lru_cache(maxsize=8)
def _checker(kind: type[Validator]) -> Checker:
    return Checker(kind, unknown=("pattern",))
