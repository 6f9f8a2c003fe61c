"""What a client may choose for its turn by headers, within what the operator allows.

- `X-Claude-Permission-Mode`: what Claude may do unasked. The model's mode, else the operator's setting, is
  the ceiling. From what allows most: `bypassPermissions` (everything), `acceptEdits` (changes of files in the
  workspace, too), `ask` (what an operator then allows), `dontAsk` (what is allowed beforehand, no more).
  `plan` changes nothing, but reads what the user can read, outside the workspace too (seen with Claude Code
  2.1.331): none of those but the first includes it.
- `X-Claude-Workspace`: where Claude works, a directory below WORKSPACE_DIR, by its path from there, or
  from the tenant's own directory where each has one.
- `X-Claude-Effort`: how much the model thinks; it counts before the body's `reasoning_effort`.

As root the CLI takes `bypassPermissions` only in a sandbox (IS_SANDBOX=1). Nobody can choose it where the
setting is another, and for the setting this is checked at the start.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from msgspec.structs import replace

from claude_coded import workspaces
from claude_coded.errors import Forbidden, InvalidRequest
from claude_coded.profiles import EFFORTS
from claude_coded.settings import PERMISSION_MODES, ClaudeSettings
from claude_coded.turn import Options, Profile

MODE_HEADER: Final = "X-Claude-Permission-Mode"
WORKSPACE_HEADER: Final = "X-Claude-Workspace"
EFFORT_HEADER: Final = "X-Claude-Effort"
HEADERS: Final = (MODE_HEADER, WORKSPACE_HEADER, EFFORT_HEADER)

WITHIN: Final[Mapping[str, frozenset[str]]] = {
    "bypassPermissions": frozenset(PERMISSION_MODES),
    "acceptEdits": frozenset({"acceptEdits", "ask", "dontAsk"}),
    "ask": frozenset({"ask", "dontAsk"}),
    "dontAsk": frozenset({"dontAsk"}),
    "plan": frozenset({"plan"}),
}
"""By permission mode, those that allow nothing beyond it."""


def choose(
    options: Options,
    header: Callable[[str], str | None],
    settings: ClaudeSettings,
    profile: Profile,
    tenant: str,
) -> Options:
    """Return the options with what the headers choose; `header` returns the text of one by its name.

    Raises InvalidRequest for what is no choice and Forbidden for what the operator does not allow; both name
    the header. Raises WorkspaceGone where the tenant has no directory.
    """
    if (mode := header(MODE_HEADER)) is not None:
        ceiling = profile.permission_mode or settings.permission_mode
        options = replace(options, permission_mode=_mode(mode, ceiling))
    if (path := header(WORKSPACE_HEADER)) is not None:
        options = replace(options, workspace=_workspace(path, workspaces.prepare(settings, tenant)))
    if (effort := header(EFFORT_HEADER)) is not None:
        options = replace(options, effort=_one_of(EFFORTS, effort, EFFORT_HEADER))
    return options


def _mode(mode: str, ceiling: str) -> str:
    _one_of(PERMISSION_MODES, mode, MODE_HEADER)
    if mode not in WITHIN[ceiling]:
        raise Forbidden(
            f"{MODE_HEADER}: {mode} allows what {ceiling}, which the operator has set, does not",
            param=MODE_HEADER,
        )
    return mode


def _workspace(text: str, root: Path) -> Path:
    """Return the directory, all links resolved: it is checked where it is, not by its name."""
    path = PurePosixPath(os.fsdecode(text.encode("latin-1")))  # headers are bytes: a path may be UTF-8
    if not text or "\0" in text:
        raise InvalidRequest(f"{WORKSPACE_HEADER} is a path below the workspace", param=WORKSPACE_HEADER)
    if path.is_absolute() or ".." in path.parts:
        raise _outside()
    base = Path(os.path.realpath(root))
    place, exists = _resolve(base / path)
    if not place.is_relative_to(base):  # a caller does not learn what exists outside
        raise _outside()
    if not exists or not place.is_dir():
        raise InvalidRequest(f"{WORKSPACE_HEADER}: there is no such directory", param=WORKSPACE_HEADER)
    return place


def _resolve(path: Path) -> tuple[Path, bool]:
    """Return where a path leads and that it exists, else where it would lead."""
    try:
        return Path(os.path.realpath(path, strict=True)), True
    except OSError:  # a loop of links, too: where that leads is not to be trusted
        return Path(os.path.realpath(path)), False


def _outside() -> Forbidden:
    return Forbidden(f"{WORKSPACE_HEADER} leads out of the workspace", param=WORKSPACE_HEADER)


def _one_of(known: tuple[str, ...], given: str, header: str) -> str:
    if given not in known:
        raise InvalidRequest(f"{header} is one of {', '.join(known)}", param=header)
    return given
