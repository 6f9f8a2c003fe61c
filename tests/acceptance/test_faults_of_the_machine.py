"""A machine out of disk, files or processes: a clear error, and no more of it when there is some again."""

import os
from pathlib import Path

import pytest

from tests.acceptance.conftest import Start
from tests.support import faulty
from tests.support.daemon import Answer, Daemon, Model, dialogue, eventually
from tests.support.scarce import PIDS, SmallDisk, no_more_files, no_more_processes

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, and limits others: as root")


LONG = "x" * 5000
"""More than what is left of a file's last page when the disk is full."""


def in_front_of_a_program(make: Start, directory: Path, **settings: object) -> Daemon:
    """Return a daemon whose processes are quick to start."""
    program = faulty.install(directory)
    return make(CLAUDE_CODED_CLAUDE_BIN=program, CLAUDE_CODED_ANSWER_TIMEOUT_MS=2000, **settings)


def refused(answer: Answer, status: int, code: str, said: str) -> None:
    assert (answer.status, answer.code) == (status, code)
    assert said in answer.error["message"]


# Disks -------------------------------------------------------------------------------------------------


def test_a_full_disk_under_the_database_is_told_and_every_turn_counts_again_after_it(
    make: Start, tmp_path: Path, name: str
) -> None:
    daemon = in_front_of_a_program(make, tmp_path)
    disk = SmallDisk(daemon, daemon.state, 2 << 20)
    daemon.start()
    assert daemon.ask("one", name).ok
    disk.fill()
    for conversation in (name, f"{name}-new"):
        question = "two " + LONG
        refused(daemon.ask(question, conversation), 500, "not_recorded", "disk is full")
        with daemon.stream(question, conversation) as stream:
            refused(stream.answer(), 500, "not_recorded", "disk is full")
    assert daemon.get("/conversations?all=true").ok
    assert daemon.shown(name)["turns"] == 1
    disk.free()
    assert daemon.ask("two", name).ok
    assert daemon.ask("one", f"{name}-new").ok
    assert daemon.shown(name)["turns"] == 2
    daemon.settled()


def test_a_state_directory_that_cannot_be_written_is_said_at_the_start(make: Start, tmp_path: Path) -> None:
    daemon = in_front_of_a_program(make, tmp_path)
    SmallDisk(daemon, daemon.state, 1 << 20, "ro")
    assert daemon.spawn().wait(20) == 1
    assert f"state directory {daemon.state}: [Errno 30] Read-only file system" in daemon.log
    assert "Traceback" not in daemon.log


def test_what_a_full_disk_kept_from_the_transcripts_the_model_is_told_from_the_database(
    make: Start, model: Model, name: str
) -> None:
    daemon = make(POOL_SIZE=2)
    disk = SmallDisk(daemon, daemon.home, 24 << 20)
    daemon.start()
    said = [f"{name} {word} {LONG} [[recall]]" for word in ("one", "two", "three", "four")]
    assert daemon.ask(said[0], name).ok
    disk.fill()
    assert daemon.ask(said[1], name).said == said[:2]
    disk.free()
    assert daemon.ask(said[2], name).said == said[:3]
    assert daemon.delete(f"/conversations/{name}").ok
    assert daemon.ask(said[3], name).said == said
    roles = [role for role, _ in dialogue(model.requests(said[3])[-1]) if role != "system"]
    assert roles == ["user", "assistant"] * 3 + ["user"]
    assert "is not whole" in daemon.log


# Files and processes -----------------------------------------------------------------------------------


def test_a_daemon_out_of_files_serves_with_the_processes_that_it_has(
    make: Start, tmp_path: Path, name: str
) -> None:
    daemon = in_front_of_a_program(make, tmp_path, CLAUDE_CODED_SPARE_WORKERS=0).start()
    assert daemon.ask("hello", name).ok
    with no_more_files(daemon.pid, 2):
        refused(daemon.ask("hello", f"{name}-new"), 503, "worker_start_failed", "Too many open files")
        assert daemon.ask("hello", name).ok
        assert daemon.get("/health").status == 503
    eventually(lambda: daemon.ask("hello", f"{name}-new").ok, 10, 0.1)
    assert daemon.get("/health").ok
    daemon.settled()


@pytest.mark.skipif(not PIDS.is_dir(), reason="no control group that counts processes")
def test_a_machine_out_of_processes_loses_none_of_the_pools_places(
    make: Start, tmp_path: Path, name: str
) -> None:
    daemon = in_front_of_a_program(make, tmp_path, POOL_SIZE=1).start()
    assert daemon.ask("hello", name).ok
    with no_more_processes(daemon.pid):
        for child in daemon.children():
            child.kill()
        eventually(lambda: daemon.pool()["workers"] == 0)
        for _ in range(3):
            refused(daemon.ask("hello", name), 503, "worker_start_failed", "temporarily unavailable")
    eventually(lambda: daemon.ask("hello", name).ok, 10, 0.1)
    assert daemon.get("/health").ok
    assert daemon.pool()["workers"] == 1
