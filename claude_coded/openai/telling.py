"""A history as a client tells it, whatever its API: what comes in which order."""

from typing import Final

from claude_coded.turn import Document, Image, Message, Part, RemoteImage, Role, Text, ToolCall, ToolOutcome

Content = Text | Image | RemoteImage | Document

# Enum looks a member up for longer than a message takes otherwise.
_USER: Final = Role.USER
_ASSISTANT: Final = Role.ASSISTANT


class Telling:
    """The messages so far, after those of the past. Calls are answered by what comes right after them.

    What the user says while calls wait is heard after their outcomes, which make one message. `open` are the
    calls that wait, by id with what they call.
    """

    def __init__(self, past: tuple[Message, ...] = ()) -> None:
        self.messages = list(past)
        self.open: dict[str, str] = _calls(past[-1].parts) if past else {}
        self._past = len(past)
        self._later: list[Message] = []

    @property
    def answer(self) -> tuple[Part, ...]:
        """Return the parts of the answer that was told last, if nothing came after it; else none."""
        last = self.messages[-1] if len(self.messages) > self._past else None
        return last.parts if last is not None and last.role is _ASSISTANT else ()

    def add_question(self, parts: tuple[Part, ...]) -> None:
        """Add what the user says."""
        (self._later if self.open else self.messages).append(Message(_USER, parts))

    def add_answer(self, parts: tuple[Part, ...]) -> None:
        """Add what the assistant says; no calls may wait."""
        self.messages.append(Message(_ASSISTANT, parts))
        self.open = _calls(parts)

    def change_answer(self, parts: tuple[Part, ...]) -> None:
        """Put other parts in the place of the newest answer's."""
        del self.messages[-1]
        self.add_answer(parts)

    def add_outcome(self, call: str, parts: tuple[Content, ...]) -> None:
        """Add what a call that waits has returned."""
        del self.open[call]
        outcome, last = ToolOutcome(call, parts), self.messages[-1]
        if last.role is _USER:
            self.messages[-1] = Message(_USER, (*last.parts, outcome))
        else:
            self.messages.append(Message(_USER, (outcome,)))
        if not self.open:
            self.messages += self._later
            self._later = []


def _calls(parts: tuple[Part, ...]) -> dict[str, str]:
    return {part.id: part.name for part in parts if type(part) is ToolCall}
