"""The machine's processes, read from files as the kernel writes them."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.proc import Tree, _read, ended_children, processes, trees


def test_this_process_is_as_others_see_it() -> None:
    (own,) = [process for process in processes() if process.pid == os.getpid()]
    seen = psutil.Process()
    assert own.parent == os.getppid()
    assert abs(own.cpu - sum(seen.cpu_times()[:4])) < 0.5
    assert 0.5 < own.memory / seen.memory_info().rss < 2


def test_a_zombie_and_what_is_no_process_are_left_out(tmp_path: Path) -> None:
    rest = " ".join(["0"] * 40)
    for pid, state in (("7", "S"), ("8", "Z")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "stat").write_text(f"{pid} (x) {state} 1 {rest}")
    (tmp_path / "9").mkdir()
    (tmp_path / "meminfo").touch()
    assert [(process.pid, process.parent) for process in processes(tmp_path)] == [(7, 1)]


@given(st.binary(max_size=15), st.integers(1, 2**22))
def test_a_process_may_have_any_name(name: bytes, parent: int) -> None:
    fields = [b"S", b"%d" % parent, *[b"3"] * 40]
    process = _read(5, b"5 (%s) %s\n" % (name, b" ".join(fields)))
    assert process is not None
    assert (process.pid, process.parent) == (5, parent)


def test_a_tree_is_counted_with_all_its_generations() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as parent:
        while not (children := psutil.Process(parent.pid).children()):
            pass
        tree = trees([parent.pid, os.getpid()])
        assert tree[parent.pid].processes == 1 + len(children)
        assert tree[os.getpid()].processes >= 3
        assert tree[parent.pid].memory > 1_000_000
        parent.communicate(b"\n")
    assert trees([parent.pid])[parent.pid] == Tree()


def test_what_a_child_has_used_is_its_parents_when_it_has_ended() -> None:
    before, own = ended_children(), trees([os.getpid()])[os.getpid()].cpu
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert ended_children() - before >= 0.02
    assert trees([os.getpid()])[os.getpid()].cpu - own >= 0.02
