"""Spares that are prepared for what new conversations wish for: nobody can tell, but by the time it takes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from claude_coded.claude.protocol import REHEARSAL
from claude_coded.scheduler import STABLE
from claude_coded.turn import Text
from tests.acceptance.conftest import Start
from tests.support.client import assistant, function, user
from tests.support.daemon import SESSION, Answer, Daemon, Json, Model, eventually

TOOLS = [function("get", {"type": "object", "properties": {"x": {"type": "integer"}}}), function("put")]
SCHEMA: Json = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "schema": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    },
}
DEVICE = re.compile("[0-9a-f]{64}")
KINDS: list[Any] = [
    pytest.param({}, id="agent"),
    pytest.param({"model": "claude-code-chat"}, id="chat"),
    pytest.param({"model": "haiku"}, id="model"),
    pytest.param({"tools": TOOLS}, id="tools"),
    pytest.param({"model": "claude-code-chat", "tools": TOOLS}, id="chat-tools"),
]


def workers(daemon: Daemon) -> list[Json]:
    """Return the operator's view of the workers."""
    found: list[Json] = daemon.control("GET", "/v1/workers").raise_for_status().json()
    return found


def prepared(daemon: Daemon) -> list[Json]:
    return [worker for worker in workers(daemon) if worker["state"] == "prepared"]


def await_prepared(daemon: Daemon) -> Json:
    return eventually(lambda: prepared(daemon))[0]


def begin(daemon: Daemon, name: str, count: int = STABLE, **more: Any) -> None:
    """Begin equal conversations."""
    for number in range(count):
        assert daemon.ask("[[say 1]]", f"{name}-{number}", **more).ok


def transcripts(daemon: Daemon) -> dict[str, str]:
    """Return what the CLI has on disk, by session."""
    return {path.stem: path.read_text() for path in (daemon.home / ".claude/projects").rglob("*.jsonl")}


def rehearsal() -> str:
    (part,) = REHEARSAL.parts
    assert isinstance(part, Text)
    return part.text


def plain(body: Json) -> Json:
    """Return a request without the ids of session and device: the CLI's first processes may disagree on that."""
    made: Json = json.loads(DEVICE.sub("ID", SESSION.sub("ID", json.dumps(body))))
    return made


class Pair:
    """Two conversations in which the same is said: one on a plain spare, the other on a prepared one."""

    def __init__(self, daemon: Daemon, model: Model, name: str, more: Json) -> None:
        self.daemon, self.model, self.more = daemon, model, more
        self.names = (f"{name}-plain", f"{name}-prepared")

    def first(self, text: str) -> None:
        """Have the first turn of each, with others between, so that the second is expected."""
        eventually(lambda: [w for w in workers(self.daemon) if w["state"] == "spare"])
        answer = self.ask(self.names[0], text)
        begin(self.daemon, self.names[0], STABLE - 1, **self.more)
        expected = await_prepared(self.daemon)
        assert self.ask(self.names[1], text) == answer
        served = next(w for w in workers(self.daemon) if w["conversation"] == self.names[1])
        assert served["id"] == expected["id"]

    def both(self, text: str | list[Json]) -> None:
        before, after = (self.ask(name, text) for name in self.names)
        assert before == after

    def ask(self, name: str, text: str | list[Json]) -> tuple[Json, list[Json]]:
        """Return the answer, and what the model was asked."""
        self.model.forget()
        answer: Answer = self.daemon.ask(text, name, **self.more)
        return answer.message, [plain(body) for body in self.model.requests()]


@pytest.mark.parametrize("more", KINDS)
def test_the_model_is_asked_the_same_on_a_prepared_spare_as_on_a_plain_one(
    start: Start, model: Model, name: str, more: Json
) -> None:
    pair = Pair(daemon := start(), model, name, more)
    pair.first("one [[recall]]")
    pair.both("two [[recall]]")
    for conversation in pair.names:
        assert daemon.delete(f"/conversations/{conversation}").ok
    eventually(lambda: {daemon.shown(name)["state"] for name in pair.names} == {"cold"})
    pair.both("three [[recall]]")
    daemon.restart()
    pair.both("four [[recall]]")
    said = daemon.ask("five [[recall]]", pair.names[1], **more).said
    assert said == [f"{number} [[recall]]" for number in ("one", "two", "three", "four", "five")]
