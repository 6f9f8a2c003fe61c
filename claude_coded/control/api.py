"""What the two ends of the control socket share: routes, types and error kinds. Pure.

JSON over HTTP/1.1 on a Unix socket, version 1: fields may be added, none is renamed or taken away. Times are
Unix seconds, durations seconds. Errors are `{"error": {"kind", "message"}}`.
"""

from typing import Any, Final

from msgspec import Struct, field

VERSION: Final = "v1"
DIGITS: Final = 18
"""Of the longest number that is read: of a worker, of an event."""
HOST: Final = "localhost"
"""The only Host that the socket answers to: a web page that reached it would name another."""


class Route:
    """The paths. `{id}` is a conversation's, a worker's or a permission request's."""

    PAGE: Final = "/"
    STATUS: Final = "/v1/status"
    WORKERS: Final = "/v1/workers"
    WORKER: Final = "/v1/workers/{id}"
    CONVERSATIONS: Final = "/v1/conversations"
    CONVERSATION: Final = "/v1/conversations/{id}"
    INTERRUPT: Final = "/v1/conversations/{id}/interrupt"
    ATTACH: Final = "/v1/conversations/{id}/attach"
    DRAIN: Final = "/v1/drain"
    RESUME: Final = "/v1/resume"
    RELOAD: Final = "/v1/reload"
    READY: Final = "/v1/ready"
    EVENTS: Final = "/v1/events"
    USAGE: Final = "/v1/usage"
    REQUESTS: Final = "/v1/requests"
    REQUEST: Final = "/v1/requests/{id}"
    CONFIG: Final = "/v1/config"
    LOG_LEVEL: Final = "/v1/log-level"


# Errors ------------------------------------------------------------------------------------------------


class Kind:
    """What went wrong, for programs."""

    INVALID: Final = "invalid"  # 400: the request does not fit this API
    FORBIDDEN: Final = "forbidden"  # 403: an Origin, a Referer, a foreign Host
    NOT_FOUND: Final = "not_found"  # 404
    METHOD: Final = "method_not_allowed"  # 405
    AMBIGUOUS: Final = "ambiguous"  # 409: several tenants have a conversation of this name
    REFUSED: Final = "refused"  # 409: what was asked cannot be done as things stand
    CONFIGURATION: Final = "configuration"  # 409: a new configuration is bad; the old one stays
    INTERNAL: Final = "internal"  # 500
    UNREACHABLE: Final = "unreachable"  # 502, of `claude-codectl web`: no daemon answers


class Fault(Struct, frozen=True):
    """An error. `tenants` are those to choose from where a name is ambiguous."""

    kind: str
    message: str
    tenants: list[str] = field(default_factory=list)


class Failure(Struct, frozen=True):
    """The body of every response that is an error."""

    error: Fault


# What is shown -----------------------------------------------------------------------------------------


class PoolCounts(Struct, frozen=True):
    """Counts of the moment."""

    size: int
    workers: int
    busy: int
    idle: int
    spare: int
    parked: int
    starting: int
    queued: int


class Status(Struct, frozen=True):
    """`GET /v1/status`. `state` is ok, starting, stopping, draining or, for a `reason`, unhealthy."""

    state: str
    version: str
    claude: str
    pid: int
    address: str
    socket: str
    uptime_s: float
    started_at: float
    pool: PoolCounts
    hot: int
    stored: int
    requests: int  # permission requests that wait for an answer
    log_level: str
    workspace: str
    reason: str | None = None


class Tokens(Struct, frozen=True):
    """What turns used. `input` counts all that the model read, from its cache too."""

    input: int = 0
    output: int = 0
    cached: int = 0
    cost_usd: float = 0.0


class Tree(Struct, frozen=True):
    """A worker's process and all below it: resident bytes, CPU seconds so far, how many processes."""

    memory: int = 0
    cpu_s: float = 0.0
    processes: int = 0


class Turn(Struct, frozen=True):
    """The turn that runs. `doing` names the tool that Claude uses at the moment, or is empty."""

    started_at: float
    model: str
    output: int = 0  # tokens
    doing: str = ""
    id: str = ""  # as events have it


class Worker(Struct, frozen=True):
    """A worker. `state` is the process's own (`spare`, `busy` …); a spare has no conversation yet."""

    id: str
    state: str
    pid: int | None
    since: float
    turns: int
    session: str
    workspace: str
    tenant: str | None = None
    conversation: str | None = None
    model: str | None = None
    pending: bool = False  # it works, or may start to, with nobody asking
    turn: Turn | None = None
    usage: Tokens = Tokens()  # of its conversation
    tree: Tree = Tree()


class Step(Struct, frozen=True):
    """One step of a worker's story."""

    at: float
    state: str
    why: str


class WorkerStory(Struct, frozen=True):
    """`GET /v1/workers/{id}`: a worker, how it came to where it is, and the last that its CLI complained."""

    worker: Worker
    story: list[Step]
    stderr: str


class Conversation(Struct, frozen=True):
    """A conversation. `state` is busy, idle, parked, cold or attached."""

    id: str
    tenant: str
    state: str
    model: str
    created_at: float
    last_used_at: float
    turns: int
    workspace: str
    session: str
    usage: Tokens
    worker: str | None = None


class Shown(Struct, frozen=True):
    """`GET /v1/conversations/{id}`: a conversation, and its worker's story if it has one."""

    conversation: Conversation
    messages: int
    worker: WorkerStory | None = None


class Usage(Struct, frozen=True):
    """What turns have used: `GET /v1/usage?by=day,tenant,model&since=YYYY-MM-DD` lists the sums.

    A side that they are not told apart by is null. Days are UTC's.
    """

    day: str | None
    tenant: str | None
    model: str | None
    turns: int
    tokens: Tokens


class Permission(Struct, frozen=True):
    """A permission request that waits. `always` is what "always" would allow, in words."""

    id: str
    tenant: str
    conversation: str
    worker: str
    tool: str
    summary: str
    input: dict[str, Any]
    asked_at: float
    expires_at: float
    always: list[str] = field(default_factory=list)


class Setting(Struct, frozen=True):
    """A setting in force: its variable, value (secrets are not shown), where it came from.

    `restart` says that a change of it needs a restart.
    """

    name: str
    value: str
    source: str
    restart: bool


class Event(Struct, frozen=True):
    """Something that happened. Numbers have no gaps; `missed` counts the events lost before this one."""

    number: int
    at: float
    kind: str
    fields: dict[str, Any]
    missed: int = 0


# What is answered --------------------------------------------------------------------------------------


class Evicted(Struct, frozen=True):
    """`DELETE` of a worker or of conversations: the ids of what was released."""

    evicted: list[str]


class Interrupted(Struct, frozen=True):
    """`POST …/interrupt`: whether a turn ran."""

    interrupted: bool


class Drain(Struct, frozen=True):
    """`POST /v1/drain?wait=SECONDS`, `POST /v1/resume`: answered when no turn runs, or after the wait."""

    draining: bool
    running: int
    parked: int


class Reloaded(Struct, frozen=True):
    """`POST /v1/reload`: the variables that changed, and those whose change needs a restart."""

    changed: list[str]
    restart: list[str]


class Ready(Struct, frozen=True):
    """`GET /v1/ready`: 200 when it is, else 503."""

    ready: bool
    reason: str = ""


class Attached(Struct, frozen=True):
    """The first event of `POST /v1/conversations/{id}/attach`: what to run, where, as whom.

    The conversation is held for as long as the response's connection lives.
    """

    command: list[str]
    directory: str
    environment: dict[str, str]
    user: str
    uid: int
    session: str


class Decision(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/requests/{id}`. `decision` is allow or deny; Claude is told the message."""

    decision: str
    message: str = ""
    always: bool = False


class LogLevel(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `PUT /v1/log-level`, and its answer: debug, info, warning or error."""

    level: str


def worker_number(text: str) -> int | None:
    """Return the number of a worker's id, which is written `w7`; None if it is none."""
    digits = text.removeprefix("w")
    known = digits != text and digits.isascii() and digits.isdigit() and len(digits) <= DIGITS
    return int(digits) if known else None
