"""`serve --reload`: the code changes, and no request is lost."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

import claude_coded
from claude_coded import __version__
from tests.acceptance.conftest import Start
from tests.support.daemon import Daemon, eventually

PACKAGE = Path(claude_coded.__file__).parent


@pytest.fixture
def daemon(make: Start) -> Daemon:
    """A daemon of a copy of the package, which may be changed; it watches it once it serves."""
    daemon = make("--reload", "--offline", POOL_SIZE=2)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, daemon.directory / PACKAGE.name, ignore=ignored)
    return daemon.start()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as threads:
        yield threads


def edit(daemon: Daemon, file: str, change: Callable[[str], str]) -> None:
    path = daemon.directory / PACKAGE.name / file
    path.write_text(change(path.read_text()))


def child(daemon: Daemon) -> psutil.Process:
    (child,) = daemon.children()
    return child


def test_a_change_restarts_it_and_no_request_is_lost(
    daemon: Daemon, threads: ThreadPoolExecutor, name: str
) -> None:
    assert daemon.process is not None
    assert daemon.ask("one [[say 1]]", name).ok
    assert os.getsid(child(daemon).pid) != os.getsid(daemon.pid)  # Ctrl-C does not reach it
    (daemon.directory / "config.toml").write_text("queue_size = 3")
    daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: '"reloaded"' in daemon.log)

    with daemon.stream("[[delay 40]] [[words 40]]") as stream:
        stream.until("w3 ")
        edit(daemon, "__init__.py", lambda text: text.replace(__version__, "9.9.9"))
        eventually(lambda: '"stopping"' in daemon.log)
        meanwhile = threads.submit(daemon.ask, "two [[recall]]", name)
        edit(daemon, "__init__.py", lambda text: text.replace("9.9.9", "9.9.8"))
        stream.rest()
        assert (stream.text.split()[-1], stream.raw[-1]) == ("w39", "data: [DONE]")
    assert meanwhile.result().said == ["one [[say 1]]", "two [[recall]]"]
    assert daemon.health()["version"] == "9.9.8"
    assert daemon.log.count('"message":"serving"') == 2  # the second change came while it drained

    edit(daemon, "errors.py", lambda text: text + "def")
    eventually(lambda: "the daemon has ended" in daemon.log)
    assert "SyntaxError" in daemon.log
    assert not daemon.children()
    meanwhile = threads.submit(daemon.ask, "three [[recall]]", name)
    edit(daemon, "errors.py", lambda text: text.removesuffix("def"))
    assert len(meanwhile.result().said) == 3

    with daemon.stream("[[delay 20]] [[words 20]]") as stream:
        stream.until("w3 ")
        daemon.process.send_signal(signal.SIGINT)
        stream.rest()
        assert stream.text.split()[-1] == "w19"
    assert daemon.process.wait(20) == 0
    eventually(lambda: not daemon.processes())


def test_a_second_signal_ends_it_at_once(daemon: Daemon) -> None:
    assert daemon.process is not None
    with daemon.stream("[[say some]] [[hang]]") as stream:
        stream.until("some")
        daemon.process.send_signal(signal.SIGINT)
        eventually(lambda: '"stopping"' in daemon.log)
        daemon.process.send_signal(signal.SIGINT)
        assert daemon.process.wait(5) == 1
    eventually(lambda: not daemon.processes(), 15)


def test_a_daemon_does_not_outlive_its_supervisor(daemon: Daemon) -> None:
    running = child(daemon)
    daemon.kill()
    eventually(lambda: not psutil.pid_exists(running.pid), 15)
