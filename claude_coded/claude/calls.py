"""Calls of the client's tools in one turn, on their way from the model to the client. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jsonschema
import msgspec
import orjson

from claude_coded.claude.wire import Block
from claude_coded.turn import ToolCallDelta, ToolCallStarted, ToolSpec, TurnEvent

NO_ARGUMENTS: Final = "{}"


@dataclass(slots=True)
class _Call:
    id: str
    spec: ToolSpec
    pieces: list[str] = field(default_factory=list)
    told: bool = False

    @property
    def arguments(self) -> str:
        return "".join(self.pieces) or NO_ARGUMENTS


class Calls:
    """What the model calls, and what the client is told of it.

    `tools` are the client's by the names that the model sees. Without `parallel` a response tells one call,
    and the next ones of the same reply wait for the responses after it. A call of a strict tool is told when
    it is whole and fits; one that does not is `refused`, with what is to be said to the model.
    """

    def __init__(self, tools: Mapping[str, ToolSpec], *, parallel: bool) -> None:
        self.told: dict[str, str] = {}  # name by id, of the present response
        self.open: set[str] = set()  # ids of those, and of the waiting ones, that have no outcome yet
        self.refused: dict[str, str] = {}
        self._tools = tools
        self._parallel = parallel
        self._current: _Call | None = None
        self._waiting: list[_Call] = []
        self._seen: set[str] = set()

    def begin(self, block: Block) -> list[TurnEvent]:
        """Take the start of a tool's call; one that is not the client's is ignored."""
        spec = self._tools.get(block.name)
        self._current = None
        if spec is None:
            return []
        self._seen.add(block.id)
        self.open.add(block.id)  # the CLI may ask for it before it has told its end
        self._current = call = _Call(block.id, spec)
        if spec.strict or not self._may_tell:
            return []
        return [self._start(call)]

    def add(self, piece: str) -> list[TurnEvent]:
        """Take a piece of the arguments' JSON text."""
        call = self._current
        if call is None or not piece:
            return []
        call.pieces.append(piece)
        return [ToolCallDelta(len(self.told) - 1, piece)] if call.told else []

    def end(self) -> list[TurnEvent]:
        """Take the end of the call."""
        call, self._current = self._current, None
        if call is None:
            return []
        if call.told:
            return [] if call.pieces else [ToolCallDelta(len(self.told) - 1, NO_ARGUMENTS)]
        if call.spec.strict and (fault := _fault(call)):
            self.refused[call.id] = fault
            self.open.discard(call.id)
            return []
        if not self._may_tell:
            self._waiting.append(call)
            return []
        return self._tell(call)

    def whole(self, block: Block) -> list[TurnEvent]:
        """Take a call that comes at once; nothing comes of one that was streamed."""
        if block.id in self._seen:
            return []
        return [*self.begin(block), *self.add(orjson.dumps(block.input or {}).decode()), *self.end()]

    def is_client(self, name: str) -> bool:
        """Return whether a tool is the client's."""
        return name in self._tools

    def go_on(self, tools: Mapping[str, ToolSpec], *, parallel: bool) -> list[TurnEvent]:
        """Begin the next response, with a call that has waited for it, if there is one."""
        self._tools, self._parallel = tools, parallel
        self.told = {}
        return self._tell(self._waiting.pop(0)) if self._waiting else []

    @property
    def _may_tell(self) -> bool:
        return self._parallel or not self.told

    def _start(self, call: _Call) -> TurnEvent:
        call.told = True
        self.told[call.id] = call.spec.name
        return ToolCallStarted(len(self.told) - 1, call.id, call.spec.name)

    def _tell(self, call: _Call) -> list[TurnEvent]:
        return [self._start(call), ToolCallDelta(len(self.told) - 1, call.arguments)]


def _fault(call: _Call) -> str:
    """Return how the arguments of a call miss the tool's schema; "" where they fit."""
    try:
        arguments: Any = msgspec.json.decode(call.arguments)
    except msgspec.DecodeError as error:
        return f"The arguments are no JSON: {error}"
    validator = jsonschema.Draft202012Validator(msgspec.json.decode(call.spec.parameters))
    try:
        fault = next(iter(validator.iter_errors(arguments)), None)
    except RecursionError:  # a schema that refers to itself for ever says nothing
        return ""
    return f"The arguments do not fit the tool's schema: {fault.json_path}: {fault.message}" if fault else ""
