"""When the daemon of `serve --reload` is started, told to end, and started again: one table.

There is one daemon at most. It ends by draining before the next one starts; what changes meanwhile is in the
next one anyway. A daemon that has ended by itself is not started before the code has changed.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final


class Phase(Enum):
    """Where things stand."""

    WAITING = "waiting"  # there is no daemon, and none is started before the code has changed
    RUNNING = "running"
    RESTARTING = "restarting"  # the daemon was told to end; another one is to follow
    STOPPING = "stopping"  # the daemon was told to end, and was the last
    ENDED = "ended"


class Event(Enum):
    """What happens."""

    CHANGED = "changed"  # the code
    EXITED = "exited"  # the daemon
    OVERDUE = "overdue"  # the daemon was told to end, and has not
    STOP = "stop"  # somebody wants the end
    HANGUP = "hangup"  # somebody wants the settings to be read again


class Action(Enum):
    """What is to be done about it."""

    START = "start"
    TERMINATE = "terminate"
    KILL = "kill"
    HANG_UP = "hang up"
    COMPLAIN = "complain"


_P, _E, _A = Phase, Event, Action

_TABLE: Final[Mapping[tuple[Phase, Event], tuple[Phase, Action | None]]] = {
    (_P.WAITING, _E.CHANGED): (_P.RUNNING, _A.START),
    (_P.WAITING, _E.STOP): (_P.ENDED, None),
    (_P.RUNNING, _E.CHANGED): (_P.RESTARTING, _A.TERMINATE),
    (_P.RUNNING, _E.EXITED): (_P.WAITING, _A.COMPLAIN),
    (_P.RUNNING, _E.STOP): (_P.STOPPING, _A.TERMINATE),
    (_P.RUNNING, _E.HANGUP): (_P.RUNNING, _A.HANG_UP),
    (_P.RESTARTING, _E.EXITED): (_P.RUNNING, _A.START),
    (_P.RESTARTING, _E.OVERDUE): (_P.RESTARTING, _A.KILL),
    (_P.RESTARTING, _E.STOP): (_P.STOPPING, None),
    (_P.STOPPING, _E.EXITED): (_P.ENDED, None),
    (_P.STOPPING, _E.OVERDUE): (_P.STOPPING, _A.KILL),
    (_P.STOPPING, _E.STOP): (_P.STOPPING, _A.KILL),  # a second time: at once
}


def decide(phase: Phase, event: Event) -> tuple[Phase, Action | None]:
    """Return where things stand after an event, and what is to be done about it."""
    return _TABLE.get((phase, event), (phase, None))
