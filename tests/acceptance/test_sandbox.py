"""Claude Code's sandbox around the commands that Claude runs: bubblewrap's, where that can be had."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from claude_coded.claude.launch import SANDBOX_PROGRAMS
from tests.acceptance.conftest import Start
from tests.support.daemon import Daemon, Model
from tests.support.desk import Operator

WORKS = ("bwrap", "--ro-bind", "/", "/", "--unshare-all", "--proc", "/proc", "--dev", "/dev", "true")

needs_bubblewrap = pytest.mark.skipif(
    None in map(shutil.which, SANDBOX_PROGRAMS) or subprocess.run(WORKS, check=False).returncode != 0,
    reason="bubblewrap and socat are not here, or may not work",
)


@pytest.fixture(scope="module")
def boxed(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    settings = {"ANTHROPIC_BASE_URL": served_model.url, "CLAUDE_CODED_SANDBOX": "1"}
    daemon = Daemon(tmp_path_factory.mktemp("boxed"), settings)
    try:
        yield daemon.start()
    finally:
        daemon.close()


def tool(name: str, **given: Any) -> str:
    return f"[[tool {name} {json.dumps(given)}]] then [[result]]"


@needs_bubblewrap
@pytest.mark.parametrize("mode", ["bypassPermissions", "acceptEdits"])
def test_a_command_is_kept_to_its_workspace_and_off_the_network(
    boxed: Daemon, model: Model, name: str, mode: str
) -> None:
    said = "\n".join(
        [
            f"echo in > {boxed.workspace}/{name}",
            f"echo out > {boxed.directory}/{name} || echo kept",
            f"ls -A {boxed.state} {boxed.home}/.claude/projects",
            f"bash -c 'echo > /dev/tcp/{model.url.removeprefix('http://').replace(':', '/')}' || echo cut",
            f"kill -0 {boxed.pid} || echo alone",
        ]
    )
    script = boxed.workspace / f"{name}.sh"
    script.write_text(said)
    headers = {"X-Claude-Permission-Mode": mode}
    answer = boxed.ask(tool("Bash", command=f"sh {script} 2>/dev/null"), name, headers=headers)
    told = [line for line in answer.text.splitlines() if line and not line.endswith(":")]
    assert told == ["kept", "cut", "alone"]
    assert (boxed.workspace / name).read_text() == "in\n"
    assert not (boxed.directory / name).exists()


@needs_bubblewrap
def test_in_mode_ask_a_command_is_asked_about_and_then_confined(boxed: Daemon, name: str) -> None:
    operator, outside = Operator(boxed.socket), boxed.directory / name
    with ThreadPoolExecutor(1) as threads:
        headers = {"X-Claude-Permission-Mode": "ask"}
        turn = threads.submit(boxed.ask, tool("Bash", command=f"touch {outside}"), name, headers=headers)
        operator.allow(name)
        assert "Read-only file system" in turn.result().text
    operator.close()
    assert not outside.exists()


@needs_bubblewrap
def test_no_command_gets_out_by_asking(boxed: Daemon, name: str) -> None:
    outside = boxed.directory / name
    boxed.ask(tool("Bash", command=f"touch {outside}", dangerouslyDisableSandbox=True), name)
    assert not outside.exists()


@needs_bubblewrap
def test_with_accept_edits_no_tool_leaves_the_workspace_or_changes_rules(boxed: Daemon, name: str) -> None:
    headers = {"X-Claude-Permission-Mode": "acceptEdits"}
    rules = boxed.workspace / ".claude" / "settings.json"
    for path in (boxed.directory / name, rules, boxed.home / ".claude" / "settings.json"):
        boxed.ask(tool("Write", file_path=str(path), content="{}"), name, headers=headers)
        boxed.ask(tool("Bash", command=f"mkdir -p {path.parent}; echo > {path}"), name, headers=headers)
        assert not path.exists() or not path.stat().st_size
    boxed.ask(tool("Write", file_path=str(boxed.workspace / name), content="x"), name, headers=headers)
    assert (boxed.workspace / name).read_text() == "x"


def test_what_the_sandbox_takes_is_asked_for_at_the_start(make: Start) -> None:
    daemon = make(CLAUDE_CODED_SANDBOX=1, PATH="/nowhere")
    assert daemon.spawn().wait(20) == 1
    assert "CLAUDE_CODED_SANDBOX: bwrap and socat cannot be found" in daemon.log
