"""Models of the operator's: the tables `[models.NAME]` of the TOML file, read and checked.

What they say is in the file's words here; `models` makes kinds of workers of them. Paths are relative to the
file's directory.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from claude_coded.errors import ConfigurationError

BUILT_IN: Final = ("claude-code", "claude-code-chat")
"""The names that stand for what they are, and for nothing else."""

EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
CLIENT_SERVER: Final = "client"
"""The name under which the CLI knows the client's own tools."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_STRANGE: Final = re.compile(r"[^A-Za-z0-9_-]")
_TOOL: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class McpFile:
    """A file of MCP servers: where it is, what their tools are named by, a digest of what it held."""

    path: Path
    servers: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """A model of the operator's, as a table describes it. None: as the settings or the CLI have it.

    An agent reads the machine's files (CLAUDE.md, settings, skills), a `chat` none. `system` goes before the
    client's system text, which is appended to Claude Code's own prompt or replaces it.
    """

    name: str
    base: str = "agent"
    model: str | None = None
    tools: tuple[str, ...] | None = None
    system: str = ""
    system_prompt: str | None = None
    permission_mode: str | None = None
    effort: str | None = None
    mcp_config: McpFile | None = None
    workspace: Path | None = None


def read_models(tables: object, file: Path, modes: Sequence[str]) -> tuple[ModelSettings, ...]:
    """Return the models that a file's `models` describes. Raises ConfigurationError naming the place."""
    if not isinstance(tables, Mapping) or not all(isinstance(table, Mapping) for table in tables.values()):
        raise ConfigurationError(f"configuration file {file}: models are tables: [models.NAME]")
    return tuple(_read_model(name, table, file, modes) for name, table in tables.items())


def _read_model(name: str, table: Mapping[str, object], file: Path, modes: Sequence[str]) -> ModelSettings:
    place = f"configuration file {file}: [models.{name}]"
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{place}: a name is up to 128 letters, digits, `.`, `_` and `-`")
    if name in BUILT_IN:
        raise ConfigurationError(f"{place}: this is a model of claude-coded's own: choose another name")
    readers = _readers(file.absolute().parent, modes)
    if unknown := sorted(set(table) - set(readers)):
        known = ", ".join(readers)
        raise ConfigurationError(f"{place}: unknown keys: {', '.join(unknown)}; there are {known}")
    values: dict[str, Any] = {}
    for key, value in table.items():
        try:
            values[key] = readers[key](value)
        except (ValueError, OSError) as error:
            raise ConfigurationError(f"{place} {key} ({value!r}): {error}") from None
    return ModelSettings(name, **values)


Reader = Callable[[object], Any]


def _readers(directory: Path, modes: Sequence[str]) -> Mapping[str, Reader]:
    """Return what reads each key's value. Each raises ValueError or OSError."""
    return {
        "base": _choice("agent", "chat"),
        "model": _word,
        "tools": _tools,
        "system": _text,
        "system_prompt": _choice("append", "replace"),
        "permission_mode": _choice(*modes),
        "effort": _choice(*EFFORTS),
        "mcp_config": lambda value: _mcp_file(_path(value, directory)),
        "workspace": lambda value: _directory(_path(value, directory)),
    }


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text")
    return value


def _word(value: object) -> str:
    text = _text(value)
    if not text.isprintable():
        raise ValueError("must be printable: it is an argument of the CLI")
    return text


def _choice(*choices: str) -> Reader:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return value

    return read


def _tools(value: object) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [None]
    if not all(isinstance(name, str) and _TOOL.fullmatch(name) for name in names):
        raise ValueError("must be a list of names of Claude Code's tools")
    return tuple(names)


def _path(value: object, directory: Path) -> Path:
    text = _text(value)
    if "\0" in text:
        raise ValueError("must be a path")
    try:
        return directory / Path(text).expanduser()
    except RuntimeError:  # a user that does not exist
        raise ValueError("this user's home is not known") from None


def _directory(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError(f"there is no directory {path}")
    return path


def _mcp_file(path: Path) -> McpFile:
    """Read a file of MCP servers: the CLI passes over one that it cannot use, and says nothing."""
    data = path.read_bytes()
    try:
        document = json.loads(data)
    except ValueError as error:  # it may hold secrets: the message quotes nothing
        raise ValueError(f"{path} is not JSON: {str(error).split(':', maxsplit=1)[0]}") from None
    servers = document.get("mcpServers") if isinstance(document, dict) else None
    if not isinstance(servers, dict) or not all(map(_is_server, servers.values())):
        raise ValueError(f'{path} must hold {{"mcpServers": {{NAME: {{"command" or "url": …}}}}}}')
    names = tuple(_STRANGE.sub("_", name) for name in servers)
    if CLIENT_SERVER in names:
        raise ValueError(f"{path}: {CLIENT_SERVER!r} is what the client's own tools are called")
    return McpFile(path, names, sha256(data).hexdigest())


def _is_server(value: object) -> bool:
    return isinstance(value, dict) and any(isinstance(value.get(key), str) for key in ("command", "url"))
