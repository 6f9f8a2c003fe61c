"""Workers that replay: what they say, when, and how one process says it for all of them."""

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from claude_coded.claude.launch import MINIMUM_VERSION, parse_version
from claude_coded.claude.wire import parse
from tests.benchmarks.ceiling import CLI_CLOCK, HTTP_CLOCK
from tests.support.replay import Reply, reply
from tests.support.replaying import Loop, install, serve

PATIENCE = 10.0
UUID = str(uuid4())


def asked(text: str, **fields: object) -> bytes:
    content = [{"type": "text", "text": text}]
    return json.dumps({"type": "user", "uuid": UUID, "message": {"content": content}, **fields}).encode()


def replied(line: bytes) -> Reply:
    said = reply(line)
    assert said is not None
    return said


# What is said ------------------------------------------------------------------------------------------


def test_a_request_of_the_hosts_is_granted() -> None:
    (piece,) = replied(b'{"type": "control_request", "request_id": "r1", "request": {}}').pieces
    assert json.loads(piece)["response"] == {"subtype": "success", "request_id": "r1", "response": {}}


def test_a_seed_has_a_receipt() -> None:
    (piece,) = replied(asked("earlier", shouldQuery=False)).pieces
    said = json.loads(piece)
    assert (said["num_turns"], said["user_message_uuids"]) == (0, [UUID])


def test_what_is_not_known_is_not_answered() -> None:
    assert reply(b'{"type": "keep_alive"}') is None


def test_a_turn_is_the_recorded_one_with_as_many_words_as_asked_for() -> None:
    (piece,) = replied(asked("[[words 3]]")).pieces
    lines = [json.loads(line) for line in piece.splitlines()]
    deltas = [line.get("event", {}).get("delta", {}).get("text") for line in lines]
    assert list(filter(None, deltas)) == ["w0 ", "w1 ", "w2 "]
    states = [line["state"] for line in lines if line.get("subtype") == "session_state_changed"]
    assert states == ["running", "idle"]
    assert UUID.encode() in piece
    assert all(parse(line) is not None for line in piece.splitlines())


def test_a_slow_turn_comes_in_pieces_each_at_its_time() -> None:
    said = replied(asked("[[pause 100]] [[delay 20]] [[words 2]]"))
    assert len(said.pieces) == 4
    assert [said.due(number) for number in range(4)] == pytest.approx([0.1, 0.12, 0.14, 0.16])
    assert said.piece(1, 17) == said.pieces[1]


def test_a_clocked_delta_tells_when_it_is_written() -> None:
    said = replied(asked("[[clock]] [[delay 20]] [[words 2]]"))
    pieces = [said.piece(number, 1000 + number) for number in range(4)]
    assert [CLI_CLOCK.stamp.findall(piece) for piece in pieces] == [[], [b"1001"], [b"1002"], []]
    assert [CLI_CLOCK.close in piece for piece in pieces] == [False, False, False, True]


# What is read of it ------------------------------------------------------------------------------------


def test_a_delta_counts_when_its_last_byte_is_there() -> None:
    event = b'data: {"content":"%d "}\n\n'
    whole = event % 1_000_000 + event % 2_000_000
    reads = [(3_000_000, whole[:20]), (5_000_000, whole[20:-1]), (9_000_000, whole[-1:])]
    assert list(HTTP_CLOCK.delays(reads)) == [4.0, 7.0]


def test_a_turn_ends_with_its_last_mark_also_in_halves() -> None:
    assert HTTP_CLOCK.ends([(0, b"x\r\n"), (1, b"0\r\n\r\n")])
    assert not HTTP_CLOCK.ends([(0, b"x\r\n"), (1, b"0\r\n")])


# How one process says it for all -----------------------------------------------------------------------


@contextmanager
def replayer(folder: Path) -> Iterator[Path]:
    """Replay in a thread; yields the program that hands its pipes over."""
    program = folder / "claude"
    with install(program) as listening:
        loop, ended = serve(listening), threading.Event()

        def run() -> None:
            while not (ended.is_set() and loop.watched == 1):  # those that have left are let go
                loop.step()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield program
        finally:
            ended.set()
            with socket.socket(socket.AF_UNIX) as waking:
                waking.connect(f"{program}.sock")
            thread.join(PATIENCE)
            assert not thread.is_alive()


class Held:
    """A worker's pipes, handed over as the stub does."""

    def __init__(self, program: Path) -> None:
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(PATIENCE)
        self.connection.connect(f"{program}.sock")
        theirs, self.stdin = socket.socketpair()
        self.stdout, out = os.pipe()
        socket.send_fds(self.connection, [b"\0"], [theirs.fileno(), out])
        theirs.close()
        os.close(out)

    def ask(self, *lines: bytes) -> None:
        self.stdin.sendall(b"".join(line + b"\n" for line in lines))

    def read_turn(self) -> bytes:
        data = b""
        while CLI_CLOCK.close not in data or not data.endswith(b"\n"):
            data += os.read(self.stdout, 65536) or pytest.fail("it broke off")
        return data

    def close(self) -> None:
        self.connection.close()
        self.stdin.close()
        os.close(self.stdout)


def test_each_worker_gets_its_own_answers_in_order(tmp_path: Path) -> None:
    with replayer(tmp_path) as program, closing(Held(program)) as one, closing(Held(program)) as other:
        one.ask(b'{"type": "control_request", "request_id": "r1"}', asked("[[words 2]] [[delay 1]]"))
        other.ask(asked("[[words 3]]"))
        said, told = one.read_turn(), other.read_turn()
    assert json.loads(said.splitlines()[0])["response"]["request_id"] == "r1"
    assert (said.count(b'"text_delta"'), told.count(b'"text_delta"')) == (2, 3)


def test_a_line_may_come_in_halves(tmp_path: Path) -> None:
    with replayer(tmp_path) as program, closing(Held(program)) as worker:
        line = asked("[[words 1]]")
        worker.stdin.sendall(asked("[[words 1]]") + b"\n" + line[:20])
        worker.read_turn()  # the half is read by then
        worker.ask(line[20:])
        assert worker.read_turn().count(b'"text_delta"') == 1


def test_who_does_not_read_holds_up_nobody_and_loses_nothing(tmp_path: Path) -> None:
    with replayer(tmp_path) as program, closing(Held(program)) as slow, closing(Held(program)) as other:
        slow.ask(asked("[[words 5000]]"))
        for _ in range(3):
            other.ask(asked("[[words 1]]"))
            other.read_turn()
        assert slow.read_turn().count(b'"text_delta"') == 5000


def test_a_paced_stream_is_never_ahead_of_its_time(tmp_path: Path) -> None:
    with replayer(tmp_path) as program, closing(Held(program)) as worker:
        began = time.monotonic_ns()
        worker.ask(asked("[[clock]] [[words 20]] [[delay 2]]"))
        stamps = [int(stamp) for stamp in CLI_CLOCK.stamp.findall(worker.read_turn())]
    assert len(stamps) == 20
    assert all(stamp >= began + (number + 1) * 2_000_000 for number, stamp in enumerate(stamps))


def test_the_end_of_its_input_ends_a_worker_and_so_does_its_own(tmp_path: Path) -> None:
    with replayer(tmp_path) as program, closing(Held(program)) as one, closing(Held(program)) as other:
        one.ask(asked("[[words 10000]] [[delay 1000]]"))
        one.stdin.shutdown(socket.SHUT_WR)
        assert one.connection.recv(1) == b""
        other.connection.close()
        assert os.read(other.stdout, 1) == b""


def test_who_comes_with_no_pipes_is_let_go(tmp_path: Path) -> None:
    with replayer(tmp_path) as program, socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(PATIENCE)
        stranger.connect(f"{program}.sock")
        stranger.shutdown(socket.SHUT_WR)
        assert stranger.recv(1) == b""


def test_the_stub_hands_over_its_pipes_and_ends_with_its_input(tmp_path: Path) -> None:
    with replayer(tmp_path) as program:
        command = [str(program), "-p", "--verbose"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(asked("[[words 1]]") + b"\n")
            assert parse(process.stdout.readline()) is not None
            process.stdin.close()
            assert process.wait(PATIENCE) == 0


def test_the_stub_has_a_version_that_will_do(tmp_path: Path) -> None:
    with install(tmp_path / "claude"):
        said = subprocess.run([tmp_path / "claude", "--version"], capture_output=True, check=True, text=True)
    assert parse_version(said.stdout) >= MINIMUM_VERSION


def test_what_is_due_is_called_in_its_order() -> None:
    loop, called = Loop(), []
    now = time.monotonic()
    for name, after in (("third", 0.003), ("first", 0.001), ("second", 0.001)):
        loop.at(now + after, lambda name=name: called.append((name, time.monotonic() - now)))  # type: ignore[misc]
    while len(called) < 3:
        loop.step()
    assert [name for name, _ in called] == ["first", "second", "third"]
    assert all(late >= after for (_, late), after in zip(called, (0.001, 0.001, 0.003), strict=True))
