"""What a chat request's headers make of the turn that is asked for."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from claude_coded.aside import Aside
from claude_coded.errors import NotRecorded
from claude_coded.history import read
from claude_coded.http.app import Api
from claude_coded.http.resources import About
from claude_coded.kept import KeptResponse
from claude_coded.models import Models
from claude_coded.planning import Located
from claude_coded.service import TurnService
from claude_coded.settings import Settings, load
from claude_coded.turn import AnswerEvent, Options, TextDelta, TurnFinished, TurnRequest


class FullStore:
    """A store whose disk is full."""

    async def keep_response(self, _: KeptResponse) -> None:
        raise NotRecorded("database or disk is full")


@dataclass
class Service:
    """Answers every turn with its number, and notes what it was asked."""

    models: Models
    settings: Settings
    asked: list[TurnRequest] = field(default_factory=list)
    store: FullStore = field(default_factory=FullStore)
    aside: Aside = field(default_factory=Aside)

    async def locate(self, request: TurnRequest) -> Located:
        self.asked.append(request)
        return Located(request, read(request))

    async def run(self, located: Located) -> AsyncIterator[list[AnswerEvent]]:
        yield [TextDelta(f"turn {len(self.asked)} of {located.request.key.tenant}"), TurnFinished()]

    def now(self) -> float:
        return 7.5


class Face:
    """The app in front of such a service, on one loop."""

    def __init__(self, loop: asyncio.Runner, workspace: Path, **environment: str) -> None:
        self._loop = loop
        settings = load({}, {"WORKSPACE_DIR": str(workspace), **environment})
        self.service = Service(Models(), settings)
        about = About("1", "2", 0.0, lambda: 0.0)
        self._app = Api(cast("TurnService", self.service), {}, about)

    def post(self, headers: dict[str, str], **more: Any) -> httpx.Response:
        body = {"model": "claude-code", "messages": [{"role": "user", "content": "hi"}], **more}
        return self.send("/v1/chat/completions", body, headers)

    def send(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=cast("Any", self._app))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.post(path, json=body, headers=headers)

        return self._loop.run(send())

    @property
    def options(self) -> Options:
        return self.service.asked[-1].options


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as loop:
        yield loop


def test_choices_become_the_turns_options(loop: asyncio.Runner, tmp_path: Path) -> None:
    face = Face(loop, tmp_path)
    (tmp_path / "sub").mkdir()
    headers = {
        "X-Claude-Permission-Mode": "plan",
        "X-Claude-Workspace": "sub",
        "X-Claude-Effort": "high",
    }
    assert face.post(headers).status_code == 200
    options = face.options
    assert (options.permission_mode, options.effort) == ("plan", "high")
    assert options.workspace == tmp_path.resolve() / "sub"
    assert face.post({}).status_code == 200
    assert face.options == Options()


def test_a_choice_that_is_none_is_refused_before_anything_is_begun(
    loop: asyncio.Runner, tmp_path: Path
) -> None:
    face = Face(loop, tmp_path, CLAUDE_CODED_PERMISSION_MODE="acceptEdits")
    wrong = [
        ("X-Claude-Permission-Mode", "bypassPermissions", 403, "forbidden"),
        ("X-Claude-Permission-Mode", "god", 400, None),
        ("X-Claude-Workspace", "..", 403, "forbidden"),
        ("X-Claude-Workspace", "nothing", 400, None),
        ("X-Claude-Effort", "some", 400, None),
        ("Idempotency-Key", "a b", 400, None),
    ]
    for header, text, status, code in wrong:
        answer = face.post({header: text})
        assert answer.status_code == status
        error = answer.json()["error"]
        assert (error["param"], error["code"]) == (header, code)
    assert not face.service.asked


def test_choices_and_the_conversation_are_part_of_what_a_key_stands_for(
    loop: asyncio.Runner, tmp_path: Path
) -> None:
    face = Face(loop, tmp_path)
    asked = [
        {},
        {"X-Claude-Effort": "high"},
        {"X-Claude-Permission-Mode": "plan"},
        {"X-Claude-Workspace": "."},
        {"X-Conversation-ID": "other"},
    ]
    for headers in asked[:1] * 2:
        answer = face.post({**headers, "Idempotency-Key": "k"})
        assert answer.json()["choices"][0]["message"]["content"] == "turn 1 of default"
    for headers in asked[1:]:
        assert face.post({**headers, "Idempotency-Key": "k"}).status_code == 409
    for number, headers in enumerate(asked):
        assert face.post({**headers, "Idempotency-Key": f"k{number}"}).status_code == 200
    assert len(face.service.asked) == 1 + len(asked)


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_that_cannot_be_kept_is_answered_whole(
    loop: asyncio.Runner, tmp_path: Path, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"model": "claude-code", "input": "hi", "stream": stream}
    answer = Face(loop, tmp_path).send("/v1/responses", body, {})
    assert answer.status_code == 200
    assert "turn 1 of default" in answer.text
    assert '"status":"completed"' in answer.text
    assert "could not be kept" in caplog.text
