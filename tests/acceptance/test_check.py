"""`claude-coded check` with the real CLI, before a daemon runs and beside one."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import Start
from tests.support.daemon import Daemon, Json, Model

ITEMS = (
    *("configuration", "claude", "key", "user", "workspace", "state", "home"),
    *("api keys", "port", "control", "setpriv"),
)


def check(daemon: Daemon, **more: str) -> tuple[int, dict[str, Json]]:
    """Return the exit status and the items by name."""
    environment = {name: value for name, value in {**daemon.environment, **more}.items() if value}
    ran = subprocess.run(
        [sys.executable, "-m", "claude_coded", "check", "--json"],
        env=environment,
        cwd=daemon.directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not ran.stderr
    told = json.loads(ran.stdout)
    items = {item["item"]: item for item in told["items"]}
    assert told["ok"] is (ran.returncode == 0) is all(it["mark"] != "failed" for it in items.values())
    return ran.returncode, items


def not_ok(items: dict[str, Json]) -> list[Json]:
    return [item for item in items.values() if item["mark"] != "ok"]


def everything(directory: Path) -> set[tuple[Path, float]]:
    return {(path, path.lstat().st_mtime) for path in (directory, *directory.rglob("*"))}


@pytest.fixture
def daemon(make: Start) -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="check-") as short:
        made = make(CLAUDE_CODED_SOCKET=f"{short}/control.sock")
        (made.directory / "config.toml").touch()
        yield made


def test_where_nothing_is_wrong_it_says_so_and_leaves_everything_as_it_was(daemon: Daemon) -> None:
    before = everything(daemon.directory)
    status, items = check(daemon)
    assert (status, not_ok(items)) == (0, [])
    assert tuple(items) == ITEMS
    assert "starts" in items["claude"]["text"]
    assert everything(daemon.directory) == before


def test_a_daemon_that_runs_is_no_fault(daemon: Daemon) -> None:
    daemon.start()
    status, items = check(daemon, PORT=str(daemon.port))
    assert (status, not_ok(items)) == (0, [])
    assert "the daemon runs" in items["state"]["text"]
    for door in ("port", "control"):
        assert f"served by process {daemon.pid} (" in items[door]["text"]


def test_a_key_that_is_refused_and_an_api_that_is_not_there(daemon: Daemon) -> None:
    status, items = check(daemon, ANTHROPIC_API_KEY="sk-ant-refused")
    assert (status, items["key"]["mark"]) == (1, "failed")
    assert "refuses ANTHROPIC_API_KEY (401: invalid x-api-key)" in items["key"]["text"]
    assert items["key"]["advice"]
    _, items = check(daemon, ANTHROPIC_BASE_URL="http://127.0.0.1:9")
    assert "cannot be reached" in items["key"]["text"]


def test_without_a_key_the_cli_is_asked_for_its_login(daemon: Daemon) -> None:
    before = everything(daemon.home)
    status, items = check(daemon, ANTHROPIC_API_KEY="")
    assert (status, items["key"]["mark"]) == (1, "failed")
    assert "no ANTHROPIC_API_KEY is set, and the CLI has no login" in items["key"]["text"]
    assert everything(daemon.home) == before
    login = {"accessToken": "t", "expiresAt": 4102444800000, "scopes": ["user:inference"]}
    (daemon.home / ".claude").mkdir()
    (daemon.home / ".claude/.credentials.json").write_text(json.dumps({"claudeAiOauth": login}))
    status, items = check(daemon, ANTHROPIC_API_KEY="")
    assert (status, not_ok(items)) == (0, [])
    assert "claude.ai" in items["key"]["text"]


@pytest.mark.skipif(os.geteuid() != 0, reason="the CLI refuses that to root alone")
def test_root_without_a_sandbox_is_told_by_the_cli_itself_too(daemon: Daemon) -> None:
    status, items = check(daemon, IS_SANDBOX="")
    assert status == 1
    assert "root" in items["claude"]["text"]
    assert "IS_SANDBOX=1" in items["user"]["advice"]


def test_a_refused_key_reaches_the_client_as_the_operators_matter(
    start: Start, model: Model, name: str
) -> None:
    daemon = start(ANTHROPIC_API_KEY="sk-ant-refused", CLAUDE_CODED_UPSTREAM_RETRIES=0)
    answer = daemon.ask(name)
    assert (answer.status, answer.code) == (502, "upstream_authentication")


def test_in_words_it_is_a_line_an_item(daemon: Daemon) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "claude_coded", "check", "--port", "x"],
        env=daemon.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (1, "")
    (line,) = ran.stdout.splitlines()
    assert line.split()[:3] == ["failed", "configuration", "--port"]
    assert " -> " in line
