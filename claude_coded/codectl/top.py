"""`claude-codectl top`: the workers in a live view on the whole screen."""

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

from claude_coded.codectl import display
from claude_coded.codectl.client import ControlClient, Unreachable
from claude_coded.codectl.render import Column, cut, duration, size, table, width
from claude_coded.control import api

_COLUMNS: Final = (
    Column("WORKER"),
    Column("STATE"),
    Column("CONVERSATION"),
    Column("TURN", right=True),
    Column("TURNS", right=True),
    Column("IN", right=True),
    Column("OUT", right=True),
    Column("COST", right=True),
    Column("MEMORY", right=True),
    Column("CPU", right=True),
    Column("PROCS", right=True),
    Column("DOING"),
)
_ORDER: Final = (
    "busy",
    "interrupting",
    "parked",
    "initializing",
    "stopping",
    "idle",
    "spawning",
    "prepared",
    "spare",
)

HEAD: Final = 3
"""The lines above the table's header."""

_ENTER: Final = "\x1b[?1049h\x1b[?25l"  # the other screen, no cursor
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_LINE_END: Final = "\x1b[K\r\n"
_BELOW: Final = "\x1b[J"
_REVERSE: Final = "\x1b[7m"
_PLAIN: Final = "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Sample:
    """What the daemon said at a moment."""

    at: float
    status: api.Status
    workers: Sequence[api.Worker]

    @classmethod
    def take(cls, client: ControlClient, now: float) -> "Sample":
        """Ask the daemon. Raises ControlError."""
        return cls(now, client.status(), client.workers())


@dataclass(slots=True)
class Frames:
    """Makes frames of samples; CPU shares are differences to the sample before."""

    before: Sample | None = None
    shares: Mapping[str, float] = field(default_factory=dict)

    def frame(self, sample: Sample) -> list[str]:
        """Return the lines of a frame, as wide as they come."""
        if self.before is not None and sample.at > self.before.at:
            self.shares = shares(self.before, sample)
        self.before = sample
        ordered = sorted(sample.workers, key=_rank)
        return [*header(sample), "", *table(_COLUMNS, (self._row(it, sample.at) for it in ordered))]

    def _row(self, it: api.Worker, now: float) -> list[str]:
        share = self.shares.get(it.id)
        return [
            it.id,
            display.state(it),
            display.full_name(it.conversation, it.tenant) if it.conversation else "",
            duration(now - it.turn.started_at) if it.turn else "",
            str(it.turns or ""),
            *display.usage(it.usage),
            size(it.tree.memory),
            f"{share:.0f}%" if share is not None else "",
            str(it.tree.processes or ""),
            (it.turn.doing or "answering") if it.turn else "",
        ]


def shares(before: Sample, after: Sample) -> dict[str, float]:
    """Return how much of a core each worker used between two samples, in percent."""
    known = {it.id: it.tree.cpu_s for it in before.workers}
    elapsed = after.at - before.at
    return {
        # A process that ended took its seconds along.
        it.id: max(0.0, it.tree.cpu_s - known[it.id]) / elapsed * 100
        for it in after.workers
        if it.id in known
    }


def header(sample: Sample) -> list[str]:
    """Return what stands above the table."""
    it = sample.status
    reason = f" ({it.reason})" if it.reason else ""
    asked = f", {it.requests} waiting for permission" if it.requests else ""
    daemon = f"claude_coded {it.version}  {it.address}  up {duration(it.uptime_s)}  {it.state}{reason}"
    counts = f"queue {it.pool.queued}  hot {it.hot}, stored {it.stored}{asked}"
    return [daemon, f"workers {display.pool(it.pool)}  {counts}"]


def _rank(it: api.Worker) -> tuple[int, int]:
    place = _ORDER.index(it.state) if it.state in _ORDER else len(_ORDER)
    return place, api.worker_number(it.id) or 0


# The screen --------------------------------------------------------------------------------------------


def run(client: ControlClient, interval: float, wall: Callable[[], float]) -> None:
    """Show frames until `q` or Ctrl-C is pressed. Raises ControlError if there is no daemon at the start."""
    frames = Frames()
    frame = frames.frame(Sample.take(client, wall()))
    with contextlib.suppress(KeyboardInterrupt), Screen() as screen:
        while True:
            screen.draw(frame)
            if screen.left(interval):
                return
            try:
                frame = frames.frame(Sample.take(client, wall()))
            except Unreachable as error:
                frame = [str(error).splitlines()[0], "", "Trying again; q quits."]


class Screen:
    """The terminal, taken over while the context lasts, and then given back as it was."""

    def __init__(self) -> None:
        self._keys = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._keys)
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "Screen":
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        wanted = {signal.SIGWINCH: _noticed, signal.SIGTERM: _ended, signal.SIGTSTP: self._pause}
        for number, handler in wanted.items():
            self._handlers[number] = signal.signal(number, handler)
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        os.close(self._woken)
        os.close(self._wake)

    def draw(self, frame: Sequence[str]) -> None:
        """Show a frame, as much of it as there is room for."""
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
        shown = [cut(line, columns) for line in frame[: rows - 1]]
        if len(shown) > HEAD:
            blank = " " * (columns - width(shown[HEAD]))
            shown[HEAD] = _REVERSE + shown[HEAD] + blank + _PLAIN
        sys.stdout.write(_HOME + "".join(line + _LINE_END for line in shown) + _BELOW)
        sys.stdout.flush()

    def left(self, seconds: float) -> bool:
        """Return whether the user wishes to leave; after so long, or at once when the size has changed."""
        deadline = time.monotonic() + seconds
        while (rest := deadline - time.monotonic()) > 0:
            ready = select.select([self._keys, self._woken], [], [], rest)[0]
            if self._woken in ready:
                os.read(self._woken, 64)
                return False
            if self._keys in ready and _leaves(os.read(self._keys, 64)):
                return True
        return False

    def _take(self) -> None:
        tty.setcbreak(self._keys)
        sys.stdout.write(_ENTER)

    def _give_back(self) -> None:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        termios.tcsetattr(self._keys, termios.TCSADRAIN, self._before)

    def _pause(self, number: int, _frame: FrameType | None) -> None:
        """Give the terminal back while we are stopped (Ctrl-Z)."""
        self._give_back()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, self._pause)
        self._take()


def _leaves(typed: bytes) -> bool:
    return not typed or b"q" in typed.lower()


def _noticed(_number: int, _frame: FrameType | None) -> None:
    """Let a signal wake the wait and do nothing else."""


def _ended(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
