"""Processes that end, hang, or write what they should not: no request hangs, and the next turn works.

What the real CLI never does, a program in its place does (`faulty`).
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.conftest import Start
from tests.support import faulty
from tests.support.client import Client, function
from tests.support.daemon import Answer, Daemon, Model, dialogue, eventually

ANSWER_MS = 700
"""How long a process may be silent, twice over: a busy machine must not make a sound one late."""

FILES_OF_A_WORKER = 4
"""Descriptors: three pipes, and one that tells of its end."""


@dataclass
class Faulty:
    """A daemon in front of programs that go wrong, and how it is at rest."""

    daemon: Daemon
    choice: Path
    files: int = 0

    def at_rest(self) -> int:
        """Wait until every process is one of the pool's; return the daemon's files beside those for them."""

        def settled() -> int:
            workers = self.daemon.children()
            counted = self.daemon.pool()["workers"] == len(workers)
            known = len(self.daemon.processes()) == 1 + len(workers)
            return len(workers) + 1 if counted and known else 0

        workers = eventually(settled, 15) - 1
        return len(os.listdir(f"/proc/{self.daemon.pid}/fd")) - FILES_OF_A_WORKER * workers  # noqa: PTH208

    def end_all(self) -> None:
        """Kill every process of the pool's."""
        for child in self.daemon.children():
            child.kill()

    def leaves_nothing(self) -> None:
        """Check that no process and no file is left of what went wrong."""
        eventually(lambda: self.at_rest() == self.files, 15)

    def stream(self, text: str, name: str) -> Answer:
        """Return what a stream ends with: `answer` checks that there is an end, or an error."""
        with self.daemon.stream(text, name) as stream:
            return stream.answer()


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    directory = tmp_path_factory.mktemp("faulty")
    choice = directory / "choice"
    settings = {
        "CLAUDE_CODED_CLAUDE_BIN": str(faulty.install(directory)),
        faulty.CHOICE: str(choice),
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
        "POOL_SIZE": "3",
        "CLAUDE_CODED_ANSWER_TIMEOUT_MS": str(ANSWER_MS),
        "CLAUDE_CODED_TURN_TIMEOUT_MS": "7000",
    }
    daemon = Daemon(directory, settings)
    try:
        made = Faulty(daemon.start(), choice)
        assert daemon.ask("hello", "first").ok
        made.files = made.at_rest()
        yield made
    finally:
        daemon.close()


# In a turn ---------------------------------------------------------------------------------------------

DIED, LATE = "worker_died", "turn_timeout"
SILENT = "CLAUDE_CODED_ANSWER_TIMEOUT_MS"


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("exit", DIED, "exit status 0"),
        ("crash", DIED, "exit status -11"),
        ("half-line", DIED, "exit status 0"),
        ("endless-line", DIED, "its output cannot be read"),
        ("close-output", DIED, "exit status -9"),
        ("no-result", DIED, "without its result"),
        ("hang", DIED, SILENT),
        pytest.param("close-input", DIED, SILENT, marks=pytest.mark.soak),
        pytest.param("flood-stderr", DIED, SILENT, marks=pytest.mark.soak),
        pytest.param("flood", LATE, "longer than 7 s", marks=pytest.mark.soak),
    ],
)
def test_a_process_that_goes_wrong_in_mid_answer_ends_the_stream_with_an_error(
    wrong: Faulty, name: str, fault: str, code: str, said: str
) -> None:
    with wrong.daemon.stream(f"[[fault {fault}]]", name) as stream:
        assert stream.until("w1 ") == "w0 w1 "
        answer = stream.answer()
    assert (answer.status, answer.code) == (0, code)
    assert said in answer.error["message"]
    assert "data: [DONE]" not in stream.raw
    assert not any('"finish_reason":"' in line for line in stream.raw)
    assert wrong.daemon.ask("next", name).text == "w0 "
    wrong.leaves_nothing()


@pytest.mark.parametrize("fault", ["garbage", "long-line"])
def test_what_is_no_message_is_passed_over(wrong: Faulty, name: str, fault: str) -> None:
    answer = wrong.stream(f"[[fault {fault}]]", name)
    assert (answer.text, answer.finish) == ("w0 w1 ", "stop")
    worker = wrong.daemon.shown(name)["state"]
    assert worker == "idle"
    assert wrong.daemon.ask("next", name).text == "w0 "
    wrong.leaves_nothing()


@pytest.mark.parametrize("fault", ["exit", "half-line"])
def test_half_an_answer_is_none_to_a_client_that_waits_for_it_whole(
    wrong: Faulty, name: str, fault: str
) -> None:
    answer = wrong.daemon.ask(f"[[fault {fault}]]", name)
    assert (answer.status, answer.code) == (502, DIED)


def test_a_process_that_hangs_before_it_takes_the_question_has_one_successor(
    wrong: Faulty, name: str
) -> None:
    answer = wrong.stream("[[fault hang-unbegun]]", name)
    assert (answer.status, answer.code) == (502, DIED)
    assert wrong.daemon.ask("next", name).text == "w0 "
    wrong.leaves_nothing()


@pytest.mark.soak
def test_what_one_process_does_holds_up_no_other(wrong: Faulty, name: str) -> None:
    with ThreadPoolExecutor() as threads:
        flooded = threads.submit(wrong.daemon.ask, "[[fault flood]]", f"{name}-flood")
        eventually(lambda: wrong.daemon.pool()["busy"])
        answers = [wrong.daemon.ask("hello", f"{name}-other") for _ in range(20)]
        assert not flooded.done()
        assert {answer.text for answer in answers} == {"w0 "}
        assert flooded.result().code == LATE


# At the start ------------------------------------------------------------------------------------------


def test_processes_that_never_answer_are_a_503_until_they_do(wrong: Faulty, name: str) -> None:
    wrong.choice.write_text("mute")
    try:
        wrong.end_all()
        answer = wrong.daemon.ask("hello", name)
        assert (answer.status, answer.code) == (503, "worker_start_failed")
        eventually(lambda: SILENT in str(wrong.daemon.get("/health").body), 10)
        answer = wrong.daemon.ask("hello", name)
        assert int(answer.headers["Retry-After"]) >= 1
    finally:
        wrong.choice.write_text("")
    eventually(lambda: wrong.daemon.ask("hello", name).ok, 20, 0.1)
    eventually(lambda: wrong.daemon.get("/health").ok)
    wrong.leaves_nothing()


def test_a_process_that_is_killed_while_it_starts_is_a_503(wrong: Faulty, name: str) -> None:
    wrong.choice.write_text("mute")
    try:
        with ThreadPoolExecutor() as threads:
            wrong.end_all()
            asked = threads.submit(wrong.daemon.ask, "hello", name)

            def ended() -> bool:
                wrong.end_all()
                return asked.done()

            eventually(ended)
            answer = asked.result()
    finally:
        wrong.choice.write_text("")
    assert (answer.status, answer.code) == (503, "worker_start_failed")
    assert eventually(lambda: wrong.daemon.ask("hello", name).ok)
    wrong.leaves_nothing()


def test_a_program_that_is_replaced_under_the_daemon_serves_new_processes(
    wrong: Faulty, name: str, tmp_path: Path
) -> None:
    program = Path(wrong.daemon.settings["CLAUDE_CODED_CLAUDE_BIN"])
    hot, cold = f"{name}-hot", f"{name}-cold"
    eventually(lambda: wrong.daemon.ask("hello", hot).ok)
    whole = program.read_text()
    program.rename(program.with_suffix(".gone"))
    eventually(lambda: wrong.daemon.ask("hello", cold).code == "worker_start_failed", 10)
    assert wrong.daemon.ask("hello", hot).ok
    fresh = tmp_path / "claude"
    fresh.write_text(whole)
    fresh.chmod(0o755)
    fresh.replace(program)
    eventually(lambda: wrong.daemon.ask("hello", cold).ok, 20, 0.1)
    wrong.leaves_nothing()


@pytest.mark.soak
def test_a_process_that_ignores_every_request_to_end_is_killed(wrong: Faulty, name: str) -> None:
    wrong.choice.write_text("stubborn")
    try:
        wrong.end_all()
        assert wrong.daemon.ask("hello", name).ok
    finally:
        wrong.choice.write_text("")
    assert wrong.daemon.delete(f"/conversations/{name}").ok
    assert wrong.daemon.ask("next", name).text == "w0 "
    wrong.leaves_nothing()


# The real CLI ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that waits for no silent process for long, but for one that starts on a busy machine."""
    settings = {
        "ANTHROPIC_BASE_URL": served_model.url,
        "POOL_SIZE": "2",
        "CLAUDE_CODED_ANSWER_TIMEOUT_MS": "4000",
    }
    daemon = Daemon(tmp_path_factory.mktemp("real"), settings)
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.mark.soak
def test_a_process_that_is_stopped_in_mid_stream_is_found_and_ended(
    real: Daemon, model: Model, name: str
) -> None:
    real.ask("first [[say 1]]", name)
    with real.stream("mine [[delay 50]] [[words 1000]]", name) as stream:
        seen = stream.until("w3 ")
        worker = real.worker_of(model.session("mine"))
        worker.suspend()
        answer = stream.answer()
    assert (answer.status, answer.code) == (0, "worker_died")
    assert not worker.is_running()
    asked = real.ask("next [[recall]]", name)
    assert asked.said == ["first [[say 1]]", "mine [[delay 50]] [[words 1000]]", "next [[recall]]"]
    said = [text for role, text in dialogue(model.requests("next")[-1]) if role == "assistant"]
    assert said[1].startswith(seen.strip())


@pytest.mark.soak
def test_a_process_that_is_stopped_while_idle_is_replaced_unnoticed(
    real: Daemon, model: Model, name: str
) -> None:
    real.ask("first [[say 1]]", name)
    worker = real.worker_of(model.session("first"))
    worker.suspend()
    assert real.ask("second [[recall]]", name).said == ["first [[say 1]]", "second [[recall]]"]
    assert len(model.requests("second")) == 1
    eventually(lambda: not worker.is_running())


@pytest.mark.parametrize(
    "silent", ['[[tool Bash {"command": "sleep 4"}]]', pytest.param("[[pause 4000]]", marks=pytest.mark.soak)]
)
def test_a_long_silence_of_a_command_or_of_the_model_is_no_fault(
    start: Start, name: str, silent: str
) -> None:
    daemon = start(POOL_SIZE=1, CLAUDE_CODED_ANSWER_TIMEOUT_MS=1200)
    assert daemon.ask("first [[say 1]]", name).ok
    worker = daemon.workers()
    assert daemon.ask(f"long {silent} [[say done]]", name).text == "done"
    assert daemon.workers() == worker


@pytest.mark.soak
def test_a_process_that_is_stopped_while_its_client_runs_a_tool_has_its_turn_rebuilt(
    real: Daemon, model: Model, name: str
) -> None:
    client = Client(real, model, more={"tools": [function("get")]})
    client.ask(f"{name} one [[tool get {{}}]] [[result]]")
    worker = real.worker_of(client.session)
    worker.suspend()
    assert client.returns("found").text == "found"
    eventually(lambda: not worker.is_running())


def test_a_process_that_is_killed_while_it_is_ending_is_gone(real: Daemon, model: Model, name: str) -> None:
    real.ask("first [[say 1]]", name)
    worker = real.worker_of(model.session("first"))
    worker.suspend()  # so that it cannot end by itself
    assert real.delete(f"/conversations/{name}").ok
    worker.kill()
    assert real.ask("second [[recall]]", name).said == ["first [[say 1]]", "second [[recall]]"]
