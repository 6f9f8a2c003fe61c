"""Installed where nothing else is, no compiler either: it runs."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_coded import __version__
from tests.support.daemon import Daemon
from tests.support.packages import Environment, run

IMPORT_ALL = """
import importlib, pkgutil, claude_coded
for it in pkgutil.walk_packages(claude_coded.__path__, "claude_coded."):
    if not it.name.endswith(("__main__", ".opentelemetry")):
        importlib.import_module(it.name)
print(claude_coded.__file__)
"""


@pytest.fixture(scope="module")
def daemon(full: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    path = f"{full.binaries}:/usr/bin:/bin"
    program = (str(full.binaries / "claude-coded"),)
    daemon = Daemon(tmp_path_factory.mktemp("clean"), {"PATH": path}, ("--offline",), program=program)
    try:
        yield daemon.start()
    finally:
        daemon.close()


def test_both_programs_tell_the_version(bare: Environment) -> None:
    for program in ("claude-coded", "claude-codectl"):
        assert bare.run(program, "--version") == f"{program}, version {__version__}\n"
    assert bare.run("python", "-m", "claude_coded", "--version").endswith(f"{__version__}\n")


def test_nothing_that_it_needs_is_missing(bare: Environment) -> None:
    bare.run("pip", "check")
    place = Path(bare.run("python", "-W", "error", "-c", IMPORT_ALL).strip())
    assert bare.directory in place.parents
    assert place.with_name("py.typed").exists()


def test_without_its_extras_it_says_what_to_install(bare: Environment) -> None:
    assert "pip install watchfiles" in bare.run("claude-coded", "serve", "--reload", status=1)
    assert "pip install 'claude_coded[claude]'" in bare.run("claude-coded", "serve", "--offline", status=1)


def test_the_manuals_are_found_beside_the_programs(bare: Environment) -> None:
    if shutil.which("man") is None:
        pytest.skip("man is missing")
    path = f"{bare.binaries}:/usr/bin:/bin"
    for number, name in (("8", "claude-coded"), ("1", "claude-codectl")):
        place = bare.directory / f"share/man/man{number}/{name}.{number}"
        assert run("man", "--where", name, PATH=path, MANPATH="").strip() == str(place)


def test_it_serves_and_can_be_steered(daemon: Daemon, full: Environment) -> None:
    assert daemon.ask("[[say hello]]").text == "hello"
    assert daemon.health()["version"] == __version__
    status = json.loads(full.run("claude-codectl", "--socket", daemon.socket, "--json", "status"))
    assert status["version"] == __version__
    assert str(full.directory) in daemon.workers()[0].exe()
