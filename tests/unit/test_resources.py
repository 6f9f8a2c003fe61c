"""What a chat request's headers make of the turn that is asked for."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_coded.turn import Options
from tests.support.face import Face


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
