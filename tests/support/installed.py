"""The package as an administrator installs it: in /opt/claude-coded, with the units and a user."""

import os
import shutil
import signal
import socket
import sys
import sysconfig
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

import httpx
import psutil

import claude_coded
from tests.support.booted import Booted
from tests.support.daemon import REQUEST_SECONDS, Daemon
from tests.support.namespaces import Bind

PREFIX: Final = Path("/opt/claude-coded")
PYTHON: Final = Path("/opt/python")
CONTRIB: Final = Path(__file__).parents[2] / "contrib/systemd"
LAUNCHER: Final = f"#!/bin/sh\nLD_LIBRARY_PATH={PYTHON}/lib exec {PREFIX}/bin/python -c"
"""An interpreter that was moved finds its own library so; the one of the machine may be another's."""

HOME: Final = Path("/var/lib/claude-coded")
UNIT: Final = "claude-coded.service"
SOCKET: Final = "claude-coded.socket"
PLACES: Final = {
    "claude-coded.service": "/etc/systemd/system/claude-coded.service",
    "claude-coded.socket": "/etc/systemd/system/claude-coded.socket",
    "claude-coded.sysusers": "/usr/lib/sysusers.d/claude-coded.conf",
    "claude-coded.tmpfiles": "/usr/lib/tmpfiles.d/claude-coded.conf",
    "user/claude-coded.service": "/etc/systemd/user/claude-coded.service",
}


def build(directory: Path) -> list[Bind]:
    """Build the virtual environment; return what makes it appear, for anybody to read, in its place."""
    python = PYTHON / "bin" / f"python3.{sys.version_info.minor}"
    binaries = directory / "bin"
    packages = directory / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    binaries.mkdir(parents=True)
    packages.mkdir(parents=True)
    (directory / "deps").mkdir()
    (directory / "pyvenv.cfg").write_text(f"home = {PYTHON}/bin\ninclude-system-site-packages = false\n")
    (binaries / "python").symlink_to(python)
    for entry in distribution("claude_coded").entry_points:
        script = binaries / entry.name
        script.write_text(f"{LAUNCHER} 'from {entry.module} import {entry.attr}; {entry.attr}()' \"$@\"\n")
        script.chmod(0o755)
    # Its .pth files do not count there: of an editable installation only the copy of the package is seen.
    (packages / "deps.pth").write_text(f"{PREFIX}/deps\n")
    source = Path(claude_coded.__file__).parent
    shutil.copytree(source, packages / "claude_coded", ignore=shutil.ignore_patterns("__pycache__"))
    return [
        Bind(Path(sys.base_prefix), PYTHON),
        Bind(directory, PREFIX),
        Bind(Path(sysconfig.get_paths()["purelib"]), PREFIX / "deps"),
    ]


def install(system: Booted) -> None:
    """Do what contrib/systemd/README.md says."""
    for name, place in PLACES.items():
        target = system.path(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CONTRIB / name, target)
    system.run("systemd-sysusers")
    system.run("systemd-tmpfiles", "--create", "/usr/lib/tmpfiles.d/claude-coded.conf")
    system.systemctl("daemon-reload")


@dataclass
class Service(Daemon):
    """claude-coded.service in a booted systemd: `settings` are its environment, by a drop-in."""

    system: Booted = field(kw_only=True)

    def __post_init__(self) -> None:
        self.http = httpx.Client(timeout=REQUEST_SECONDS, trust_env=False)
        self.port = self.port or free_port()
        self.configure()

    @property
    def home(self) -> Path:
        return HOME

    @property
    def pid(self) -> int:
        """Return the main process by this machine's number."""
        return self.system.outer_pid(int(self.told("MainPID")))

    @property
    def cgroup(self) -> Path:
        return self.system.path(f"/sys/fs/cgroup/system.slice/{UNIT}")

    def members(self, group: str = "") -> list[psutil.Process]:
        """Return the processes of the service's control group, or of one in it."""
        found = []
        for directory, _, _ in os.walk(self.cgroup / group):
            numbers = self.system.run("cat", f"/{self._inside(Path(directory))}/cgroup.procs").stdout.split()
            found += [psutil.Process(self.system.outer_pid(int(number))) for number in numbers]
        return found

    def _inside(self, path: Path) -> Path:
        return path.relative_to(self.system.path("/"))

    def told(self, name: str) -> str:
        """Return a property of the unit."""
        return self.system.shown(UNIT, name)

    def configure(self, **settings: object) -> None:
        """Set the environment, these settings included."""
        given = {"PORT": self.port, **self.settings, **settings}
        self.drop_in("settings", "Service", Environment=[f'"{key}={value}"' for key, value in given.items()])

    def drop_in(self, name: str, section: str, unit: str = UNIT, **lines: object) -> None:
        """Write a drop-in."""
        directory = self.system.path(f"/etc/systemd/system/{unit}.d")
        directory.mkdir(exist_ok=True)
        pairs = [
            f"{key}={item}\n"
            for key, value in lines.items()
            for item in (value if isinstance(value, list) else [value])
        ]
        (directory / f"{name}.conf").write_text(f"[{section}]\n" + "".join(pairs))
        self.system.systemctl("daemon-reload")

    def start(self) -> "Service":
        self.system.systemctl("start", UNIT)
        return self

    def restart(self) -> "Service":
        self.system.systemctl("restart", UNIT)
        return self

    def stop(self) -> int:
        """Stop it; return the main process's exit status."""
        self.system.systemctl("stop", UNIT)
        return int(self.told("ExecMainStatus"))

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Stop it, if it runs, and take it back to what it is as installed."""
        self.http.close()
        self.system.systemctl("stop", SOCKET, UNIT)
        self.system.systemctl("reset-failed", check=False)
        for unit in (UNIT, SOCKET):
            shutil.rmtree(self.system.path(f"/etc/systemd/system/{unit}.d"), ignore_errors=True)
        self.system.systemctl("daemon-reload")
        assert not self.processes()


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
