"""Installations of client programs, apart from the project's own environment and kept between runs."""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.kept import kept

INSTALL_SECONDS = 900.0
CACHE = "claude-coded-clients"
SOURCES = Path(__file__).parent


def python_packages(*packages: str) -> Path:
    """Return a virtual environment that has these packages."""

    def fill(directory: Path) -> None:
        _run([sys.executable, "-m", "venv", str(directory)], directory)
        _run([str(directory / "bin" / "pip"), "install", "-q", *packages], directory)

    return kept(CACHE, re.split(r"\W*==|\[", packages[0])[0], [sys.version, *packages], fill)


def node_packages(project: str) -> Path:
    """Return a copy of a directory of ours with a package.json, and its packages beside it.

    Without a package-lock.json, the packages have no dependencies but those that they pin themselves.
    """
    if shutil.which("npm") is None:
        pytest.skip("npm is not on the PATH")
    source = SOURCES / project
    lists = sorted(source.glob("package*.json"))

    def fill(directory: Path) -> None:
        for file in lists:
            shutil.copy(file, directory)
        install = "ci" if len(lists) > 1 else "install"
        _run(["npm", install, "--no-audit", "--no-fund", "--loglevel=error"], directory)

    directory = kept(CACHE, project, [file.read_text() for file in lists], fill)
    for program in source.glob("*.mjs"):  # they find packages from where they are
        shutil.copy(program, directory)
    return directory


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
    assert done.returncode == 0, f"{' '.join(command)} failed: {done.stdout}"
