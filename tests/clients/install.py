"""Installations of client programs, kept between runs."""

import shutil
from pathlib import Path

import pytest

from tests.support.install import CACHE, npm, python_packages
from tests.support.kept import kept

__all__ = ["SOURCES", "node_packages", "python_packages"]

SOURCES = Path(__file__).parent


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
        npm(directory, "ci" if len(lists) > 1 else "install")

    directory = kept(CACHE, project, [file.read_text() for file in lists], fill)
    for program in source.glob("*.mjs"):  # they find packages from where they are
        shutil.copy(program, directory)
    return directory
