"""Continue's command line: an answer, and real edits by its own tools over a session."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.clients.install import node_packages
from tests.clients.programs import Home
from tests.clients.readme import block
from tests.support.client import newest, reached
from tests.support.daemon import Model

pytestmark = pytest.mark.clients

Continue = Callable[..., str]


def tool(name: str, **arguments: Any) -> str:
    """Return the script of a call of one of its tools."""
    return f"[[tool {name} {json.dumps(arguments)}]]"


@pytest.fixture
def cn(home: Home) -> Continue:
    """Return a function that runs `cn -p` and returns what it says."""
    program = node_packages("continue") / "node_modules" / ".bin" / "cn"
    settings = home.path / ".continue"
    settings.mkdir()
    (settings / "config.yaml").write_text(block("Continue", home.base_url))

    def run(*texts: str, flags: Sequence[str] = ()) -> str:
        return home.run(program, *flags, "-p", " ".join(texts), CONTINUE_TELEMETRY_ENABLED="0").ok().strip()

    return run


def test_it_answers(cn: Continue) -> None:
    assert cn("[[think hm]] [[words 3]]") == "w0 w1 w2"


def test_files_are_edited_over_a_session(cn: Continue, home: Home, model: Model, name: str) -> None:
    file = home.work / "notes"
    heard = cn(
        f"{name} [[say I write.]]",
        tool("Write", filepath=str(file), content="one\ntwo\n"),
        "[[result]]",
        tool("Read", filepath=str(file)),
        "[[say then]]",
        tool("MultiEdit", file_path=str(file), edits=[{"old_string": "two", "new_string": "zwei"}]),
        "[[say now]]",
        tool("Bash", command="cat notes; echo beside > heard"),
        tool("List", dirpath="."),
        "[[result]]",
        flags=["--auto"],
    )
    assert file.read_text() == "one\nzwei\n"
    assert (home.work / "heard").read_text() == "beside\n"
    assert heard.startswith("one\nzwei")
    texts = json.loads(cn(f"{name} again [[recall]]", flags=["--auto", "--resume"]))
    assert [text.startswith(name) for text in texts] == [True, True]
    said = [text for _, text in reached(newest(model, f"{name} again [[recall]]"))]
    assert sum(text.startswith("-> ") for text in said) == 5
