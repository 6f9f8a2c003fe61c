"""opencode: an answer, and real edits in a repository with its own tools."""

import base64
import json
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.clients.install import node_packages
from tests.clients.library import DOT, PDF
from tests.clients.programs import Home
from tests.clients.readme import block
from tests.support.daemon import Daemon, Json, Model

pytestmark = pytest.mark.clients

QUIET = {
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
}

IDENTITY = ("-c", "user.name=x", "-c", "user.email=x@x")

OpenCode = Callable[..., list[Json]]


def tool(name: str, **arguments: Any) -> str:
    """Return the script of a call of one of opencode's tools."""
    return f"[[tool {name} {json.dumps(arguments)}]]"


@pytest.fixture
def opencode(home: Home) -> OpenCode:
    """Return a function that runs opencode in a repository and returns its events."""
    program = node_packages("opencode") / "node_modules" / ".bin" / "opencode"
    subprocess.run(["git", "init", "-q", str(home.work)], check=True)
    (home.work / "opencode.json").write_text(block("opencode", home.base_url))

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
        tool("bash", command="echo beside > heard"),  # opencode runs it and the edit at once
        "[[say then]]",
        tool("bash", command="sh greet.sh >> heard"),
        "[[say done]]",
    )
    assert used(events)[0] == "write"
    assert sorted(used(events)[1:]) == ["bash", "bash", "edit"]
    assert said(events).endswith("done")
    assert file.read_text() == "echo one\necho zwei\n"
    assert (home.work / "heard").read_text() == "beside\none\nzwei\n"


def test_a_repository_is_edited_over_a_session(
    opencode: OpenCode, home: Home, model: Model, name: str
) -> None:
    file = home.work / "sum.py"
    file.write_text("def total(a, b):\n    return a - b\n")
    for command in (["add", "-A"], ["commit", "-qm", "broken"]):
        subprocess.run(["git", *IDENTITY, *command], cwd=home.work, check=True)
    first = opencode(
        name,
        tool("bash", command="git log --oneline; git status --short"),  # grep and glob need ripgrep
        tool("read", filePath=str(file)),
        "[[result]] [[think So that is it.]] [[say I mend it.]]",
        tool("edit", filePath=str(file), oldString="a - b", newString="a + b"),
        '[[say now try]] [[tool bash {"command": "python3 -c \'import sum; print(sum.total(2, 3))\'"}]]',
        "[[result]]",
    )
    assert sorted(used(first)[:2]) == ["bash", "read"]  # opencode runs them at once
    assert used(first)[2:] == ["edit", "bash"]
    assert said(first).rstrip().endswith("5")
    second = opencode(
        name,
        tool("bash", command="git add -A && git -c user.name=x -c user.email=x@x commit -qm mended"),
        "[[say committed]]",
        flags=["--continue"],
    )
    assert used(second) == ["bash"]
    third = opencode(f"{name} [[recall]]", flags=["--continue"])
    assert len(json.loads(said(third))) == 3
    log = subprocess.run(
        ["git", "log", "-p", "--format=%s", "-1"], cwd=home.work, check=True, capture_output=True, text=True
    ).stdout
    assert log.startswith("mended")
    assert "+    return a + b" in log
    assert len({str(body["metadata"]) for body in model.requests(name) if body.get("tools")}) == 1


def test_a_tool_that_fails_is_heard_of(opencode: OpenCode, home: Home) -> None:
    file = home.work / "notes"
    events = opencode(tool("edit", filePath=str(file), oldString="a", newString="b"), "[[result]]")
    assert not used(events)
    assert "notes" in said(events)


def test_claudes_own_tools_run_beside_opencodes(
    opencode: OpenCode, daemon: Daemon, home: Home, name: str
) -> None:
    events = opencode(
        f'[[tool Bash {{"command": "echo its > {name}"}}]]',
        tool("bash", command=f"echo ours > {name}"),
        "[[say then]]",
        f'[[tool Bash {{"command": "cat {name}"}}]]',
        "[[result]]",
        flags=["--model", "claude-coded/claude-code"],
    )
    assert used(events) == ["bash"]
    assert said(events).rstrip().endswith("its")
    assert (home.work / name).read_text() == "ours\n"
    assert (daemon.workspace / name).read_text() == "its\n"


def test_images_and_files_are_seen(opencode: OpenCode, home: Home, model: Model, name: str) -> None:
    (home.work / "dot.png").write_bytes(base64.b64decode(DOT))
    (home.work / "a.pdf").write_bytes(base64.b64decode(PDF))
    assert said(opencode(f"{name} [[images]]", flags=["--file", "dot.png", "--file", "a.pdf"])) == "1"
    (body,) = [body for body in model.requests(name) if body.get("tools")]
    assert PDF in [block["source"]["data"] for block in body["messages"][0]["content"] if "source" in block]


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
