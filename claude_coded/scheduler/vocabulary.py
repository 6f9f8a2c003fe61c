"""What the scheduler is told and what it decides: settings, events and actions, as data."""

from collections.abc import Hashable
from enum import Enum

from msgspec import Struct

from claude_coded.turn import ConversationKey


def worker_name(number: int) -> str:
    """Return what people call a worker: in logs, events and the control interface."""
    return f"w{number}"


class Phase(Enum):
    """Where the scheduler holds a worker to be; a process's own states are finer."""

    STARTING = "starting"
    SPARE = "spare"
    BUSY = "busy"
    IDLE = "idle"
    PARKED = "parked"
    STOPPING = "stopping"


class Refusal(Enum):
    """Why a ticket was rejected."""

    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    DRAINING = "draining"
    BACKING_OFF = "backing_off"
    EVICTED = "evicted"
    HELD = "held"


class StopReason(Enum):
    """Why a worker is stopped."""

    IDLE = "idle"
    CAPACITY = "capacity"
    UNSUITED = "unsuited"
    UNUSABLE = "unusable"
    FORSAKEN = "forsaken"  # the client's tools never returned anything
    EVICTED = "evicted"
    OUTDATED = "outdated"  # started with settings that have changed


class Limits(Struct, frozen=True):
    """The pool's settings. Times in seconds; an `idle_timeout` or `park_timeout` of 0 is never.

    `starts` is how many processes may load at once: more than there are CPUs make all of them late.
    """

    size: int
    spares: int = 1
    idle_timeout: float = 300.0
    queue_size: int = 64
    queue_timeout: float = 60.0
    park_timeout: float = 600.0
    starts: int = 64

    @property
    def spare_target(self) -> int:
        """Return how many spares to keep: one place at least is left to conversations."""
        return min(self.spares, self.size - 1)

    @property
    def hot_capacity(self) -> int:
        """Return how many workers may belong to conversations when nobody waits."""
        return self.size - self.spare_target


class Want(Struct, frozen=True):
    """Which worker suits a ticket.

    `fit` is what a hot worker of the conversation must have been set up with. `launch` is how a process
    for it is started; `fresh` says that any process of that launch serves, a spare included, unless that was
    prepared with another `outfit` than this. `lasting`: it looks as if more turns were to follow.
    """

    fit: Hashable
    launch: Hashable
    fresh: bool
    lasting: bool = False
    outfit: Hashable = None


# Events ------------------------------------------------------------------------------------------------


class TurnRequested(Struct, frozen=True):
    """A request asks for its conversation.

    `hold` is an operator's, who wants no worker: while that one has the conversation, others are refused.
    """

    ticket: int
    conversation: ConversationKey
    hold: bool = False


class WorkerWanted(Struct, frozen=True):
    """An admitted ticket says which worker suits it."""

    ticket: int
    want: Want


class TicketCancelled(Struct, frozen=True):
    """Who asked is gone, or cannot go on; the ticket holds no worker."""

    ticket: int


class TurnEnded(Struct, frozen=True):
    """A ticket gives its worker back; `keep` says whether the conversation can go on in it."""

    ticket: int
    keep: bool


class TurnParked(Struct, frozen=True):
    """A turn waits for its client; the worker keeps it, the conversation is free for the next request."""

    ticket: int


class WorkerReady(Struct, frozen=True):
    """A process runs."""

    worker: int


class WorkerLoaded(Struct, frozen=True):
    """A process has answered for the first time: its start takes no more of the CPU."""

    worker: int


class WorkerPrepared(Struct, frozen=True):
    """A preparation has ended; where it `failed` the process is of no use."""

    worker: int
    failed: bool = False


class WorkerStirred(Struct, frozen=True):
    """A worker works unasked (`pending`: it may start to at any time), or has settled again."""

    worker: int
    pending: bool


class WorkerExited(Struct, frozen=True):
    """A process is gone; `failed` when it never got as far as to serve."""

    worker: int
    failed: bool = False


class EvictRequested(Struct, frozen=True):
    """An operator or client wants a conversation's worker released."""

    conversation: ConversationKey


class ReleaseRequested(Struct, frozen=True):
    """An operator wants a worker stopped, at the end of its turn if one runs; who waits gets another."""

    worker: int


class DrainRequested(Struct, frozen=True):
    """Nothing new is taken; what runs goes on."""


class ResumeRequested(Struct, frozen=True):
    """New turns are taken again."""


class Configured(Struct, frozen=True):
    """The settings have changed. With `renew` no worker that was started before it serves a further turn.

    A turn that waits for its client's tools, then or later, is still answered.
    """

    limits: Limits
    spare_launch: Hashable
    renew: bool = False


class Tick(Struct, frozen=True):
    """Time has passed."""


Event = (
    TurnRequested
    | WorkerWanted
    | TicketCancelled
    | TurnEnded
    | TurnParked
    | WorkerReady
    | WorkerLoaded
    | WorkerPrepared
    | WorkerStirred
    | WorkerExited
    | EvictRequested
    | ReleaseRequested
    | DrainRequested
    | ResumeRequested
    | Configured
    | Tick
)

# Actions -----------------------------------------------------------------------------------------------


class Admit(Struct, frozen=True):
    """The ticket has its conversation; a WorkerWanted or TicketCancelled is to follow."""

    ticket: int


class Assign(Struct, frozen=True):
    """The ticket has a worker, `hot` if it has served this conversation; a TurnEnded is to follow."""

    ticket: int
    worker: int
    hot: bool


class Reject(Struct, frozen=True):
    """The ticket gets none; `retry_after` in seconds."""

    ticket: int
    reason: Refusal
    retry_after: float = 1.0


class Spawn(Struct, frozen=True):
    """Start a process; a WorkerReady or WorkerExited is to follow."""

    worker: int
    launch: Hashable


class Prepare(Struct, frozen=True):
    """Set a spare up for a conversation that is expected; a WorkerPrepared or WorkerExited is to follow.

    The spare may be assigned before that, to a ticket that wants this outfit.
    """

    worker: int
    outfit: Hashable


class Stop(Struct, frozen=True):
    """End a process; a WorkerExited is to follow."""

    worker: int
    reason: StopReason


Action = Admit | Assign | Reject | Spawn | Prepare | Stop
