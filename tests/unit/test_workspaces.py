"""Whose directory is where."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.errors import WorkspaceGone
from claude_coded.settings import SHARED, TENANT, ClaudeSettings
from claude_coded.workspaces import admits, name_of, prepare, root_of


def each_its_own(root: Path) -> ClaudeSettings:
    return ClaudeSettings(workspace=root, workspaces=TENANT)


@given(st.text(min_size=1), st.text(min_size=1))
def test_whatever_tenants_are_called_each_has_a_directory_and_it_is_right_there(one: str, other: str) -> None:
    root = Path("/work")
    found = root_of(each_its_own(root), one)
    assert found.parent == root
    assert "\0" not in found.name
    assert len(found.name) <= 100
    assert found.name not in {"", ".", ".."}
    assert (name_of(one) == name_of(other)) == (one == other)


def test_a_plain_name_stays() -> None:
    assert [name_of(name) for name in ("joe", "joe.k-2")] == ["joe", "joe.k-2"]


def test_it_is_made_for_the_daemons_user_alone(tmp_path: Path) -> None:
    made = prepare(each_its_own(tmp_path), "joe")
    assert made == prepare(each_its_own(tmp_path), "joe") == tmp_path / "joe"
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    shared = ClaudeSettings(workspace=tmp_path, workspaces=SHARED)
    assert prepare(shared, "ann") == tmp_path
    assert not (tmp_path / "ann").exists()


@pytest.mark.parametrize("kind", ["link", "dangling", "file"])
def test_what_was_put_there_instead_is_not_followed(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "joe"
    (tmp_path / "ann").mkdir()
    if kind == "file":
        place.touch()
    else:
        place.symlink_to(tmp_path / {"link": "ann", "dangling": "nowhere"}[kind])
    with pytest.raises(WorkspaceGone):
        prepare(each_its_own(tmp_path), "joe")


def test_a_directory_is_the_tenants_where_its_links_lead(tmp_path: Path) -> None:
    settings = each_its_own(tmp_path / "link")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    joe, ann = prepare(settings, "joe"), prepare(settings, "ann")
    (joe / "below").mkdir()
    (joe / "out").symlink_to(ann)
    assert all(admits(settings, "joe", place) for place in (joe, joe / "below", tmp_path / "real" / "joe"))
    assert not any(admits(settings, "joe", place) for place in (ann, joe / "out", joe.parent, joe / ".."))
    assert admits(ClaudeSettings(workspace=joe), "joe", ann)
