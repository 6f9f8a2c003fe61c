"""opencode: an answer, and real edits in a repository with its own tools."""

import json
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.clients.install import node_packages
from tests.clients.programs import Home
from tests.support.daemon import Json, Model

pytestmark = pytest.mark.clients

QUIET = {
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
}

OpenCode = Callable[..., list[Json]]


def settings(base_url: str) -> Json:
    """Return what opencode.json says of the daemon."""
    limit = {"context": 200_000, "output": 32_000}
    return {
        "$schema": "https://opencode.ai/config.json",
        "model": "claude-coded/claude-code-chat",
        "small_model": "claude-coded/claude-code-chat",
        "provider": {
            "claude-coded": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "claude_coded",
                "options": {"baseURL": base_url, "apiKey": "none"},
                "models": {
                    "claude-code-chat": {"name": "Claude", "limit": limit},
                    "claude-code": {"name": "Claude Code", "limit": limit},
                },
            }
        },
        "agent": {
            "claude-code": {  # Claude uses its own tools, and is offered none of opencode's
                "mode": "primary",
                "model": "claude-coded/claude-code",
                "permission": {"*": "deny"},
            }
        },
    }


def tool(name: str, **arguments: Any) -> str:
    """Return the script of a call of one of opencode's tools."""
    return f"[[tool {name} {json.dumps(arguments)}]]"


@pytest.fixture
def opencode(home: Home) -> OpenCode:
    """Return a function that runs opencode in a repository and returns its events."""
    program = node_packages("opencode") / "node_modules" / ".bin" / "opencode"
    subprocess.run(["git", "init", "-q", str(home.work)], check=True)
    (home.work / "opencode.json").write_text(json.dumps(settings(home.base_url)))

    def run(*texts: str, flags: Sequence[str] = ()) -> list[Json]:
        # The text comes by stdin: as an argument it would be put into quotes.
        arguments = ["run", "--format", "json", *flags]
        written = home.run(program, *arguments, text=" ".join(texts), **QUIET).ok()
        return [json.loads(line) for line in written.splitlines()]

    return run


def said(events: list[Json]) -> str:
    """Return the text of the answers."""
    return "".join(event["part"]["text"] for event in events if event["type"] == "text")


def used(events: list[Json]) -> list[str]:
    """Return the names of the tools that did what they were asked."""
    states = [event["part"] for event in events if event["type"] == "tool_use"]
    return [part["tool"] for part in states if part["state"]["status"] == "completed"]


def test_the_agent_answers(opencode: OpenCode) -> None:
    events = opencode("[[think hm]] [[words 5]]", flags=["--agent", "claude-code"])
    assert said(events).split() == ["w0", "w1", "w2", "w3", "w4"]
    assert not used(events)


def test_a_file_is_written_edited_and_run(opencode: OpenCode, home: Home) -> None:
    file = home.work / "greet.sh"
    events = opencode(
        tool("write", filePath=str(file), content="echo one\necho two\n"),
        "[[result]]",
        tool("edit", filePath=str(file), oldString="two", newString="zwei"),
        tool("bash", command="sh greet.sh > heard"),  # beside the edit, and yet after it
        "[[say done]]",
    )
    assert used(events) == ["write", "edit", "bash"]
    assert said(events).endswith("done")
    assert file.read_text() == "echo one\necho zwei\n"
    assert (home.work / "heard").read_text() == "one\nzwei\n"


def test_a_session_goes_on(opencode: OpenCode, home: Home, model: Model, name: str) -> None:
    (home.work / "notes").write_text(f"{name} seven\n")
    first = opencode(f"{name} {tool('read', filePath=str(home.work / 'notes'))} [[result]]")
    assert "seven" in said(first)
    second = opencode(f"{name} again [[recall]]", flags=["--continue"])
    texts = json.loads(said(second))
    assert [text.startswith(name) for text in texts] == [True, True]
    assert {event["sessionID"] for event in first} == {event["sessionID"] for event in second}
    ids = {str(body["metadata"]) for body in model.requests(name) if body.get("tools")}
    assert len(ids) == 1  # the request for a title, which offers no tools, is a conversation of its own
