"""Rows of the database, and what they are: conversations, turns and where they stand, JSON in columns."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from claude_coded.history import Conversation, Head, Span, Unfinished
from claude_coded.turn import ConversationKey, Message, Profile, Usage

COLUMNS: Final = """
    SELECT c.tenant, c.name, c.session, c.lineage, c.profile, c.workspace, c.system, c.turns, c.created_at,
        c.last_used_at, c.usage, c.generation, c.hint, c.ephemeral, u.spans, u.lead, u.asked, u.seen,
        h.id, h.digest, h.tools, h.session, h.lineage, h.first_uuid, h.last_uuid, h.answer_uuid,
        h.whole
    FROM conversations c
    LEFT JOIN unfinished u ON u.conversation = c.id
    LEFT JOIN turns h ON h.id = c.head
"""
"""The columns of a conversation, as `conversations` reads them."""

LISTED: Final = COLUMNS.replace("c.system", "''").replace("u.spans, u.lead, u.asked", "NULL, NULL, NULL")
"""The same without what may be long: for conversations that are listed, and not gone on with."""

HEAD_COLUMNS: Final = """
    t.id, t.digest, t.tools, t.session, t.lineage, t.first_uuid, t.last_uuid, t.answer_uuid, t.whole
"""
"""The columns of a turn `t`, as `head_of` reads them."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a finished turn leaves. `said` is all that it adds to the conversation, the answer included."""

    said: tuple[Message, ...]
    usage: Usage
    span: Span
    answer: str
    digest: bytes
    tools: int
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Found:
    """A turn that ends with a history that was looked for."""

    digest: bytes
    turn: int
    key: ConversationKey
    is_head: bool
    last_used_at: float
    hint: str
    workspace: Path


PIECE: Final = 256
"""Messages that are encoded in one call."""

IN_ONE_GO: Final = 1 << 20
"""Characters of messages that are decoded in one call: no other thread runs meanwhile."""

_MESSAGE: Final = msgspec.json.Decoder(Message)


def dump(value: object) -> str:
    """Return the JSON of a value."""
    return msgspec.json.encode(value, enc_hook=str).decode()


def dump_messages(messages: Sequence[Message]) -> bytes:
    """Return the JSON of messages, for a CAST to text.

    As text one sign beyond Latin-1 would make it twice as wide, and SQLite's binding would encode it in one
    call: no other thread runs for up to 60 ms of 10 MB.
    """
    pieces: list[bytes] = []
    for piece in _pieces(messages):
        pieces += (b",", msgspec.json.encode(piece)[1:-1])
    return b"".join((b"[", *pieces[1:], b"]"))


def _pieces(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Cut messages into pieces: no other thread runs while one is encoded."""
    for start in range(0, len(messages), PIECE):
        yield messages[start : start + PIECE]


def load_profile(text: str) -> Profile:
    """Return a profile of its JSON."""
    return msgspec.json.decode(text, type=Profile, dec_hook=lambda kind, value: kind(value))


def load_messages(text: str) -> tuple[Message, ...]:
    """Return messages of their JSON."""
    if len(text) < IN_ONE_GO:
        return msgspec.json.decode(text, type=tuple[Message, ...])
    return tuple(map(_MESSAGE.decode, msgspec.json.decode(text, type=list[msgspec.Raw])))


def load_spans(text: str) -> tuple[Span, ...]:
    """Return spans of their JSON."""
    return msgspec.json.decode(text, type=tuple[Span, ...])


def head_of(row: tuple[Any, ...]) -> Head:
    """Return the turn of a row of HEAD_COLUMNS."""
    turn, digest, tools, session, lineage, first, last, answer, whole = row
    return Head(turn, digest, tools, session, lineage, Span(first, last), answer, bool(whole))


def conversations(rows: Iterable[tuple[Any, ...]]) -> Iterator[Conversation]:
    """Yield the conversations of rows of COLUMNS."""
    for row in rows:
        tenant, name, session, lineage, profile, workspace, system, turns, created, used, usage = row[:11]
        generation, hint, ephemeral, spans, lead, asked, seen = row[11:18]
        unfinished = (
            Unfinished(load_spans(spans), load_messages(lead), load_messages(asked), seen) if spans else None
        )
        yield Conversation(
            key=ConversationKey(tenant, name),
            session=session,
            lineage=lineage,
            profile=load_profile(profile),
            workspace=Path(workspace),
            system=system,
            turns=turns,
            created_at=created,
            last_used_at=used,
            usage=msgspec.json.decode(usage, type=Usage),
            unfinished=unfinished,
            head=head_of(row[18:]) if row[18] is not None else None,
            generation=generation,
            hint=hint,
            ephemeral=bool(ephemeral),
        )
