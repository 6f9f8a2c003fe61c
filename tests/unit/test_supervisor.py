"""`serve --reload`, before it begins."""

import os
import sys
from pathlib import Path

import pytest

from claude_coded.configuration import Source
from claude_coded.errors import ConfigurationError
from claude_coded.supervisor import PACKAGE, command, is_code, supervise, this_program


@pytest.mark.parametrize("given", [{"NOTIFY_SOCKET": "/run/n"}, {"LISTEN_PID": str(os.getpid())}])
def test_under_systemd_it_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="--reload is for development"):
        supervise(Source({}, given), offline=True)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(ConfigurationError, match="pip install watchfiles"):
        supervise(Source({}, {}), offline=True)


def test_the_daemon_gets_the_same_flags() -> None:
    given = Source({"pool_size": "3", "claude_bin": "--odd"}, {}, Path("c.toml"))
    flags = ["--pool-size=3", "--claude-bin=--odd", "--config=c.toml"]
    assert command(given, offline=True) == [*this_program(), "serve", "--offline", *flags]
    assert command(Source({}, {}), offline=False)[-1] == "serve"


def test_another_package_of_this_name_in_the_directory_is_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert this_program() == [sys.executable, "-P", "-m", "claude_coded"]
    monkeypatch.chdir(PACKAGE.parent)
    assert this_program() == [sys.executable, "-m", "claude_coded"]


@pytest.mark.parametrize(
    ("name", "code"),
    [("pool.py", True), (".#pool.py", False), ("pool.py~", False), ("pool.pyc", False), ("4913", False)],
)
def test_editors_own_files_are_no_code(name: str, code: bool) -> None:
    assert is_code(None, f"/a/.venv/lib/claude_coded/{name}") is code
