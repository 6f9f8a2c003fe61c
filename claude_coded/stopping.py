"""Stop sequences: the answer ends before the first of them, wherever the deltas are cut."""

from dataclasses import replace

from claude_coded.turn import AnswerEvent, FinishReason, ReasoningDelta, TextDelta, TurnFailed, TurnFinished


class Stopper:
    """Ends the text of an answer before the first place where one of `stops` begins.

    Text that may be the beginning of a stop sequence is held back, less than the longest of them, and so is
    reasoning behind it: the order stays. Reasoning itself never matches, a tool call parts the text. Once
    `stopped`, no more text, reasoning or calls come out; it is for the caller to end the turn. A turn that
    ends by itself meanwhile is told as one that stopped, or failed.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.stopped = False
        self._stops = tuple(filter(None, stops))
        self._longest = max(map(len, self._stops)) if self._stops else 0
        self._held: list[TextDelta | ReasoningDelta] = []

    def feed(self, events: list[AnswerEvent]) -> list[AnswerEvent]:
        """Return what is to be shown by now, of these events and of what was held back."""
        if not self._stops:
            return events
        shown: list[AnswerEvent] = []
        for event in events:
            if isinstance(event, TextDelta | ReasoningDelta):
                self._held.append(event)
            else:
                shown += self._release(more=False)
                shown += self._pass(event)
        return shown + self._release(more=True)

    def _pass(self, event: AnswerEvent) -> list[AnswerEvent]:
        """Return what is shown of an event that is neither text nor reasoning."""
        if not self.stopped or isinstance(event, TurnFailed):
            return [event]
        return [replace(event, reason=FinishReason.STOP)] if isinstance(event, TurnFinished) else []

    def _release(self, *, more: bool) -> list[AnswerEvent]:
        """Return what is certain of what is held back: all, where no more of this text can come."""
        if self.stopped or not self._held:
            self._held.clear()
            return []
        text = "".join(event.text for event in self._held if isinstance(event, TextDelta))
        found = min((at for stop in self._stops if (at := text.find(stop)) >= 0), default=None)
        certain = self._certain(text) if more else len(text)
        # Where a longer stop sequence may have begun earlier, it is waited for.
        self.stopped = found is not None and found <= certain
        shown = self._cut(certain if found is None else min(found, certain))
        if self.stopped:
            self._held.clear()
        return shown

    def _certain(self, text: str) -> int:
        """Return the length of what no stop sequence can begin in any more, whatever follows."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            rest = text[start:]
            if any(stop.startswith(rest) for stop in self._stops):
                return start
        return len(text)

    def _cut(self, length: int) -> list[AnswerEvent]:
        """Take from what is held back so much text, and the reasoning that stands in it."""
        taken: list[AnswerEvent] = []
        for index, event in enumerate(self._held):
            if isinstance(event, TextDelta):
                if len(event.text) > length:
                    taken += [TextDelta(event.text[:length])] if length else []
                    self._held[: index + 1] = [TextDelta(event.text[length:])]
                    return taken
                length -= len(event.text)
            taken.append(event)
        self._held.clear()
        return taken
