"""What the daemon costs against deltas of an answer, hot conversations, turns of a history, stored ones.

Each takes a minute; that of the history, which has to be said first, some two.
"""

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Final

from claude_coded.store import Store
from claude_coded.turn import ConversationKey
from tests.benchmarks.charts import Chart, Line, Point, added, middle, ratio
from tests.benchmarks.harness import (
    SETTLE,
    BenchmarkError,
    Daemon,
    DirectConversation,
    HttpConversation,
)
from tests.benchmarks.latency import alternate
from tests.benchmarks.matching import converse
from tests.benchmarks.measure import Pairs, take_turns
from tests.benchmarks.memory import RSS_LIMIT
from tests.benchmarks.streams import (
    CPU_LIMIT,
    RATE_LIMIT,
    Cost,
    RelayedConversation,
    idle_load,
    stream,
)

DELTAS: Final[Mapping[int, int]] = {100: 20, 1_000: 8, 5_000: 4, 20_000: 2}
"""How often each length is streamed in a round."""

HOT: Final = (1, 4, 8, 16)
FEW: Final = 4
"""Processes that a number is of, at least: one differs from the next for all its life."""

HOT_SETTINGS: Final = {"POOL_SIZE": str(HOT[-1]), "CLAUDE_CODED_SPARE_WORKERS": "0"}

TURNS: Final = (1, 10, 50, 200, 1000)

STORED: Final = (10, 100, 1_000, 10_000, 100_000)
TOLD_TURNS: Final = 10
"""Turns of a history that is looked for."""


def deltas(daemon: Daemon, *, quick: bool) -> Iterator[Chart]:
    """Sweep the length of an answer: the daemon and the relay, each with some CLIs in turns."""
    lengths = list(DELTAS)[: 2 if quick else None]
    idle = idle_load(daemon)
    ours: dict[int, list[Cost]] = {length: [] for length in lengths}
    theirs: dict[int, list[Cost]] = {length: [] for length in lengths}
    for _ in range(1 if quick else 3):
        _stream_both(daemon, idle, ours, theirs)
    sides = {"the daemon": ours, "a relay of bytes": theirs}
    across, name = "deltas of an answer", "deltas"
    cpu = [
        Line(side, [middle(at, [cost.between for cost in costs], 1e6 / at) for at, costs in values.items()])
        for side, values in sides.items()
    ]
    yield Chart(name, "CPU for a delta", across, "µs", cpu, CPU_LIMIT)
    walls = [ratio(at, *([cost.total for cost in side[at]] for side in (ours, theirs))) for at in lengths]
    yield Chart(name, "wall time, to the relay's", across, "", [Line("the daemon", walls)], RATE_LIMIT)


def _stream_both(
    daemon: Daemon, idle: float, ours: dict[int, list[Cost]], theirs: dict[int, list[Cost]]
) -> None:
    """Stream every length through both."""
    with (
        closing(daemon.converse()) as through,
        closing(RelayedConversation(daemon.command)) as relayed,
    ):
        through.ask("hello")
        relayed.ask("hello")
        daemon.await_spare()
        for length in ours:
            our, their = take_turns(
                DELTAS[length],
                partial(stream, through, daemon.pid, length, idle),
                partial(stream, relayed, relayed.pid, length),
            )
            ours[length] += our
            theirs[length] += their


def conversations(daemon: Daemon, *, quick: bool) -> Iterator[Chart]:
    """Sweep the hot conversations: a turn of each in turns, beside as many CLIs of our own."""
    delay: list[Point] = []
    resident: list[Point] = []
    for count in HOT[: 2 if quick else None]:
        rounds = [_hot_round(daemon, count, quick=quick) for _ in range(1 if quick else max(1, FEW // count))]
        pairs = [pair for part, _ in rounds for pair in zip(part.ours, part.theirs, strict=True)]
        delay.append(added(count, *zip(*pairs, strict=True)))
        resident.append(middle(count, [memory for _, memory in rounds]))
    name, across = "conversations", "hot conversations"
    yield Chart(name, "added to a hot turn's first content", across, "ms", [Line("the daemon", delay)])
    yield Chart(name, "the daemon's memory", across, "MB", [Line("resident", resident)], RSS_LIMIT)


def _hot_round(daemon: Daemon, count: int, *, quick: bool) -> tuple[Pairs, float]:
    """Return what both sides took with so many conversations, and the daemon's memory."""
    with ExitStack() as stack:
        ours = [stack.enter_context(closing(daemon.converse())) for _ in range(count)]
        theirs = [stack.enter_context(closing(DirectConversation(daemon.command))) for _ in range(count)]
        _warm_up(*ours, *theirs)
        pairs = alternate(
            12 if quick else max(16, 2 * count),
            lambda turn: _first(ours[turn % count]),
            lambda turn: _first(theirs[turn % count]),
        )
        if (hot := daemon.health()["conversations"]["hot"]) != count:
            raise BenchmarkError(f"{hot} conversations are hot, not {count}")
        return pairs, daemon.memory()["rss"]


def _warm_up(*sides: HttpConversation | DirectConversation) -> None:
    for turn in range(2):
        for side in sides:
            side.ask(f"warm up {turn}")


def _first(conversation: HttpConversation | DirectConversation) -> float:
    time.sleep(SETTLE)
    return conversation.ask("and now?").first


def history(daemon: Daemon, *, quick: bool) -> Iterator[Chart]:
    """Sweep the turns of a history: sent whole, told by the last response, and known to a CLI of our own.

    What is measured at a length are the turns that come after so many.
    """
    lengths = TURNS[: 3 if quick else None]
    names = ("history sent", "previous_response_id")
    delay: dict[str, list[Point]] = {name: [] for name in names}
    spent: dict[str, list[Point]] = {name: [] for name in names}
    with ExitStack() as stack:
        ours = [stack.enter_context(closing(it)) for it in (daemon.resend(), daemon.respond())]
        direct = stack.enter_context(closing(DirectConversation(daemon.command)))
        direct.spawn()  # here: it ends with the thread that has started it
        had = 0
        for length in lengths:
            _grow([*ours, direct], length - had)
            daemon.await_spare()
            count = 4 if quick else 8
            *sides, theirs = take_turns(count, *(partial(_turn, daemon, side) for side in (*ours, direct)))
            had = length + count
            for name, side in zip(names, sides, strict=True):
                delay[name].append(added(length, [it for it, _ in side], [it for it, _ in theirs]))
                spent[name].append(middle(length, [cpu for _, cpu in side], 1000))
    title, across = "added to a hot turn's first content", "turns of the history"
    yield Chart("history", title, across, "ms", [Line(*it) for it in delay.items()])
    yield Chart("history", "the daemon's CPU for a turn", across, "ms", [Line(*it) for it in spent.items()])


def _grow(sides: Sequence[HttpConversation | DirectConversation], turns: int) -> None:
    """Have all say so many turns, at once."""

    def say(side: HttpConversation | DirectConversation) -> None:
        for turn in range(turns):
            side.ask(f"What comes after the {turn}th question of a long talk like this one?")

    with ThreadPoolExecutor(len(sides)) as pool:
        list(pool.map(say, sides))


def _turn(daemon: Daemon, side: HttpConversation | DirectConversation) -> tuple[float, float]:
    """Return the seconds to a turn's first content, and those of the daemon's CPU."""
    time.sleep(SETTLE)
    before = daemon.cpu_seconds()
    first = side.ask("And after this one?").first
    time.sleep(SETTLE)
    return first, daemon.cpu_seconds() - before


def stored(_: Daemon, *, quick: bool) -> Iterator[Chart]:
    """Sweep the conversations that are stored: how long one is looked for, by its name and by its history."""
    with tempfile.TemporaryDirectory(prefix="claude-coded-") as folder:
        yield asyncio.run(_stored(Path(folder), STORED[: 3 if quick else None]))


async def _stored(folder: Path, counts: Sequence[int]) -> Chart:
    store = Store(folder)
    await store.open()
    by_name: list[Point] = []
    by_history: list[Point] = []
    try:
        await converse(store, _key(0), _digest(0))
        for had, count in pairwise((1, *counts)):
            _fill(folder / "claude-coded.db", range(had, count))
            looked_for = [number * 7919 % count for number in range(200)]
            by_name.append(middle(count, [await _load(store, number) for number in looked_for], 1e6))
            by_history.append(middle(count, [await _find(store, number) for number in looked_for], 1e6))
    finally:
        await store.close()
    lines = [Line(f"by {TOLD_TURNS} turns of history", by_history), Line("by name", by_name)]
    return Chart("stored", "finding a conversation", "stored conversations", "µs", lines)


def _key(number: int) -> ConversationKey:
    return ConversationKey("default", f"talk-{number}")


def _digest(number: int) -> bytes:
    return sha256(f"talk {number}".encode()).digest()


def _fill(file: Path, numbers: range) -> None:
    """Add conversations of a turn each, like the first one but for name and digest."""
    database = sqlite3.connect(file)
    with closing(database), database:
        talks = ((number + 1, _key(number).id, number + 1) for number in numbers)
        _copy(database, "conversations", ("id", "name", "head"), talks)
        turns = ((number + 1, number + 1, _digest(number)) for number in numbers)
        _copy(database, "turns", ("id", "conversation", "digest"), turns)


def _copy(
    database: sqlite3.Connection, table: str, own: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Insert rows into a table: some columns of their own, the others those of the first row."""
    columns = [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")]
    kept = ", ".join(name for name in columns if name not in own)
    holes = ", ".join("?" * len(own))
    database.executemany(
        f"INSERT INTO {table} ({', '.join(own)}, {kept}) SELECT {holes}, {kept} FROM {table} WHERE id = 1",
        rows,
    )


async def _load(store: Store, number: int) -> float:
    started = time.perf_counter()
    known = await store.load(_key(number))
    taken = time.perf_counter() - started
    if known is None:
        raise BenchmarkError("the store does not know what it holds")
    return taken


async def _find(store: Store, number: int) -> float:
    digests = [*(_digest(-turn) for turn in range(1, TOLD_TURNS)), _digest(number)]
    started = time.perf_counter()
    found = await store.find(digests)
    taken = time.perf_counter() - started
    if len(found) != 1:
        raise BenchmarkError("the store did not find what it holds")
    return taken
