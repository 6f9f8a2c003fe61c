"""The script: the steps that the directives of a user's text stand for."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from json import JSONDecoder
from typing import Final, Never, TypeAlias

from claude_coded.offline.request import ANSWERS

# --- Steps ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Say:
    """Text, sent word by word."""

    text: str


@dataclass(frozen=True, slots=True)
class Words:
    """The deltas `w0 `, `w1 ` and so on."""

    count: int


@dataclass(frozen=True, slots=True)
class Think:
    """A thinking block."""

    text: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Says what the request holds: a key of `ANSWERS`."""

    topic: str


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call; `arguments` is the text of a JSON object."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Tools:
    """The calls that end one reply; the next step runs after their results came."""

    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Delay:
    """Seconds between deltas from here on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Seconds of waiting, once; pings go out meanwhile."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Fail:
    """An API error: an HTTP status if it comes first, else an `error` event; `times` None is always."""

    status: int
    times: int | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection breaks here."""

    times: int | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Ends the reply with this `stop_reason`."""

    reason: str


Step: TypeAlias = Say | Words | Think | Ask | Tools | Delay | Pause | Fail | Cut | Stop


# --- Directives -------------------------------------------------------------------------------------------

_ANY: Final = re.compile(r"(.*)", re.DOTALL)
_NOTHING: Final = re.compile(r"\s*")
_NUMBER: Final = re.compile(r"([0-9]{1,9})\s*")
_FAULT: Final = re.compile(r"([45][0-9]{2})(?:\s+times\s+([0-9]{1,9}))?(?:\s+saying\s+(.*))?\s*", re.DOTALL)
_TIMES: Final = re.compile(r"(?:times\s+([0-9]{1,9}))?\s*")
_REASON: Final = re.compile(r"(max_tokens|refusal)\s*")

_DIRECTIVES: Final[dict[str, tuple[re.Pattern[str], Callable[..., Step]]]] = {
    "say": (_ANY, Say),
    "think": (_ANY, Think),
    "words": (_NUMBER, lambda count: Words(int(count))),
    "delay": (_NUMBER, lambda ms: Delay(int(ms) / 1000)),
    "pause": (_NUMBER, lambda ms: Pause(int(ms) / 1000)),
    "hang": (_NOTHING, partial(Pause, float("inf"))),
    "stop": (_REASON, Stop),
    "cut": (_TIMES, lambda times: Cut(times and int(times))),
    "error": (_FAULT, lambda status, times, message: Fail(int(status), times and int(times), message)),
    **{topic: (_NOTHING, partial(Ask, topic)) for topic in ANSWERS},
}
"""What may follow a directive's name and one space, and the step of its groups."""


# --- Parsing ----------------------------------------------------------------------------------------------

_OPENING: Final = re.compile(r"\[\[([A-Za-z][\w-]*)")
_TOOL_NAME: Final = re.compile(r"\s+([\w.:-]+)\s*")
_CLOSING: Final = re.compile(r"\s*\]\]")


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")


_JSON: Final = JSONDecoder(parse_constant=_no_constant)


def parse_script(text: str) -> tuple[Step, ...]:
    """Return the steps that a user's text asks for, none if it holds no directive; never raises."""
    steps: list[Step] = []
    at = 0
    while opening := _OPENING.search(text, at):
        read = _read_call(text, opening) or _read_simple(text, opening)
        if read is None:
            break
        step, end = read
        before = steps[-1] if steps and not text[at : opening.start()].strip() else None
        if isinstance(step, Tools) and isinstance(before, Tools):  # neighbours are called in one reply
            steps[-1] = Tools(before.calls + step.calls)
        else:
            steps.append(step)
        at = end
    return tuple(steps)


def _read_call(text: str, opening: re.Match[str]) -> tuple[Tools, int] | None:
    """Read `[[tool NAME JSON]]`, no JSON being `{}`; return the step and its end, None if it's not that."""
    name = _TOOL_NAME.match(text, opening.end()) if opening[1] == "tool" else None
    if name is None:
        return None
    start = end = name.end()
    if not text.startswith("]]", start):
        try:
            value, end = _JSON.raw_decode(text, start)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict):
            return None
    closing = _CLOSING.match(text, end)
    return (Tools((Call(name[1], text[start:end] or "{}"),)), closing.end()) if closing else None


def _read_simple(text: str, opening: re.Match[str]) -> tuple[Step, int] | None:
    """Read any directive but a good tool call; None if it's never closed."""
    end = text.find("]]", opening.end())
    if end < 0:
        return None
    argument = text[opening.end() : end]
    shape, build = _DIRECTIVES.get(opening[1], (None, None))
    found = shape.fullmatch(argument[1:]) if shape and argument[:1].strip() == "" else None
    if build is None or found is None:
        return Say(f"unknown directive: {text[opening.start() + 2 : end]}"), end + 2
    return build(*found.groups()), end + 2
