"""What the help and the manual page of `claude-coded` say beside commands and settings."""

from typing import Final

from claude_coded.guide import Section
from claude_coded.settings import SYSTEM_CONFIG

SETTINGS: Final = Section(
    "Settings",
    "Each setting is an option, an environment variable, named in brackets, or a key of the TOML file, in "
    "this order: --queue-size has the key queue_size. Times are in milliseconds. Models of your own are "
    "tables [models.NAME] of that file.",
)

FILES: Final = Section(
    "Files",
    entries=(
        (str(SYSTEM_CONFIG), "Settings, unless --config or CLAUDE_CODED_CONFIG names another file."),
        ("claude-coded.db", "The conversations, in the state directory (see --state-dir)."),
        ("control.sock", "Where claude-codectl connects (see --socket)."),
        ("~/.claude/projects", "Claude Code's own transcripts; worth a backup, as the database is."),
    ),
)

SIGNALS: Final = Section(
    "Signals",
    entries=(
        (
            "SIGTERM, SIGINT",
            "Stop: running turns go on for --drain-timeout-ms, new ones get 503. A second one: at once.",
        ),
        (
            "SIGHUP",
            "Read the settings again. No turn is dropped; what needs a restart stays, and is logged.",
        ),
    ),
)

SERVE_STATUS: Final = Section(
    "Exit status",
    entries=(
        ("0", "It was stopped, and has ended in order."),
        ("1", "It could not start, and says why; or a second signal has stopped it at once."),
        ("2", "Wrong usage."),
    ),
)

SERVE_EXAMPLES: Final = Section(
    "Examples",
    examples=(
        ("Try everything with a scripted model", "claude-coded serve --offline"),
        (
            "Have Claude work in ~/project",
            "ANTHROPIC_API_KEY=... claude-coded serve --workspace-dir ~/project",
        ),
        (
            "Serve others too, who need keys",
            "claude-coded serve --host 0.0.0.0 --api-keys-file /etc/claude-coded/keys",
        ),
        (
            "Have an operator allow what Claude does (claude-codectl requests)",
            "claude-coded serve --permission-mode ask",
        ),
        ("Work on claude_coded itself", "claude-coded serve --offline --reload"),
    ),
)

CHECK_STATUS: Final = Section(
    "Exit status",
    entries=(("0", "Nothing has failed."), ("1", "Something has."), ("2", "Wrong usage.")),
)

CHECK_EXAMPLES: Final = Section(
    "Examples",
    examples=(
        (
            "Ask as the user of the service",
            "sudo -u claude-coded claude-coded check",
        ),
    ),
)

ENVIRONMENT: Final = Section(
    "Environment",
    "Each setting has a variable, named in brackets at its option. An empty one is as none. Others are:",
    entries=(
        ("CLAUDE_CODED_CONFIG", "The TOML file of settings."),
        ("IS_SANDBOX", "1: the machine is a sandbox. As root, Claude Code works unasked only then."),
        (
            "ANTHROPIC_BASE_URL, HTTPS_PROXY, ...",
            "What Claude Code itself reads is passed on to it: all but CLAUDE_CODED_* and what systemd sets.",
        ),
        ("STATE_DIRECTORY, RUNTIME_DIRECTORY", "Set by systemd: where database and control socket are."),
        ("LOGS_DIRECTORY", "Set by systemd: crash.log there says where a daemon stood that crashed."),
        (
            "CREDENTIALS_DIRECTORY",
            "Set by systemd: the keys are its credentials anthropic-api-key and api-keys.",
        ),
        (
            "NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS",
            "Set by systemd: it is told how things stand, and the sockets that it has opened are served.",
        ),
    ),
    manual=True,
)

SEE_ALSO: Final = Section("See also", "claude-codectl(1), systemd.service(5)", manual=True)
