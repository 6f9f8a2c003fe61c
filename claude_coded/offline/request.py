"""What a Messages API request of the CLI says: whose text is whose, and what the replies so far led to."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import orjson

Json: TypeAlias = dict[str, Any]

_REMINDER: Final = re.compile(r"<system-reminder>.*?</system-reminder>\s*", re.DOTALL)
_MID_TURN: Final = re.compile(
    r"^The user sent a new message while you were working:\n(.*?)\n\nThis is how Claude Code surfaces",
    re.DOTALL | re.MULTILINE,
)
_CLI_LINES: Final = {
    "Output token limit hit": "stopped",
    "Your response above was stopped by a safety classifier": "stopped",
    "Your response above was cut off mid-stream": "cut",
    "[SYSTEM NOTIFICATION": "notified",
    "[structured-output-enforce]": "notified",
    "[Request interrupted by user": "",
    "[Image: source: ": "",
    "<local-command-": "",
    "<command-name>": "",
    "This session is being continued from a previous conversation": "",
}
"""How the CLI's own lines begin, and what each says of the reply before it; 2.1.331 wraps most of them."""


# --- The history ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Conversation:
    """What a request's history says.

    `texts` are the user's own, in order. `passed` tells of each reply since the newest of them what came
    back: `results` of its tools, `stopped` or `cut` (the CLI asks to go on), `notified` (other news).
    `results` are those of the newest calls.
    """

    body: Json
    texts: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    _before: str = ""

    def add(self, role: str, block: Json) -> None:
        """Take in the next block of the history."""
        kind = "answer" if role == "assistant" else str(block.get("type"))
        if kind == "tool_result":
            self._add_result(block)
        elif kind == "text" and not self._add_text(block):
            return  # a reminder: what it stands between stays neighbours
        self._before = kind

    def _add_result(self, block: Json) -> None:
        if self._before != "tool_result":
            self.passed.append("results")
            self.results.clear()
        self.results.append(_result_text(block))

    def _add_text(self, block: Json) -> bool:
        event = _cli_event(str(block.get("text", "")))
        if own := _own_text(block):
            self.texts.append(own)
            self.passed.clear()
        elif event in {"stopped", "cut"} or (event == "notified" and self._before == "answer"):
            self.passed.append(event)
        return bool(own or event)


def read_conversation(body: Json) -> Conversation:
    """Return the conversation that a Messages API request carries."""
    conversation = Conversation(body)
    for role, block in _entries(body):
        conversation.add(role, block)
    return conversation


def _entries(body: Json) -> Iterator[tuple[str, Json]]:
    """Yield role and block of the whole history as the user and the model know it."""
    for message in body["messages"]:
        content, role = blocks(message.get("content")), str(message.get("role"))
        if role == "system":  # the CLI's own, but for what the user wrote in mid-turn
            for text in _texts(content):
                yield from (("user", _text(found)) for found in _MID_TURN.findall(text))
        else:
            for block, following in zip(content, [*content[1:], {}], strict=False):
                yield role, _unjoined(block, following)


def _unjoined(block: Json, following: Json) -> Json:
    """Take off the line end that the CLI puts between the texts of two messages that it merges."""
    if block.get("type") == following.get("type") == "text":
        return _text(str(block.get("text", "")).removesuffix("\n"))
    return block


# --- Blocks -----------------------------------------------------------------------------------------------


def blocks(content: object) -> list[Json]:
    """Return the blocks of a message's or a prompt's content, which may be a mere text."""
    if isinstance(content, str):
        return [_text(content)]
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def _text(text: str) -> Json:
    return {"type": "text", "text": text}


def _texts(content: object) -> list[str]:
    return [str(block.get("text", "")) for block in blocks(content) if block.get("type") == "text"]


def _cli_event(text: str) -> str | None:
    bare = text.removeprefix("<system-reminder>\n")
    return next((event for start, event in _CLI_LINES.items() if bare.startswith(start)), None)


def _own_text(block: Json) -> str:
    """Return what the user (or the model) wrote of a text block; empty if it's all the CLI's."""
    text = str(block.get("text", ""))
    kept = "" if _cli_event(text) is not None else _REMINDER.sub("", text)
    return kept if kept.strip() else ""


def _result_text(block: Json) -> str:
    return ("error: " if block.get("is_error") else "") + "\n".join(_texts(block.get("content")))


# --- Answers to questions about the request ---------------------------------------------------------------


def offered(body: Json) -> list[str]:
    """Return the names of the tools on offer."""
    return [str(tool.get("name")) for tool in blocks(body.get("tools"))]


def _history(body: Json) -> list[Json]:
    """Return the history as one entry a block, without the CLI's own lines."""
    entries = ({"role": role, **_essence(block)} for role, block in _entries(body))
    return [entry for entry in entries if entry.get("text") != ""]


def _essence(block: Json) -> Json:
    match block.get("type"):
        case "text":
            return {"text": _own_text(block)}
        case "thinking":
            return {"thinking": block.get("thinking")}
        case "tool_use":
            return {"tool_use": block.get("name"), "input": block.get("input")}
        case "tool_result":
            return {"tool_result": _result_text(block)}
        case other:
            return {"type": other}


def _system(body: Json) -> str:
    """Return the system prompt without the CLI's line for billing, which is no prompt."""
    texts = _texts(body.get("system"))
    return "\n".join(text for text in texts if not text.startswith("x-anthropic-billing-header:"))


def _images(content: object) -> int:
    """Count the images of a message, those in its tools' results too."""
    kinds = [(block.get("type"), block.get("content")) for block in blocks(content)]
    return sum(kind == "image" or (kind == "tool_result" and _images(inner)) for kind, inner in kinds)


def _dumps(value: object) -> str:
    return orjson.dumps(value).decode()


ANSWERS: Final[dict[str, Callable[[Conversation], str]]] = {
    "result": lambda it: "\n".join(it.results),
    "recall": lambda it: _dumps(it.texts),
    "history": lambda it: _dumps(_history(it.body)),
    "system": lambda it: _system(it.body),
    "offered": lambda it: _dumps(offered(it.body)),
    "images": lambda it: str(sum(_images(message.get("content")) for message in it.body["messages"])),
    "model": lambda it: str(it.body.get("model")),
    "max_tokens": lambda it: str(it.body.get("max_tokens")),
}
"""What a directive of that name says."""
