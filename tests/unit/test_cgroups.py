"""Control groups on a tree that looks like the kernel's; what is left by real processes."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from claude_coded.cgroups import (
    MARK,
    Group,
    GroupLimits,
    Groups,
    kill_marked,
    limited,
    marked,
    own_group,
    take_over,
)
from tests.support.daemon import eventually

HYBRID = """\
25 30 0:22 / /sys rw,nosuid shared:7 - sysfs sysfs rw
31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 25 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:9 master:2 - cgroup2 cgroup2 rw
"""
UNIFIED = "32 25 0:28 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("cgroup", "mounts", "path"),
    [
        ("0::/system.slice/x.service\n", UNIFIED.format(root="/"), "/sys/fs/cgroup/system.slice/x.service"),
        ("9:memory:/a\n0::/b\n", HYBRID, "/sys/fs/cgroup/unified/b"),
        ("0::/pod/b\n", UNIFIED.format(root="/pod"), "/sys/fs/cgroup/b"),
        ("0::/\n", UNIFIED.format(root="/"), "/sys/fs/cgroup"),
        ("9:memory:/a\n", HYBRID, None),
        ("0::/a\n", "", None),
    ],
)
def test_the_own_group_is_found(cgroup: str, mounts: str, path: str | None) -> None:
    assert own_group(cgroup, mounts) == (Path(path) if path else None)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A delegated group with the controllers memory and pids, and how a process sees it."""
    group = tmp_path / "cgroup/x.service"
    group.mkdir(parents=True)
    (group / "cgroup.controllers").write_text("cpu memory pids\n")
    (group / "cgroup.subtree_control").write_text("")
    proc = tmp_path / "proc/self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text("0::/x.service\n")
    (proc / "mountinfo").write_text(f"1 2 0:3 / {tmp_path}/cgroup rw - cgroup2 cgroup2 rw\n")
    return tmp_path / "proc"


@pytest.fixture
def delegated(proc: Path) -> Path:
    group = proc.parent / "cgroup/x.service"
    try:
        os.setxattr(group, "user.delegate", b"1")
    except OSError:
        pytest.skip("the file system of temporary files has no attributes")
    return group


def test_nothing_is_touched_where_nothing_is_delegated(proc: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert take_over({}, proc) is None
    assert limited(None, GroupLimits()) is None
    assert not caplog.records
    assert sorted(path.name for path in (proc.parent / "cgroup/x.service").iterdir()) == [
        "cgroup.controllers",
        "cgroup.subtree_control",
    ]


def test_the_daemon_moves_to_a_group_of_its_own(proc: Path, delegated: Path) -> None:
    (delegated / "daemon").mkdir()
    (delegated / "daemon/cgroup.procs").touch()
    assert take_over({}, proc) == Groups(delegated)
    assert (delegated / "daemon/cgroup.procs").read_text() == "0"
    assert (delegated / "cgroup.subtree_control").read_text() == ""


def test_workers_have_limits_of_their_own(delegated: Path) -> None:
    groups = limited(Groups(delegated), GroupLimits(memory=1 << 30, tasks=99))
    assert groups is not None
    assert (delegated / "cgroup.subtree_control").read_text() in {"+memory", "+pids"}
    (delegated / "cgroup.subtree_control").write_text("memory pids\n")
    group = groups.make(3)
    assert group == Group(delegated / "worker-3")
    written = {path.name: path.read_text() for path in group.path.iterdir()}
    assert written == {"memory.max": "1073741824", "pids.max": "99"}
    group.add(42)
    assert (group.path / "cgroup.procs").read_text() == "42"


@pytest.mark.parametrize("found", [True, False])
def test_a_limit_without_its_controller_is_said(
    delegated: Path, caplog: pytest.LogCaptureFixture, found: bool
) -> None:
    (delegated / "cgroup.subtree_control").unlink()
    (delegated / "cgroup.subtree_control").mkdir()  # what cannot be written to, by root either
    limited(Groups(delegated) if found else None, GroupLimits(tasks=5))
    assert [(record.message, vars(record)["controller"]) for record in caplog.records] == [
        ("workers have no such limit", "pids")
    ]


def test_what_cannot_be_limited_is_left(delegated: Path) -> None:
    group = Groups(delegated, GroupLimits(tasks=5)).make(1)
    assert group is not None
    assert list(group.path.iterdir()) == []


def test_an_empty_group_is_removed_with_those_in_it(tmp_path: Path) -> None:
    group = Group(tmp_path / "worker-1")
    (group.path / "of/the/cli").mkdir(parents=True)
    asyncio.run(group.clear())
    assert not group.path.exists()
    asyncio.run(group.clear())


# Without groups ----------------------------------------------------------------------------------------

COMMAND = "setsid sleep 71 & env -i sleep 72 & (setsid sh -c 'sleep 73; true' &) ; wait"


@pytest.fixture
def mark() -> Iterator[str]:
    mark = str(uuid4())
    shell = subprocess.Popen(["sh", "-c", COMMAND], env={**os.environ, MARK: mark}, start_new_session=True)
    eventually(lambda: len(marked(mark)) == 5)
    yield mark
    kill_marked(mark)
    shell.wait()


def test_what_is_marked_is_killed_with_all_that_descends_from_it(mark: str) -> None:
    other = subprocess.Popen(["sleep", "74"], env={**os.environ, MARK: str(uuid4())})
    try:
        found = marked(mark)
        assert os.getpid() not in found
        kill_marked(mark)
        assert marked(mark) == []
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
