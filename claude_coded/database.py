"""The database in SQLite: its statements and transactions. All of it runs in the store's thread."""

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from claude_coded import accounts, kept
from claude_coded.history import Conversation, Head, Span
from claude_coded.kept import KeptResponse, Stand
from claude_coded.marks import Mark
from claude_coded.migrations import MIGRATIONS
from claude_coded.rows import (
    COLUMNS,
    HEAD_COLUMNS,
    LISTED,
    Found,
    Record,
    conversations,
    dump,
    dump_messages,
    head_of,
    load_messages,
    load_spans,
)
from claude_coded.turn import ConversationKey, Message


def _branch(start: str) -> str:
    """Return how a statement begins that is about a turn, which `start` tells, and those that lead to it."""
    return f"""
        WITH RECURSIVE branch (id, parent, depth) AS (
            SELECT t.id, t.parent, 0 FROM {start}
            UNION ALL
            SELECT t.id, t.parent, depth + 1 FROM branch JOIN turns t ON t.id = branch.parent
        )
    """  # noqa: S608 - constants alone


_TO_HEAD: Final = _branch("conversations c JOIN turns t ON t.id = c.head WHERE c.tenant = ? AND c.name = ?")
_TO_TURN: Final = _branch("turns t WHERE t.id = ?")

LOOKUPS: Final = 500
"""Digests that are looked up in one query."""


class Database:
    """An open database. What is durable is on disk when a method returns; the rest survives our own death.

    Raises OSError where the file is of a newer version; all methods raise sqlite3.Error when it fails.
    """

    def __init__(self, file: Path) -> None:
        self._durable: bool | None = None
        self._connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._migrate()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def _migrate(self) -> None:
        (done,) = self._connection.execute("PRAGMA user_version").fetchone()
        if done > len(MIGRATIONS):
            raise OSError(f"its database is of a newer version ({done}) than this program knows")
        for number, script in enumerate(MIGRATIONS[done:], done + 1):
            self._connection.executescript(f"BEGIN; {script}; PRAGMA user_version = {number}; COMMIT;")

    def restore(self, marks: Iterable[Mark]) -> None:
        """Note what a former daemon could not note any more before it died."""
        with self._transaction(durable=True) as database:
            for mark in marks:
                number = self._id(ConversationKey(mark.tenant, mark.conversation))
                finished = "SELECT 1 FROM turns WHERE conversation = ? AND last_uuid = ?"
                if number is None or database.execute(finished, (number, mark.last)).fetchone():
                    continue
                statement = "SELECT spans FROM unfinished WHERE conversation = ?"
                row = database.execute(statement, (number,)).fetchone()
                spans = load_spans(row[0]) if row else ()
                if mark.last not in {span.last for span in spans}:
                    database.execute(
                        """INSERT INTO unfinished VALUES (?, ?, '[]', '[]', '')
                        ON CONFLICT (conversation) DO UPDATE SET spans = excluded.spans""",
                        (number, dump((*spans, Span(mark.first, mark.last)))),
                    )

    def _transaction(self, *, durable: bool) -> "_Transaction":
        # In WAL mode NORMAL survives the death of the process, FULL that of the machine.
        if durable is not self._durable:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        return _Transaction(self._connection)

    def _id(self, key: ConversationKey) -> int | None:
        row = self._connection.execute(
            "SELECT id FROM conversations WHERE tenant = ? AND name = ?", (key.tenant, key.id)
        ).fetchone()
        return row[0] if row else None

    def load(self, key: ConversationKey) -> Conversation | None:
        """Return a conversation; None where there is none."""
        row = self._connection.execute(f"{COLUMNS} WHERE c.tenant = ? AND c.name = ?", (key.tenant, key.id))
        return next(conversations(row), None)

    def named(self, name: str) -> list[Conversation]:
        """Return the conversations of a name, of all tenants."""
        return list(conversations(self._connection.execute(f"{LISTED} WHERE c.name = ?", (name,))))

    def all(self, tenant: str | None) -> list[Conversation]:
        """Return a tenant's conversations, or those of all, the last used first."""
        rows = self._connection.execute(
            f"{LISTED} WHERE :tenant IS NULL OR c.tenant = :tenant ORDER BY c.last_used_at DESC",
            {"tenant": tenant},
        )
        return list(conversations(rows))

    def count(self, tenant: str | None) -> int:
        """Return how many conversations there are, a tenant's or everybody's."""
        whose, given = ("", ()) if tenant is None else (" WHERE tenant = ?", (tenant,))
        statement = f"SELECT count(*) FROM conversations{whose}"  # noqa: S608
        count: int = self._connection.execute(statement, given).fetchone()[0]
        return count

    def messages(self, key: ConversationKey) -> tuple[Message, ...]:
        """Return what was said in the finished turns up to the conversation's head."""
        rows = self._connection.execute(
            f"{_TO_HEAD} SELECT t.messages FROM branch JOIN turns t USING (id) ORDER BY depth DESC",  # noqa: S608
            (key.tenant, key.id),
        )
        return tuple(message for (text,) in rows for message in load_messages(text))

    def said(self, turns: Sequence[int]) -> tuple[Message, ...]:
        """Return what was said in some turns, in their order."""
        said: list[Message] = []
        for turn in turns:
            (text,) = self._connection.execute("SELECT messages FROM turns WHERE id = ?", (turn,)).fetchone()
            said += load_messages(text)
        return tuple(said)

    def begin(self, key: ConversationKey, conversation: Conversation) -> Conversation:
        """Note that a turn is about to be asked; the rest is kept with it. Return what is kept."""
        unfinished = conversation.unfinished
        assert unfinished is not None
        fields = {
            "tenant": key.tenant,
            "name": key.id,
            "session": conversation.session,
            "lineage": conversation.lineage,
            "profile": dump(conversation.profile),
            "workspace": str(conversation.workspace),
            "system": conversation.system,
            "turns": conversation.turns,
            "created_at": conversation.created_at,
            "last_used_at": conversation.last_used_at,
            "usage": dump(conversation.usage),
            "generation": conversation.generation,
            "hint": conversation.hint,
            "ephemeral": conversation.ephemeral,
            "head": conversation.head.turn if conversation.head else None,
        }
        with self._transaction(durable=False) as database:
            database.execute(
                """INSERT INTO conversations (tenant, name, session, lineage, profile, workspace, system,
                    turns, created_at, last_used_at, usage, generation, hint, ephemeral, head)
                VALUES (:tenant, :name, :session, :lineage, :profile, :workspace, :system, :turns,
                    :created_at, :last_used_at, :usage, :generation, :hint, :ephemeral, :head)
                ON CONFLICT (tenant, name) DO UPDATE SET session = :session, lineage = :lineage,
                    profile = :profile, workspace = :workspace, system = :system,
                    last_used_at = :last_used_at, generation = :generation, hint = :hint, head = :head""",
                fields,
            )
            number = self._id(key)
            database.execute("INSERT OR IGNORE INTO sessions VALUES (?, ?)", (conversation.session, number))
            database.execute(
                "INSERT OR REPLACE INTO unfinished VALUES (?, ?, CAST(? AS TEXT), CAST(? AS TEXT), ?)",
                (
                    number,
                    dump(unfinished.spans),
                    dump_messages(unfinished.lead),
                    dump_messages(unfinished.asked),
                    unfinished.seen,
                ),
            )
        return conversation

    def give_up(self, key: ConversationKey, seen: str) -> Conversation | None:
        """Note what the client was sent of the unfinished turn."""
        with self._transaction(durable=False) as database:
            database.execute("UPDATE unfinished SET seen = ? WHERE conversation = ?", (seen, self._id(key)))
        return self.load(key)

    def finish(
        self, key: ConversationKey, records: Sequence[Record], now: float, left: Sequence[Span]
    ) -> Conversation | None:
        """Record the unfinished turn as finished, with what was seeded before it."""
        with self._transaction(durable=True) as database:
            # Before the conversation is read: what was to be asked may be long, and is needed no more.
            done = database.execute("DELETE FROM unfinished WHERE conversation = ?", (self._id(key),))
            known = self.load(key)
            if known is not None and done.rowcount:  # else purged while it ran
                self._record(known, records, now, left)
                used = (record.usage for record in records)
                accounts.book(database, key.tenant, known.profile.name, used, now)
        return self.load(key)

    def add(self, key: ConversationKey, record: Record, now: float) -> Conversation | None:
        """Record a turn that came from elsewhere."""
        with self._transaction(durable=True) as database:
            database.execute("DELETE FROM unfinished WHERE conversation = ?", (self._id(key),))
            if (known := self.load(key)) is not None:
                self._record(known, [record], now, ())
        return self.load(key)

    def _record(
        self, known: Conversation, records: Sequence[Record], now: float, left: Sequence[Span]
    ) -> None:
        """Record turns of a conversation, in a transaction."""
        number, head = self._id(known.key), known.head.turn if known.head else None
        usage = known.usage
        for record in records:
            head = self._insert(record, known, number, head, now)
            usage += record.usage
        if left:
            self._connection.execute(
                "INSERT INTO unfinished VALUES (?, ?, '[]', '[]', '')", (number, dump(tuple(left)))
            )
        self._connection.execute(
            """UPDATE conversations SET turns = turns + 1, head = ?, last_used_at = ?, usage = ?
            WHERE id = ?""",
            (head, now, dump(usage), number),
        )

    def _insert(
        self, record: Record, known: Conversation, number: int | None, parent: int | None, now: float
    ) -> int | None:
        values = (
            number,
            parent,
            known.session,
            known.lineage,
            record.digest,
            record.tools,
            record.span.first,
            record.span.last,
            record.answer,
            record.whole,
            dump_messages(record.said),
            dump(record.usage),
            now,
        )
        marks = ", ".join("?" * (len(values) - 3))
        statement = f"INSERT INTO turns VALUES (NULL, {marks}, CAST(? AS TEXT), ?, ?)"  # noqa: S608 - question marks alone
        return self._connection.execute(statement, values).lastrowid

    def find(self, digests: Sequence[bytes]) -> list[Found]:
        """Return the turns that end with the first of the histories that any turn ends with."""
        # The first alone: it is what a client that goes on asks for, nearly always.
        for n in (0, *range(1, len(digests), LOOKUPS)):
            some = digests[n : n + LOOKUPS if n else 1]
            rows = self._connection.execute(
                f"""SELECT t.digest, t.id, c.tenant, c.name, t.id = c.head, c.last_used_at, c.hint,
                c.workspace
                FROM turns t JOIN conversations c ON c.id = t.conversation
                WHERE t.digest IN ({", ".join("?" * len(some))})""",  # noqa: S608 - question marks alone
                some,
            )
            found = [
                Found(digest, turn, ConversationKey(tenant, name), bool(is_head), used, hint, Path(workspace))
                for digest, turn, tenant, name, is_head, used, hint, workspace in rows
            ]
            if found:
                first = next(digest for digest in some if any(f.digest == digest for f in found))
                return [f for f in found if f.digest == first]
        return []

    def path(self, key: ConversationKey) -> list[Head]:
        """Return the turns that lead to the conversation's head, the oldest first."""
        rows = self._connection.execute(
            f"{_TO_HEAD} SELECT {HEAD_COLUMNS} FROM branch JOIN turns t USING (id) ORDER BY depth DESC",  # noqa: S608
            (key.tenant, key.id),
        )
        return [head_of(row) for row in rows]

    def turns(self, key: ConversationKey, digests: Sequence[bytes]) -> list[Head]:
        """Return the conversation's turns, of any branch, that end with one of the histories."""
        statement = f"SELECT {HEAD_COLUMNS} FROM turns t WHERE t.conversation = ?"  # noqa: S608
        rows = self._connection.execute(statement, (self._id(key),))
        known = set(digests)
        return [head for head in map(head_of, rows) if head.digest in known]

    def outdated(self, before: float, keep: int) -> list[ConversationKey]:
        """Return what was last used before a time, is ephemeral, or is beyond so many of its tenant's.

        `keep` 0: those are not counted.
        """
        rows = self._connection.execute(
            """SELECT tenant, name FROM (
                SELECT tenant, name, last_used_at, ephemeral,
                    row_number() OVER (PARTITION BY tenant ORDER BY last_used_at DESC) AS place
                FROM conversations
            ) WHERE last_used_at < ? OR ephemeral OR place > ?""",
            (before, keep or 2**62),
        )
        return [ConversationKey(tenant, name) for tenant, name in rows]

    def sessions(self, key: ConversationKey) -> list[str]:
        """Return all sessions that the conversation has had."""
        rows = self._connection.execute("SELECT uuid FROM sessions WHERE conversation = ?", (self._id(key),))
        return [uuid for (uuid,) in rows]

    def purge(self, key: ConversationKey) -> None:
        """Forget a conversation."""
        with self._transaction(durable=True) as database:
            database.execute("DELETE FROM conversations WHERE tenant = ? AND name = ?", (key.tenant, key.id))

    def keep_response(self, response: KeptResponse) -> None:
        """Keep a response with its conversation."""
        with self._transaction(durable=True) as database:
            kept.keep(database, response)

    def response(self, tenant: str, id_: str) -> KeptResponse | None:
        """Return a response of a tenant's; None where there is none."""
        return kept.find(self._connection, tenant, id_)

    def stand(self, tenant: str, id_: str) -> Stand | None:
        """Return where a response of a tenant's stands; None where there is none, or its turn is unknown."""
        return kept.stand(self._connection, tenant, id_)

    def forget_response(self, tenant: str, id_: str) -> bool:
        """Forget a response; False where there is none."""
        with self._transaction(durable=True) as database:
            return kept.forget(database, tenant, id_)

    def said_until(self, turn: int) -> tuple[Message, ...]:
        """Return what was said up to the end of a turn."""
        rows = self._connection.execute(
            f"{_TO_TURN} SELECT t.messages FROM branch JOIN turns t USING (id) ORDER BY depth DESC",  # noqa: S608
            (turn,),
        )
        return tuple(message for (text,) in rows for message in load_messages(text))

    def used(self, by: Collection[str], since: str) -> list[accounts.Account]:
        """Return what turns have used, told apart by some sides, from a day (YYYY-MM-DD) on."""
        return accounts.read(self._connection, by, since)

    def rules(self, key: ConversationKey) -> frozenset[str]:
        """Return what is always allowed in a conversation."""
        rows = self._connection.execute("SELECT rule FROM rules WHERE conversation = ?", (self._id(key),))
        return frozenset(rule for (rule,) in rows)

    def add_rule(self, key: ConversationKey, rule: str) -> None:
        """Allow something for always."""
        with self._transaction(durable=True) as database:
            database.execute(
                "INSERT OR IGNORE INTO rules SELECT id, ? FROM conversations WHERE tenant = ? AND name = ?",
                (rule, key.tenant, key.id),
            )

    def fact(self, name: str) -> Any:  # noqa: ANN401 - any JSON
        """Return a remembered value; None where there is none."""
        row = self._connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return msgspec.json.decode(row[0]) if row else None

    def remember(self, name: str, value: object) -> None:
        """Remember a JSON value."""
        with self._transaction(durable=False) as database:
            database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, dump(value)))


class _Transaction:
    """All or nothing: sqlite3's own context manager begins none in autocommit mode."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> sqlite3.Connection:
        self._database.execute("BEGIN IMMEDIATE")
        return self._database

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._database.execute("COMMIT")
        finally:
            # Of a disk that is full, or fails, SQLite may have made an end of it by itself, or not.
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
