"""Settings: frozen dataclasses and one `load()`.

Every setting can be given as a command-line flag, an environment variable or a key of the TOML file, in
this order of precedence, else it has its default. A field's metadata is the only place that says how: from
it come the flags and their help, the variables and the file's keys. Times are in milliseconds on the
outside (names end in `_MS`) and in seconds inside. Models of the operator's stand in the file alone.
"""

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from claude_coded import defaults
from claude_coded import reading as read
from claude_coded.errors import ConfigurationError
from claude_coded.profiles import ModelSettings, read_models

PREFIX = "CLAUDE_CODED_"
SYSTEM_CONFIG = Path("/etc/claude-coded/config.toml")
MODELS = "models"
"""The file's key for tables of models."""
KEPT = "What is kept"
"""What the settings are about that stand in no dataclass of their own."""
PERMISSION_MODES = ("bypassPermissions", "acceptEdits", "ask", "plan", "dontAsk")

SHARED, TENANT = "shared", "tenant"
"""Whose a workspace is."""

T = TypeVar("T")


def setting(
    variable: str,
    parse: read.Parser,
    default: object,
    text: str,
    *,
    secret: bool = False,
    unit: str = "",
    metavar: str = "",
    otherwise: str = "",
    restart: bool = False,
) -> Any:  # noqa: ANN401 - dataclasses.field is typed by the annotation that it stands at
    """Declare one setting: its variable, how it is read, its default (a value or a callable) and its help.

    `metavar` stands for its value in the help, where unit and parser do not say enough; `otherwise` is the
    default in words, where it is no value. With `restart` a running daemon cannot take a change of it.
    """
    metadata = {
        "variable": variable,
        "parse": parse,
        "help": text,
        "secret": secret,
        "unit": unit,
        "metavar": metavar,
        "otherwise": otherwise,
        "restart": restart,
    }
    if callable(default):
        derive: Callable[[Mapping[str, str]], object] = default
        return field(default_factory=lambda: derive(os.environ), metadata={**metadata, "derive": derive})
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The HTTP server."""

    host: str = setting("HOST", str, "127.0.0.1", "Address to listen on.", metavar="ADDRESS", restart=True)
    port: int = setting("PORT", read.Number(0), 3000, "TCP port; 0 chooses a free one.", restart=True)
    header_hold: float = setting(
        f"{PREFIX}HEADER_HOLD_MS",
        read.seconds,
        10.0,
        "How long the status line waits for the answer's beginning: errors before have a real status.",
        unit="ms",
    )
    keep_alive: float = setting(
        f"{PREFIX}KEEP_ALIVE_MS",
        read.seconds,
        15.0,
        "Quiet time of a stream before a comment line.",
        unit="ms",
    )
    max_body_bytes: int = setting(
        f"{PREFIX}MAX_BODY_BYTES",
        read.Number(1024),
        33554432,
        "Largest request body; beyond it 413.",
        unit="bytes",
    )
    body_timeout: float = setting(
        f"{PREFIX}BODY_TIMEOUT_MS",
        read.seconds,
        60.0,
        "Longest time to send a request body; then 408.",
        unit="ms",
    )


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """Who may call."""

    api_keys: Mapping[str, str] = setting(
        f"{PREFIX}API_KEYS",
        read.pairs,
        defaults.no_keys,
        "Clients' keys, name:key pairs with commas between; a key's name is a tenant. A key may be given as "
        "sha256: and its digest.",
        metavar="NAME:KEY,...",
        secret=True,
    )
    api_keys_file: Path | None = setting(
        f"{PREFIX}API_KEYS_FILE", read.path, None, "A file of such pairs, one a line.", metavar="FILE"
    )
    allow_no_keys: bool = setting(
        f"{PREFIX}ALLOW_NO_KEYS", read.truth, False, "Listen beyond loopback without keys."
    )
    allowed_hosts: tuple[str, ...] = setting(
        f"{PREFIX}ALLOWED_HOSTS",
        read.names,
        (),
        "Host names to answer to, beside localhost, IP addresses and HOST; * for any.",
        metavar="HOST,...",
    )
    allowed_origins: tuple[str, ...] = setting(
        f"{PREFIX}ALLOWED_ORIGINS",
        read.names,
        (),
        "Origins of web pages that may call; * for any.",
        metavar="ORIGIN,...",
    )
    key_concurrency: int = setting(
        f"{PREFIX}KEY_CONCURRENCY",
        read.Number(0),
        0,
        "Turns of one key at once, those that wait included; beyond it 429. 0: no limit.",
    )
    key_rate: int = setting(
        f"{PREFIX}KEY_RATE",
        read.Number(0),
        0,
        "Requests of one key a minute, /health not counted; beyond it 429. 0: no limit.",
    )
    metrics_open: bool = setting(
        f"{PREFIX}METRICS_OPEN", read.truth, False, "Show /metrics to callers without a key, too."
    )


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """The control socket of claude-codectl."""

    socket: Path | None = setting(
        f"{PREFIX}SOCKET",
        read.path,
        None,
        "The control socket.",
        otherwise="control.sock in $RUNTIME_DIRECTORY, else in $XDG_RUNTIME_DIR/claude-coded, else in "
        "/run/claude-coded if that can be written, else in the state directory",
        restart=True,
    )
    group: str | None = setting(
        f"{PREFIX}SOCKET_GROUP",
        str,
        None,
        "Group whose members may use the control socket, beside the daemon's user.",
        metavar="GROUP",
        restart=True,
    )


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """The worker processes, which run Claude Code."""

    size: int = setting(
        "POOL_SIZE", read.Number(1), 5, "Most worker processes at once, spares and parked ones included."
    )
    idle_timeout: float = setting(
        "IDLE_TIMEOUT_MS", read.seconds, 300.0, "A hot worker idle this long is evicted; 0: never.", unit="ms"
    )
    spares: int = setting(
        f"{PREFIX}SPARE_WORKERS",
        read.Number(0),
        1,
        "Workers spawned ahead, and prepared where new conversations are alike; none when POOL_SIZE is 1.",
    )
    queue_size: int = setting(
        f"{PREFIX}QUEUE_SIZE", read.Number(0), 64, "Requests that may wait; beyond it 429 at once."
    )
    queue_timeout: float = setting(
        f"{PREFIX}QUEUE_TIMEOUT_MS", read.seconds, 60.0, "Longest wait for a worker; then 429.", unit="ms"
    )
    worker_memory: int = setting(
        f"{PREFIX}WORKER_MEMORY_BYTES",
        read.Number(0),
        0,
        "Memory of a worker and what it runs, where systemd delegates control groups; 0: no limit.",
        unit="bytes",
    )
    worker_tasks: int = setting(
        f"{PREFIX}WORKER_TASKS",
        read.Number(0),
        0,
        "Processes and threads of a worker, likewise; 0: no limit.",
    )


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """Turns."""

    timeout: float = setting(
        f"{PREFIX}TURN_TIMEOUT_MS", read.seconds, 3600.0, "A turn longer than this is interrupted.", unit="ms"
    )
    answer_timeout: float = setting(
        f"{PREFIX}ANSWER_TIMEOUT_MS",
        read.some_seconds,
        30.0,
        "A Claude Code process that owes an answer and is silent this long is asked for a sign of life; one "
        "that gives none for as long again is killed.",
        unit="ms",
    )
    park_timeout: float = setting(
        f"{PREFIX}PARK_TIMEOUT_MS",
        read.seconds,
        600.0,
        "A worker that waits for what a client's tools return this long is released; 0: never.",
        unit="ms",
    )
    permission_timeout: float = setting(
        f"{PREFIX}PERMISSION_TIMEOUT_MS",
        read.some_seconds,
        300.0,
        "What Claude asks to be allowed in mode ask is denied when nobody has answered for this long.",
        unit="ms",
    )
    drain_timeout: float = setting(
        f"{PREFIX}DRAIN_TIMEOUT_MS",
        read.seconds,
        60.0,
        "How long running turns may go on at a stop.",
        unit="ms",
    )
    upstream_retries: int = setting(
        f"{PREFIX}UPSTREAM_RETRIES",
        read.Number(0),
        3,
        "Tries after 429, 5xx and 529 of the model's API before the client is told.",
    )
    tool_activity: str = setting(
        f"{PREFIX}TOOL_ACTIVITY",
        read.Choice(("reasoning", "content", "off")),
        "reasoning",
        "Where Claude's own tool use shows in the answer: reasoning, content or off.",
        metavar="WHERE",
    )
    fetch_images: bool = setting(
        f"{PREFIX}FETCH_IMAGES",
        read.truth,
        False,
        "Fetch images that a client names by an http(s) URL, from public addresses only.",
    )


@dataclass(frozen=True, slots=True)
class ClaudeSettings:
    """Claude Code."""

    api_key: str | None = setting(
        "ANTHROPIC_API_KEY",
        str,
        defaults.api_key,
        "The key of the model's API; without one, any login that Claude Code has itself.",
        metavar="KEY",
        otherwise="systemd's credential anthropic-api-key",
        secret=True,
    )
    workspace: Path = setting(
        "WORKSPACE_DIR",
        read.path,
        defaults.workspace,
        "Where Claude works.",
        metavar="DIRECTORY",
        otherwise="/workspace where it exists, else the current directory",
    )
    workspaces: str = setting(
        f"{PREFIX}WORKSPACES",
        read.Choice((SHARED, TENANT)),
        SHARED,
        "Where tenants work: shared, all in WORKSPACE_DIR; tenant, each in a directory of its own there.",
        metavar="HOW",
    )
    permission_mode: str = setting(
        f"{PREFIX}PERMISSION_MODE",
        read.Choice(PERMISSION_MODES),
        "bypassPermissions",
        "What Claude may do unasked: " + ", ".join(PERMISSION_MODES) + ".",
        metavar="MODE",
    )
    sandbox: bool = setting(
        f"{PREFIX}SANDBOX",
        read.truth,
        False,
        "Claude's commands run in Claude Code's sandbox, which takes bubblewrap and socat.",
    )
    auto_compact: bool = setting(
        f"{PREFIX}AUTO_COMPACT",
        read.truth,
        True,
        "Claude Code may compact a long agent conversation; else it ends with context_length_exceeded.",
    )
    binary: str | None = setting(
        f"{PREFIX}CLAUDE_BIN",
        str,
        None,
        "The Claude Code executable.",
        metavar="FILE",
        otherwise="claude on the PATH, else the one of claude-agent-sdk",
        restart=True,
    )


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The log, on stderr or in the journal."""

    format: str = setting(
        f"{PREFIX}LOG_FORMAT",
        read.Choice(("auto", "text", "json", "journal")),
        "auto",
        "text, json, journal, or auto: journal under systemd, text on a terminal, else json.",
        metavar="FORMAT",
        restart=True,
    )
    level: str = setting(
        f"{PREFIX}LOG_LEVEL",
        read.Choice(("debug", "info", "warning", "error")),
        "info",
        "How much is logged: debug, info, warning or error.",
        metavar="LEVEL",
    )
    prompts: bool = setting(
        f"{PREFIX}LOG_PROMPTS",
        read.truth,
        False,
        "Log what is asked and answered, too, whatever secrets that holds.",
    )
    requests: bool = setting(
        f"{PREFIX}LOG_REQUESTS",
        read.truth,
        False,
        "Log each HTTP request at its end: method, path, status, time, who.",
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """All of them."""

    claude: ClaudeSettings = field(default_factory=ClaudeSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    access: AccessSettings = field(default_factory=AccessSettings)
    pool: PoolSettings = field(default_factory=PoolSettings)
    turns: TurnSettings = field(default_factory=TurnSettings)
    control: ControlSettings = field(default_factory=ControlSettings)
    logs: LogSettings = field(default_factory=LogSettings)
    retention_days: int = setting(
        f"{PREFIX}RETENTION_DAYS",
        read.Number(0),
        30,
        "Conversations unused this long are forgotten, transcripts too; 0: never.",
        unit="days",
    )
    retention_count: int = setting(
        f"{PREFIX}RETENTION_COUNT",
        read.Number(0),
        0,
        "Conversations kept of each tenant, last used first; 0: all.",
    )
    state_dir: Path = setting(
        f"{PREFIX}STATE_DIR",
        read.path,
        defaults.state_dir,
        "Where the daemon keeps its database.",
        metavar="DIRECTORY",
        otherwise="$STATE_DIRECTORY, else $XDG_STATE_HOME/claude-coded, else ~/.local/state/claude-coded",
        restart=True,
    )
    models: tuple[ModelSettings, ...] = ()


@dataclass(frozen=True, slots=True)
class Spec:
    """One setting as the outside sees it."""

    variable: str
    parse: read.Parser
    help: str
    unit: str
    metavar: str
    otherwise: str
    secret: bool
    restart: bool
    default: object
    derive: Callable[[Mapping[str, str]], object] | None

    @property
    def key(self) -> str:
        """Return the key in the TOML file: `queue_size` for CLAUDE_CODED_QUEUE_SIZE."""
        return self.variable.removeprefix(PREFIX).lower()

    @property
    def flag(self) -> str:
        """Return the command-line flag: `--queue-size` for CLAUDE_CODED_QUEUE_SIZE."""
        return "--" + self.key.replace("_", "-")

    @property
    def unset(self) -> str:
        """Return what it is where nobody sets it, a value or in words; empty: nothing."""
        return self.otherwise or ("" if self.derive is not None else self.show(self.default))

    def show(self, value: object) -> str:
        """Return a value as it would be written on the outside; of a secret only that there is one."""
        match value:
            case _ if self.secret:
                return "(set)" if value else ""
            case None:
                return ""
            case bool():
                return str(value).lower()
            case int() | float() if self.unit == "ms":
                return str(round(value * 1000))
            case tuple():
                return ",".join(map(str, value))
            case _:
                return str(value)


def specs() -> Iterator[Spec]:
    """Yield every setting, in the order of the dataclasses."""
    for _, item in _walk(Settings):
        yield spec_of(item)


def sections() -> Iterator[tuple[str, list[Spec]]]:
    """Yield the settings by what they are about: a title, and those of one dataclass."""
    for item in fields(Settings):
        if "variable" not in item.metadata and item.default_factory is not MISSING:
            kind = cast("type", item.default_factory)
            yield str(kind.__doc__).removesuffix("."), [spec_of(found) for _, found in _walk(kind)]
    yield KEPT, [spec_of(item) for item in fields(Settings) if "variable" in item.metadata]


def load(
    flags: Mapping[str, str],
    environment: Mapping[str, str],
    config: Path | None = None,
) -> Settings:
    """Return the settings. `flags` are by key (`queue_size`), as text.

    Raises ConfigurationError naming the setting and where its value came from.
    """
    path, document = _read_file(config, environment)
    values = _Values(flags, environment, document)
    return Settings(
        server=_build(ServerSettings, values),
        access=_build(AccessSettings, values),
        control=_build(ControlSettings, values),
        pool=_build(PoolSettings, values),
        turns=_build(TurnSettings, values),
        claude=_build(ClaudeSettings, values),
        logs=_build(LogSettings, values),
        models=read_models(document.get(MODELS, {}), path, PERMISSION_MODES),
        **_own(Settings, values),
    )


def origins(
    flags: Mapping[str, str], environment: Mapping[str, str], config: Path | None = None
) -> Mapping[str, str]:
    """Return by variable where each setting that was given comes from. Raises ConfigurationError."""
    values = _Values(flags, environment, _read_file(config, environment)[1])
    found = ((spec.variable, values.find(spec)) for spec in specs())
    return {variable: given[1] for variable, given in found if given is not None}


@dataclass(frozen=True, slots=True)
class _Values:
    flags: Mapping[str, str]
    environment: Mapping[str, str]
    document: Mapping[str, object]

    def find(self, spec: Spec) -> tuple[str, str] | None:
        """Return a setting's text and the place that it came from."""
        if spec.key in self.flags:
            return self.flags[spec.key], spec.flag
        if self.environment.get(spec.variable, "") != "":
            return self.environment[spec.variable], spec.variable
        if spec.key in self.document:
            return _as_text(self.document[spec.key]), f"{spec.key} in the configuration file"
        return None


def _as_text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    if isinstance(value, dict):
        return ",".join(f"{name}:{item}" for name, item in value.items())
    return str(value)


def _walk(kind: type) -> Iterator[tuple[str, Field[Any]]]:
    for item in fields(kind):
        if "variable" in item.metadata:
            yield item.name, item
        elif item.default_factory is not MISSING:
            yield from _walk(cast("type", item.default_factory))


def spec_of(item: Field[Any]) -> Spec:
    """Return the setting that a dataclass field is."""
    default = item.default if item.default is not MISSING else None
    metadata = item.metadata
    return Spec(
        metadata["variable"],
        metadata["parse"],
        metadata["help"],
        metadata["unit"],
        metadata["metavar"] or read.placeholder(metadata["parse"], metadata["unit"]),
        metadata["otherwise"],
        metadata["secret"],
        metadata["restart"],
        default,
        metadata.get("derive"),
    )


def _own(kind: type, values: _Values) -> dict[str, Any]:
    """Return the values given for the fields that stand in `kind` itself."""
    found: dict[str, Any] = {}
    for item in fields(kind):
        if "variable" not in item.metadata:
            continue
        spec = spec_of(item)
        if (given := values.find(spec)) is not None:
            text, place = given
            try:
                found[item.name] = spec.parse(text)
            except ValueError as error:
                shown = "" if spec.secret else f" ({text!r})"
                raise ConfigurationError(f"{place}{shown}: {error}") from None
        elif spec.derive is not None:
            found[item.name] = spec.derive(values.environment)
    return found


def _build(kind: type[T], values: _Values) -> T:
    return kind(**_own(kind, values))


def is_there(path: Path) -> bool:
    """Return whether a file exists, as far as this user can see: the system's may be its service's alone."""
    try:
        return path.exists()
    except PermissionError:
        return False


def _read_file(config: Path | None, environment: Mapping[str, str]) -> tuple[Path, Mapping[str, object]]:
    """Return the file's path and what it says."""
    named = config or (Path(environment[f"{PREFIX}CONFIG"]) if environment.get(f"{PREFIX}CONFIG") else None)
    path = named or SYSTEM_CONFIG
    if named is None and not is_there(path):
        return path, {}
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:  # no TOML, or no UTF-8
        raise ConfigurationError(f"configuration file {path}: {error}") from None
    unknown = set(document) - {MODELS, *(spec.key for spec in specs())}
    if unknown:
        raise ConfigurationError(f"configuration file {path}: unknown settings: {', '.join(sorted(unknown))}")
    return path, document
