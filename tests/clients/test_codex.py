"""Codex CLI by the Responses API, and the last version that speaks chat completions: edits by its tools."""

import base64
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Start
from tests.clients.install import node_packages
from tests.clients.library import DOT, document
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

UNKNOWN = "Model metadata for"
"""How a warning begins that it gives of every model but OpenAI's."""


def shell(command: str) -> str:
    """Return the script of a call of its shell."""
    return f"[[tool exec_command {json.dumps({'cmd': command})}]]"


def old_shell(*command: str) -> str:
    """Return the script of a call of the shell that it had before."""
    return f"[[tool shell {json.dumps({'command': command})}]]"


@dataclass
class Codex:
    """`codex exec` in a repository."""

    program: Path
    home: Home

    def __call__(self, *texts: str, flags: tuple[str | Path, ...] = (), **settings: str) -> list[Json]:
        """Run it with a text; return what became of each item."""
        arguments = ["exec", "--json", "-s", "workspace-write", *flags, "-"]
        written = self.home.run(self.program, *arguments, text=" ".join(texts), **settings).ok()
        events = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
        assert events[-1]["type"] == "turn.completed", events
        items = [event["item"] for event in events if event["type"] == "item.completed"]
        return [item for item in items if not item.get("message", "").startswith(UNKNOWN)]


def configured(home: Home, project: str, change: Callable[[str], str] = str) -> Codex:
    """Return it as the README says, but for a change of its settings."""
    settings = home.path / ".codex"
    settings.mkdir()
    (settings / "config.toml").write_text(change(block("Codex CLI", home.base_url)))
    subprocess.run(["git", "init", "-q", str(home.work)], check=True)
    return Codex(node_packages(project) / "node_modules" / ".bin" / "codex", home)


@pytest.fixture
def codex(home: Home) -> Codex:
    return configured(home, "codex")


def told(items: list[Json], kind: str, key: str) -> list[Any]:
    return [item[key] for item in items if item["type"] == kind]


def test_it_answers(codex: Codex) -> None:
    thought, said = codex("[[think hm]] [[words 3]]", flags=("-m", "claude-code"))
    assert (thought["type"], thought["text"]) == ("reasoning", "hm")
    assert said["text"].split() == ["w0", "w1", "w2"]


def test_its_shell_edits_over_a_session(codex: Codex, home: Home, model: Model, name: str) -> None:
    first = codex(
        f"{name} [[think hm]] [[say I look.]]",
        shell("echo one > notes && cat notes"),
        "[[result]]",
        shell("echo a >> notes"),
        shell("true"),
        "[[say then]]",
        shell(f"apply_patch <<'EOF'\n{PATCH}EOF\n"),
    )
    assert told(first, "agent_message", "text")[0] == "I look."
    assert told(first, "command_execution", "exit_code") == [0, 0, 0]
    (changes,) = told(first, "file_change", "changes")
    assert [(change["path"], change["kind"]) for change in changes] == [(str(home.work / "notes"), "update")]
    assert (home.work / "notes").read_text() == "two\na\n"
    second = codex(f"{name} again [[recall]]", flags=("resume", "--last"))
    texts = [text for text in json.loads(second[-1]["text"]) if text.startswith(name)]
    assert len(texts) == 2
    said = [text for _, text in reached(newest(model, f"{name} again [[recall]]"))]
    assert "I look." in said
    assert sum(text.startswith("-> ") for text in said) == 4
    assert any(text.startswith("-> ") and "Success" in text for text in said)
    assert len({str(body["metadata"]) for body in model.requests(name)}) == 1


def test_claudes_own_tools_run_beside_its(codex: Codex, daemon: Daemon, home: Home, name: str) -> None:
    own = f'[[tool Bash {{"command": "echo its > {name}"}}]]'
    items = codex(own, "[[say and]]", shell(f"echo ours > {name}"), flags=("-m", "claude-code"))
    (command,) = told(items, "command_execution", "command")
    assert "ours" in command
    assert "echo its" in told(items, "reasoning", "text")[0]
    assert (home.work / name).read_text() == "ours\n"
    assert (daemon.workspace / name).read_text() == "its\n"


def test_images_are_seen(codex: Codex, home: Home) -> None:
    (home.work / "dot.png").write_bytes(base64.b64decode(DOT))
    assert codex("[[images]]", flags=("-i", "dot.png"))[-1]["text"] == "1"
    assert codex('[[tool view_image {"path": "dot.png"}]] [[images]]')[-1]["text"] == "1"


def test_the_last_message_fits_a_schema(codex: Codex, home: Home) -> None:
    schema, last = home.work / "schema.json", home.work / "last"
    city = {"city": {"type": "string"}}
    schema.write_text(
        json.dumps(
            {"type": "object", "properties": city, "required": ["city"], "additionalProperties": False}
        )
    )
    codex(shell("true"), document({"city": "Oslo"}), flags=("--output-schema", schema, "-o", last))
    assert json.loads(last.read_text()) == {"city": "Oslo"}


def test_a_key_comes_from_a_variable(start: Start, tmp_path: Path) -> None:
    daemon = start(CLAUDE_CODED_API_KEYS="me:secret")
    home = Home(tmp_path / "client", f"{daemon.base_url}/v1")
    codex = configured(home, "codex", lambda text: f'{text}env_key = "CLAUDE_CODED_KEY"\n')
    assert codex("[[say ok]]", CLAUDE_CODED_KEY="secret")[-1]["text"] == "ok"


def test_an_old_version_works_over_chat_completions(home: Home, model: Model, name: str) -> None:
    codex = configured(home, "codex_chat", lambda text: text.replace('"responses"', '"chat"'))
    first = codex(
        f"{name} [[think hm]] [[say I look.]]",
        old_shell("bash", "-lc", "echo one > notes && cat notes"),
        "[[result]]",
        old_shell("apply_patch", PATCH),  # it warns the model of that, between the call and its outcome
    )
    assert told(first, "agent_message", "text")[0] == "I look."
    assert (home.work / "notes").read_text() == "two\n"
    second = codex(f"{name} again [[recall]]", flags=("resume", "--last"))
    assert len([text for text in json.loads(second[-1]["text"]) if text.startswith(name)]) == 2
    said = [text for _, text in reached(newest(model, f"{name} again [[recall]]"))]
    assert sum(text.startswith("-> ") for text in said) == 2
