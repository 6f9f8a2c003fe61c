"""The manual pages: what is committed is what the commands say, and it is sound roff."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.codectl.commands import main as codectl
from claude_coded.settings import specs
from tests.support import roff
from tests.support.manuals import DIRECTORY, PAGES, Page

ROOT = Path(__file__).parents[2]
NASTY = st.text(st.sampled_from(".'\\-\"`^~ abc…é🦀$&[]()fBR"), max_size=60)
ESCAPE = re.compile(r"\\(?:e|-|&|f[BIR]|\((?:aq|ga|ha|ti|dq)|\[u[0-9A-F]{4,6}\])")
MEANING = {"\\" + name: it for it, name in (("\\", "e"), ("-", "-"), ("", "&"), ("'", "(aq"), ("`", "(ga"))}
MEANING |= {r"\(ha": "^", r"\(ti": "~", r"\(dq": '"', r"\fB": "", r"\fI": "", r"\fR": ""}


def read(line: str) -> str:
    """Return what a line of roff shows, which is no request."""
    assert not line.startswith((".", "'")), line
    return decode(line)


def decode(line: str) -> str:
    assert "\\" not in ESCAPE.sub("", line), line
    return ESCAPE.sub(lambda it: MEANING.get(it[0]) or chr(int(f"0{it[0][3:-1]}", 16)) * ("[" in it[0]), line)


def shown(page: Page) -> str:
    command = ["man", "-l", str(page.file)]
    environment = {"MANWIDTH": "80", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "MANPAGER": "cat"}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


@given(NASTY)
def test_running_text_is_what_it_was(text: str) -> None:
    lines = roff.text(text).split("\n")
    plain = roff.BOLD.sub(r"\1", " ".join(text.split()))
    assert " ".join(" ".join(map(read, lines)).split()) == " ".join(plain.split())


@given(NASTY, NASTY)
def test_lines_that_stay_are_what_they_were(one: str, other: str) -> None:
    start, mode, first, second, *end = roff.block(f"x{one}\n{other.strip()}").split("\n")
    assert (start, mode, end) == (".RS 4", ".nf", [".fi", ".RE"])
    assert (read(first), read(second)) == (f"x{one}", other.strip())


@given(NASTY)
def test_an_argument_of_a_macro_stays_one(text: str) -> None:
    written = roff.macro("SS", text)
    assert written.count('"') == 2
    assert decode(written.removeprefix('.SS "').removesuffix('"')) == text


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_committed_pages_are_those_of_now(page: Page) -> None:
    assert page.file.read_text() == page.source(), "python -m tests.support.manuals"


def test_every_page_is_installed() -> None:
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    wanted = {
        f"contrib/man/{page.file.name}": f"share/man/man{page.number}/{page.file.name}" for page in PAGES
    }
    assert targets["wheel"]["shared-data"] == wanted
    assert {it.name for it in DIRECTORY.iterdir()} == {page.file.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=str)
@pytest.mark.parametrize("check", [("groff", "-man", "-ww", "-z", "-Tutf8"), ("mandoc", "-Tlint")])
def test_pages_are_sound(page: Page, check: tuple[str, ...]) -> None:
    if shutil.which(check[0]) is None:
        pytest.skip(f"{check[0]} is missing")
    done = subprocess.run([*check, page.file], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(shutil.which("man") is None, reason="man is missing")
def test_pages_show_every_setting_and_command() -> None:
    daemon, client = map(shown, PAGES)
    for spec in specs():
        assert re.search(rf"^ +{spec.flag} ", daemon, re.MULTILINE), spec.flag
        assert f"[{spec.variable}]" in daemon
    for name in codectl.commands:
        assert re.search(rf"^   {name}( |$)", client, re.MULTILINE), name
