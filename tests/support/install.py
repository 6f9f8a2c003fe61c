"""Installations of programs of others, apart from the project's own environment and kept between runs."""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.support.kept import kept

INSTALL_SECONDS: Final = 900.0
CACHE: Final = "claude-coded-clients"


class InstallError(Exception):
    """Something could not be installed."""


def python_packages(*packages: str) -> Path:
    """Return a virtual environment that has these packages."""

    def fill(directory: Path) -> None:
        _run([sys.executable, "-m", "venv", str(directory)], directory)
        _run([str(directory / "bin" / "pip"), "install", "-q", *packages], directory)

    return kept(CACHE, re.split(r"\W*==|\[", packages[0])[0], [sys.version, *packages], fill)


def node_package(package: str) -> Path:
    """Return a directory that has a program of npm's, `NAME@VERSION`, with its dependencies."""
    name = package.rpartition("@")[0]
    return kept(CACHE, name, [package], lambda directory: npm(directory, "install", package))


def npm(directory: Path, *command: str) -> None:
    """Run npm in a directory. Raises InstallError."""
    if shutil.which("npm") is None:
        raise InstallError("npm is not on the PATH")
    _run(
        ["npm", *command, "--prefix", str(directory), "--no-audit", "--no-fund", "--loglevel=error"],
        directory,
    )


def _run(command: Sequence[str], directory: Path) -> None:
    done = subprocess.run(
        command,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    if done.returncode:
        raise InstallError(f"{' '.join(command)} failed: {done.stdout}")
