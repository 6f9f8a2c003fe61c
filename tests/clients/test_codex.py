"""Codex CLI, the last version that speaks chat completions: real edits by its own tools."""

import base64
import json
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.clients.install import node_packages
from tests.clients.library import DOT
from tests.clients.programs import Home
from tests.clients.readme import block
from tests.support.client import newest, reached
from tests.support.daemon import Daemon, Json, Model

pytestmark = pytest.mark.clients

PATCH = """*** Begin Patch
*** Update File: notes
@@
-one
+two
*** End Patch
"""

Codex = Callable[..., list[Json]]


def shell(*command: str) -> str:
    """Return the script of a call of its shell."""
    return f"[[tool shell {json.dumps({'command': command})}]]"


@pytest.fixture
def codex(home: Home) -> Codex:
    """Return a function that runs `codex exec` in a repository and returns what became of each item."""
    program = node_packages("codex") / "node_modules" / ".bin" / "codex"
    settings = home.path / ".codex"
    settings.mkdir()
    (settings / "config.toml").write_text(block("Codex CLI", home.base_url))
    subprocess.run(["git", "init", "-q", str(home.work)], check=True)

    def run(*texts: str, flags: Sequence[str] = ()) -> list[Json]:
        arguments = ["exec", "--json", "--full-auto", *flags, "-"]
        written = home.run(program, *arguments, text=" ".join(texts)).ok()
        events = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
        assert events[-1]["type"] == "turn.completed", events
        return [event["item"] for event in events if event["type"] == "item.completed"]

    return run


def told(items: list[Json], kind: str, key: str) -> list[Any]:
    return [item[key] for item in items if item["type"] == kind]


def test_it_answers(codex: Codex) -> None:
    (item,) = codex("[[think hm]] [[words 3]]", flags=["-m", "claude-code"])
    assert item["text"].split() == ["w0", "w1", "w2"]


def test_its_shell_edits_over_a_session(codex: Codex, home: Home, model: Model, name: str) -> None:
    first = codex(
        f"{name} [[think hm]] [[say I look.]]",
        shell("bash", "-lc", "echo one > notes && cat notes"),
        "[[result]]",
        shell("bash", "-lc", "echo a >> notes"),
        shell("cat", "/dev/null"),
        "[[say then]]",
        shell("apply_patch", PATCH),  # it warns the model of that, between the call and its outcome
    )
    assert told(first, "agent_message", "text")[0] == "I look."
    assert told(first, "command_execution", "exit_code") == [0, 0, 0]
    (changes,) = told(first, "file_change", "changes")
    assert [(change["path"], change["kind"]) for change in changes] == [(str(home.work / "notes"), "update")]
    assert (home.work / "notes").read_text() == "two\na\n"
    second = codex(f"{name} again [[recall]]", flags=["resume", "--last"])
    texts = [text for text in json.loads(second[-1]["text"]) if text.startswith(name)]
    assert len(texts) == 2
    said = [text for _, text in reached(newest(model, f"{name} again [[recall]]"))]
    assert "I look." in said
    assert sum(text.startswith("-> ") for text in said) == 4
    assert any(text.startswith("-> ") and "Success" in text for text in said)


def test_claudes_own_tools_run_beside_its(codex: Codex, daemon: Daemon, home: Home, name: str) -> None:
    own = f'[[tool Bash {{"command": "echo its > {name}"}}]]'
    ours = shell("bash", "-lc", f"echo ours > {name}")
    codex(own, "[[say and]]", ours, flags=["-m", "claude-code"])
    assert (home.work / name).read_text() == "ours\n"
    assert (daemon.workspace / name).read_text() == "its\n"


def test_images_are_seen(codex: Codex, home: Home) -> None:
    (home.work / "dot.png").write_bytes(base64.b64decode(DOT))
    assert codex("[[images]]", flags=["-i", "dot.png"])[-1]["text"] == "1"
    assert codex('[[tool view_image {"path": "dot.png"}]] [[images]]')[-1]["text"] == "1"
