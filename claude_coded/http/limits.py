"""How much one key may have: requests a minute, and turns at once.

What a key has used is a number for each, so that asking costs next to nothing. A restart forgets it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from claude_coded.errors import KeyRateLimited, TooManyTurns

MINUTE: Final = 60 * 10**9
"""Nanoseconds: whole numbers, for no request is lost to rounding then."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a key stands with its rate: `remaining` requests now, all of them again after `reset` seconds.

    `wait` is 0, or in how many seconds the next request is due: this one was too much.
    """

    limit: int
    remaining: int
    reset: float
    wait: float

    def headers(self) -> Mapping[str, str]:
        """Return what OpenAI's API tells of it: https://platform.openai.com/docs/guides/rate-limits."""
        return {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": f"{self.reset:.3f}s",
        }


@dataclass(slots=True)
class Bucket:
    """A bucket of tokens, a minute's at most, which come back at an even rate (GCRA).

    All that it holds is when it will be full again, in nanoseconds of the caller's clock.
    """

    full_at: int = 0

    def take(self, rate: int, now: int) -> Standing:
        """Take a token, of so many a minute; a request that is refused takes none."""
        period = MINUTE // rate
        missing = max(self.full_at - now, 0) + period
        beyond = missing - period * rate
        if beyond > 0:
            return Standing(rate, 0, (missing - period) / 1e9, beyond / 1e9)
        self.full_at = now + missing
        return Standing(rate, -beyond // period, missing / 1e9, 0.0)


@dataclass(slots=True)
class _Use:
    """What a key has used of its rate, and how many turns of it run or wait."""

    bucket: Bucket = field(default_factory=Bucket)
    turns: int = 0


class KeyLimits:
    """What each tenant may have, the same for all; 0 is no limit.

    `now` returns nanoseconds of a clock that never goes back.
    """

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._uses: dict[str, _Use] = {}
        self._rate = 0
        self._turns = 0

    def configure(self, *, rate: int, turns: int) -> None:
        """Go on with other limits; what has been used stays so."""
        self._rate = rate
        self._turns = turns

    def ask(self, tenant: str) -> Standing | None:
        """Count a request and return how the tenant stands with it; None where there is no limit."""
        return self._use(tenant).bucket.take(self._rate, self._now()) if self._rate else None

    def enter(self, tenant: str) -> Callable[[], None]:
        """Count a turn, also while it waits; return what ends it, to be called once. Raises TooManyTurns."""
        use = self._use(tenant)
        if 0 < self._turns <= use.turns:
            raise TooManyTurns(
                f"{use.turns} turns of this key run or wait; {self._turns} are allowed at once",
                retry_after=1.0,
            )
        use.turns += 1
        return partial(self._leave, use)

    def _leave(self, use: _Use) -> None:
        use.turns -= 1

    def _use(self, tenant: str) -> _Use:
        """Return a tenant's: there are no more of them than keys."""
        use = self._uses.get(tenant)
        if use is None:
            use = self._uses[tenant] = _Use()
        return use


def check(standing: Standing) -> None:
    """Raise KeyRateLimited for a request that was too much."""
    if standing.wait:
        raise KeyRateLimited(
            f"this key may send {standing.limit} requests a minute; the next one in {standing.wait:.3f} s",
            retry_after=standing.wait,
        )
