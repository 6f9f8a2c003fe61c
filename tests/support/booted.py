"""A real systemd, booted as PID 1 in namespaces of its own over a throw-away overlay of this machine.

The network is the machine's. What is written inside is gone with it. Run as a program, this module turns the
first process of the new namespaces into systemd.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tests.support.namespaces import (
    PROJECT,
    Bind,
    bind,
    change_root,
    hierarchies,
    joining,
    make_devices,
    mount,
    remove_groups,
)

SYSTEMD: Final = Path("/lib/systemd/systemd")
TOOLS: Final = ("unshare", "nsenter", "mount", "umount", "systemctl", "journalctl", "systemd-analyze")
TARGET: Final = "booted.target"
BOOT_SECONDS: Final = 60.0
ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "SYSTEMD_PAGER": "cat",
}
TARGET_UNIT: Final = "[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n"


def missing() -> str:
    """Return why systemd cannot be booted here; empty when it can."""
    if os.geteuid() != 0:
        return "only root can boot a systemd"
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if not SYSTEMD.exists() or lacking:
        return f"not on this machine: {', '.join(lacking or [str(SYSTEMD)])}"
    if "overlay" not in Path("/proc/filesystems").read_text() or _unified() is None:
        return "the kernel has no overlay file system, or no control groups of version 2"
    return ""


def _unified() -> Path | None:
    """Return where control groups of version 2 are mounted."""
    return next((tree.place for tree in hierarchies() if tree.kind == "cgroup2"), None)


class Booted:
    """A running systemd."""

    def __init__(self, lead: "subprocess.Popen[bytes]", pid: int) -> None:
        self.pid = pid
        self._lead = lead

    def path(self, inside: str | Path) -> Path:
        """Return a path of the inside as one of the outside."""
        return Path(f"/proc/{self.pid}/root") / str(inside).lstrip("/")

    def enter(self, *command: str) -> list[str]:
        """Return the command that runs a command inside."""
        pairs = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        into = ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-p", "-C", "-r", "-w"]
        return [*into, "--", "env", "-i", *pairs, *command]

    def run(self, *command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a command inside as root."""
        done = subprocess.run(self.enter(*command), capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{self.trouble()}"
        return done

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        return self.run("systemctl", *arguments, check=check).stdout.strip()

    def shown(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit)

    @contextlib.contextmanager
    def debugging(self) -> Iterator[Callable[[str], list[str]]]:
        """Have systemd tell of all that it does while the context lasts.

        Yields a function that returns the notifications of services since then that contain a text.
        """
        since = f"--since=@{time.time():.6f}"
        self.run("systemd-analyze", "log-level", "debug")

        def heard(text: str) -> list[str]:
            told = [str(entry["MESSAGE"]) for entry in self.journal(since, "_PID=1")]
            return [message for message in told if "Got notification message" in message and text in message]

        try:
            yield heard
        finally:
            self.run("systemd-analyze", "log-level", "info")

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Return the journal's entries that match, in order."""
        self.run("journalctl", "--sync")
        lines = self.run("journalctl", "--all", "--output=json", *matches).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def outer_pid(self, inside: int) -> int:
        """Return the number that a process of the inside has on this machine."""
        own = Path(f"/proc/{self.pid}/ns/pid").stat().st_ino
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if _numbers(process)[-1] == inside and (process / "ns/pid").stat().st_ino == own:
                    return int(process.name)
        raise AssertionError(f"there is no process {inside} inside")

    def trouble(self) -> str:
        """Return what may explain a failure."""
        command = self.enter("journalctl", "--no-pager", "-n", "60")
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def stop(self) -> None:
        """End everything inside."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, 9)
        self._lead.wait(30)


def _numbers(process: Path) -> list[int]:
    """Return a process's numbers, from the outermost namespace to its own."""
    for line in (process / "status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return [int(number) for number in line.split()[1:]]
    return [0]


@contextlib.contextmanager
def booted(binds: Sequence[Bind] = ()) -> Iterator[Booted]:
    """Boot a systemd for as long as the context lasts."""
    unified = _unified()
    assert unified is not None
    with tempfile.TemporaryDirectory(prefix="booted-") as directory:
        work = Path(directory)
        group = unified / f"booted-{os.getpid()}"
        group.mkdir()
        try:
            system = _boot(work, group, binds)
            try:
                yield system
            finally:
                system.stop()
        finally:
            remove_groups(group)


def _boot(work: Path, group: Path, binds: Sequence[Bind]) -> Booted:
    from tests.support.daemon import eventually  # noqa: PLC0415 - the program that becomes systemd needs none of it

    console = work / "console"
    console.touch()
    (work / "mount").mkdir()
    command = ["unshare", "--fork", "--pid", "--mount", "--uts", "--ipc", "--cgroup", "--kill-child"]
    plan = {"work": str(work), "binds": [[str(bind.source), str(bind.place)] for bind in binds]}
    command += [sys.executable, "-m", "tests.support.booted", json.dumps(plan)]
    joined = joining([group], *command)
    with console.open("ab") as output:
        lead = subprocess.Popen(joined, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=PROJECT)

    def started() -> Booted | None:
        assert lead.poll() is None, console.read_text(errors="replace")
        children = Path(f"/proc/{lead.pid}/task/{lead.pid}/children").read_text().split()
        if not children or TARGET.encode() not in Path(f"/proc/{children[0]}/cmdline").read_bytes():
            return None
        system = Booted(lead, int(children[0]))
        active = subprocess.run(
            system.enter("systemctl", "is-active", TARGET), capture_output=True, text=True, check=False
        )
        return system if active.stdout.strip() == "active" else None

    try:
        system = eventually(started, BOOT_SECONDS, every=0.1)
    except AssertionError as error:
        lead.kill()
        raise AssertionError(f"{error}\n{console.read_text(errors='replace')}") from None
    assert system is not None
    return system


# Becoming systemd --------------------------------------------------------------------------------------


def _become_systemd(work: Path, binds: Sequence[Sequence[str]]) -> None:
    mount("--make-rprivate", "/")
    root = _overlay(work / "mount")
    mount("-t", "proc", "proc", f"{root}/proc")
    # The machine's kernel is not to be set up from in here.
    mount("--bind", f"{root}/proc/sys", f"{root}/proc/sys")
    mount("-o", "remount,bind,ro", f"{root}/proc/sys")
    mount("-t", "sysfs", "-o", "ro,nosuid,nodev,noexec", "sysfs", f"{root}/sys")
    mount("-t", "cgroup2", "-o", "nosuid,nodev,noexec", "cgroup2", f"{root}/sys/fs/cgroup")
    make_devices(root / "dev", work / "console")
    mount("-t", "tmpfs", "-o", "mode=755,nosuid,nodev", "tmpfs", f"{root}/run")
    for source, place in binds:
        bind(Path(source), root / place.lstrip("/"))
    units = root / "run/systemd/system"
    units.mkdir(parents=True)
    (units / TARGET).write_text(TARGET_UNIT)
    (root / "etc/machine-id").write_text("")
    (root / "etc/fstab").write_text("")
    change_root(root)
    environment = {**ENVIRONMENT, "container": "tests", "SYSTEMD_LOG_TARGET": "journal"}
    os.execve(SYSTEMD, [str(SYSTEMD), "--system", f"--unit={TARGET}", "--show-status=no"], environment)


def _overlay(place: Path) -> Path:
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(place))
    upper, scratch, root = (place / name for name in ("upper", "scratch", "root"))
    for directory in (upper, scratch, root):
        directory.mkdir()
    mount("-t", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={scratch}", "overlay", str(root))
    return root


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    _become_systemd(Path(given["work"]), given["binds"])
