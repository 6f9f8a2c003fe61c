"""The marks of turns that begin: what was noted last is there, whenever the process is killed."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claude_coded.marks import HALF, Mark, Marks

MARKS = st.builds(Mark, st.text(max_size=9), st.text(max_size=9), st.text(max_size=9), st.text(max_size=9))
STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove", "open"]), MARKS), max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_what_is_left_is_there_again(tmp_path: Path, steps: list[tuple[str, Mark]]) -> None:
    marks = Marks(tmp_path / "marks")
    expected: dict[Mark, None] = {}
    marks.clear()
    for step, mark in steps:
        match step:
            case "add":
                assert marks.add(mark)
                expected[mark] = None
            case "remove":
                marks.remove(mark)
                expected.pop(mark, None)
            case _:  # the former one was never closed: it was killed
                marks = Marks(tmp_path / "marks")
        assert marks.left == tuple(expected)


def test_a_write_that_was_cut_does_not_count(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "marks")
    kept = Mark("t", "c", "1", "2")
    assert marks.add(kept)
    data = bytearray((tmp_path / "marks").read_bytes().ljust(1 + 2 * HALF, b"\0"))
    start = 1 + HALF * (1 - data[0])
    data[start : start + 9] = b"\xff" * 9
    (tmp_path / "marks").write_bytes(data)
    assert Marks(tmp_path / "marks").left == (kept,)


@given(st.binary(max_size=40))
def test_a_file_that_is_none_of_ours_holds_nothing(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "marks"
        file.write_bytes(data.ljust(1 + HALF, b"\xff") + data)
        marks = Marks(file)
        assert marks.left == ()
        kept = Mark("t", "c", "1", "2")
        assert marks.add(kept)
        assert Marks(file).left == (kept,)


def test_a_full_disk_takes_no_mark(tmp_path: Path) -> None:
    (tmp_path / "marks").symlink_to("/dev/full")
    marks = Marks(tmp_path / "marks")
    assert not marks.add(Mark("t", "c", "1", "2"))
    assert marks.left == ()


def test_there_is_an_end_to_the_room(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "marks")
    some = [Mark("t", "c" * 1000, str(n), "2") for n in range(100)]
    kept = [mark for mark in some if marks.add(mark)]
    assert kept == some[: len(kept)]
    assert 50 < len(kept) < 80
    assert Marks(tmp_path / "marks").left == tuple(kept)
    marks.remove(kept[0])
    assert marks.add(some[-1])


def test_they_survive_the_death_of_their_process(tmp_path: Path) -> None:
    file = tmp_path / "marks"
    program = (
        "import os, signal; from pathlib import Path; from claude_coded.marks import Mark, Marks; "
        f"Marks(Path({str(file)!r})).add(Mark('t', 'c', '1', '2')); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", program], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert Marks(file).left == (Mark("t", "c", "1", "2"),)
    assert file.stat().st_mode & 0o777 == 0o600
