"""Responses of the Responses API, as the database keeps them with their conversations."""

import sqlite3
from dataclasses import dataclass

from claude_coded.rows import load_profile
from claude_coded.turn import After, ConversationKey


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """A response of the Responses API: `body` and `input` (a list of items) are JSON.

    `turn` is the number of the turn that it ended with, None if that was not recorded. `system` is the system
    text that a response after it has besides its own instructions.
    """

    id: str
    key: ConversationKey
    turn: int | None
    system: str
    body: bytes
    input: bytes
    created_at: float


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a response stands: after which turn, and whether the session can be gone on with there.

    `system` is as in KeptResponse. `agent` is the kind of model that its conversation is had with: another
    kind's histories have other digests.
    """

    after: After
    system: str
    whole: bool
    agent: bool


def keep(database: sqlite3.Connection, kept: KeptResponse) -> None:
    """Keep a response; not where its conversation is forgotten by now."""
    database.execute(
        """INSERT OR REPLACE INTO responses
        SELECT ?, id, ?, ?, ?, ?, ? FROM conversations WHERE tenant = ? AND name = ?""",
        (
            kept.id,
            kept.turn,
            kept.system,
            kept.created_at,
            kept.body,
            kept.input,
            kept.key.tenant,
            kept.key.id,
        ),
    )


def find(database: sqlite3.Connection, tenant: str, id_: str) -> KeptResponse | None:
    """Return a response of a tenant's; None where there is none."""
    row = database.execute(
        """SELECT c.name, r.turn, r.system, r.body, r.input, r.created_at
        FROM responses r JOIN conversations c ON c.id = r.conversation WHERE r.id = ? AND c.tenant = ?""",
        (id_, tenant),
    ).fetchone()
    return KeptResponse(id_, ConversationKey(tenant, row[0]), *row[1:]) if row else None


def stand(database: sqlite3.Connection, tenant: str, id_: str) -> Stand | None:
    """Return where a response of a tenant's stands; None where there is none, or its turn is unknown."""
    row = database.execute(
        """SELECT c.name, c.profile, t.id, t.digest, r.system, t.whole FROM responses r
        JOIN conversations c ON c.id = r.conversation JOIN turns t ON t.id = r.turn
        WHERE r.id = ? AND c.tenant = ?""",
        (id_, tenant),
    ).fetchone()
    if row is None:
        return None
    name, profile, turn, digest, system, whole = row
    after = After(ConversationKey(tenant, name), turn, digest)
    return Stand(after, system, bool(whole), load_profile(profile).agent)


def forget(database: sqlite3.Connection, tenant: str, id_: str) -> bool:
    """Forget a response of a tenant's; False where there is none."""
    done = database.execute(
        """DELETE FROM responses WHERE id = ?
        AND conversation IN (SELECT id FROM conversations WHERE tenant = ?)""",
        (id_, tenant),
    )
    return done.rowcount > 0
