"""What a system of its own is made of, in new namespaces: mounts, devices, control groups, a network."""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NODES: Final = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
LINKS: Final = {
    "fd": "/proc/self/fd",
    "stdin": "fd/0",
    "stdout": "fd/1",
    "stderr": "fd/2",
    "ptmx": "pts/ptmx",
}
PROJECT: Final = Path(__file__).parents[2]
"""Where `python -m tests.support.…` can be run."""


@dataclass(frozen=True)
class Bind:
    """A directory or file of the machine, and where it is to be seen inside."""

    source: Path
    place: Path


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def make_devices(devices: Path, console: Path) -> None:
    """Make device nodes of its own: a change of their owner must not reach the machine's."""
    mount("-t", "tmpfs", "-o", "mode=755,nosuid", "tmpfs", str(devices))
    for name, minor in NODES.items():
        os.mknod(devices / name, 0o020666, os.makedev(1, minor))
        (devices / name).chmod(0o666)
    os.mknod(devices / "tty", 0o020666, os.makedev(5, 0))
    for name in ("pts", "shm"):
        (devices / name).mkdir()
    mount("-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=620", "devpts", str(devices / "pts"))
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(devices / "shm"))
    for name, target in LINKS.items():
        (devices / name).symlink_to(target)
    bind(console, devices / "console")


def bind(source: Path, place: Path) -> None:
    if source.is_dir():
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    mount("--bind", str(source), str(place))


def change_root(root: Path) -> None:
    old = root / ".old"
    old.mkdir()
    os.chdir(root)
    subprocess.run(["pivot_root", ".", ".old"], check=True)
    subprocess.run(["umount", "-l", "/.old"], check=True)
    with contextlib.suppress(OSError):
        Path("/.old").rmdir()
    # A systemd in a container leaves this to whoever starts it; credentials are mounted by way of it.
    mount("--make-rshared", "/")


# Control groups ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hierarchy:
    """A tree of control groups, its place on the machine, and how it is mounted."""

    place: Path
    kind: str
    options: str


def hierarchies() -> list[Hierarchy]:
    """Return the trees of control groups that are mounted here, those of version 1 first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        kind, _, options = fields[fields.index("-") + 1 :][:3]
        if kind in {"cgroup", "cgroup2"}:
            found.append(Hierarchy(Path(fields[4]), kind, _selection(options)))
    return sorted(found, key=lambda tree: tree.kind)


def _selection(options: str) -> str:
    """Return of a mount's options which controllers it has."""
    kept = [word for word in options.split(",") if word not in {"rw", "ro", "xattr", "nsdelegate"}]
    return ",".join(["none", *kept] if any(word.startswith("name=") for word in kept) else kept)


def joining(groups: list[Path], *command: str) -> list[str]:
    """Return the command that runs a command in control groups."""
    into = " ".join(f"echo $$ >{group}/cgroup.procs;" for group in groups)
    return ["sh", "-c", f'{into} exec "$@"', "-", *command]


def remove_groups(*groups: Path) -> None:
    """Remove control groups, with those inside, whose processes are ending."""
    from tests.support.daemon import eventually  # noqa: PLC0415 - what runs in new namespaces needs none of it

    def removed() -> bool:
        for group in groups:
            for directory, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    Path(directory).rmdir()
        return not any(group.exists() for group in groups)

    eventually(removed)


# The network -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def in_network(pid: int) -> Iterator[None]:
    """Be in the network of a process while the context lasts: this thread, and what it starts."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    other = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        _set_network(other)
        try:
            yield
        finally:
            _set_network(own)
    finally:
        os.close(own)
        os.close(other)


def _set_network(descriptor: int) -> None:
    clone_newnet = 0x40000000  # sched.h; os.setns() came with Python 3.12
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, clone_newnet) != 0:
        raise OSError(ctypes.get_errno(), "setns")
