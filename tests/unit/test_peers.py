"""Who has connected: whether it is of this process's tree, by real processes."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_coded.control.peers import is_of_a_worker
from claude_coded.proc import descends
from claude_coded.unix import has_ended

VISITOR = """
import os, socket, sys
{before}
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
{after}
"""
WAIT = "sock.recv(1)"
AS_GRANDCHILD = "if os.fork(): os.wait(); os._exit(0)\nos.setsid()"
LEAVE_A_CHILD = "if os.fork(): os._exit(0)\nsock.recv(1)"


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    tmp_path.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        (tmp_path / "s").chmod(0o777)
        sock.settimeout(10)
        sock.listen()
        yield sock


def visitor(listening: socket.socket, before: str = "", after: str = WAIT) -> "subprocess.Popen[bytes]":
    code = VISITOR.format(before=before, after=after)
    return subprocess.Popen([sys.executable, "-c", code, listening.getsockname()])


@pytest.mark.parametrize("before", ["", AS_GRANDCHILD])
def test_a_descendant_is_known(listening: socket.socket, before: str) -> None:
    with visitor(listening, before), listening.accept()[0] as sock:
        assert not has_ended(sock)
        assert is_of_a_worker(sock)


def test_who_is_above_or_beside_is_none(listening: socket.socket) -> None:
    assert descends(os.getppid(), os.getpid()) is False
    with visitor(listening) as other, listening.accept()[0]:
        assert descends(os.getpid(), other.pid) is False
        assert descends(other.pid, os.getpid()) is True
        assert descends(os.getpid(), os.getpid()) is True


def test_who_has_ended_since_may_have_been_anything(listening: socket.socket) -> None:
    with visitor(listening, after=LEAVE_A_CHILD) as gone, listening.accept()[0] as sock:
        gone.wait()
        assert descends(gone.pid, os.getpid()) is None
        assert has_ended(sock)
        assert is_of_a_worker(sock)


def stat(proc: Path, pid: int, parent: int, start: int) -> None:
    (proc / str(pid)).mkdir(exist_ok=True)
    fields = " ".join(["S", str(parent), *["0"] * 17, str(start), "0", "0"])
    (proc / str(pid) / "stat").write_text(f"{pid} (a) b) {fields}")


def test_what_is_above_a_hidden_process_is_no_descent(tmp_path: Path) -> None:
    stat(tmp_path, 9, 8, 100)
    assert descends(9, 5, tmp_path) is False
    stat(tmp_path, 8, 5, 90)
    stat(tmp_path, 5, 1, 80)
    assert descends(9, 5, tmp_path) is True


def test_a_parent_that_is_younger_is_somebody_else(tmp_path: Path) -> None:
    stat(tmp_path, 9, 8, 100)
    stat(tmp_path, 8, 1, 101)
    assert descends(9, 5, tmp_path) is None
