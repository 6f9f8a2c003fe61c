"""Defaults of settings that the machine and the environment say."""

from collections.abc import Mapping
from pathlib import Path

from claude_coded.errors import ConfigurationError


def no_keys(_: Mapping[str, str]) -> Mapping[str, str]:
    """Return no keys: one tenant for all."""
    return {}


def workspace(_: Mapping[str, str]) -> Path:
    """Return /workspace where it exists (a container), else the current directory."""
    fixed = Path("/workspace")
    return fixed if fixed.is_dir() else Path.cwd()


def state_dir(environment: Mapping[str, str]) -> Path:
    """Return systemd's state directory, else the user's by the XDG rules."""
    if directory := environment.get("STATE_DIRECTORY"):
        return Path(directory.split(":")[0])
    base = environment.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(base) / "claude-coded"


def api_key(environment: Mapping[str, str]) -> str | None:
    """Return the model's key from systemd's credential. Raises ConfigurationError if it cannot be read."""
    directory = environment.get("CREDENTIALS_DIRECTORY")
    file = Path(directory) / "anthropic-api-key" if directory else None
    if file is None or not file.exists():
        return None
    try:
        return file.read_text().strip() or None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the model's key in {file}: {error}") from None
