"""shell-gpt: answers, chats, commands, and a function that runs them."""

import json
import os
from collections.abc import Callable

import pytest

from tests.clients.install import python_packages
from tests.clients.programs import Home
from tests.clients.readme import block
from tests.support.daemon import Model

pytestmark = pytest.mark.clients

Sgpt = Callable[..., str]


@pytest.fixture
def sgpt(home: Home) -> Sgpt:
    """Return a function that runs `sgpt` and returns what it says."""
    programs = python_packages("shell-gpt==1.5.1", "click") / "bin"
    exports = block("shell-gpt", home.base_url).splitlines()[0]

    def run(*arguments: str) -> str:
        path = f"{programs}:{os.environ['PATH']}"
        return home.run("sh", "-c", f'{exports}\nsgpt "$@"', "sh", *arguments, PATH=path).ok().strip()

    return run


def test_it_answers(sgpt: Sgpt) -> None:
    assert sgpt("--no-md", "[[think hm]] [[words 3]]") == "w0 w1 w2"
    assert sgpt("--shell", "--no-interaction", "[[say echo hi]]") == "echo hi"


def test_a_chat_goes_on(sgpt: Sgpt, model: Model, name: str) -> None:
    sgpt("--chat", name, f"{name} one")
    heard = sgpt("--no-md", "--chat", name, f"{name} two [[recall]]")
    assert json.loads(heard) == [f"{name} one", f"{name} two [[recall]]"]
    assert len({str(body["metadata"]) for body in model.requests(name)}) == 1


def test_its_function_runs_commands(sgpt: Sgpt, home: Home) -> None:
    sgpt("--install-functions")
    call = json.dumps({"shell_command": "echo hi > heard; cat heard"})
    assert "hi" in sgpt("--no-md", f"[[tool execute_shell_command {call}]] [[result]]").splitlines()
    assert (home.work / "heard").read_text() == "hi\n"
