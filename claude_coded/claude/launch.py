"""How a worker is launched: the executable, its arguments and its environment.

Facts checked on Claude Code 2.1.330:
- `--session-id` names a new session, `--resume` goes on with one on disk and keeps its id; with
  `--fork-session` it goes on with a copy under the new id, in which the messages keep their uuids, and with
  `--resume-session-at` with the copy up to an assistant's message.
- `rewind_conversation` (control request) takes a live session back to before a user message in some 5 ms;
  the cut reaches the disk with the next message, so it is asked for again after a resume.
- A turn is on disk when its `result` line is out: a SIGKILL at that moment loses nothing.
- Documents reach the model as they are. So do images, up to 2000 pixels a side and 5 MB of base64: beyond
  that they are scaled or made JPEGs, but not those of a tool's results that are seeded. A user's images are
  also put into files, of which a line behind the message tells the model. What is no image becomes a text
  that says so.
- `--permission-prompt-tool stdio` has it ask its host (`claude.permits`); without that, what it would ask is
  refused.
- Names that it does not know in `--tools`, and files that it cannot use in `--mcp-config`, it passes over.
- As root it refuses `bypassPermissions` unless IS_SANDBOX=1.
- Its sandbox (2.1.332, bubblewrap) confines commands, in any permission mode: they write in the workspace and
  in a directory for temporary files, reach no network that is not allowed by its settings, and see no
  processes but their own. Its tools for files are not confined by it.
"""

import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from claude_coded.claude.toolbridge import SERVER
from claude_coded.errors import ConfigurationError
from claude_coded.profiles import McpFile

MINIMUM_VERSION: Final = (2, 1, 248)
"""The first version that takes `client_composed`: without it a prompt could run slash commands."""

ASK: Final = "ask"
"""The permission mode in which the CLI asks its host."""

WITHHELD: Final = frozenset(
    {"CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY"}
)
WITHHELD_PREFIXES: Final = ("CLAUDE_CODED_", "WATCHDOG_", "LISTEN_")
SECRETS: Final = frozenset({"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"})
"""Variables of the environment that are keys."""
FOR_EVER: Final = 36500
"""Days; for the CLI's own clean-up of transcripts 0 would mean to keep none."""

SANDBOX_HINT: Final = (
    "as root the CLI refuses permission mode bypassPermissions: run the daemon as another user, "
    "set CLAUDE_CODED_PERMISSION_MODE=acceptEdits, or IS_SANDBOX=1 where the machine is a sandbox"
)


SANDBOX_PROGRAMS: Final = ("bwrap", "socat")
"""What the CLI's sandbox takes on Linux."""

TRANSCRIPTS: Final = "~/.claude/projects"
"""Where they are unless CLAUDE_CONFIG_DIR says otherwise, as the CLI's settings name it."""


class Launch(Struct, frozen=True):
    """What the arguments of a worker depend on. Spares of one Launch serve any new conversation of it.

    `session` is set when the process is to resume one; a fresh process gets its session id at the spawn.
    `model` is for a resumed one: there `set_model` would leave its command in the history. `tools` are those
    of the CLI's own (None: what the kind has), `mcp` a file of servers with others. With `hidden` commands
    run in the CLI's sandbox, where these paths cannot be read.
    """

    agent: bool
    workspace: Path
    permission_mode: str
    tools: tuple[str, ...] | None = None
    mcp: McpFile | None = None
    auto_compact: bool = True
    retention_days: int = 30
    hidden: tuple[str, ...] | None = None
    session: str | None = None
    model: str | None = None
    fork_at: str | None = None

    def resuming(self, session: str, model: str | None = None, fork_at: str | None = None) -> "Launch":
        """Return the launch that goes on with a session on disk, or with a copy of it up to a message."""
        return replace(self, session=session, model=model, fork_at=fork_at)


def arguments(launch: Launch, fresh_session: str) -> list[str]:
    """Return the CLI's arguments. A prompt is never among them."""
    args = ["-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"]
    asks = launch.permission_mode == ASK
    args += ["--include-partial-messages", "--permission-mode", "default" if asks else launch.permission_mode]
    args += ["--permission-prompt-tool", "stdio"] if asks else []
    # The client's own tools need no leave: it is the client that runs them. The operator's have it.
    servers = (SERVER, *(launch.mcp.servers if launch.mcp else ()))
    args += ["--allowedTools", ",".join(f"mcp__{name}" for name in servers)]
    args += ["--resume", launch.session] if launch.session else []
    args += ["--fork-session", "--resume-session-at", launch.fork_at] if launch.fork_at else []
    args += ["--session-id", fresh_session] if launch.fork_at or not launch.session else []
    args += ["--model", launch.model] if launch.model else []
    args += ["--settings", json.dumps(flag_settings(launch))]
    return [*args, *scope_arguments(launch)]


def flag_settings(launch: Launch) -> dict[str, Any]:
    """Return settings of the CLI's that go before those of its files."""
    kept = {"cleanupPeriodDays": launch.retention_days or FOR_EVER}
    if launch.hidden is None:
        return kept
    return kept | {
        "sandbox": {
            "enabled": True,
            "failIfUnavailable": True,
            "allowUnsandboxedCommands": False,
            # Else there would be commands that nobody allows; an operator who is asked wants to be.
            "autoAllowBashIfSandboxed": launch.permission_mode == "acceptEdits",
            "filesystem": {"denyRead": list(launch.hidden), "allowRead": [str(launch.workspace)]},
        }
    }


def scope_arguments(launch: Launch) -> list[str]:
    """Return the arguments that say what of the machine a session sees."""
    args = ["--mcp-config", str(launch.mcp.path)] if launch.mcp else []
    tools = launch.tools if launch.agent else launch.tools or ()
    args += ["--tools", ",".join(tools)] if tools is not None else []
    if launch.agent:
        return [*args, "--setting-sources", "user,project,local"]
    # Nothing of the machine's: no CLAUDE.md, hooks, skills, settings files or MCP servers. The safe mode
    # leaves out servers that it is given, too.
    args += [] if launch.mcp else ["--safe-mode"]
    return [*args, "--setting-sources", "", "--strict-mcp-config"]


def terminal_arguments(launch: Launch, session: str, model: str | None) -> list[str]:
    """Return the arguments with which a person goes on with a session at the CLI's own terminal.

    What Claude may do there the person is asked: the permission mode is the CLI's own.
    """
    args = ["--resume", session]
    args += ["--model", model] if model else []
    args += ["--settings", json.dumps(flag_settings(launch))]
    return [*args, *scope_arguments(launch)]


def environment(base: Mapping[str, str], *, api_key: str | None, retries: int) -> dict[str, str]:
    """Return a worker's environment: the daemon's, less what is the daemon's own."""
    kept = {
        name: value
        for name, value in base.items()
        if name not in WITHHELD and not name.startswith(WITHHELD_PREFIXES)
    }
    if api_key:
        kept["ANTHROPIC_API_KEY"] = api_key
    # The state events say when background work has ended; the binary must not change while it runs.
    kept |= {"CLAUDE_CODE_SDK_READS_SESSION_STATE": "1", "DISABLE_AUTOUPDATER": "1"}
    kept.setdefault("CLAUDE_CODE_MAX_RETRIES", str(retries))
    return kept


def die_with_parent(which: Callable[[str], str | None]) -> tuple[str, ...]:
    """Return the prefix that ends a worker with the daemon, where util-linux is there.

    TERM, not KILL: at TERM the CLI ends the commands that it runs, at KILL they would live on.
    """
    setpriv = which("setpriv")
    return (setpriv, "--pdeathsig", "TERM", "--") if setpriv else ()


def projects_directory(worker_environment: Mapping[str, str]) -> Path:
    """Return where the CLI keeps its transcripts, a directory for each working directory."""
    config = worker_environment.get("CLAUDE_CONFIG_DIR")
    home = worker_environment.get("HOME") or str(Path.home())
    return (Path(config) if config else Path(home) / ".claude") / "projects"


def scratch_directory(worker_environment: Mapping[str, str], uid: int) -> Path:
    """Return where the CLI puts users' images as files, and leaves them, likewise."""
    named = worker_environment.get("CLAUDE_CODE_TMPDIR") or worker_environment.get("TMPDIR")
    return Path(named or "/tmp") / f"claude-{uid}"  # noqa: S108 - the CLI's choice, a directory of its user


def additions(launch: Launch) -> dict[str, str]:
    """Return what a launch adds to the environment: a chat is never compacted, its client is told instead."""
    return {} if launch.agent and launch.auto_compact else {"DISABLE_AUTO_COMPACT": "1"}


def find_binary(configured: str | None, which: Callable[[str], str | None]) -> Path:
    """Return the CLI's executable: the configured one, the one on PATH, or the SDK's.

    Raises ConfigurationError that says how to get one.
    """
    if configured:
        found = which(configured)
        if found is None:
            raise ConfigurationError(f"CLAUDE_CODED_CLAUDE_BIN: no executable at {configured!r}")
        return Path(found)
    if found := which("claude"):
        return Path(found)
    if bundled := _bundled(which):
        return bundled
    raise ConfigurationError(
        "Claude Code was not found: install it, pip install 'claude_coded[claude]', "
        "or name it with CLAUDE_CODED_CLAUDE_BIN"
    )


def _bundled(which: Callable[[str], str | None]) -> Path | None:
    spec = importlib.util.find_spec("claude_agent_sdk")
    for directory in (spec.submodule_search_locations or ()) if spec else ():
        if found := which(str(Path(directory) / "_bundled" / "claude")):
            return Path(found)
    return None


def parse_version(text: str) -> tuple[int, ...]:
    """Return the numbers of `claude --version`; empty where there are none."""
    words = text.split()
    parts = words[0].split(".") if words else []
    return tuple(int(part) for part in parts) if parts and all(part.isdigit() for part in parts) else ()
