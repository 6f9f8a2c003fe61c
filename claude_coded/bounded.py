"""JSON Schema's validators, bounded: schemas, and what is held against them, are a client's doing.

A few references that branch, a regular expression, or a list of things that are hard to tell apart would take
for ever. What is counted here takes some microseconds a step, whatever it is of. Loads jsonschema: import
this where there is something to check.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from referencing import Registry

Faults = Iterator[ValidationError] | None
Keyword = Callable[[Validator, Any, Any, Any], Faults]

COMPARED: Final = frozenset({"enum", "const"})
"""Keywords that compare all of their value."""

REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
A_REFERENCE: Final = 20
"""Steps that it takes to follow one, and one more for each part of its path."""

A_STEP: Final = 50
"""Characters of a message that count as one step: it holds all that is wrong, however large that is."""


class TooLong(Exception):
    """The steps are used up."""


class Checker:
    """A draft's validator that gives up after so many steps, one run at a time.

    `unknown` are keywords against which nothing is held.
    """

    def __init__(self, kind: type[Validator], unknown: Collection[str] = ()) -> None:
        keywords: dict[str, Keyword] = {**kind.VALIDATORS, **dict.fromkeys(unknown, _nothing)}
        if "uniqueItems" in keywords:
            keywords["uniqueItems"] = _unique_items
        limited = {name: self._limited(name, keyword) for name, keyword in keywords.items()}
        self._kind: Any = extend(kind, limited)  # type: ignore[no-untyped-call]
        self._kind.evolve = _staying(self._kind.evolve)
        self._left = 0

    def faults(self, instance: Any, schema: Any, steps: int, **more: Any) -> Iterator[ValidationError]:  # noqa: ANN401 - any JSON
        """Yield what is wrong. Raises what jsonschema does, and TooLong."""
        self._left = steps
        # The registry fetches nothing.
        yield from self._kind(schema, registry=Registry(), **more).iter_errors(instance)

    def _limited(self, name: str, keyword: Keyword) -> Keyword:
        of_value = _size if name in COMPARED else _way if name in REFERENCES else _length
        of_instance = _size if name == "uniqueItems" else _length

        def run(validator: Validator, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:  # noqa: ANN401
            self._take(1 + of_value(value) + of_instance(instance))
            for fault in keyword(validator, value, instance, schema) or ():
                self._take(len(fault.message) // A_STEP)
                yield fault

        return run

    def _take(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise TooLong


def _staying(evolve: Callable[..., Validator]) -> Callable[..., Validator]:
    """Return what goes on to a schema within; one that names its draft would be the unbounded validator's."""

    def evolved(validator: Validator, **changes: Any) -> Validator:  # noqa: ANN401
        schema = changes.get("schema", validator.schema)
        if isinstance(schema, dict) and "$schema" in schema:
            changes["schema"] = {key: value for key, value in schema.items() if key != "$schema"}
        return evolve(validator, **changes)

    return evolved


def _nothing(*_: object) -> None:
    """Hold nothing against a keyword."""


def _unique_items(_: Validator, value: Any, instance: Any, __: Any) -> Iterator[ValidationError]:  # noqa: ANN401
    """Do as jsonschema does, which compares each item with each other where they cannot be sorted."""
    if value and isinstance(instance, list) and len(set(map(_hashable, instance))) < len(instance):
        yield ValidationError(f"{instance!r} has non-unique elements")


def _hashable(value: Any) -> object:  # noqa: ANN401
    """Return what is equal where JSON values are: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, dict):
        return dict, frozenset((key, _hashable(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return list, tuple(map(_hashable, value))
    return type(value) is bool, value


def _length(value: object) -> int:
    return len(value) if isinstance(value, dict | list) else 0


def _way(reference: object) -> int:
    return A_REFERENCE + (reference.count("/") if isinstance(reference, str) else 0)


def _size(value: object) -> int:
    """Return how many values there are in one."""
    count, rest = 0, [value]
    while rest:
        count += 1
        value = rest.pop()
        if isinstance(value, dict | list):
            rest.extend(value.values() if isinstance(value, dict) else value)
    return count
