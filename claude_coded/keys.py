"""Clients' keys, from wherever they are given."""

from collections.abc import Mapping
from pathlib import Path

from claude_coded import reading as read
from claude_coded.errors import ConfigurationError
from claude_coded.settings import AccessSettings


def read_keys(settings: AccessSettings, environment: Mapping[str, str]) -> Mapping[str, str]:
    """Return all clients' keys by tenant: the setting's, the file's and systemd's credential's.

    Raises ConfigurationError for a file that cannot be read, and a key that two tenants have.
    """
    keys = dict(settings.api_keys)
    files = [settings.api_keys_file] if settings.api_keys_file else []
    if directory := environment.get("CREDENTIALS_DIRECTORY"):
        files += [file for file in [Path(directory) / "api-keys"] if file.exists()]
    for file in files:
        try:
            keys.update(read.pairs(file.read_text()))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"API keys in {file}: {error}") from None
    _check_distinct(keys)
    return keys


def _check_distinct(keys: Mapping[str, str]) -> None:
    names: dict[bytes, str] = {}
    for name, key in keys.items():
        if (other := names.setdefault(read.digest(key), name)) != name:
            raise ConfigurationError(f"API keys: {other} and {name} have the same; a key is one tenant's")
