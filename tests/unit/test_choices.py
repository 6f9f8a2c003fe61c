"""What headers choose, and the bounds that the operator sets."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from claude_coded.errors import CodedError, Forbidden, InvalidRequest
from claude_coded.http.choices import WITHIN, choose
from claude_coded.models import AGENT
from claude_coded.profiles import EFFORTS
from claude_coded.settings import PERMISSION_MODES, ClaudeSettings
from claude_coded.turn import Options

MODE, WORKSPACE, EFFORT = "X-Claude-Permission-Mode", "X-Claude-Workspace", "X-Claude-Effort"
GIVEN = Options(stop=("END",), effort="low")


def chosen(
    headers: Mapping[str, str],
    root: Path = Path("/"),
    mode: str = "bypassPermissions",
    own: str | None = None,
) -> Options:
    settings = ClaudeSettings(workspace=root, permission_mode=mode)
    return choose(GIVEN, headers.get, settings, replace(AGENT, permission_mode=own), "joe")


def refused(kind: type[CodedError], header: str, text: str, *where: Any, **how: Any) -> None:
    with pytest.raises(kind) as caught:
        chosen({header: text}, *where, **how)
    assert type(caught.value) is kind
    assert caught.value.param == header
    assert caught.value.status == (403 if kind is Forbidden else 400)


def test_without_headers_nothing_changes() -> None:
    assert chosen({}) is GIVEN


# Effort and permission mode ----------------------------------------------------------------------------


@pytest.mark.parametrize("effort", EFFORTS)
def test_the_headers_effort_counts_before_the_bodys(effort: str) -> None:
    options = chosen({EFFORT: effort})
    assert (options.effort, options.stop) == (effort, GIVEN.stop)


@pytest.mark.parametrize("effort", ["", "none", "minimal", "Low", "low ", "ultra"])
def test_an_effort_that_nobody_knows_is_refused(effort: str) -> None:
    refused(InvalidRequest, EFFORT, effort)


def test_every_mode_is_a_ceiling_that_includes_itself() -> None:
    assert set(WITHIN) == set(PERMISSION_MODES)
    assert all(mode in within for mode, within in WITHIN.items())


def test_what_is_within_a_mode_allows_no_more_by_way_of_another() -> None:
    assert all(WITHIN[inner] <= within for within in WITHIN.values() for inner in within)


@pytest.mark.parametrize("ceiling", PERMISSION_MODES)
@pytest.mark.parametrize("mode", PERMISSION_MODES)
def test_a_mode_allows_what_the_setting_does_or_less(ceiling: str, mode: str) -> None:
    if mode in WITHIN[ceiling]:
        assert chosen({MODE: mode}, mode=ceiling).permission_mode == mode
    else:
        refused(Forbidden, MODE, mode, mode=ceiling)


def test_the_order_of_modes() -> None:
    refused(Forbidden, MODE, "bypassPermissions", mode="acceptEdits")
    refused(Forbidden, MODE, "acceptEdits", mode="dontAsk")
    refused(Forbidden, MODE, "dontAsk", mode="plan")


@pytest.mark.parametrize("ceiling", ["acceptEdits", "ask", "dontAsk"])
def test_a_plan_reads_more_than_modes_that_keep_to_the_workspace(ceiling: str) -> None:
    refused(Forbidden, MODE, "plan", mode=ceiling)


def test_a_models_own_mode_is_its_ceiling() -> None:
    assert chosen({MODE: "acceptEdits"}, mode="plan", own="acceptEdits").permission_mode == "acceptEdits"
    refused(Forbidden, MODE, "acceptEdits", mode="bypassPermissions", own="dontAsk")
    assert chosen({}, own="plan") is GIVEN


@pytest.mark.parametrize("mode", ["", "default", "Plan", "plan ", "auto"])
def test_a_mode_that_nobody_knows_is_refused(mode: str) -> None:
    refused(InvalidRequest, MODE, mode, mode="plan")


# Workspace ---------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace with directories, a file and links; beside it what nobody may reach."""
    root = tmp_path / "root"
    for path in ("a/b", "caf\u00e9", "with space"):
        (root / path).mkdir(parents=True)
    (tmp_path / "outside/deep").mkdir(parents=True)
    (tmp_path / "root-beside").mkdir()
    (root / "file").touch()
    (root / "a/up").symlink_to("..")
    (root / "a/out").symlink_to("../../outside")
    (root / "gone").symlink_to("nowhere")
    (root / "gone-out").symlink_to(tmp_path / "nowhere")
    (root / "beside").symlink_to(tmp_path / "root-beside")
    (root / "within").symlink_to(root / "a")
    (root / "loop").symlink_to("loop")
    (root / "trick").symlink_to("trick/../a/out")  # a loop of which a lenient look makes a link outside
    return root


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a", "a"),
        ("a/b", "a/b"),
        ("a//b/", "a/b"),
        ("./a/./b", "a/b"),
        (".", ""),
        ("with space", "with space"),
        ("within/b", "a/b"),
        ("a/up/a", "a"),
        ("caf\u00e9".encode().decode("latin-1"), "caf\u00e9"),
    ],
)
def test_a_directory_below_the_workspace_is_taken(root: Path, text: str, place: str) -> None:
    assert chosen({WORKSPACE: text}, root).workspace == root.resolve() / place


@pytest.mark.parametrize(
    "text",
    [
        *("/", "/etc", "..", "../outside", "a/..", "a/../..", "a/b/../../../outside", "a/out", "a/out/deep"),
        *("a/out/nothing", "a/up/a/out", "gone-out", "beside", "//etc", "a/up/.."),
    ],
)
def test_what_leads_out_is_refused(root: Path, text: str) -> None:
    refused(Forbidden, WORKSPACE, text, root)


def test_an_absolute_path_is_refused_even_within(root: Path) -> None:
    refused(Forbidden, WORKSPACE, str(root / "a"), root)


@pytest.mark.parametrize(
    "text",
    ["", "nothing", "a/nothing/b", "file", "file/x", "gone", "loop", "loop/x", "a\0", "x" * 300],
)
def test_what_is_no_directory_is_refused(root: Path, text: str) -> None:
    refused(InvalidRequest, WORKSPACE, text, root)


def test_a_loop_of_links_that_seems_to_lead_out_is_refused(root: Path) -> None:
    with pytest.raises((InvalidRequest, Forbidden)):  # where it seems to lead depends on Python's version
        chosen({WORKSPACE: "trick"}, root)


def test_the_workspace_itself_may_be_a_link(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    assert chosen({WORKSPACE: "a"}, link).workspace == root.resolve() / "a"


NAMES = ("a", "b", "c")
PIECES = st.sampled_from((*NAMES, ".", "..", "", "/"))
TARGETS = st.lists(st.sampled_from((*NAMES, "..")), min_size=1, max_size=4).map("/".join)
PLACES = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)


def build(directory: Path, tree: Mapping[str, str | None], absolute: set[str]) -> None:
    """Make directories (None) and links; what cannot be made, or would be elsewhere, is left out."""
    for place, target in tree.items():
        path = directory / place
        if not Path(os.path.realpath(path.parent)).is_relative_to(directory):
            continue  # by a link: nothing is made there
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if target is None:
                path.mkdir(exist_ok=True)
            else:
                path.symlink_to(f"{directory}/{target}" if place in absolute else target)
        except OSError:
            continue


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(PLACES, st.none() | TARGETS, max_size=8), st.sets(PLACES), st.lists(PIECES, max_size=6)
)
@example({"b": "..", "b/c": None}, set(), ["b", "c"])
def test_no_path_and_no_link_leads_out(
    tree: dict[str, str | None], absolute: set[str], pieces: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        around = Path(name).resolve()
        directory = around / "own"
        root = directory / "a"
        root.mkdir(parents=True)
        build(directory, tree, absolute)
        assert [*around.iterdir()] == [directory]
        text = "/".join(pieces)
        real = os.path.realpath(root / text)
        try:
            place = chosen({WORKSPACE: text}, root).workspace
        except Forbidden:
            assert text.startswith("/") or ".." in pieces or not Path(real).is_relative_to(root)
        except InvalidRequest:
            assert not text or not (root / text).is_dir()
        else:
            assert place is not None
            assert place.is_dir()
            assert place == place.resolve()
            assert place.is_relative_to(root)
            assert place.samefile(root / text)
