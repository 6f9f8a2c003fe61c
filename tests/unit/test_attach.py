"""Whose session a conversation is, and what runs Claude Code's terminal on it as that user."""

import os
from pathlib import Path

import pytest

from claude_coded.codectl.attach import Manner, command_line, run
from claude_coded.control.api import Attached
from claude_coded.control.terminals import user_name

NAMELESS = 54321


def attached(directory: Path, *command: str) -> Attached:
    user = user_name(NAMELESS)
    return Attached(list(command), str(directory), {"HOME": "/"}, user, NAMELESS, "s")


def test_a_user_without_a_name_is_a_number(tmp_path: Path) -> None:
    """As in a container that runs as any user."""
    assert user_name(0) == "root"
    session = attached(tmp_path, "claude")
    assert command_line(session, Manner.BY_SUDO).startswith(f"sudo -u '#{NAMELESS}' env -C")
    assert f"--user {NAMELESS} " in command_line(session, Manner.IN_CONTAINER)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_root_runs_it_as_that_number() -> None:
    session = attached(Path("/"), "sh", "-c", f"test $(id -u) = {NAMELESS} && test $(id -G) = {NAMELESS}")
    assert run(session, Manner.AS_USER, os.environ) == 0
