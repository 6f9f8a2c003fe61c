"""Log records, as people, machines and the journal get them."""

import asyncio
import io
import json
import logging
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded import logs
from claude_coded.logs import CRASH_LOG, JournalHandler, encode_entry, field_name, goes_to_journal


class Journal:
    """The socket that journald listens on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(5)

    def entry(self) -> dict[str, str]:
        """Return the next entry, however it is sent."""
        data, descriptors, _, _ = socket.recv_fds(self._socket, 1 << 20, 1)
        for descriptor in descriptors:
            with os.fdopen(descriptor, "rb") as file:
                file.seek(0)
                data = file.read()
        return decode(data)

    def close(self) -> None:
        self._socket.close()


def decode(data: bytes) -> dict[str, str]:
    """Read an entry as the journal's protocol has it."""
    entry = {}
    while data:
        line, data = data.split(b"\n", 1)
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack("<Q", data[:8])
            value, data = data[8 : 8 + size], data[8 + size + 1 :]
        entry[name.decode()] = value.decode()
    return entry


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal")
    yield journal
    journal.close()


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(journal: Journal, said: io.StringIO) -> Iterator[logging.Logger]:
    handler = JournalHandler(said, str(journal.path))
    log = logging.getLogger("claude_coded.test")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    yield log
    log.removeHandler(handler)
    handler.close()


def test_a_record_is_an_entry_with_fields(log: logging.Logger, journal: Journal, said: io.StringIO) -> None:
    log.warning("a turn begins again", extra={"conversation": "first", "worker": 3, "error": "a\nb"})
    entry = journal.entry()
    assert entry.pop("CODE_LINE").isdigit()
    assert entry.pop("CODE_FILE") == __file__
    assert entry.pop("CODE_FUNC").startswith("test_")
    assert entry == {
        "MESSAGE": "a turn begins again  conversation=first  worker=3  error=a\nb",
        "EVENT": "a turn begins again",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "claude-coded",
        "LOGGER": "claude_coded.test",
        "CONVERSATION": "first",
        "WORKER": "3",
        "ERROR": "a\nb",
    }
    assert said.getvalue() == ""


def test_priorities_are_those_of_syslog(log: logging.Logger, journal: Journal) -> None:
    for level in (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG):
        log.log(level, "said")
    assert [journal.entry()["PRIORITY"] for _ in range(5)] == ["2", "3", "4", "6", "7"]


def test_an_exception_stands_below_the_message(log: logging.Logger, journal: Journal) -> None:
    try:
        raise ValueError("what for")
    except ValueError:
        log.exception("request failed")
    entry = journal.entry()
    assert entry["MESSAGE"].startswith("request failed\nTraceback")
    assert entry["MESSAGE"].endswith("ValueError: what for")
    assert entry["EVENT"] == "request failed"


def test_an_entry_too_large_for_a_datagram_comes_whole(log: logging.Logger, journal: Journal) -> None:
    log.info("said", extra={"text": "ä" * 3_000_000})
    assert journal.entry()["TEXT"] == "ä" * 3_000_000


def test_without_a_journal_records_go_to_stderr_with_priorities(
    log: logging.Logger, journal: Journal, said: io.StringIO
) -> None:
    journal.path.unlink()
    log.error("no\njournal", extra={"worker": 3})
    log.info("")
    assert said.getvalue() == "<3>no\n<3>journal  worker=3\n<6>\n"


def test_a_journal_that_does_not_read_loses_nothing(
    log: logging.Logger, journal: Journal, said: io.StringIO
) -> None:
    queue = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    for number in range(queue + 2):
        log.info(f"{number}")
    sent = [journal.entry()["MESSAGE"] for _ in range(queue + 2 - len(said.getvalue().splitlines()))]
    told = [line.removeprefix("<6>") for line in said.getvalue().splitlines()]
    assert sent + told == [f"{number}" for number in range(queue + 2)]
    assert told


@given(st.dictionaries(st.from_regex(r"\A[A-Z][A-Z0-9_]{0,63}\Z"), st.text()))
def test_every_entry_is_read_as_it_was_meant(entry: dict[str, str]) -> None:
    assert decode(encode_entry(entry)) == {
        name: value.encode(errors="replace").decode() for name, value in entry.items()
    }


@given(st.text())
def test_every_field_has_a_name_that_the_journal_takes(name: str) -> None:
    assert re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", field_name(name))


def test_names_of_fields_are_upper_case() -> None:
    assert [field_name(name) for name in ("worker", "_PID", "2nd", "é")] == ["WORKER", "X_PID", "X_2ND", "X_"]


def test_stderr_is_the_journals_if_its_inode_is_the_one_that_systemd_names(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w") as stream:
        stat = os.fstat(stream.fileno())
        assert goes_to_journal(stream, {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"})
        for other in ({}, {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino + 1}"}, {"JOURNAL_STREAM": "1"}):
            assert not goes_to_journal(stream, other)
            assert logs.choose(stream, other) == "json"
    assert not goes_to_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"})


def test_what_is_noted_is_told_by_the_task_and_those_that_it_starts() -> None:
    record = logging.makeLogRecord({"conversation": "first"})

    async def other() -> dict[str, object]:
        return logs.fields(record)

    async def one(name: str) -> list[dict[str, object]]:
        logs.note(request=name)
        return [logs.fields(record), await asyncio.ensure_future(other())]

    async def scenario() -> list[list[dict[str, object]]]:
        return list(await asyncio.gather(one("a"), one("b")))

    for name, told in zip("ab", asyncio.run(scenario()), strict=True):
        assert told == [{"request": name, "conversation": "first"}] * 2
    assert logs.fields(record) == {"conversation": "first"}


def test_no_field_begins_a_line_or_steers_a_terminal() -> None:
    path = "/ü\n12:00:00 INFO    all is well\x1b[2J\u2028"
    record = logging.makeLogRecord({"msg": "request", "levelno": 20, "levelname": "INFO", "path": path})
    line = logs.TextFormatter().format(record)
    assert line.endswith("  path=/ü\\n12:00:00 INFO    all is well\\x1b[2J\\u2028")
    assert line.isprintable()


def test_text_and_json(said: io.StringIO) -> None:
    record = logging.makeLogRecord({"name": "x", "msg": "said", "levelname": "INFO", "worker": 3})
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO    said  worker=3", logs.TextFormatter().format(record))
    line = json.loads(logs.JsonFormatter().format(record))
    assert {**line, "time": 0} == {"time": 0, "level": "info", "logger": "x", "message": "said", "worker": 3}
    assert isinstance(logs.make_handler("json", said), logging.StreamHandler)


def test_a_pipe_that_nobody_reads_loses_lines_and_holds_up_nobody() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as pipe:
        handler = logs.make_handler("json", pipe)
        record = logging.makeLogRecord({"msg": "x" * 10_000, "levelname": "INFO"})
        begun = time.monotonic()
        for _ in range(1000):
            handler.handle(record)
        assert time.monotonic() - begun < 10 * logs.PATIENCE
        os.set_blocking(reading, False)
        lines = (reader.read() or b"").splitlines()
        handler.handle(logging.makeLogRecord({"msg": "again", "levelname": "INFO"}))
        after = (reader.read() or b"").splitlines()
    whole = [json.loads(line) for line in lines[:-1]]
    assert {len(line["message"]) for line in whole} == {10_000}
    assert after[0] == b""  # the end of the one that was cut
    told = [json.loads(line) for line in after[1:]]
    assert [line["message"] for line in told] == ["again", "log records were lost: nobody read them"]
    assert told[1]["count"] == 1000 - len(whole)


@pytest.mark.parametrize("kept", [True, False])
def test_the_stacks_of_a_wedged_process_are_kept(tmp_path: Path, kept: bool) -> None:
    code = "import os; from claude_coded.logs import keep_crashes; keep_crashes(os.environ); os.abort()"
    given = {"LOGS_DIRECTORY": f"{tmp_path}:/elsewhere"} if kept else {}
    ended = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGABRT
    text = (tmp_path / CRASH_LOG).read_bytes() if kept else ended.stderr
    assert b"Fatal Python error: Aborted" in text
