"""What Claude's own commands can reach of the daemon that they run under."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import caller
from tests.support.daemon import Answer, Daemon, Model, eventually
from tests.support.desk import Operator

ASK = {"X-Claude-Permission-Mode": "ask"}


@pytest.fixture(scope="module")
def daemon(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that asks where the client wants it to."""
    daemon = Daemon(
        tmp_path_factory.mktemp("contained"),
        {"ANTHROPIC_BASE_URL": served_model.url, "CLAUDE_CODED_DRAIN_TIMEOUT_MS": "300"},
    )
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture
def operator(daemon: Daemon) -> Iterator[Operator]:
    operator = Operator(daemon.socket)
    yield operator
    operator.close()


@pytest.fixture
def later() -> Iterator[Callable[..., Future[Answer]]]:
    with ThreadPoolExecutor(4) as threads:
        yield threads.submit


def bash(command: str) -> str:
    return f"[[tool Bash {json.dumps({'command': command})}]]"


def calling(daemon: Daemon, how: str, method: str, path: str, body: str, file: Path) -> str:
    """Return a command that asks the control socket, with nothing of the environment that it has."""
    words = [sys.executable, caller.__file__, how, str(daemon.socket), method, path, body, str(file)]
    return f"env -i {shlex.join(words)}"


@pytest.mark.parametrize("how", ["plain", "orphan"])
def test_claude_cannot_allow_what_it_has_asked_for(
    daemon: Daemon, operator: Operator, later: Callable[..., Future[Answer]], name: str, how: str
) -> None:
    """One command is allowed, of which the operator does not see what it does; the next one is not."""
    told, made = daemon.directory / f"{name}-told", daemon.workspace / name
    turn = later(daemon.ask, f"{bash(f'touch {made}')} then [[result]]", f"{name}-asking", headers=ASK)
    (request,) = operator.asked(f"{name}-asking")
    allow = calling(daemon, how, "POST", f"/v1/requests/{request['id']}", '{"decision": "allow"}', told)
    own = later(daemon.ask, f"{bash(allow)} then [[say done]]", name, headers=ASK)
    operator.allow(name)
    assert own.result().text == "done"
    assert eventually(lambda: told.exists() and told.read_text()) == "403"
    assert operator.asked(f"{name}-asking") == [request]
    assert not made.exists()
    operator.deny(f"{name}-asking")
    assert turn.result().ok


@pytest.mark.parametrize("how", ["plain", "orphan"])
def test_claude_cannot_look_either(daemon: Daemon, name: str, how: str) -> None:
    told = daemon.directory / name
    daemon.ask(bash(calling(daemon, how, "GET", "/v1/conversations?all=true", "", told)), name)
    assert eventually(lambda: told.exists() and told.read_text()) == "403"
    assert daemon.control("GET", "/v1/conversations").status_code == 200
