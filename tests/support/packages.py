"""The package as it is given away: built, and installed into environments that have nothing else."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
SECONDS: Final = 300.0
"""Longest that an installation may take: it loads from the network."""


def run(*command: str | Path, status: int = 0, **environment: str) -> str:
    """Run a program, which ends with a status; return what it says, on stderr too if it has failed."""
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        cwd="/",
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    said = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == status, f"{command} ended with {done.returncode}:\n{said}"
    return said if status else done.stdout


def build(source: Path, target: Path, *flags: str) -> list[Path]:
    """Build what `python -m build` builds of a source; return the files."""
    run(sys.executable, "-m", "build", "--outdir", target, *flags, source)
    return sorted(target.iterdir())


@dataclass(frozen=True)
class Environment:
    """A virtual environment with its own HOME, and with no other programs on its PATH: no compiler."""

    directory: Path

    @classmethod
    def make(cls, directory: Path, *packages: str) -> "Environment":
        """Return a new one with some packages."""
        run(sys.executable, "-m", "venv", directory)
        made = cls(directory)
        made.home.mkdir()
        made.run("pip", "install", "--quiet", "--disable-pip-version-check", *packages)
        return made

    @property
    def binaries(self) -> Path:
        return self.directory / "bin"

    @property
    def home(self) -> Path:
        return self.directory / "home"

    def run(self, program: str, *arguments: str | Path, status: int = 0, **more: str) -> str:
        """Run one of its programs, likewise."""
        own = {"PATH": str(self.binaries), "HOME": str(self.home), "CC": "/bin/false", "CXX": "/bin/false"}
        return run(self.binaries / program, *arguments, status=status, **(own | more))
