"""Conversations on disk, called from the event loop: a database in a thread, and what is kept in memory.

A finished turn is durable (fsync) when `finish` returns. The mark of a turn that begins survives the death
of the daemon, not of the machine: there the CLI's transcript is no more durable than that.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from msgspec.structs import astuple

from claude_coded.accounts import Account
from claude_coded.database import Database
from claude_coded.errors import ConfigurationError, NotRecorded
from claude_coded.history import Conversation, Head, Span
from claude_coded.kept import KeptResponse, Stand
from claude_coded.marks import Mark, Marks
from claude_coded.remembered import SHARE, Remembered
from claude_coded.rows import Found, Record
from claude_coded.turn import After, ConversationKey, Message, Part, ToolOutcome

T = TypeVar("T")

KEPT_IN_MEMORY: Final = 1024
"""Conversations whose record is kept in memory, with the messages of unfinished turns alone."""

A_PART: Final = 100
"""Characters for which a part of a message counts beside its own."""

ROOM: Final = 1 << 26
"""Characters of those, and of responses' system texts, at most."""


class Store:
    """The daemon's database, called from the event loop. All methods raise NotRecorded when it fails."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._database: Database | None = None
        self._opened_marks: Marks | None = None
        self._lock: int | None = None
        self._known = Remembered[ConversationKey, Conversation](size_of, count=KEPT_IN_MEMORY, size=ROOM)
        self._stands = Remembered[tuple[str, str], Stand](_size_of, count=KEPT_IN_MEMORY, size=ROOM)
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
        if (used := self._known.use(key)) is not None:
            return used
        writes = self._writes
        known = await self._run(self._db.load, key)
        if writes == self._writes:  # else it may be out of date already
            self._note(key, known)
        return known

    def _note(self, key: ConversationKey, known: Conversation | None) -> None:
        if known is None:
            self._known.drop(key)
        else:
            self._known.put(key, known)

    async def _write(
        self, key: ConversationKey, function: Callable[..., Conversation | None], *args: object
    ) -> Conversation | None:
        self._writes += 1
        self._known.drop(key)
        known = await self._run(function, key, *args)
        self._note(key, known)
        return known

    async def named(self, name: str) -> list[Conversation]:
        """Return the conversations of a name, of all tenants."""
        return await self._run(self._db.named, name)

    async def all(self, tenant: str | None) -> list[Conversation]:
        """Return a tenant's conversations, or those of all, the last used first."""
        return await self._run(self._db.all, tenant)

    async def count(self, tenant: str | None = None) -> int:
        """Return how many conversations there are, a tenant's or everybody's."""
        return await self._run(self._db.count, tenant)

    async def messages(self, key: ConversationKey) -> tuple[Message, ...]:
        """Return what was said in the finished turns up to the conversation's head."""
        return await self._run(self._db.messages, key)

    async def said(self, turns: Iterable[Head]) -> tuple[Message, ...]:
        """Return what was said in some turns, in their order."""
        return await self._run(self._db.said, [turn.turn for turn in turns])

    def mark(self, key: ConversationKey, span: Span) -> bool:
        """Note what a turn that is about to be asked writes, so that this survives our own death.

        `begin` is to follow; at once, before anything is asked, where this returns False: there is no room.
        """
        return self._marks.add(_mark(key, span))

    async def begin(self, conversation: Conversation) -> None:
        """Note that the turn `conversation.unfinished` is asked; the rest is kept with it."""
        assert conversation.unfinished is not None
        await self._write(conversation.key, self._db.begin, conversation)
        self._marks.remove(_mark(conversation.key, conversation.unfinished.spans[-1]))

    async def give_up(self, key: ConversationKey, seen: str) -> None:
        """Note what the client was sent of the unfinished turn."""
        await self._write(key, self._db.give_up, seen)

    async def finish(
        self, key: ConversationKey, records: Sequence[Record], now: float, left: Sequence[Span] = ()
    ) -> int | None:
        """Record the unfinished turn as finished; the conversation then stands at it.

        Records that come before the turn's own are of what was seeded before it; each follows the other.
        `left` is what may have to be taken back from the session yet. Returns the turn's number, None if the
        conversation was forgotten meanwhile.
        """
        known = await self._write(key, self._db.finish, records, now, left)
        return known.head.turn if known is not None and known.head is not None else None

    async def add(self, key: ConversationKey, record: Record, now: float) -> None:
        """Record a turn that came from elsewhere; what an unfinished one left is then part of the session."""
        await self._write(key, self._db.add, record, now)

    async def find(self, digests: Sequence[bytes]) -> list[Found]:
        """Return the turns that end with the first of the histories that any turn ends with."""
        return await self._run(self._db.find, digests)

    def standing(self, digest: bytes, keys: Iterable[ConversationKey]) -> list[Found]:
        """Return the heads that end with a history, of those of the conversations that are in memory."""
        known = filter(None, map(self._known.look, keys))
        return [
            Found(digest, one.head.turn, one.key, True, one.last_used_at, one.hint, one.workspace)
            for one in known
            if one.head is not None and one.head.digest == digest
        ]

    async def path(self, key: ConversationKey) -> list[Head]:
        """Return the turns that lead to the conversation's head, the oldest first."""
        return await self._run(self._db.path, key)

    async def turns(self, key: ConversationKey, digests: Sequence[bytes]) -> list[Head]:
        """Return the conversation's turns, of any branch, that end with one of the histories."""
        return await self._run(self._db.turns, key, digests)

    async def sessions(self, key: ConversationKey) -> list[str]:
        """Return all sessions that the conversation has had."""
        return await self._run(self._db.sessions, key)

    async def outdated(self, before: float, keep: int) -> list[ConversationKey]:
        """Return the conversations that were last used before a time (Unix seconds), and all ephemeral ones.

        With `keep` also a tenant's beyond so many, counted from the last used: nobody's push out another's.
        """
        return await self._run(self._db.outdated, before, keep)

    async def purge(self, key: ConversationKey) -> Conversation | None:
        """Forget a conversation and return what it was."""
        known = await self.load(key)
        for name, stand in self._stands:
            if stand.after.key == key:
                self._stands.drop(name)
        await self._write(key, self._db.purge)
        return known

    # Responses -----------------------------------------------------------------------------------------

    async def keep_response(self, response: KeptResponse) -> None:
        """Keep a response with its conversation; not where that is forgotten by now."""
        await self._run(self._db.keep_response, response)
        known = self._known.look(response.key)
        if known is not None and known.head is not None and known.head.turn == response.turn:
            after = After(response.key, known.head.turn, known.head.digest)
            stand = Stand(after, response.system, known.head.whole, known.profile.agent)
            self._stands.put((response.key.tenant, response.id), stand)

    async def response(self, tenant: str, id_: str) -> KeptResponse | None:
        """Return a response of a tenant's; None where there is none."""
        return await self._run(self._db.response, tenant, id_)

    async def stand(self, tenant: str, id_: str) -> Stand | None:
        """Return where a response of a tenant's stands; None where there is none, or its turn is unknown."""
        known = self._stands.look((tenant, id_))
        return known if known is not None else await self._run(self._db.stand, tenant, id_)

    async def forget_response(self, tenant: str, id_: str) -> bool:
        """Forget a response, not what was said; False where there is none."""
        self._stands.drop((tenant, id_))
        return await self._run(self._db.forget_response, tenant, id_)

    async def said_until(self, turn: int) -> tuple[Message, ...]:
        """Return what was said up to the end of a turn."""
        return await self._run(self._db.said_until, turn)

    # What was used, what operators allow, and facts ----------------------------------------------------

    async def used(self, by: Collection[str], since: str) -> list[Account]:
        """Return what turns have used, told apart by day, tenant or model, from a day (YYYY-MM-DD) on."""
        return await self._run(self._db.used, by, since)

    async def rules(self, key: ConversationKey) -> frozenset[str]:
        """Return what is always allowed in a conversation."""
        return await self._run(self._db.rules, key)

    async def add_rule(self, key: ConversationKey, rule: str) -> None:
        """Allow something for always, for as long as the conversation is kept."""
        await self._run(self._db.add_rule, key, rule)

    async def fact(self, name: str) -> Any:  # noqa: ANN401 - any JSON
        """Return a remembered value; None where there is none."""
        return await self._run(self._db.fact, name)

    async def remember(self, name: str, value: object) -> None:
        """Remember a JSON value."""
        await self._run(self._db.remember, name, value)

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
    def _db(self) -> Database:
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
        self._database = Database(file)
        self._opened_marks = Marks(self._directory / "marks")
        self._database.restore(self._opened_marks.left)
        self._opened_marks.clear()

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
        if self._opened_marks is not None:
            self._opened_marks.close()
        if self._lock is not None:
            os.close(self._lock)


def _mark(key: ConversationKey, span: Span) -> Mark:
    return Mark(key.tenant, key.id, span.first, span.last)


def size_of(known: Conversation) -> int:
    """Return about how many characters a conversation's record has; no more is counted than can be kept."""
    size, unfinished = len(known.system), known.unfinished
    for message in (*unfinished.lead, *unfinished.asked) if unfinished is not None else ():
        size += sum(map(_part_size, message.parts))
        if size > ROOM // SHARE:
            break
    return size


def _part_size(part: Part) -> int:
    if isinstance(part, ToolOutcome):
        return A_PART + sum(map(_part_size, part.parts))
    return A_PART + sum(len(value) for value in astuple(part) if isinstance(value, str))


def _size_of(stand: Stand) -> int:
    return len(stand.system)
