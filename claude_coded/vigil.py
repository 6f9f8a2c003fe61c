"""Whether a process that owes an answer still lives.

A model may think, and a command may run, for an hour without a word. But Claude Code answers a question of
its host's at any time, also then (seen: within 10 ms): one that does not has stopped for good.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Vigil:
    """Looks every so many seconds, as long as something is owed.

    `excused` says that nobody listens now. What has been silent since the last look is asked; when it is
    silent to the next one too, it is given up.
    """

    seconds: float
    owes: Callable[[], bool]
    excused: Callable[[], bool]
    ask: Callable[[], object]
    give_up: Callable[[], object]
    _timer: asyncio.TimerHandle | None = None
    _heard: bool = False
    _asked: bool = False

    def begin(self) -> None:
        """Look from now on, unless that is so already."""
        if self._timer is None:
            self._heard = self._asked = False
            self._wait()

    def hear(self) -> None:
        """Take note of a sign of life."""
        self._heard = True

    def end(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self.seconds, self.look)

    def look(self) -> None:
        """Ask, give up, or wait for the next look."""
        self._timer = None
        if not self.owes():
            return
        if self._heard or self.excused():
            self._heard = self._asked = False
        elif self._asked:
            self.give_up()
            return
        else:
            self._asked = True
            self.ask()
        self._wait()
