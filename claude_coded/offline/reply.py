"""The reply: which steps of the script it runs, and the parts that go over the wire."""

import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from claude_coded.offline.memory import Faults
from claude_coded.offline.request import ANSWERS, Conversation, Json, offered
from claude_coded.offline.script import (
    Ask,
    Call,
    Cut,
    Delay,
    Fail,
    Pause,
    Say,
    Step,
    Stop,
    Think,
    Tools,
    Words,
    parse_script,
)

# --- Its steps --------------------------------------------------------------------------------------------

_ENDED_BY: Final[dict[str, tuple[type[Step], ...]]] = {"stopped": (Stop,), "cut": (Cut, Fail)}
_NOTHING_LEFT: Final = {"stopped": "continued", "cut": "continued", "notified": "noted"}


def plan(conversation: Conversation, faults: Faults) -> list[Step]:
    """Return the steps of the next reply, without the faults that are used up; the last ends it."""
    newest = conversation.texts[-1] if conversation.texts else ""
    script = parse_script(newest) or (Say(f"You said: {newest[:200]}"),)
    steps = list(_resolve(script, offered(conversation.body)))
    reply: list[Step] = []
    for index in range(_resume(steps, conversation.passed), len(steps)):
        step = steps[index]
        if isinstance(step, Fail | Cut) and not faults.happens(conversation, index, step.times):
            continue
        reply.append(step)
        if isinstance(step, Fail | Cut | Stop):
            return reply
        if isinstance(step, Tools):
            return [*reply, Stop("tool_use")]
    last_event = conversation.passed[-1] if conversation.passed else ""
    return [*(reply or [Say(_NOTHING_LEFT.get(last_event, "done"))]), Stop("end_turn")]


def _resolve(steps: Iterable[Step], names: Sequence[str]) -> Iterator[Step]:
    """Give each call the full name of a tool on offer, or say that there's none."""
    for step in steps:
        if not isinstance(step, Tools):
            yield step
            continue
        calls = []
        for call in step.calls:
            longer = [name for name in names if name.endswith(f"__{call.name}")]
            if call.name in names:
                calls.append(call)
            elif len(longer) == 1:
                calls.append(Call(longer[0], call.arguments))
            else:
                yield Say(f"no such tool on offer: {call.name}")
        if calls:
            yield Tools(tuple(calls))


def _resume(steps: Sequence[Step], passed: Iterable[str]) -> int:
    """Return the index of the first step that the replies so far have not run."""
    at = 0
    for event in passed:
        tools = _first(steps, at, Tools)
        if event == "results":
            at = tools + 1
        elif event in _ENDED_BY:
            end = _first(steps, at, *_ENDED_BY[event])
            at = end + 1 if end < tools else tools  # none: max_tokens cut it, and what text was left is lost
        else:
            at = len(steps)
    return at


def _first(steps: Sequence[Step], at: int, *kinds: type[Step]) -> int:
    """Return the first index from `at` of a step of these kinds, the length if there's none."""
    return next((index for index in range(at, len(steps)) if isinstance(steps[index], kinds)), len(steps))


# --- Its parts --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """A content block begins (and ends the one before); each text after it is a delta of it."""

    block: Json


Part: TypeAlias = Begin | str | Pause | Fail | Cut | Stop

_WORD: Final = re.compile(r"\s*\S+\s*|\s+")
_SLICE: Final = re.compile(r".{1,32}", re.DOTALL)


def compose(conversation: Conversation, steps: Iterable[Step]) -> Iterator[Part]:
    """Yield the parts of the reply that these steps make."""
    limit = conversation.body.get("max_tokens")
    return _meter(_parts(conversation, steps), limit if isinstance(limit, int) else None)


def _meter(parts: Iterable[Part | Delay], limit: int | None) -> Iterator[Part]:
    """Pace the deltas as `Delay` says, and stop with max_tokens before the one that goes beyond the limit."""
    delay, sent = 0.0, 0
    for part in parts:
        if isinstance(part, Delay):
            delay = part.seconds
            continue
        is_delta = isinstance(part, str)
        if is_delta and delay and sent:
            yield Pause(delay)
        if sent == limit and isinstance(part, str | Begin):
            yield Stop("max_tokens")
            return
        sent += is_delta
        yield part


def _parts(conversation: Conversation, steps: Iterable[Step]) -> Iterator[Part | Delay]:
    kind = ""
    for step in steps:
        if isinstance(step, Delay | Pause | Fail | Cut | Stop):
            yield step
            continue
        for block, deltas in _content(conversation, step):
            first = next(deltas, None)
            if first is None:
                continue
            if not kind == block["type"] == "text":  # neighbouring texts share a block, as a model's would
                yield Begin(block)
            kind = block["type"]
            yield first
            yield from deltas


def _content(
    conversation: Conversation, step: Say | Words | Think | Ask | Tools
) -> Iterator[tuple[Json, Iterator[str]]]:
    """Yield each block of a step as it begins, and its deltas."""
    match step:
        case Say(text):
            yield {"type": "text", "text": ""}, _split(_WORD, text)
        case Ask(topic):
            yield {"type": "text", "text": ""}, _split(_WORD, ANSWERS[topic](conversation))
        case Words(count):
            yield {"type": "text", "text": ""}, (f"w{index} " for index in range(count))
        case Think(text):
            yield {"type": "thinking", "thinking": "", "signature": ""}, _split(_WORD, text)
        case Tools(calls):
            for call in calls:
                identity = {"id": f"toolu_{secrets.token_hex(12)}", "name": call.name}
                yield {"type": "tool_use", **identity, "input": {}}, _split(_SLICE, call.arguments)


def _split(shape: re.Pattern[str], text: str) -> Iterator[str]:
    return (found[0] for found in shape.finditer(text))
