"""Running it: time limits, stopping, restarting, and the way a new user begins."""

import contextlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.acceptance.conftest import Start
from tests.support.daemon import Model, eventually


def test_a_turn_that_takes_too_long_is_a_504_and_the_conversation_goes_on(
    start: Start, model: Model, name: str
) -> None:
    daemon = start(POOL_SIZE=1, CLAUDE_CODED_TURN_TIMEOUT_MS=5000)
    assert daemon.ask("one [[say 1]]", name).ok
    workers = daemon.workers()
    late = daemon.ask("two [[hang]]", name)
    assert (late.status, late.code) == (504, "turn_timeout")
    assert late.headers["x-should-retry"] == "false"
    with daemon.stream("two [[say some]] [[hang]]", name) as stream:
        assert stream.rest()[-1]["error"]["code"] == "turn_timeout"
    eventually(lambda: model.stats()["active"] == 0)
    said = daemon.ask("three [[recall]]", name).said
    assert said == ["one [[say 1]]", "two [[say some]] [[hang]]", "three [[recall]]"]
    assert daemon.workers() == workers


def test_a_stop_lets_running_turns_finish_and_takes_no_new_ones(start: Start, name: str) -> None:
    daemon = start(POOL_SIZE=2)
    assert daemon.process is not None
    with httpx.Client(trust_env=False) as kept, daemon.stream("[[delay 40]] [[words 40]]", name) as stream:
        assert kept.get(f"{daemon.base_url}/health").status_code == 200
        stream.until("w3 ")
        daemon.process.send_signal(signal.SIGTERM)
        eventually(lambda: '"stopping"' in daemon.log)
        # Draining by now, or closed to new connections: refused in any case.
        with contextlib.suppress(httpx.ConnectError):
            refused = daemon.ask("[[say no]]")
            assert (refused.status, refused.code) == (503, "draining")
            assert int(refused.headers["Retry-After"]) >= 1
        with contextlib.suppress(httpx.TransportError):
            health = kept.get(f"{daemon.base_url}/health")
            assert (health.status_code, health.json()["status"]) == (503, "draining")
        stream.rest()
        assert stream.text.split()[-1] == "w39"
        assert stream.raw[-1] == "data: [DONE]"
    assert daemon.process.wait(20) == 0
    eventually(lambda: not daemon.processes())


def test_a_stop_ends_turns_that_take_longer_than_it_waits(start: Start, model: Model, name: str) -> None:
    daemon = start(POOL_SIZE=2, CLAUDE_CODED_DRAIN_TIMEOUT_MS=300)
    assert daemon.process is not None
    with ThreadPoolExecutor() as threads:
        running = threads.submit(daemon.ask, "one [[hang]]", name)
        eventually(lambda: model.requests("one"))
        assert daemon.stop() == 0
        ended = running.result()
    assert (ended.status, ended.code) == (502, "worker_died")
    eventually(lambda: not daemon.processes())
    daemon.start()
    assert daemon.ask("two [[recall]]", name).said == ["two [[recall]]"]


def test_a_stop_while_it_starts_is_clean(make: Start) -> None:
    daemon = make(POOL_SIZE=3)
    process = daemon.spawn()
    eventually(lambda: daemon.children() or daemon.state.exists())
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) in {0, -signal.SIGTERM}
    eventually(lambda: not daemon.processes())


def test_conversations_outlive_a_restart(start: Start, name: str) -> None:
    daemon = start(POOL_SIZE=2)
    daemon.ask("one [[say 1]]", name)
    daemon.restart()
    assert daemon.shown(name)["state"] == "cold"
    assert daemon.ask("two [[recall]]", name).said == ["one [[say 1]]", "two [[recall]]"]


def test_a_workspace_that_is_gone_is_said(start: Start, tmp_path: Path, name: str) -> None:
    first = tmp_path / "first"
    first.mkdir()
    daemon = start(POOL_SIZE=1, WORKSPACE_DIR=first)
    assert daemon.ask("one [[say 1]]", name).ok
    daemon.stop()
    first.rename(tmp_path / "elsewhere")
    daemon.settings = {**daemon.settings, "WORKSPACE_DIR": str(tmp_path / "elsewhere")}
    daemon.start()
    gone = daemon.ask("two [[say 2]]", name)
    assert (gone.status, gone.code) == (409, "workspace_gone")
    assert str(first) in gone.error["message"]
    assert daemon.ask("other [[say yes]]", f"{name}-other").text == "yes"


def test_flags_and_the_file_set_what_the_environment_does_not(make: Start, name: str) -> None:
    daemon = make("--spare-workers", "0", CLAUDE_CODED_QUEUE_SIZE=7)
    (daemon.directory / "config.toml").write_text("pool_size = 2\nspare_workers = 1\nqueue_size = 3\n")
    daemon.start()
    assert daemon.pool()["size"] == 2
    daemon.ask("[[say hi]]", name)
    assert len(daemon.workers()) == 1


def test_serve_offline_needs_no_key_and_keeps_apart(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PORT": "0"}
    log = tmp_path / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("claude-coded"), "serve", "--offline"],
            env=environment, cwd=tmp_path, stdout=sink, stderr=sink,
        )  # fmt: skip
    try:
        serving = '"message":"serving","address":"'
        eventually(lambda: serving in log.read_text() or process.poll() is not None, 30)
        assert process.poll() is None, log.read_text()
        url = log.read_text().split(serving)[1].split('"')[0]
        body = {"model": "claude-code", "messages": [{"role": "user", "content": "Hello!"}]}
        with httpx.Client(trust_env=False, timeout=30) as client:
            answer = client.post(f"{url}/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] == "You said: Hello!"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert [path.name for path in home.iterdir()] == [".local"]
    assert [path.name for path in (home / ".local/state/claude-coded").iterdir()] == ["offline"]


def test_a_second_signal_ends_it_at_once(start: Start, model: Model, name: str) -> None:
    daemon = start(POOL_SIZE=1)
    assert daemon.process is not None
    with ThreadPoolExecutor() as threads:
        running = threads.submit(daemon.ask, "one [[hang]]", name)
        eventually(lambda: model.requests("one"))
        daemon.process.send_signal(signal.SIGTERM)
        eventually(lambda: '"stopping"' in daemon.log)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(5) == 1
        with pytest.raises(httpx.TransportError):
            running.result()
    eventually(lambda: not daemon.processes(), 15)
