"""aider: edits from answers in its formats, with and without a stream, and a session of two edits."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.install import python_packages
from tests.clients.programs import Home
from tests.clients.readme import block
from tests.support.client import reached
from tests.support.daemon import Model

pytestmark = pytest.mark.clients

FLAGS = (
    "--yes-always",
    "--no-git",
    "--no-gitignore",
    "--no-check-update",
    "--no-show-release-notes",
    "--no-detect-urls",
    "--no-pretty",
    "--no-fancy-input",
    "--analytics-disable",
)
HELLO = 'def hello():\n    print("hi")\n'

Aider = Callable[..., str]


def whole(text: str) -> str:
    """Return the script of an answer that holds the whole file."""
    return f"[[say greet.py\n```\n{text}```]]"


def replaced(old: str, new: str) -> str:
    """Return the script of an answer that replaces a line of the file."""
    return f"[[say greet.py\n```python\n<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n```]]"


def git(home: Home, *arguments: str) -> str:
    """Run git where aider works, and return what it says."""
    return home.run("git", "-c", "user.name=x", "-c", "user.email=x@x", *arguments).ok()


@pytest.fixture
def file(home: Home) -> Path:
    """The file that is worked on."""
    file = home.work / "greet.py"
    file.write_text(HELLO)
    return file


@pytest.fixture
def aider(home: Home, file: Path) -> Aider:
    """Return a function that runs aider on the file and returns what it says."""
    programs = python_packages("aider-chat==0.86.2") / "bin"
    written = block("aider", home.base_url).rstrip()

    def run(*flags: str, typed: str = "", kind: str = "claude-code-chat") -> str:
        script = written.replace("claude-code-chat", kind) + ' "$@"'
        settings = {"PATH": f"{programs}:{os.environ['PATH']}", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        return home.run("sh", "-c", script, "sh", *FLAGS, *flags, file.name, text=typed, **settings).ok()

    return run


@pytest.mark.parametrize("flags", [["--stream"], ["--no-stream"]])
@pytest.mark.parametrize("kind", ["claude-code", "claude-code-chat"])
def test_a_file_is_edited(aider: Aider, file: Path, flags: list[str], kind: str) -> None:
    script = replaced('    print("hi")', '    print("hello")')
    heard = aider(*flags, "--message", script, kind=kind)
    assert "Applied edit to greet.py" in heard
    assert file.read_text() == HELLO.replace("hi", "hello")


def test_an_edit_is_committed(aider: Aider, file: Path, home: Home, model: Model, name: str) -> None:
    file.write_text(f"{HELLO}# [[say {name} it is]]\n")  # the request for a message shows the diff
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        git(home, *command)
    aider("--git", "--message", replaced('    print("hi")', '    print("hello")'))
    assert "hello" in git(home, "show", "--format=", "HEAD")
    assert git(home, "log", "-1", "--format=%s").strip().endswith(f"{name} it is")


def test_a_session_edits_twice(aider: Aider, file: Path, model: Model, name: str) -> None:
    new = HELLO.replace("hi", name)
    typed = f"{{\n{whole(new)}\n}}\n{{\n{whole(new + HELLO)}\n}}\n/exit\n"
    aider("--edit-format", "whole", typed=typed)
    assert file.read_text() == new + HELLO
    roles = [[role for role, _ in reached(body)] for body in model.requests(name)]
    assert roles[0][0] == roles[-1][0] == "user"
    assert len(roles[-1]) > len(roles[0])  # the first edit is part of the second's history
