"""Benchmarks of the time to the first piece of an answer."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing
from functools import partial
from statistics import median
from typing import Final

from claude_coded.scheduler import STABLE
from tests.benchmarks.harness import (
    SETTLE,
    Daemon,
    DirectConversation,
    HttpConversation,
    Stamps,
    least_server,
)
from tests.benchmarks.measure import Figure, Interval, Pairs, take_turns

Conversing = Callable[[], AbstractContextManager[HttpConversation]]
"""Begins a conversation, which is closed behind."""

HOT_TURN_LIMIT: Final = 1.5
"""Milliseconds that the daemon may add to a hot turn."""

RESPONSES_LIMIT: Final = 1.10
"""A hot turn after a response, to one of the CLI itself."""

LONG_HISTORY: Final = 200
"""Turns of a long conversation: the daemon reads them all to know where a response stands."""

NEW_CONVERSATION_LIMIT: Final = 0.25
"""A new conversation with a spare ready, to a cold start of the CLI."""

AT_ONCE: Final = 8
AT_ONCE_LIMIT: Final = 0.8
"""New conversations that begin together, to as many cold starts of the CLI: until all have answered."""

AT_ONCE_SETTINGS: Final = {"POOL_SIZE": "12", "CLAUDE_CODED_SPARE_WORKERS": "3"}
"""A quarter of the pool as spares, as a service with bursts would be set up."""

WARM_UP_TURNS: Final = 3
ROUNDS: Final = 9
"""One CLI process differs from the next by milliseconds for all its life: each round has new ones."""


def hot_turn(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure what the daemon adds to a hot turn and, by itself, what the least server adds.

    Each has CLI processes of its own, which differ by milliseconds: compare several runs.
    """
    pairs = _hot_rounds(daemon, partial(_closing, daemon.converse), quick=quick)
    least = _hot_rounds(daemon, partial(least_server, daemon.command), quick=quick)
    name = "hot-turn"
    interval = pairs.difference_interval()
    yield Figure(
        name,
        "added by the daemon, median of paired differences",
        pairs.median_difference * 1000,
        "ms",
        HOT_TURN_LIMIT,
        Interval(interval.low * 1000, interval.high * 1000),
        floor=abs(pairs.noise.median_difference) * 1000,
    )
    least_interval = least.difference_interval()
    yield Figure(
        name,
        "added by the least server, median of paired differences",
        least.median_difference * 1000,
        "ms",
        interval=Interval(least_interval.low * 1000, least_interval.high * 1000),
        floor=abs(least.noise.median_difference) * 1000,
    )
    noise = abs(pairs.noise.quartile_difference) * 1000
    yield Figure(name, "difference of lower quartiles", pairs.quartile_difference * 1000, "ms", floor=noise)
    yield Figure(name, "ratio of medians", pairs.ratio, "", floor=pairs.noise.ratio)
    yield _first_content(name, pairs)


def hot_path(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure what lies between a client and the CLI's own pipes, there and back, less what a pipe takes.

    A turn of the CLI's own takes some milliseconds more or less each time; here that is left out. The floor
    is what the least server adds: Granian, asyncio, and one process.
    """
    count = 20 if quick else 200
    for name, converse, before in (
        ("a named conversation", daemon.converse, WARM_UP_TURNS),
        ("after a response", daemon.respond, WARM_UP_TURNS),
        (f"after {LONG_HISTORY} responses", daemon.respond, LONG_HISTORY),
    ):
        yield from _hot_path(daemon, name, converse, count, before)


def _hot_path(
    daemon: Daemon, name: str, converse: Callable[[], HttpConversation], count: int, before: int
) -> Iterator[Figure]:
    stamps = Stamps(daemon.command.binary)

    def measure(conversation: HttpConversation | DirectConversation) -> tuple[float, float]:
        time.sleep(SETTLE)
        timing = conversation.ask("and now")
        return stamps.around(timing), timing.first

    with ExitStack() as stack:
        sides: list[HttpConversation | DirectConversation] = [
            stack.enter_context(closing(converse())),
            stack.enter_context(closing(DirectConversation(daemon.command))),
            stack.enter_context(least_server(daemon.command)),
        ]
        for turn in range(before):
            for side in sides:
                side.ask(f"warm up {turn}")
        daemon.await_spare()
        measured = take_turns(count, *(partial(measure, side) for side in sides))
    ours, theirs, least = [[around for around, _ in values] for values in measured]
    pairs = Pairs(ours, theirs)
    added, interval = pairs.median_difference, pairs.difference_interval()
    yield Figure(
        "hot-path",
        f"added by the daemon, {name}, median of paired differences",
        added * 1000,
        "ms",
        HOT_TURN_LIMIT,
        Interval(interval.low * 1000, interval.high * 1000),
        floor=Pairs(least, theirs).median_difference * 1000,
    )
    ratio = 1 + added / median(first for _, first in measured[1])
    yield Figure("hot-path", f"with that, to the CLI's own turn, {name}", ratio, "", RESPONSES_LIMIT)


def responses_turn(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure a hot turn by `previous_response_id`, also of a long conversation."""
    name = "responses-turn"
    respond = partial(_closing, daemon.respond)
    pairs = _hot_rounds(daemon, respond, quick=quick)
    yield _ratio(name, "ratio of medians to the CLI itself", pairs)
    yield _first_content(name, pairs)
    pairs = _hot_round(daemon, respond, 10 if quick else 40, before=LONG_HISTORY, sides=1)
    yield _ratio(name, f"ratio after {LONG_HISTORY} turns", pairs)
    yield Figure(
        name,
        "added after them, median of paired differences",
        pairs.median_difference * 1000,
        "ms",
        floor=abs(pairs.noise.median_difference) * 1000,
    )


def _ratio(name: str, title: str, pairs: Pairs) -> Figure:
    return Figure(
        name, title, pairs.ratio, "", RESPONSES_LIMIT, pairs.ratio_interval(), floor=pairs.noise.ratio
    )


def _closing(converse: Callable[[], HttpConversation]) -> AbstractContextManager[HttpConversation]:
    return closing(converse())


def _hot_rounds(daemon: Daemon, converse: Conversing, *, quick: bool) -> Pairs:
    rounds = [_hot_round(daemon, converse, 10 if quick else 12) for _ in range(3 if quick else ROUNDS)]
    return Pairs(
        [value for part in rounds for value in part.ours], [v for part in rounds for v in part.theirs]
    )


def _hot_round(
    daemon: Daemon,
    converse: Conversing,
    count: int,
    before: int = WARM_UP_TURNS,
    sides: int = 2,
) -> Pairs:
    """Measure pairs of hot turns: some conversations a side that take turns, with equal histories."""
    with ExitStack() as stack:
        ours = [stack.enter_context(converse()) for _ in range(sides)]
        theirs = [stack.enter_context(closing(DirectConversation(daemon.command))) for _ in range(sides)]
        for turn in range(before):
            for our, their in zip(ours, theirs, strict=True):
                our.ask(f"warm up {turn}")
                their.ask(f"warm up {turn}")
        daemon.await_spare()
        return alternate(
            count,
            lambda turn: _first(ours[turn % sides], turn),
            lambda turn: _first(theirs[turn % sides], turn),
        )


def _first(conversation: HttpConversation | DirectConversation, turn: int) -> float:
    """Return the seconds to the first piece of a short answer."""
    time.sleep(SETTLE)
    return conversation.ask(f"turn {turn}").first


def new_conversation(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure the first turn of a new conversation that finds a spare, against the CLI started for it.

    The same has been asked of the daemon before, so that it knows what to expect.
    """

    def measure(make: Callable[[], HttpConversation | DirectConversation]) -> float:
        daemon.await_spare()
        with closing(make()) as conversation:
            return conversation.ask("hello").first

    for _ in range(STABLE):
        measure(daemon.converse)
    pairs = alternate(
        3 if quick else 10,
        lambda _: measure(daemon.converse),
        lambda _: measure(lambda: DirectConversation(daemon.command)),
    )
    name = "new-conversation"
    yield Figure(
        name,
        "ratio to a cold start of the CLI",
        pairs.ratio,
        "",
        NEW_CONVERSATION_LIMIT,
        pairs.ratio_interval(),
    )
    yield Figure(name, "first content through the daemon, median", median(pairs.ours) * 1000, "ms")
    yield Figure(name, "first content of a cold start, median", median(pairs.theirs) * 1000, "ms")


def new_conversations_at_once(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure a burst of new conversations until all have answered, against CLIs started for them."""

    def measure(make: Callable[[], HttpConversation | DirectConversation]) -> float:
        daemon.await_spare()
        with ExitStack() as stack, ThreadPoolExecutor(AT_ONCE) as threads:
            some = [stack.enter_context(closing(make())) for _ in range(AT_ONCE)]
            started = time.perf_counter()
            for asked in [threads.submit(conversation.ask, "hello") for conversation in some]:
                asked.result()
            return time.perf_counter() - started

    pairs = alternate(
        2 if quick else 8,
        lambda _: measure(daemon.converse),
        lambda _: measure(lambda: DirectConversation(daemon.command)),
    )
    name = "new-conversations-at-once"
    yield Figure(
        name,
        f"{AT_ONCE} until all have answered, to as many cold starts",
        pairs.ratio,
        "",
        AT_ONCE_LIMIT,
        pairs.ratio_interval(),
    )
    yield Figure(
        name,
        "through the daemon, median",
        median(pairs.ours) * 1000,
        "ms",
        floor=median(pairs.theirs) * 1000,
    )


def alternate(count: int, ours: Callable[[int], float], theirs: Callable[[int], float]) -> Pairs:
    """Measure both sides `count` times; who goes first changes with every second pair."""
    our_values: list[float] = []
    their_values: list[float] = []
    for number in range(count):
        sides = [(ours, our_values), (theirs, their_values)]
        for measure, values in sides if number // 2 % 2 else reversed(sides):
            values.append(measure(number))
    return Pairs(our_values, their_values)


def _first_content(benchmark: str, pairs: Pairs) -> Figure:
    """Return what a client waits, above what it waits for the CLI itself."""
    return Figure(
        benchmark,
        "first content through the daemon, median",
        median(pairs.ours) * 1000,
        "ms",
        floor=median(pairs.theirs) * 1000,
    )
