"""What new conversations were started with of late, and from that what spares are best made."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final

from claude_coded.scheduler.vocabulary import Want

STABLE: Final = 4
CERTAIN: Final = 16
"""Equal wishes in a row from which on spares are prepared for the next such one: all but one, then all.

A prepared spare serves only such a wish. What a preparation gains is an eighth of what is lost where nothing
but prepared spares are there for another wish, which is then a cold start. Of clients that mostly do the
same or mostly do not, who did the same n times does otherwise next with a probability of about 1 / 2(n + 1):
after four that pays. With several spares one is left to whoever comes for as long as that costs little.
"""


@dataclass(slots=True)
class Wishes:
    """The demand for kinds of fresh workers, and how many of the last wishes were the same."""

    _demand: dict[Hashable, float] = field(default_factory=dict)
    _launch: Hashable = None
    _outfit: Hashable = None
    _run: int = 0

    def note(self, want: Want) -> None:
        """Take note of what a new conversation wishes for."""
        self._demand = {launch: demand / 2 for launch, demand in self._demand.items() if demand > 0.01}
        self._demand[want.launch] = self._demand.get(want.launch, 0.0) + 1.0
        if (want.launch, want.outfit) != (self._launch, self._outfit):
            self._launch, self._outfit, self._run = want.launch, want.outfit, 0
        self._run += 1

    def clear(self) -> None:
        """Forget all."""
        self._demand.clear()
        self.doubt()

    def doubt(self) -> None:
        """Begin to count anew: a preparation for these wishes has failed."""
        self._run = 0

    def launch(self, present: Hashable) -> Hashable:
        """Return what spares are started as, with a bias to stay: a change costs a start."""
        for launch, demand in self._demand.items():
            if demand > 2 * self._demand.get(present, 0.0):
                present = launch
        return present

    def outfit(self, launch: Hashable) -> Hashable:
        """Return what spares of a launch are prepared with; None where they are not."""
        return self._outfit if self._run >= STABLE and launch == self._launch else None

    def share(self, spares: int) -> int:
        """Return how many of so many spares are prepared."""
        return spares if spares == 1 or self._run >= CERTAIN else spares - 1
