"""`claude-coded check`: what keeps the daemon from working, in words, and what to do.

Each item is looked at for real, and nothing is made or changed. A daemon that runs already is no fault. The
CLI is started with a HOME that is thrown away, since it writes there. Only where it has been before, and no
key is set, it is asked for its login at home.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from claude_coded.check import cli, doors, places
from claude_coded.check.findings import Finding, Machine, Mark, as_json, as_text, failed
from claude_coded.errors import ConfigurationError
from claude_coded.settings import SYSTEM_CONFIG, is_there, load

ITEMS: Final[tuple[Callable[[Machine], Iterator[Finding]], ...]] = (
    *(cli.cli, cli.key, cli.user, places.workspaces, places.state, places.home),
    *(doors.keys, doors.port, doors.control, cli.end),
)
"""What is looked at, in order."""

__all__ = ["Finding", "Mark", "as_json", "as_text", "examine", "failed"]


def examine(flags: Mapping[str, str], surroundings: Mapping[str, str], config: Path | None) -> list[Finding]:
    """Return what is found, item by item; without a configuration that loads, there is just that one."""
    try:
        settings = load(flags, surroundings, config)
    except ConfigurationError as error:
        advice = "correct it; README has the settings, and `claude-coded serve --help`"
        return [Finding("configuration", Mark.FAILED, str(error), advice)]
    named = config or surroundings.get("CLAUDE_CODED_CONFIG")
    file = named or (SYSTEM_CONFIG if is_there(SYSTEM_CONFIG) else None)
    text = f"read from {file}" if file else f"no file ({SYSTEM_CONFIG}): environment and defaults"
    machine = Machine(settings, surroundings)
    return [
        Finding("configuration", Mark.OK, text),
        *(finding for look in ITEMS for finding in look(machine)),
    ]
