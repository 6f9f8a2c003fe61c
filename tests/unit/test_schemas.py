"""Clients' schemas are checked beside the loop."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from claude_coded.aside import LARGE
from claude_coded.http import turns
from claude_coded.openai import metaschema
from claude_coded.openai.schemas import may_have_schema
from tests.support.face import Face

SCHEMA = {"type": "object", "properties": {}}
FUNCTION = {"name": "f", "parameters": SCHEMA, "strict": True}
FORM = {"name": "s", "schema": SCHEMA}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
RESPONSE: dict[str, Any] = {"input": "hi"}
WITH_SCHEMA = [
    ("/v1/chat/completions", {**CHAT, "tools": [{"type": "function", "function": FUNCTION}]}),
    ("/v1/chat/completions", {**CHAT, "functions": [FUNCTION]}),
    ("/v1/chat/completions", {**CHAT, "response_format": {"type": "json_schema", "json_schema": FORM}}),
    ("/v1/responses", {**RESPONSE, "tools": [{"type": "function", **FUNCTION}]}),
    ("/v1/responses", {**RESPONSE, "text": {"format": {"type": "json_schema", **FORM}}}),
]


def disguised(text: str) -> str:
    return "".join(f"\\u{ord(letter):04X}" for letter in text)


@pytest.mark.parametrize("change", [str, disguised], ids=["plain", "disguised"])
@pytest.mark.parametrize(("path", "body"), WITH_SCHEMA)
def test_the_loop_goes_on_while_a_schema_is_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, body: dict[str, Any], change: Any
) -> None:
    begun, gone_on = threading.Event(), threading.Event()

    def fault_of(_: str) -> None:
        begun.set()
        assert gone_on.wait(10)  # for what only the loop does

    monkeypatch.setattr(metaschema, "fault_of", fault_of)
    text = json.dumps({"model": "claude-code", "store": False, **body})
    for word in ("json_schema", "strict"):
        text = text.replace(f'"{word}"', f'"{change(word)}"')

    async def test(face: Face) -> int:
        sent = face.request("POST", path, content=text.encode(), headers={"Content-Type": "application/json"})
        sending = asyncio.ensure_future(sent)
        await asyncio.to_thread(begun.wait, 10)
        gone_on.set()
        return (await sending).status_code

    with asyncio.Runner() as loop:
        assert loop.run(test(Face(loop, tmp_path))) == 200
    assert begun.is_set()


def test_most_requests_have_no_schema() -> None:
    assert not may_have_schema(json.dumps({**CHAT, "user": "Jérôme “x”"}).encode())


def test_a_large_body_is_not_looked_through_before_it_is_parsed_aside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[int] = []
    monkeypatch.setattr(turns, "may_have_schema", lambda body: looked.append(len(body)))
    assert [turns.weight(b" " * size) for size in (10, LARGE, LARGE + 1)] == [10, LARGE, LARGE + 1]
    assert looked == [10]
