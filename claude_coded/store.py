"""Conversations on disk: SQLite, one thread, numbered migrations.

A finished turn is durable (fsync) when `finish` returns. The mark of a turn that begins survives the death
of the daemon, not of the machine: there the CLI's transcript is no more durable than that.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from claude_coded import accounts, kept
from claude_coded.errors import ConfigurationError, NotRecorded
from claude_coded.history import Conversation, Head, Span
from claude_coded.kept import KeptResponse, Stand
from claude_coded.marks import Mark, Marks
from claude_coded.migrations import MIGRATIONS
from claude_coded.rows import (
    COLUMNS,
    HEAD_COLUMNS,
    Found,
    Record,
    conversations,
    dump,
    dump_messages,
    head_of,
    load_messages,
    load_spans,
)
from claude_coded.turn import After, ConversationKey, Message

T = TypeVar("T")

KEPT_IN_MEMORY: Final = 1024
"""Conversations whose record (not their messages) is kept in memory."""

_BRANCH: Final = """
    WITH RECURSIVE branch (id, parent, depth) AS (
        SELECT t.id, t.parent, 0 FROM conversations c JOIN turns t ON t.id = c.head
        WHERE c.tenant = ? AND c.name = ?
        UNION ALL
        SELECT t.id, t.parent, depth + 1 FROM branch JOIN turns t ON t.id = branch.parent
    )
"""
"""The turns that lead to a conversation's head."""

LOOKUPS: Final = 500
"""Digests that are looked up in one query."""


class Store:
    """The daemon's database, called from the event loop. All methods raise NotRecorded when it fails."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._database: sqlite3.Connection | None = None
        self._durable: bool | None = None
        self._opened_marks: Marks | None = None
        self._lock: int | None = None
        self._known: OrderedDict[ConversationKey, Conversation] = OrderedDict()
        self._stands: OrderedDict[tuple[str, str], Stand] = OrderedDict()
        self._writes = 0

    async def open(self) -> None:
        """Open or create the database. Raises ConfigurationError that says what is in the way."""
        try:
            await self._run(self._open)
        except (OSError, NotRecorded) as error:
            await self.close()
            raise ConfigurationError(f"state directory {self._directory}: {error}") from None

    async def close(self) -> None:
        """Close the database, after everything that was asked before."""
        await self._run(self._close)
        self._thread.shutdown()

    async def load(self, key: ConversationKey) -> Conversation | None:
        """Return a conversation; the last used ones are kept in memory."""
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        writes = self._writes
        known = await self._run(self._load, key)
        if writes == self._writes:  # else it may be out of date already
            self._note(key, known)
        return known

    def _note(self, key: ConversationKey, known: Conversation | None) -> None:
        if known is None:
            self._known.pop(key, None)
            return
        self._known[key] = known
        self._known.move_to_end(key)
        if len(self._known) > KEPT_IN_MEMORY:
            self._known.popitem(last=False)

    async def _write(
        self, key: ConversationKey, function: Callable[..., Conversation | None], *args: object
    ) -> Conversation | None:
        self._writes += 1
        self._known.pop(key, None)
        known = await self._run(function, key, *args)
        self._note(key, known)
        return known

    async def named(self, name: str) -> list[Conversation]:
        """Return the conversations of a name, of all tenants."""
        return await self._run(self._named, name)

    async def all(self, tenant: str | None) -> list[Conversation]:
        """Return a tenant's conversations, or those of all, the last used first."""
        return await self._run(self._all, tenant)

    async def count(self, tenant: str | None = None) -> int:
        """Return how many conversations there are, a tenant's or everybody's."""
        return await self._run(self._count, tenant)

    async def messages(self, key: ConversationKey) -> tuple[Message, ...]:
        """Return what was said in the finished turns up to the conversation's head."""
        return await self._run(self._messages, key)

    async def said(self, turns: Iterable[Head]) -> tuple[Message, ...]:
        """Return what was said in some turns, in their order."""
        return await self._run(self._said, [turn.turn for turn in turns])

    async def begin(self, conversation: Conversation) -> None:
        """Note that the turn `conversation.unfinished` is about to be asked; the rest is kept with it."""
        await (await self.note(conversation))

    async def note(self, conversation: Conversation) -> Coroutine[Any, Any, None]:
        """Do as `begin`, but return when a part of it survives our own death: what the session may hold.

        What is returned does the rest, which has to follow.
        """
        assert conversation.unfinished is not None
        span = conversation.unfinished.spans[-1]
        mark = Mark(conversation.key.tenant, conversation.key.id, span.first, span.last)
        rest = self._note_begun(conversation, mark)
        if self._marks.add(mark):
            return rest
        await asyncio.shield(rest)
        return _nothing()

    async def _note_begun(self, conversation: Conversation, mark: Mark) -> None:
        await self._write(conversation.key, self._begin, conversation)
        self._marks.remove(mark)

    async def give_up(self, key: ConversationKey, seen: str) -> None:
        """Note what the client was sent of the unfinished turn."""
        await self._write(key, self._give_up, seen)

    async def finish(
        self, key: ConversationKey, records: Sequence[Record], now: float, left: Sequence[Span] = ()
    ) -> int | None:
        """Record the unfinished turn as finished; the conversation then stands at it.

        Records that come before the turn's own are of what was seeded before it; each follows the other.
        `left` is what may have to be taken back from the session yet. Returns the turn's number, None if the
        conversation was forgotten meanwhile.
        """
        known = await self._write(key, self._finish, records, now, left)
        return known.head.turn if known is not None and known.head is not None else None

    async def add(self, key: ConversationKey, record: Record, now: float) -> None:
        """Record a turn that came from elsewhere; what an unfinished one left is then part of the session."""
        await self._write(key, self._add, record, now)

    async def find(self, digests: Sequence[bytes]) -> list[Found]:
        """Return the turns that end with the first of the histories that any turn ends with."""
        return await self._run(self._find, digests)

    def standing(self, digest: bytes, keys: Iterable[ConversationKey]) -> list[Found]:
        """Return the heads that end with a history, of those of the conversations that are in memory."""
        known = filter(None, map(self._known.get, keys))
        return [
            Found(digest, one.head.turn, one.key, True, one.last_used_at, one.hint, one.workspace)
            for one in known
            if one.head is not None and one.head.digest == digest
        ]

    async def path(self, key: ConversationKey) -> list[Head]:
        """Return the turns that lead to the conversation's head, the oldest first."""
        return await self._run(self._path, key)

    async def turns(self, key: ConversationKey, digests: Sequence[bytes]) -> list[Head]:
        """Return the conversation's turns, of any branch, that end with one of the histories."""
        return await self._run(self._turns, key, digests)

    async def sessions(self, key: ConversationKey) -> list[str]:
        """Return all sessions that the conversation has had."""
        return await self._run(self._sessions, key)

    async def outdated(self, before: float, keep: int) -> list[ConversationKey]:
        """Return the conversations that were last used before a time (Unix seconds), and all ephemeral ones.

        With `keep` also a tenant's beyond so many, counted from the last used: nobody's push out another's.
        """
        return await self._run(self._outdated, before, keep)

    async def purge(self, key: ConversationKey) -> Conversation | None:
        """Forget a conversation and return what it was."""
        known = await self.load(key)
        for name in [name for name, stand in self._stands.items() if stand.after.key == key]:
            del self._stands[name]
        await self._write(key, self._purge)
        return known

    # Responses -----------------------------------------------------------------------------------------

    async def keep_response(self, response: KeptResponse) -> None:
        """Keep a response with its conversation; not where that is forgotten by now."""
        await self._run(self._keep_response, response)
        known = self._known.get(response.key)
        if known is not None and known.head is not None and known.head.turn == response.turn:
            after = After(response.key, known.head.turn, known.head.digest)
            stand = Stand(after, response.system, known.head.whole, known.profile.agent)
            self._stands[response.key.tenant, response.id] = stand
            if len(self._stands) > KEPT_IN_MEMORY:
                self._stands.popitem(last=False)

    async def response(self, tenant: str, id_: str) -> KeptResponse | None:
        """Return a response of a tenant's; None where there is none."""
        return await self._run(lambda: kept.find(self._db, tenant, id_))

    async def stand(self, tenant: str, id_: str) -> Stand | None:
        """Return where a response of a tenant's stands; None where there is none, or its turn is unknown."""
        known = self._stands.get((tenant, id_))
        return known if known is not None else await self._run(lambda: kept.stand(self._db, tenant, id_))

    async def forget_response(self, tenant: str, id_: str) -> bool:
        """Forget a response, not what was said; False where there is none."""
        self._stands.pop((tenant, id_), None)
        return await self._run(self._forget_response, tenant, id_)

    async def said_until(self, turn: int) -> tuple[Message, ...]:
        """Return what was said up to the end of a turn."""
        return await self._run(self._said_until, turn)

    # What was used, what operators allow, and facts ----------------------------------------------------

    async def used(self, by: Collection[str], since: str) -> list[accounts.Account]:
        """Return what turns have used, told apart by day, tenant or model, from a day (YYYY-MM-DD) on."""
        return await self._run(lambda: accounts.read(self._db, by, since))

    async def rules(self, key: ConversationKey) -> frozenset[str]:
        """Return what is always allowed in a conversation."""
        return await self._run(self._rules, key)

    async def add_rule(self, key: ConversationKey, rule: str) -> None:
        """Allow something for always, for as long as the conversation is kept."""
        await self._run(self._add_rule, key, rule)

    async def fact(self, name: str) -> Any:  # noqa: ANN401 - any JSON
        """Return a remembered value; None where there is none."""
        return await self._run(self._fact, name)

    async def remember(self, name: str, value: object) -> None:
        """Remember a JSON value."""
        await self._run(self._remember, name, value)

    # In the store's thread -----------------------------------------------------------------------------

    async def _run(self, function: Callable[..., T], *args: object) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)
        except sqlite3.Error as error:
            raise NotRecorded(f"the daemon's database failed: {error}") from error

    @property
    def _marks(self) -> Marks:
        assert self._opened_marks is not None, "the store is not open"
        return self._opened_marks

    @property
    def _db(self) -> sqlite3.Connection:
        assert self._database is not None, "the store is not open"
        return self._database

    def _open(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError("another claude-coded uses it") from None
        file = self._directory / "claude-coded.db"
        file.touch(mode=0o600)
        self._database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA foreign_keys = ON")
        self._migrate()
        self._opened_marks = Marks(self._directory / "marks")
        self._restore(self._opened_marks)

    def _migrate(self) -> None:
        (done,) = self._db.execute("PRAGMA user_version").fetchone()
        if done > len(MIGRATIONS):
            raise OSError(f"its database is of a newer version ({done}) than this program knows")
        for number, script in enumerate(MIGRATIONS[done:], done + 1):
            self._db.executescript(f"BEGIN; {script}; PRAGMA user_version = {number}; COMMIT;")

    def _restore(self, marks: Marks) -> None:
        """Note what a former daemon could not note any more before it died."""
        with self._transaction(durable=True) as database:
            for mark in marks.left:
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
        marks.clear()

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
        if self._opened_marks is not None:
            self._opened_marks.close()
        if self._lock is not None:
            os.close(self._lock)

    def _transaction(self, *, durable: bool) -> "_Transaction":
        # In WAL mode NORMAL survives the death of the process, FULL that of the machine.
        if durable is not self._durable:
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        return _Transaction(self._db)

    def _id(self, key: ConversationKey) -> int | None:
        row = self._db.execute(
            "SELECT id FROM conversations WHERE tenant = ? AND name = ?", (key.tenant, key.id)
        ).fetchone()
        return row[0] if row else None

    def _load(self, key: ConversationKey) -> Conversation | None:
        row = self._db.execute(f"{COLUMNS} WHERE c.tenant = ? AND c.name = ?", (key.tenant, key.id))
        return next(conversations(row), None)

    def _named(self, name: str) -> list[Conversation]:
        return list(conversations(self._db.execute(f"{COLUMNS} WHERE c.name = ?", (name,))))

    def _all(self, tenant: str | None) -> list[Conversation]:
        rows = self._db.execute(
            f"{COLUMNS} WHERE ?1 IS NULL OR c.tenant = ?1 ORDER BY c.last_used_at DESC", (tenant,)
        )
        return list(conversations(rows))

    def _count(self, tenant: str | None) -> int:
        whose, given = ("", ()) if tenant is None else (" WHERE tenant = ?", (tenant,))
        statement = f"SELECT count(*) FROM conversations{whose}"  # noqa: S608
        count: int = self._db.execute(statement, given).fetchone()[0]
        return count

    def _messages(self, key: ConversationKey) -> tuple[Message, ...]:
        rows = self._db.execute(
            f"{_BRANCH} SELECT t.messages FROM branch JOIN turns t USING (id) ORDER BY depth DESC",  # noqa: S608
            (key.tenant, key.id),
        )
        return tuple(message for (text,) in rows for message in load_messages(text))

    def _said(self, turns: Sequence[int]) -> tuple[Message, ...]:
        said: list[Message] = []
        for turn in turns:
            (text,) = self._db.execute("SELECT messages FROM turns WHERE id = ?", (turn,)).fetchone()
            said += load_messages(text)
        return tuple(said)

    def _begin(self, key: ConversationKey, conversation: Conversation) -> Conversation:
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

    def _give_up(self, key: ConversationKey, seen: str) -> Conversation | None:
        with self._transaction(durable=False) as database:
            database.execute("UPDATE unfinished SET seen = ? WHERE conversation = ?", (seen, self._id(key)))
        return self._load(key)

    def _finish(
        self, key: ConversationKey, records: Sequence[Record], now: float, left: Sequence[Span]
    ) -> Conversation | None:
        with self._transaction(durable=True) as database:
            # Before the conversation is read: what was to be asked may be long, and is needed no more.
            done = database.execute("DELETE FROM unfinished WHERE conversation = ?", (self._id(key),))
            known = self._load(key)
            if known is not None and done.rowcount:  # else purged while it ran
                self._record(known, records, now, left)
                used = (record.usage for record in records)
                accounts.book(database, key.tenant, known.profile.name, used, now)
        return self._load(key)

    def _add(self, key: ConversationKey, record: Record, now: float) -> Conversation | None:
        with self._transaction(durable=True) as database:
            database.execute("DELETE FROM unfinished WHERE conversation = ?", (self._id(key),))
            if (known := self._load(key)) is not None:
                self._record(known, [record], now, ())
        return self._load(key)

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
            self._db.execute(
                "INSERT INTO unfinished VALUES (?, ?, '[]', '[]', '')", (number, dump(tuple(left)))
            )
        self._db.execute(
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
        return self._db.execute(statement, values).lastrowid

    def _find(self, digests: Sequence[bytes]) -> list[Found]:
        # The first alone: it is what a client that goes on asks for, nearly always.
        for some in (digests[:1], *(digests[n : n + LOOKUPS] for n in range(1, len(digests), LOOKUPS))):
            rows = self._db.execute(
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

    def _path(self, key: ConversationKey) -> list[Head]:
        rows = self._db.execute(
            f"{_BRANCH} SELECT {HEAD_COLUMNS} FROM branch JOIN turns t USING (id) ORDER BY depth DESC",  # noqa: S608
            (key.tenant, key.id),
        )
        return [head_of(row) for row in rows]

    def _turns(self, key: ConversationKey, digests: Sequence[bytes]) -> list[Head]:
        statement = f"SELECT {HEAD_COLUMNS} FROM turns t WHERE t.conversation = ?"  # noqa: S608
        rows = self._db.execute(statement, (self._id(key),))
        known = set(digests)
        return [head for head in map(head_of, rows) if head.digest in known]

    def _outdated(self, before: float, keep: int) -> list[ConversationKey]:
        rows = self._db.execute(
            """SELECT tenant, name FROM (
                SELECT tenant, name, last_used_at, ephemeral,
                    row_number() OVER (PARTITION BY tenant ORDER BY last_used_at DESC) AS place
                FROM conversations
            ) WHERE last_used_at < ? OR ephemeral OR place > ?""",
            (before, keep or 2**62),
        )
        return [ConversationKey(tenant, name) for tenant, name in rows]

    def _sessions(self, key: ConversationKey) -> list[str]:
        rows = self._db.execute("SELECT uuid FROM sessions WHERE conversation = ?", (self._id(key),))
        return [uuid for (uuid,) in rows]

    def _purge(self, key: ConversationKey) -> None:
        with self._transaction(durable=True) as database:
            database.execute("DELETE FROM conversations WHERE tenant = ? AND name = ?", (key.tenant, key.id))

    def _keep_response(self, response: KeptResponse) -> None:
        with self._transaction(durable=True) as database:
            kept.keep(database, response)

    def _forget_response(self, tenant: str, id_: str) -> bool:
        with self._transaction(durable=True) as database:
            return kept.forget(database, tenant, id_)

    def _said_until(self, turn: int) -> tuple[Message, ...]:
        rows = self._db.execute(
            """WITH RECURSIVE branch (id, parent, depth) AS (
                SELECT id, parent, 0 FROM turns WHERE id = ?
                UNION ALL
                SELECT t.id, t.parent, depth + 1 FROM branch JOIN turns t ON t.id = branch.parent
            )
            SELECT t.messages FROM branch JOIN turns t USING (id) ORDER BY depth DESC""",
            (turn,),
        )
        return tuple(message for (text,) in rows for message in load_messages(text))

    def _rules(self, key: ConversationKey) -> frozenset[str]:
        rows = self._db.execute("SELECT rule FROM rules WHERE conversation = ?", (self._id(key),))
        return frozenset(rule for (rule,) in rows)

    def _add_rule(self, key: ConversationKey, rule: str) -> None:
        with self._transaction(durable=True) as database:
            database.execute(
                "INSERT OR IGNORE INTO rules SELECT id, ? FROM conversations WHERE tenant = ? AND name = ?",
                (rule, key.tenant, key.id),
            )

    def _fact(self, name: str) -> Any:  # noqa: ANN401 - any JSON
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return msgspec.json.decode(row[0]) if row else None

    def _remember(self, name: str, value: object) -> None:
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


async def _nothing() -> None:
    """Do nothing: it is done."""
