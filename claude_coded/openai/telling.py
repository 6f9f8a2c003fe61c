"""A history as a client tells it, whatever its API: what comes in which order."""

from collections.abc import Iterable
from typing import Final

from claude_coded.turn import Document, Image, Message, Part, RemoteImage, Role, Text, ToolCall, ToolOutcome

Content = Text | Image | RemoteImage | Document

# Enum looks a member up for longer than a message takes otherwise.
_USER: Final = Role.USER
_ASSISTANT: Final = Role.ASSISTANT


class Telling:
    """The messages so far, after those of the past. Calls are answered by what comes right after them.

    What the user says while calls wait is heard after their outcomes, which make one message. `open` are the
    calls that wait, by id with what they call. An answer is told in pieces, and so are outcomes: the newest
    message is among `messages` from its `end` on.
    """

    def __init__(self, past: tuple[Message, ...] = ()) -> None:
        self.messages = list(past)
        self.open: dict[str, str] = _calls(past[-1].parts) if past else {}
        self._later: list[Message] = []
        self._texts: list[Part] = []
        self._called: list[ToolCall] = []
        self._outcomes: list[ToolOutcome] = []

    @property
    def answers(self) -> bool:
        """Return whether an answer is being told, with nothing after it so far."""
        return bool(self._texts or self._called)

    def add_question(self, parts: tuple[Part, ...]) -> None:
        """Add what the user says."""
        if self.open:
            self._later.append(Message(_USER, parts))
        else:
            self.end()
            self.messages.append(Message(_USER, parts))

    def add_answer(self, parts: Iterable[Part]) -> None:
        """Add to what the assistant says, texts before its calls; none of another answer may wait."""
        for part in parts:
            if type(part) is ToolCall:
                self._called.append(part)
                self.open[part.id] = part.name
            else:
                self._texts.append(part)

    def add_outcome(self, call: str, parts: tuple[Content, ...]) -> None:
        """Add what a call that waits has returned."""
        del self.open[call]
        if self.answers:
            self.end()
        self._outcomes.append(ToolOutcome(call, parts))
        if not self.open:
            self.end()
            self.messages += self._later
            self._later = []

    def end(self) -> None:
        """End the newest message."""
        if self.answers:
            self.messages.append(Message(_ASSISTANT, (*self._texts, *self._called)))
            self._texts, self._called = [], []
        elif self._outcomes:
            self.messages.append(Message(_USER, tuple(self._outcomes)))
            self._outcomes = []


def _calls(parts: tuple[Part, ...]) -> dict[str, str]:
    return {part.id: part.name for part in parts if type(part) is ToolCall}
