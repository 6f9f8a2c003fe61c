"""The servers: where each is had, and how its documentation says that it is run."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Final

import claude_coded
from tests.support.install import node_package, python_packages

CALL: Final = '[[tool get_weather {"city": "Oslo"}]]'
"""What has the scripted model call the client's tool, where the server offers it as a tool."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a server runs: its directory, with its HOME and its workspace in it, its port, and the CLI."""

    directory: Path
    port: int
    claude: Path

    @property
    def home(self) -> Path:
        """Return its HOME."""
        return self.directory / "home"

    @property
    def work(self) -> Path:
        """Return its working directory."""
        return self.directory / "work"


def _nothing(_: Spot) -> dict[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Server:
    """A server. `package` says whence it came, `mode` how it is run.

    `call` is what a model that obeys its prompt does to call a tool. `named` servers know a conversation by
    the field `user`, so their clients send one. `base` is where its API is.
    """

    name: str
    package: str
    mode: str
    model: str
    install: Callable[[], Path]
    command: Callable[[Path, Spot], list[str]]
    environment: Callable[[Spot], Mapping[str, str]] = _nothing
    call: str = CALL
    named: bool = False
    base: str = "/v1"


def _ours(spot: Spot) -> dict[str, str]:
    return {
        "PORT": str(spot.port),
        "WORKSPACE_DIR": str(spot.work),
        "PYTHONPATH": str(Path(claude_coded.__file__).parents[1]),
        # Its default may be the one of a daemon of this machine.
        "CLAUDE_CODED_SOCKET": str(spot.directory / "control.sock"),
        "CLAUDE_CODED_UPSTREAM_RETRIES": "1",
    }


OURS: Final = Server(
    "claude_coded",
    f"this checkout, {claude_coded.__version__}",
    "as it comes, model claude-code",
    "claude-code",
    install=lambda: Path(sys.executable),
    command=lambda program, _: [str(program), "-m", "claude_coded", "serve"],
    environment=_ours,
)

OURS_AS_CHAT: Final = replace(
    OURS, name="claude_coded as chat", mode="as it comes, model claude-code-chat", model="claude-code-chat"
)
"""The same without Claude's tools, as others come; only its speed differs."""

ALTERNATIVES: Final = (
    Server(
        "claude-code-openai",
        "PyPI claude-code-openai 0.1.1 (claudegate)",
        "as it comes: bare mode (--no-bare is for agents), sessions reused",
        "sonnet",
        install=lambda: python_packages("claude-code-openai==0.1.1"),
        command=lambda place, _: [str(place / "bin" / "claudegate"), "serve"],
        environment=lambda spot: {
            "CLAUDEGATE_PORT": str(spot.port),
            "CLAUDEGATE_CLI_PATH": str(spot.claude),  # its own would be another version
        },
    ),
    Server(
        "claude-max-api-proxy",
        "npm claude-max-api-proxy 1.0.0",
        "as it comes",
        "claude-sonnet-4",
        install=lambda: node_package("claude-max-api-proxy@1.0.0"),
        command=lambda place, spot: [
            str(place / "node_modules" / ".bin" / "claude-max-api"),
            str(spot.port),
        ],
    ),
    Server(
        "claude-max-proxy-py",
        "PyPI claude-max-proxy-py 0.1.2 (cmappy)",
        "--skip-auth-check, since there is a key and no login",
        "claude-sonnet-4",
        install=lambda: python_packages("claude-max-proxy-py==0.1.2"),
        command=lambda place, spot: [
            *(str(place / "bin" / "cmappy"), "--port", str(spot.port), "--skip-auth-check")
        ],
    ),
    Server(
        "cli2api",
        "PyPI cli2api 0.2.5",
        "as it comes, on loopback",
        "sonnet",
        install=lambda: python_packages("cli2api==0.2.5"),
        command=lambda place, _: [str(place / "bin" / "cli2api")],
        environment=lambda spot: {
            "CLI2API_HOST": "127.0.0.1",
            "CLI2API_PORT": str(spot.port),
            "CLI2API_CLAUDE_CLI_PATH": str(spot.claude),
        },
        # It tells the model in words to write this.
        call='[[say <tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>]]',
    ),
    Server(
        "claude-code-relay",
        "PyPI claude-code-relay 0.0.9",
        "as it comes",
        "sonnet",
        install=lambda: python_packages("claude-code-relay==0.0.9"),
        command=lambda place, spot: [
            *(str(place / "bin" / "claude-code-relay"), "serve", "--port", str(spot.port))
        ],
        environment=lambda spot: {"CLAUDE_CLI_PATH": str(spot.claude)},
    ),
    Server(
        "unified-cli",
        "PyPI unified-cli[server] 0.5.4",
        "as it comes; each conversation named by `user`, with a token since it takes no key",
        "sonnet",
        install=lambda: python_packages("unified-cli[server]==0.5.4"),
        command=lambda place, spot: [
            *(str(place / "bin" / "unified-cli"), "serve", "--port", str(spot.port))
        ],
        environment=lambda spot: {
            "CLAUDE_CLI_PATH": str(spot.claude),
            "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat-test",
        },
        named=True,
    ),
    Server(
        "ccproxy-api",
        "PyPI ccproxy-api[plugins-claude] 0.2.10",
        "its Claude Code mode (plugin claude_sdk) alone, with sdk_message_mode ignore: else the CLI's own "
        "messages come as content",
        "sonnet",
        # It runs the CLI of its own SDK, whatever its settings say: the same version as ours.
        install=lambda: python_packages(
            "ccproxy-api[plugins-claude]==0.2.10", f"claude-agent-sdk=={version('claude-agent-sdk')}"
        ),
        command=lambda place, spot: [
            *(str(place / "bin" / "ccproxy"), "serve", "--host", "127.0.0.1", "--port", str(spot.port))
        ],
        environment=lambda _: {
            "ENABLED_PLUGINS": '["claude_sdk"]',
            "PLUGINS__CLAUDE_SDK__SDK_MESSAGE_MODE": "ignore",
            "PLUGINS__CLAUDE_SDK__INCLUDE_SYSTEM_MESSAGES_IN_STREAM": "false",
        },
        base="/claude/sdk/v1",
    ),
)

LEFT_OUT: Final[Mapping[str, str]] = {
    "Meridian (@rynfar/meridian)": "npm does not have it",
    "claude-code-openai-wrapper": "PyPI does not have it",
}
"""Servers that cannot be run here, and why."""
