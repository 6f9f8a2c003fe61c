"""What turns have used, summed up by day, tenant and model: it stays when conversations are forgotten.

Days are UTC's. A turn counts when it is recorded, as one, whatever was seeded before it.
"""

import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from claude_coded.turn import Usage

SIDES: Final = ("day", "tenant", "model")
"""What can be told apart, in the order in which it is told."""


@dataclass(frozen=True, slots=True)
class Account:
    """What some turns have used. A side that is not told apart is None. `cached` is a part of `input`."""

    day: str | None
    tenant: str | None
    model: str | None
    turns: int
    input: int
    output: int
    cached: int
    cost_usd: float


def book(database: sqlite3.Connection, tenant: str, model: str, used: Iterable[Usage], now: float) -> None:
    """Add one turn, which was recorded at a time in Unix seconds, by what its records have used."""
    usage = sum(used, Usage())
    database.execute(
        """INSERT INTO accounts VALUES (date(?, 'unixepoch'), ?, ?, 1, ?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET turns = turns + 1, input = input + excluded.input,
            output = output + excluded.output, cached = cached + excluded.cached,
            cost_usd = cost_usd + excluded.cost_usd""",
        (now, tenant, model, usage.input, usage.output, usage.cache_read, usage.cost_usd),
    )


def read(database: sqlite3.Connection, by: Collection[str], since: str) -> list[Account]:
    """Return the sums, told apart by some of SIDES, from a day on (YYYY-MM-DD), in order of those."""
    columns = ", ".join(side if side in by else "NULL" for side in SIDES)
    grouped = ", ".join(side for side in SIDES if side in by) or "NULL"
    rows = database.execute(
        f"""SELECT {columns}, sum(turns), sum(input), sum(output), sum(cached), sum(cost_usd)
        FROM accounts WHERE day >= ? GROUP BY {grouped} ORDER BY {grouped}""",  # noqa: S608 - SIDES alone
        (since,),
    )
    return [Account(*row) for row in rows]
