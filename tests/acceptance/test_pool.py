"""The pool: its size, its queue, eviction and resuming, and workers that will not start."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.acceptance.conftest import Start
from tests.support.daemon import Daemon, Model, eventually

BROKEN = """#!/bin/sh
if [ "$1" = --version ]; then echo "2.1.330 (Claude Code)"; exit; fi
echo start >> {count}
echo "the frobnicator is missing" >&2
exit 1
"""
WHOLE = """#!/bin/sh
exec {binary} "$@"
"""


def test_the_pool_never_exceeds_its_size_with_many_conversations_at_once(start: Start, name: str) -> None:
    daemon = start(POOL_SIZE=3)
    over = threading.Event()
    counts: set[int] = set()

    def sample() -> None:
        while not over.wait(0.005):
            counts.add(len(daemon.children()))

    def talk(number: int) -> list[str]:
        said: list[str] = daemon.ask(f"number {number} [[recall]]", f"{name}-{number}").said
        return said

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        with ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(talk, range(16)))
    finally:
        over.set()
        sampler.join()
    assert answers == [[f"number {number} [[recall]]"] for number in range(16)]
    assert max(counts) == 3


def test_a_full_queue_is_a_429_that_says_when_to_come_again(start: Start, model: Model, name: str) -> None:
    daemon = start(POOL_SIZE=1, CLAUDE_CODED_QUEUE_SIZE=1)
    with ThreadPoolExecutor() as threads:
        running = threads.submit(daemon.ask, "running [[pause 1000]] [[say 1]]", f"{name}-a")
        eventually(lambda: model.requests("running"))
        queued = threads.submit(daemon.ask, "queued [[say 2]]", f"{name}-b")
        eventually(lambda: daemon.pool()["queued"] == 1)
        for conversation in (f"{name}-c", f"{name}-b", f"{name}-a"):
            refused = daemon.ask("refused [[say 3]]", conversation)
            assert (refused.status, refused.code, refused.conversation) == (429, "queue_full", conversation)
            assert refused.error["type"] == "rate_limit_exceeded"
            assert int(refused.headers["Retry-After"]) >= 1
        assert (running.result().text, queued.result().text) == ("1", "2")
    assert not model.requests("refused")


def test_a_wait_that_is_too_long_is_a_429(start: Start, model: Model, name: str) -> None:
    daemon = start(POOL_SIZE=1, CLAUDE_CODED_QUEUE_TIMEOUT_MS=300)
    with ThreadPoolExecutor() as threads:
        running = threads.submit(daemon.ask, "running [[pause 2500]] [[say 1]]", f"{name}-a")
        eventually(lambda: model.requests("running"))
        begun = time.monotonic()
        late = daemon.ask("late [[say 2]]", f"{name}-b")
        assert 0.3 <= time.monotonic() - begun < 2
        assert (late.status, late.code) == (429, "queue_full")
        assert int(late.headers["Retry-After"]) >= 1
        assert running.result().text == "1"
    assert daemon.ask("again [[say 3]]", f"{name}-b").text == "3"


def test_without_a_queue_a_busy_pool_is_a_429_at_once(start: Start, model: Model, name: str) -> None:
    daemon = start(POOL_SIZE=1, CLAUDE_CODED_QUEUE_SIZE=0)
    with ThreadPoolExecutor() as threads:
        running = threads.submit(daemon.ask, "running [[pause 1000]] [[say 1]]", f"{name}-a")
        eventually(lambda: model.requests("running"))
        begun = time.monotonic()
        refused = daemon.ask("refused [[say 2]]", f"{name}-b")
        assert time.monotonic() - begun < 0.9
        assert (refused.status, refused.code) == (429, "queue_full")
        assert running.result().text == "1"
    assert daemon.ask("free [[say 4]]", f"{name}-b").text == "4"


@pytest.mark.parametrize("size", [1, 2])
def test_without_a_queue_a_question_right_after_an_answer_is_taken(
    start: Start, name: str, size: int
) -> None:
    daemon = start(POOL_SIZE=size, CLAUDE_CODED_QUEUE_SIZE=0)
    assert [daemon.ask("[[say yes]]", name).status for _ in range(40)] == [200] * 40


# Eviction ----------------------------------------------------------------------------------------------


def test_an_evicted_conversation_resumes_with_its_whole_history(
    daemon: Daemon, model: Model, name: str
) -> None:
    daemon.ask("one [[say 1]]", name)
    daemon.ask("two [[say 2]]", name)
    worker = daemon.worker_of(model.session("two"))
    assert daemon.delete(f"/conversations/{name}").ok
    eventually(lambda: not worker.is_running())
    assert daemon.shown(name)["state"] == "cold"
    assert daemon.ask("three [[recall]]", name).said == ["one [[say 1]]", "two [[say 2]]", "three [[recall]]"]
    eventually(lambda: daemon.shown(name)["state"] == "idle")


def test_eviction_interrupts_a_running_turn(daemon: Daemon, model: Model, name: str) -> None:
    daemon.ask("one [[say 1]]", name)
    with ThreadPoolExecutor() as threads:
        running = threads.submit(daemon.ask, "two [[hang]]", name)
        eventually(lambda: model.requests("two"))
        assert daemon.delete(f"/conversations/{name}").ok
        ended = running.result()
    assert (ended.status, ended.code) == (409, "conversation_evicted")
    assert daemon.ask("three [[recall]]", name).said == ["one [[say 1]]", "three [[recall]]"]


def test_an_idle_conversation_is_evicted_in_time_and_resumes(start: Start, model: Model, name: str) -> None:
    daemon = start(POOL_SIZE=1, IDLE_TIMEOUT_MS=300)
    daemon.ask("one [[say 1]]", name)
    eventually(lambda: not daemon.workers(), 5)
    assert daemon.shown(name)["state"] == "cold"
    assert daemon.ask("two [[recall]]", name).said == ["one [[say 1]]", "two [[recall]]"]


def test_a_pool_at_capacity_evicts_the_conversation_used_least_recently(start: Start, name: str) -> None:
    daemon = start(POOL_SIZE=2, CLAUDE_CODED_SPARE_WORKERS=0)
    a, b, c = (f"{name}-{which}" for which in "abc")
    said: dict[str, list[str]] = {a: [], b: [], c: []}

    def ask(conversation: str) -> None:
        said[conversation].append(f"{len(said[conversation])} [[recall]]")
        assert daemon.ask(said[conversation][-1], conversation).said == said[conversation]

    def hot() -> set[str]:
        return {item["id"] for item in daemon.get("/conversations").body["data"]}

    for conversation in (a, b, a):
        ask(conversation)
    ask(c)
    assert hot() == {a, c}
    ask(b)
    assert hot() == {b, c}
    for conversation in (a, b, c):
        ask(conversation)
        assert len(daemon.workers()) <= 2


# Workers that will not start ---------------------------------------------------------------------------


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A CLI that tells its version, and otherwise counts its starts and fails."""
    path = tmp_path / "claude-script"
    write_script(path, BROKEN.format(count=tmp_path / "starts"))
    return path


def write_script(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.chmod(0o755)
    fresh.replace(path)


def starts(script: Path) -> int:
    counted = script.with_name("starts")
    return len(counted.read_text().splitlines()) if counted.exists() else 0


def test_workers_that_will_not_start_are_a_clear_503_and_no_storm(
    start: Start, script: Path, daemon: Daemon
) -> None:
    broken = start(CLAUDE_CODED_CLAUDE_BIN=script)
    began = time.monotonic()
    for _ in range(10):
        refused = broken.ask("hello [[say hi]]")
        assert (refused.status, refused.code) == (503, "worker_start_failed")
        assert "the frobnicator is missing" in refused.error["message"]
        assert int(refused.headers["Retry-After"]) >= 1
    assert time.monotonic() - began < 10
    assert starts(script) <= 4
    with broken.stream("hello [[say hi]]") as stream:
        assert stream.response.status_code == 503
    health = broken.get("/health")
    assert (health.status, health.body["status"]) == (503, "unhealthy")
    assert "the frobnicator is missing" in health.body["reason"]
    binary = next(worker.exe() for worker in daemon.workers())
    write_script(script, WHOLE.format(binary=binary))
    assert eventually(lambda: answer_of(broken), 20, 0.2) == "hi"
    eventually(lambda: broken.get("/health").ok)


def answer_of(daemon: Daemon) -> str:
    answer = daemon.ask("hello [[say hi]]")
    return answer.text if answer.ok else ""


def test_many_requests_at_once_do_not_start_a_storm_either(start: Start, script: Path) -> None:
    broken = start(CLAUDE_CODED_CLAUDE_BIN=script)
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(broken.ask, ["hello [[say hi]]"] * 20))
    assert {answer.status for answer in answers} == {503}
    assert starts(script) <= 8


def test_a_cli_that_cannot_be_run_is_said_at_the_start(make: Start, tmp_path: Path) -> None:
    daemon = make(CLAUDE_CODED_CLAUDE_BIN=tmp_path / "nothing")
    assert daemon.spawn().wait(20) == 1
    assert "CLAUDE_CODED_CLAUDE_BIN" in daemon.log


def test_a_cli_that_is_too_old_is_said_at_the_start(make: Start, script: Path) -> None:
    write_script(script, "#!/bin/sh\necho '2.1.197 (Claude Code)'\n")
    daemon = make(CLAUDE_CODED_CLAUDE_BIN=script)
    assert daemon.spawn().wait(20) == 1
    assert "too old" in daemon.log


def test_an_idle_worker_with_something_in_the_background_stays_until_that_ends(
    start: Start, name: str
) -> None:
    daemon = start(IDLE_TIMEOUT_MS=500)
    command = '{"command": "true; sleep 3", "run_in_background": true}'
    assert daemon.ask(f"[[tool Bash {command}]] [[say begun]]", name).ok
    eventually(lambda: daemon.runs("sleep 3"))
    eventually(lambda: not daemon.runs("sleep 3"))
    assert daemon.shown(name)["state"] == "idle"
    eventually(lambda: daemon.shown(name)["state"] == "cold")
