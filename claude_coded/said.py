"""What the model has answered in a turn, as its conversation keeps it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson

from claude_coded.turn import (
    AnswerEvent,
    Message,
    Part,
    Role,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
)


def _is_whole(call: ToolCall) -> bool:
    """Return whether a call has all its arguments: a limit of tokens may have cut it."""
    try:
        return isinstance(orjson.loads(call.arguments), dict)
    except ValueError:
        return False


@dataclass(slots=True)
class Said:
    """What the model has answered, as the conversation keeps it: without a call that was cut."""

    texts: list[str] = field(default_factory=list)
    calls: list[ToolCallStarted] = field(default_factory=list)
    arguments: list[list[str]] = field(default_factory=list)

    def add(self, events: Iterable[AnswerEvent]) -> None:
        """Take in some events of the answer."""
        for event in events:
            match event:
                case TextDelta(text):
                    self.texts.append(text)
                case ToolCallStarted():
                    self.calls.append(event)
                    self.arguments.append([])
                case ToolCallDelta(index, piece):
                    self.arguments[index].append(piece)
                case _:
                    pass

    @property
    def message(self) -> Message:
        """Return the answer so far."""
        text = "".join(self.texts)
        parts: list[Part] = [Text(text)] if text or not self.calls else []
        made = zip(self.calls, self.arguments, strict=True)
        calls = [ToolCall(call.id, call.name, "".join(arguments)) for call, arguments in made]
        return Message(Role.ASSISTANT, (*parts, *filter(_is_whole, calls)))
