"""What a person has added to a session at a terminal, and whether it is whole, by the CLI's transcript. Pure.

A transcript is JSON lines. Those of type `user` and `assistant` have a `uuid` and, by `parentUuid`, what they
follow: after a rewind a session has several branches, and the last line is on the one that counts. `isMeta`
marks what the CLI added, `isSidechain` what a subagent said. A compaction begins with a line that follows
another by `logicalParentUuid` only, and a summary, marked `isCompactSummary`: nobody's words (2.1.331).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import orjson

from claude_coded.claude.toolbridge import PREFIX
from claude_coded.claude.translate import SYNTHETIC
from claude_coded.turn import Message, Role

SAID: Final = {"user": Role.USER, "assistant": Role.ASSISTANT}

INTERNAL: Final = ("<command-name>", "<local-command-", "<system-reminder>", "<bash-input>", "<bash-stdout>")
"""How texts begin that a terminal's commands leave: they are no part of what was said."""


@dataclass(frozen=True, slots=True)
class Added:
    """What was said on the branch that counts, and how it is found again.

    `first` and `last` are the uuids of a person's first and last message, `answer` that of the last line of
    Claude's. `tools` counts the uses of Claude's own tools.
    """

    said: tuple[Message, ...]
    first: str
    last: str
    answer: str
    tools: int


def read_added(data: bytes) -> Added | None:
    """Return what the lines that a transcript has gained say; None where nobody asked and was answered."""
    branch = _branch(_entries(data))
    asked = [entry["uuid"] for entry in branch if entry["type"] == "user" and _texts(entry)]
    answers = [entry["uuid"] for entry in branch if entry["type"] == "assistant"]
    if not asked or not answers:
        return None
    tools = sum(_is_own_tool(block) for entry in branch for block in _blocks(entry))
    return Added(tuple(_messages(branch)), asked[0], asked[-1], answers[-1], tools)


class _Link(msgspec.Struct, frozen=True):
    """What a line follows."""

    uuid: str = ""
    parent: str | None = msgspec.field(name="parentUuid", default=None)


def follows(data: bytes, uuid: str) -> bool:
    """Return whether a transcript has a message with all that it follows, up to a start or a compaction."""
    decode = msgspec.json.Decoder(_Link).decode
    parents: dict[str, str | None] = {}
    for line in data.splitlines():
        try:
            link = decode(line)
        except msgspec.DecodeError:
            continue  # cut off, or two that became one, or without such fields
        parents[link.uuid] = link.parent
    at: str | None = uuid
    while at is not None:
        if at not in parents:
            return False
        at = parents.pop(at)  # so that a loop ends
    return True


def _entries(data: bytes) -> Iterable[Mapping[str, Any]]:
    for line in data.splitlines():
        try:
            entry = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue  # cut off, or the rest of a line that was there before
        if isinstance(entry, dict) and isinstance(entry.get("uuid"), str):
            yield entry


def _branch(entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return what was said on the branch of the last line, in order."""
    known: dict[str, Mapping[str, Any]] = {}
    last = ""
    for entry in entries:
        if not entry.get("isSidechain"):
            last = entry["uuid"]
            known[last] = entry
    branch: list[Mapping[str, Any]] = []
    while last in known:
        entry = known.pop(last)  # so that a loop ends
        branch.append(entry)
        last = str(entry.get("parentUuid") or entry.get("logicalParentUuid"))
    return [entry for entry in reversed(branch) if _counts(entry)]


def _counts(entry: Mapping[str, Any]) -> bool:
    message = entry.get("message")
    synthetic = isinstance(message, dict) and message.get("model") == SYNTHETIC
    return (
        str(entry.get("type")) in SAID
        and isinstance(message, dict)
        and not (entry.get("isMeta") or entry.get("isCompactSummary") or synthetic)
    )


def _blocks(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = entry["message"].get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def _texts(entry: Mapping[str, Any]) -> list[str]:
    texts = [block.get("text") for block in _blocks(entry) if block.get("type") == "text"]
    return [text for text in texts if isinstance(text, str) and text and not text.startswith(INTERNAL)]


def _messages(branch: Iterable[Mapping[str, Any]]) -> Iterable[Message]:
    """Yield a message a turn of speech: the CLI writes a line for each block."""
    role, texts = Role.USER, list[str]()
    for entry in branch:
        if SAID[entry["type"]] is not role and texts and _texts(entry):
            yield Message.of(role, "\n\n".join(texts))
            texts.clear()
        if found := _texts(entry):
            role = SAID[entry["type"]]
            texts += found
    if texts:
        yield Message.of(role, "\n\n".join(texts))


def _is_own_tool(block: Mapping[str, Any]) -> bool:
    return block.get("type") == "tool_use" and not str(block.get("name")).startswith(PREFIX)
