"""Claude's own tool use, put into the answer where the setting says: what a client is sent is what counts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from claude_coded.turn import AnswerEvent, ReasoningDelta, TextDelta, ToolActivity, TurnEvent

PLACES: Final[Mapping[str, type[TextDelta | ReasoningDelta]]] = {
    "content": TextDelta,
    "reasoning": ReasoningDelta,
}


@dataclass(slots=True)
class Activity:
    """Puts tool use into words, each on a line of its own; `where` is content, reasoning or off.

    `used` counts the calls; `doing` names the tool that was called last, until something follows.
    """

    where: str
    used: int = 0
    doing: str = ""
    _at_line_start: bool = True

    def show(self, events: Iterable[TurnEvent]) -> list[AnswerEvent]:
        """Return the events with tool use turned into text or reasoning, or left out."""
        place = PLACES.get(self.where)
        shown: list[AnswerEvent] = []
        for event in events:
            if isinstance(event, ToolActivity):
                self.used += event.failure is None
                self.doing = event.name if event.failure is None else ""
                if place is not None:
                    shown.append(place(self._say(event)))
                continue
            self.doing = ""
            if place is not None and isinstance(event, place):
                self._at_line_start = event.text.endswith("\n")
            shown.append(event)
        return shown

    def _say(self, event: ToolActivity) -> str:
        what = f"{event.name} failed: {event.failure}" if event.failure is not None else event.name
        line = f"[{what}] {event.summary}".rstrip() + "\n"
        start = "" if self._at_line_start else "\n"
        self._at_line_start = True
        return start + line
