"""Benchmarks of the history that a client sends: what it costs to know it again, and to seed it."""

import asyncio
import random
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any, Final

import orjson

from claude_coded import history
from claude_coded.history import Conversation, Span, Told, Unfinished
from claude_coded.openai.chat import parse_chat
from claude_coded.rows import Record
from claude_coded.store import Store
from claude_coded.turn import ConversationKey, Message, Profile, Role, TurnRequest, Usage
from tests.benchmarks.harness import SETTLE, BenchmarkError, Daemon, HttpConversation, StatelessConversation
from tests.benchmarks.latency import WARM_UP_TURNS, alternate
from tests.benchmarks.measure import Figure, Interval, Pairs

MATCHING_LIMIT: Final = 3.0
"""The daemon's own work for a long history, to parsing and hashing the same bytes once."""

STORED_LIMIT: Final = 1.20
"""The same work over a full store, to that over an almost empty one."""

STATELESS_LIMIT: Final = 1.10
"""A hot turn whose client sends the whole history, to one whose client names the conversation."""

SEEDING_LIMIT: Final = 1.5
"""Seconds to the first piece of the answer to a history that nobody knows."""

MESSAGES: Final = 400
MESSAGE_SIZE: Final = 2600
"""Bytes of a message: all of them make a megabyte."""

STORED_TURNS: Final = 100_000
CONVERSATIONS: Final = 100

ROUNDS: Final = 5
SEEDED_PAIRS: Final = 50

KEY: Final = ConversationKey("default", "known")
PROFILE: Final = Profile("claude-code", agent=True)


# In process --------------------------------------------------------------------------------------------


def matching(_: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure what the daemon itself does with a long history, without a CLI."""
    with tempfile.TemporaryDirectory(prefix="claude-coded-") as folder:
        yield from asyncio.run(_matching(Path(folder), 30 if quick else 200))


async def _matching(folder: Path, count: int) -> list[Figure]:
    body = _body("known")
    other = _body("foreign")
    told = _told(body)
    async with AsyncExitStack() as stack:
        empty = await stack.enter_async_context(_store(folder / "empty", told, turns=0))
        full = await stack.enter_async_context(_store(folder / "full", told, turns=STORED_TURNS))
        plain = await _alternate(count, lambda: _match(empty, body, found=1), lambda: _parse_and_hash(body))
        stored = await _alternate(
            count, lambda: _match(full, body, found=1), lambda: _match(empty, body, found=1)
        )
        missed = await _alternate(
            count, lambda: _match(full, other, found=0), lambda: _match(empty, other, found=0)
        )
    size = f"{len(body) / 1e6:.2f} MB"
    name = "matching"
    return [
        Figure(
            name,
            f"{size} in {MESSAGES} messages, ratio to loads + sha256",
            plain.ratio,
            "",
            MATCHING_LIMIT,
            floor=1.0,
        ),
        _milliseconds("parsed, digested and found; floor: loads + sha256", plain),
        Figure(name, f"ratio with {STORED_TURNS} turns stored to 1", stored.ratio, "", STORED_LIMIT, floor=1),
        _milliseconds(
            f"with {STORED_TURNS} turns, none of {len(told.ends)} prefixes found; floor: with 1", missed
        ),
    ]


def _milliseconds(title: str, pairs: Pairs) -> Figure:
    ours, theirs = (median(side) * 1000 for side in (pairs.ours, pairs.theirs))
    return Figure("matching", f"{title}, medians", ours, "ms", floor=theirs)


async def _match(store: Store, body: bytes, *, found: int) -> None:
    told = _told(body)
    if len(await store.find(_prefixes(told))) != found:
        raise BenchmarkError("the store did not find what it holds")


async def _parse_and_hash(body: bytes) -> None:
    orjson.loads(body)
    sha256(body).digest()


def _told(body: bytes) -> Told:
    chat = parse_chat(body)
    return history.read(TurnRequest(KEY, PROFILE, chat.messages, chat.system, chat.stream, named=False))


def _prefixes(told: Told) -> list[bytes]:
    return [told.digests[length - 1] for length in told.ends]


def _body(seed: str) -> bytes:
    """Return a request: a system text and turn after turn, with a question at the end."""
    dice = random.Random(seed)
    messages = [{"role": "system", "content": "You are a helpful assistant."}]
    for number in range(MESSAGES - 1):
        is_question = number % 2 == 0
        text = _prose(dice, letters="etaoinshrdlucm", marks=" " if is_question else "—…→é")
        messages.append({"role": "user" if is_question else "assistant", "content": text})
    return orjson.dumps({"model": "claude-code", "stream": True, "messages": messages})


def _prose(dice: random.Random, letters: str, marks: str) -> str:
    """Return a text with lines and quotes. Questions are ASCII; answers have the signs that a model sets."""
    words: list[str] = []
    size = 0
    while size < MESSAGE_SIZE:
        word = "".join(dice.choices(letters, k=dice.randint(2, 9)))
        end = dice.choices((" ", "\n", ' "', dice.choice(marks)), weights=(40, 4, 1, 1))[0]
        words.append(word + end)
        size += len(words[-1].encode())
    return "".join(words)


@asynccontextmanager
async def _store(folder: Path, told: Told, *, turns: int) -> AsyncIterator[Store]:
    """Open a store that knows the history, and so many turns of others."""
    store = Store(folder)
    await store.open()
    try:
        await converse(store, KEY, _prefixes(told)[0])
        if turns:
            names = [f"other-{number}" for number in range(CONVERSATIONS)]
            for name in names:
                await converse(store, ConversationKey(KEY.tenant, name), sha256(name.encode()).digest())
            _fill(folder / "claude-coded.db", names, turns)
        yield store
    finally:
        await store.close()


async def converse(store: Store, key: ConversationKey, digest: bytes) -> None:
    """Record a conversation of one turn."""
    asked, span = Message.of(Role.USER, "hello"), Span("first", "last")
    unfinished = Unfinished((span,), (), (asked,))
    await store.begin(
        Conversation(
            key, f"session-{key.id}", "lineage", PROFILE, Path("/"), "", 0, 0.0, 0.0, Usage(), unfinished
        )
    )
    said = (asked, Message.of(Role.ASSISTANT, "hi"))
    await store.finish(key, [Record(said, Usage(), span, "", digest, 0)], 0.0)


def _fill(file: Path, names: Sequence[str], turns: int) -> None:
    """Add turns to conversations, each like the conversation's first but for its digest."""
    database = sqlite3.connect(file)
    kept = "conversation, parent, session, lineage, tools, first_uuid, last_uuid, whole"
    columns = f"{kept}, answer_uuid, messages, usage, finished_at"
    with closing(database), database:
        database.executemany(
            f"""INSERT INTO turns (digest, {columns}) SELECT ?, {columns} FROM turns WHERE id =
                (SELECT head FROM conversations WHERE name = ?)""",
            (
                (sha256(f"turn {number}".encode()).digest(), names[number % len(names)])
                for number in range(turns)
            ),
        )


async def _alternate(
    count: int, ours: Callable[[], Awaitable[None]], theirs: Callable[[], Awaitable[None]]
) -> Pairs:
    """Measure both sides `count` times; who goes first changes with every pair."""
    values: tuple[list[float], list[float]] = ([], [])
    for number in range(count):
        sides = list(zip((ours, theirs), values, strict=True))
        for work, taken in sides if number % 2 else reversed(sides):
            started = time.perf_counter()
            await work()
            taken.append(time.perf_counter() - started)
    return Pairs(*values)


# Through the daemon ------------------------------------------------------------------------------------


def stateless_turn(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure a hot turn of a client that sends its history, against one that names its conversation."""
    rounds = [_stateless_round(daemon, 10 if quick else 20) for _ in range(2 if quick else ROUNDS)]
    pairs = Pairs(
        [value for part in rounds for value in part.ours], [v for part in rounds for v in part.theirs]
    )
    name = "stateless-turn"
    interval = pairs.difference_interval()
    yield Figure(
        name,
        "ratio of medians to a named conversation",
        pairs.ratio,
        "",
        STATELESS_LIMIT,
        pairs.ratio_interval(),
        pairs.noise.ratio,
    )
    yield Figure(
        name,
        "median of paired differences",
        pairs.median_difference * 1000,
        "ms",
        interval=Interval(interval.low * 1000, interval.high * 1000),
        floor=abs(pairs.noise.median_difference) * 1000,
    )
    ours, theirs = (median(side) * 1000 for side in (pairs.ours, pairs.theirs))
    yield Figure(name, "first content, history sent; floor: named, medians", ours, "ms", floor=theirs)


def _stateless_round(daemon: Daemon, count: int) -> Pairs:
    """Measure pairs of hot turns: two conversations a side that take turns, with equally long histories."""
    with ExitStack() as stack:
        ours = [stack.enter_context(closing(daemon.resend())) for _ in range(2)]
        theirs = [stack.enter_context(closing(daemon.converse())) for _ in range(2)]
        conversations: list[StatelessConversation | HttpConversation] = [*ours, *theirs]
        for turn in range(WARM_UP_TURNS):
            for number, conversation in enumerate(conversations):
                conversation.ask(f"warm up {turn} of {number}")
        daemon.await_spare()
        pairs = alternate(
            2 * count, lambda turn: _first(ours[turn % 2], turn), lambda turn: _first(theirs[turn % 2], turn)
        )
        if len({conversation.name for conversation in conversations}) != len(conversations):
            raise BenchmarkError("two clients were given the same conversation")
        return pairs


def _first(conversation: StatelessConversation | HttpConversation, turn: int) -> float:
    time.sleep(SETTLE)
    return conversation.ask(f"turn {turn}").first


def seeding(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure the first turn of a history that the daemon never saw, with a spare ready."""
    seconds = [_seed(daemon, number) for number in range(2 if quick else 5)]
    name = "seeding"
    title = f"first content after {2 * SEEDED_PAIRS} foreign messages"
    yield Figure(name, f"{title}, median", median(seconds), "s", SEEDING_LIMIT)
    yield Figure(name, f"{title}, worst", max(seconds), "s")


def _seed(daemon: Daemon, number: int) -> float:
    past: list[Any] = []
    for pair in range(SEEDED_PAIRS):
        past.append({"role": "user", "content": f"question {pair} of client {number}"})
        past.append({"role": "assistant", "content": f"answer {pair}: it depends."})
    with closing(daemon.resend(past)) as conversation:
        daemon.await_spare()
        return conversation.ask("and now?").first
