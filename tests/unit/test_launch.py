"""The CLI's executable, arguments and environment."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from claude_coded.claude.launch import (
    Launch,
    additions,
    arguments,
    die_with_parent,
    environment,
    find_binary,
    parse_version,
    projects_directory,
    scratch_directory,
)
from claude_coded.errors import ConfigurationError
from claude_coded.profiles import McpFile

AGENT = Launch(agent=True, workspace=Path("/w"), permission_mode="plan")
CHAT = Launch(agent=False, workspace=Path("/w"), permission_mode="plan")


def test_a_fresh_session_is_named_and_an_old_one_resumed() -> None:
    fresh = arguments(AGENT, "new-id")
    assert fresh[fresh.index("--session-id") + 1] == "new-id"
    resumed = arguments(AGENT.resuming("old-id"), "new-id")
    assert resumed[resumed.index("--resume") + 1] == "old-id"
    assert "new-id" not in resumed


def test_a_fork_goes_on_with_a_copy_under_a_new_id() -> None:
    args = arguments(AGENT.resuming("old-id", "haiku", "message-id"), "new-id")
    assert "--fork-session" in args
    assert args[args.index("--resume-session-at") + 1] == "message-id"
    assert args[args.index("--resume") + 1] == "old-id"
    assert args[args.index("--session-id") + 1] == "new-id"
    assert args[args.index("--model") + 1] == "haiku"
    assert "--fork-session" not in arguments(AGENT.resuming("old-id"), "new-id")


def test_the_chat_profile_has_no_tools_and_reads_no_files() -> None:
    args = arguments(CHAT, "s")
    assert args[args.index("--tools") + 1] == ""
    assert args[args.index("--setting-sources") + 1] == ""
    assert {"--safe-mode", "--strict-mcp-config"} <= set(args)
    assert "--tools" not in arguments(AGENT, "s")


def test_in_mode_ask_the_cli_asks_its_host() -> None:
    args = arguments(replace(AGENT, permission_mode="ask"), "s")
    assert args[args.index("--permission-mode") + 1] == "default"
    assert args[args.index("--permission-prompt-tool") + 1] == "stdio"
    assert "--permission-prompt-tool" not in arguments(AGENT, "s")


def test_tools_and_servers_of_a_profile() -> None:
    servers = McpFile(Path("/c/mcp.json"), ("notes", "web"), "digest")
    args = arguments(replace(AGENT, tools=("Read", "Grep"), mcp=servers), "s")
    assert args[args.index("--tools") + 1] == "Read,Grep"
    assert args[args.index("--mcp-config") + 1] == "/c/mcp.json"
    assert args[args.index("--allowedTools") + 1] == "mcp__client,mcp__notes,mcp__web"
    none = arguments(replace(AGENT, tools=()), "s")
    assert none[none.index("--tools") + 1] == ""
    # The safe mode would leave out the servers; the rest keeps a chat from the machine's files.
    chat = arguments(replace(CHAT, mcp=servers, tools=("Read",)), "s")
    assert "--safe-mode" not in chat
    assert chat[chat.index("--setting-sources") + 1] == ""
    assert chat[chat.index("--tools") + 1] == "Read"
    assert "--strict-mcp-config" in chat


def test_the_daemons_own_variables_are_withheld() -> None:
    base = {
        "PATH": "/bin",
        "HTTPS_PROXY": "p",
        "ANTHROPIC_BASE_URL": "u",
        "CLAUDE_CONFIG_DIR": "d",
        "CLAUDE_CODED_API_KEYS": "a:secret",
        "CLAUDECODE": "1",
        "CLAUDE_CODE_ENTRYPOINT": "cli",
        "NOTIFY_SOCKET": "/run/n",
        "WATCHDOG_USEC": "1",
        "LISTEN_FDS": "1",
        "CREDENTIALS_DIRECTORY": "/run/c",
    }
    made = environment(base, api_key="k", retries=3)
    kept = {"PATH", "HTTPS_PROXY", "ANTHROPIC_BASE_URL", "CLAUDE_CONFIG_DIR"}
    assert kept <= set(made)
    assert not (set(base) - kept) & set(made)
    assert made["ANTHROPIC_API_KEY"] == "k"
    assert made["CLAUDE_CODE_MAX_RETRIES"] == "3"


def test_the_binary_is_the_configured_one_else_the_one_on_path() -> None:
    which = {"/opt/claude": "/opt/claude", "claude": "/usr/bin/claude"}.get
    assert find_binary("/opt/claude", which) == Path("/opt/claude")
    assert find_binary(None, which) == Path("/usr/bin/claude")
    with pytest.raises(ConfigurationError, match="CLAUDE_CODED_CLAUDE_BIN"):
        find_binary("/nowhere", which)


def test_without_one_on_path_it_is_the_sdks() -> None:
    found = find_binary(None, lambda name: name if name.startswith("/") else None)
    assert found.name == "claude"
    with pytest.raises(ConfigurationError, match="install"):
        find_binary(None, lambda _: None)


@pytest.mark.parametrize(
    ("text", "version"),
    [("2.1.330 (Claude Code)\n", (2, 1, 330)), ("", ()), ("what", ()), ("2.x", ())],
)
def test_versions(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


def test_only_an_agent_may_be_compacted_and_only_if_the_setting_says_so() -> None:
    assert additions(AGENT) == {}
    assert additions(replace(AGENT, auto_compact=False)) == additions(CHAT) == {"DISABLE_AUTO_COMPACT": "1"}


def test_transcripts_lie_in_the_clis_configuration_directory() -> None:
    assert projects_directory({"HOME": "/h"}) == Path("/h/.claude/projects")
    assert projects_directory({"HOME": "/h", "CLAUDE_CONFIG_DIR": "/c"}) == Path("/c/projects")
    assert scratch_directory({}, 7) == Path("/tmp/claude-7")
    assert scratch_directory({"TMPDIR": "/t"}, 7) == Path("/t/claude-7")
    assert scratch_directory({"TMPDIR": "/t", "CLAUDE_CODE_TMPDIR": "/u"}, 7) == Path("/u/claude-7")


def test_a_worker_ends_with_the_daemon_where_util_linux_is_there() -> None:
    assert die_with_parent({"setpriv": "/bin/setpriv"}.get) == ("/bin/setpriv", "--pdeathsig", "TERM", "--")
    assert die_with_parent(lambda _: None) == ()
