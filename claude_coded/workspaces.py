"""Where tenants' conversations work: all in WORKSPACE_DIR, or each tenant in a directory of its own there."""

import os
import re
import stat
from hashlib import sha256
from pathlib import Path
from typing import Final

from claude_coded.errors import WorkspaceGone
from claude_coded.settings import TENANT, ClaudeSettings

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def root_of(settings: ClaudeSettings, tenant: str) -> Path:
    """Return the directory that a tenant's conversations work in or below. Nothing is made, or looked at."""
    return settings.workspace / name_of(tenant) if settings.workspaces == TENANT else settings.workspace


def name_of(tenant: str) -> str:
    """Return a directory's name for a tenant: its own, or where that is any text, one made of its digest."""
    return tenant if _NAME.fullmatch(tenant) else f"_{sha256(tenant.encode()).hexdigest()[:32]}"


def prepare(settings: ClaudeSettings, tenant: str) -> Path:
    """Return the same directory, made for the daemon's user alone if need be.

    Raises WorkspaceGone where it is a link or no directory: Claude may have put that there.
    """
    root = root_of(settings, tenant)
    if settings.workspaces == TENANT:
        try:
            root.mkdir(mode=0o700, exist_ok=True)
            mode = root.lstat().st_mode
        except OSError as error:
            raise WorkspaceGone(f"the workspace {root} cannot be made: {error.strerror}") from None
        if not stat.S_ISDIR(mode):
            raise WorkspaceGone(f"the workspace {root} is a link, or no directory")
    return root


def admits(settings: ClaudeSettings, tenant: str, directory: Path) -> bool:
    """Return whether a tenant's conversation may work in a directory, where all links lead."""
    if settings.workspaces != TENANT:
        return True
    own = Path(os.path.realpath(settings.workspace)) / name_of(tenant)
    return Path(os.path.realpath(directory)).is_relative_to(own)
