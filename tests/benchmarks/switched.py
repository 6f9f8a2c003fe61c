"""`python -m tests.benchmarks.switched serve`: the daemon as it is, but for signals that make it mute.

SIGUSR1 ends all that it counts, logs and tells of its turns, SIGUSR2 begins it again: one process is held
against itself. JOURNAL is the socket of the journal that it logs to.
"""

import os
import signal
from functools import partial
from typing import Final

from claude_coded import logs
from claude_coded.command_line import main
from claude_coded.course import Course
from claude_coded.events import Events
from claude_coded.http.turns import EventStream
from claude_coded.running import Run, Runs
from claude_coded.tracing import NoTracing
from claude_coded.turn import TurnRequest

JOURNAL: Final = "BENCHMARK_JOURNAL"
MUTE: Final = signal.SIGUSR1
LOUD: Final = signal.SIGUSR2


def _nothing(*_: object, **__: object) -> None:
    pass


class _Untold(Course):
    """The course of a turn of which nothing is told."""

    waits = starts = loses_worker = hears = ends = fails = is_left = _nothing


def _untold(runs: Runs, request: TurnRequest) -> Course:
    return _Untold(runs.events, request.key, 0, runs.wall, NoTracing().turn({}, "", "", 0.0))


_MUTE: Final = (
    (Runs, "course", _untold),
    (Run, "_say", _nothing),
    (logs, "note", _nothing),
    (Events, "tell", _nothing),
    (EventStream, "__anext__", EventStream._next),
)
_LOUD: Final = tuple((owner, name, getattr(owner, name)) for owner, name, _ in _MUTE)


def _switch(number: int, _: object) -> None:
    for owner, name, function in _MUTE if number == MUTE else _LOUD:
        setattr(owner, name, function)


if __name__ == "__main__":
    signal.signal(MUTE, _switch)
    signal.signal(LOUD, _switch)
    logs.JournalHandler = partial(logs.JournalHandler, path=os.environ[JOURNAL])  # type: ignore[assignment,misc]
    main()
