"""Somebody who has just got the project and does what the README says: a copy, a HOME, a network."""

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tests.support.daemon import STOP_SECONDS, eventually
from tests.support.readme import README

PORT: Final = 3000
INSTALL_SECONDS: Final = 600.0
COMMAND_SECONDS: Final = 90.0
START_SECONDS: Final = 60.0
KEPT: Final = (
    "PIP_",
    "SSL_",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
"""How this machine's installations reach the registry."""

ALONE: Final = """
import fcntl, os, socket, struct, subprocess, sys
with socket.socket() as it:  # the loopback interface is brought up
    fcntl.ioctl(it, 0x8914, struct.pack("16sh", b"lo", 1))
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
os.execvp("sh", ["sh", "-c", sys.argv[1]])
"""


def can_be_alone() -> bool:
    """Return whether there can be a network of our own, and a /run."""
    tools = ("unshare", "nsenter", "mount")
    return os.geteuid() == 0 and all(shutil.which(tool) for tool in tools)


def is_free() -> bool:
    """Return whether nobody listens on the daemon's own port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", PORT)) != 0


def _is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@dataclass(frozen=True)
class Newcomer:
    """`directory` is the project as git has it, and where commands run; what comes out is what they say.

    `pid` is the daemon's: commands run in its network, if that is one of its own.
    """

    directory: Path
    home: Path
    alone: bool
    pid: int = 0

    @classmethod
    def arrive(cls, directory: Path) -> "Newcomer":
        """Return one with a fresh copy and a HOME with an empty project."""
        made = cls(directory / "claude_coded", directory / "home", can_be_alone())
        (made.home / "project").mkdir(parents=True)
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        files = subprocess.run(listing, cwd=README.parent, capture_output=True, text=True, check=True).stdout
        for name in filter(None, files.split("\0")):
            source, target = README.parent / name, made.directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.exists():
                shutil.copy(source, target, follow_symlinks=False)
        return made

    @property
    def environment(self) -> dict[str, str]:
        """Return a login's environment, in which the virtual environment is active."""
        places = [
            self.directory / ".venv/bin",
            Path(sys.base_prefix) / "bin",
            "/usr/bin",
            "/bin",
            "/usr/sbin",
        ]
        sandbox = {"IS_SANDBOX": "1"} if os.geteuid() == 0 else {}
        path = ":".join(map(str, places))
        return {"PATH": path, "HOME": str(self.home), "LANG": "C.UTF-8", **sandbox}

    def install(self, command: str) -> None:
        """Run a command that loads packages."""
        kept = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
        done = self._run(["sh", "-c", command], INSTALL_SECONDS, {**self.environment, **kept})
        assert done.returncode == 0, f"{command} failed: {done.stdout}\n{done.stderr}"

    @contextlib.contextmanager
    def serving(self, command: str) -> "Iterator[Newcomer]":
        """Have a daemon run while the context lasts."""
        into = (
            ["unshare", "--net", "--mount", "--", sys.executable, "-c", ALONE] if self.alone else ["sh", "-c"]
        )
        log = self.directory.parent / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*into, command],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

        def serves() -> bool:
            assert process.poll() is None, f"the daemon has ended: {log.read_text()}"
            return "serving" in log.read_text()

        try:
            eventually(serves, START_SECONDS)
            yield replace(self, pid=process.pid)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(STOP_SECONDS)
            eventually(lambda: _is_gone(process.pid), STOP_SECONDS)

    def run(self, command: str, status: int = 0) -> str:
        """Run a command, which ends with a status; return what it writes."""
        shell = ["sh", "-c", command]
        if self.alone and self.pid:
            entering = f"cd {shlex.quote(str(self.directory))} && {command}"
            shell = ["nsenter", "-t", str(self.pid), "-n", "-m", "--", "sh", "-c", entering]
        done = self._run(shell, COMMAND_SECONDS, self.environment)
        said = f"{command}\nended with {done.returncode}: {done.stdout}\n{done.stderr}"
        assert done.returncode == status, said
        return done.stdout if status == 0 else done.stdout + done.stderr

    def _run(
        self, command: list[str], seconds: float, environment: dict[str, str]
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            cwd=self.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
