"""Whether the arguments of a call fit its tool's schema. Loads jsonschema: import it where that is asked."""

import re
from typing import Any

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, UnknownType
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable


def fault_of(text: str, parameters: str) -> str:
    """Return how arguments (JSON text) miss a schema; "" where they fit, or nobody can tell."""
    try:
        arguments: Any = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        return f"The arguments are no JSON: {error}"
    schema = msgspec.json.decode(parameters)
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        # The registry fetches nothing.
        fault = next(kind(schema, registry=Registry()).iter_errors(arguments), None)
    except (SchemaError, UnknownType, Unresolvable, RecursionError, re.error):
        return ""
    return f"The arguments do not fit the tool's schema: {fault.json_path}: {fault.message}" if fault else ""
