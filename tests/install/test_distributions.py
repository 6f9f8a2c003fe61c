"""What the wheel and the sdist are made of."""

import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest

from claude_coded import __version__
from tests.support.manuals import PAGES
from tests.support.packages import ROOT, build, run

NAME = f"claude_coded-{__version__}"
INFO = f"{NAME}.dist-info"


@pytest.fixture(scope="session")
def sources() -> set[str]:
    """The files of the tree, but for what is ignored."""
    listing = ("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard")
    done = subprocess.run(listing, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("only git knows what belongs to the tree")
    return {it for it in done.stdout.splitlines() if (ROOT / it).exists()}


def in_wheel(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def in_sdist(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        return {member.name.removeprefix(f"{NAME}/") for member in archive if member.isfile()}


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return message_from_string(archive.read(f"{INFO}/METADATA").decode())


def test_the_wheel_has_the_package_and_what_goes_with_it(wheel: Path, sources: set[str]) -> None:
    package = {it for it in sources if it.startswith("claude_coded/")}
    assert {Path(it).suffix for it in package} == {".html", ".py", ".typed"}
    manuals = {f"{NAME}.data/data/share/man/man{page.number}/{page.file.name}" for page in PAGES}
    about = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert "claude_coded/py.typed" in package
    assert in_wheel(wheel) == package | manuals | {f"{INFO}/{it}" for it in about}


def test_the_sdist_has_the_whole_tree(sdist: Path, sources: set[str]) -> None:
    assert in_sdist(sdist) == {it for it in sources if not it.startswith(".ci/")} | {"PKG-INFO"}


def test_the_wheel_is_the_same_from_the_sdist_and_from_the_tree(
    wheel: Path, sdist: Path, tmp_path: Path
) -> None:
    (of_tree,) = build(ROOT, tmp_path / "build", "--wheel")
    assert of_tree.name == wheel.name == f"{NAME}-py3-none-any.whl"
    assert of_tree.read_bytes() == wheel.read_bytes()
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "pip", sdist)
    assert (tmp_path / "pip" / wheel.name).read_bytes() == wheel.read_bytes()


def test_its_metadata_is_sound(wheel: Path, sdist: Path) -> None:
    told = run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", wheel, sdist)
    assert told.count("PASSED") == 2
    given = metadata(wheel)
    assert given["Version"] == __version__
    assert (given["License-Expression"], given["License-File"]) == ("MIT", "LICENSE")
    assert given["Description-Content-Type"] == "text/markdown"
    assert str(given.get_payload()).strip() == (ROOT / "README.md").read_text().strip()
    assert {"claude", "reload"} <= set(given.get_all("Provides-Extra", ()))
