"""What the scheduler holds of workers and tickets."""

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum

from claude_coded.scheduler.vocabulary import Phase, StopReason, Want
from claude_coded.turn import ConversationKey


@dataclass(slots=True)
class WorkerView:
    """What the scheduler knows of a worker."""

    id: int
    launch: Hashable
    phase: Phase = Phase.STARTING
    loaded: bool = False  # it has answered once, or never will
    outfit: Hashable = None  # what it was prepared with, as a spare
    preparing: bool = False
    conversation: ConversationKey | None = None
    fit: Hashable = None
    ticket: int | None = None  # whom it serves, or, while it starts, whom it is for
    turns: int = 0
    continued: bool = False  # its conversation went on beyond a first turn, or looks like it
    since: float = 0.0
    pending: bool = False  # background work may start a turn that nobody asked for
    doomed: StopReason | None = None  # why it is to be stopped when its turn ends

    @property
    def hot(self) -> bool:
        """Return whether it belongs to a conversation."""
        return self.conversation is not None and self.phase is not Phase.STOPPING


class Stage(Enum):
    """How far a ticket has come."""

    LINED = 1  # waits for its conversation
    ADMITTED = 2
    WAITING = 3  # waits for a worker
    SERVED = 4


@dataclass(slots=True)
class Ticket:
    """A request, or an operator's hold."""

    id: int
    conversation: ConversationKey
    deadline: float
    hold: bool = False
    stage: Stage = Stage.LINED
    want: Want | None = None
    worker: int | None = None
    placed: bool = False  # there is a place for it, and it waits for the CPU only


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts of the moment."""

    workers: int
    busy: int
    idle: int
    spare: int
    parked: int
    starting: int
    queued: int
