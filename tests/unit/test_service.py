"""How a request finds its conversation."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from claude_coded import history
from claude_coded.errors import NotRecorded
from claude_coded.events import Events
from claude_coded.history import Conversation, Span, Told, Unfinished
from claude_coded.models import Models
from claude_coded.planning import Located
from claude_coded.pool import Pool
from claude_coded.rows import Record
from claude_coded.scheduler import Phase, WorkerView
from claude_coded.service import FULL_HOUSE, PROMISE, TurnService
from claude_coded.settings import Settings
from claude_coded.store import Store
from claude_coded.tracing import NoTracing
from claude_coded.turn import AnswerEvent, ConversationKey, Message, Profile, Role, TurnRequest, Usage

KEY = ConversationKey("default", "known")
PROFILE = Profile("claude-code", agent=True)
SAID = (Message.of(Role.USER, "one"), Message.of(Role.ASSISTANT, "1"))


@dataclass
class OneIdle:
    """A pool with one worker that waits, for the known conversation."""

    views: list[WorkerView] = field(
        default_factory=lambda: [WorkerView(1, "launch", Phase.IDLE, conversation=KEY)]
    )
    held: bool = False

    def on_release(self, tell: object, unused: object) -> None: ...

    def is_idle(self, key: ConversationKey) -> bool:
        return key == KEY

    def is_parked(self, _: ConversationKey) -> bool:
        return False

    def is_held(self, _: ConversationKey) -> bool:
        return False

    def holds(self, _: ConversationKey) -> bool:
        return self.held


def asking(text: str, number: int) -> TurnRequest:
    messages = (*SAID, Message.of(Role.USER, text))
    return TurnRequest(ConversationKey("default", f"new-{number}"), PROFILE, messages, named=False)


async def know(store: Store) -> None:
    """Record the conversation that stands where the requests go on."""
    start = history.seed_digest("default", agent=True)
    span = Span("a", "b")
    unfinished = Unfinished((span,), (), SAID[:1])
    conversation = Conversation(KEY, "s", "s", PROFILE, Path("/w"), "", 0, 1.0, 1.0, Usage(), unfinished)
    await store.begin(conversation)
    digest = history.last_digest(start, SAID)
    await store.finish(KEY, [Record(SAID, Usage(), span, "z", digest, tools=0)], 2.0)


def a_service(
    store: Store, pool: OneIdle, *, wall: Callable[[], float], clock: Callable[[], float]
) -> TurnService:
    events = Events(lambda: 0.0)
    return TurnService(
        store,
        cast("Pool", pool),
        Models(()),
        Settings(),
        events,
        traces=(),
        projects=Path("/nowhere"),
        wall=wall,
        clock=clock,
        tracing=NoTracing(),
    )


@pytest.mark.parametrize(
    ("days", "passed", "kept"),
    [(40.0, 0.0, True), (40.0, 29.0, True), (40.0, 40.0, False), (-40.0, 40.0, True)],
    ids=["set-ahead", "set-ahead-in-time", "passed", "set-back"],
)
def test_what_is_old_is_forgotten_and_not_what_a_wrong_date_makes_old(
    tmp_path: Path, days: float, passed: float, kept: bool
) -> None:
    wall, clock = [10.0], [5.0]

    async def test() -> None:
        store = Store(tmp_path)
        await store.open()
        await know(store)
        service = a_service(store, OneIdle(views=[]), wall=lambda: wall[0], clock=lambda: clock[0])
        wall[0] += days * 86400
        clock[0] += passed * 86400
        await service.forget_outdated()
        assert (await store.load(KEY) is not None) is kept
        await store.close()

    asyncio.run(test())


def test_a_conversation_is_found_by_one_of_those_who_ask_at_once(tmp_path: Path) -> None:
    clock = [1000.0]

    async def test() -> None:
        store = Store(tmp_path)
        await store.open()
        await know(store)
        service = a_service(store, OneIdle(), wall=lambda: 0.0, clock=lambda: clock[0])
        found: list[Any] = [(await service.locate(asking("two", n))).request.key for n in range(3)]
        assert found == [KEY, ConversationKey("default", "new-1"), ConversationKey("default", "new-2")]
        clock[0] += PROMISE  # the one who found it has left before its turn began
        assert (await service.locate(asking("two", 3))).request.key == KEY
        await store.close()

    asyncio.run(test())


@pytest.mark.parametrize(
    ("key", "past", "held", "ready"),
    [
        (KEY, (), False, True),
        (KEY, SAID, False, True),
        (KEY, SAID, True, False),
        (KEY, (SAID[0], Message.of(Role.ASSISTANT, "another answer")), False, False),
        (KEY._replace(id="new"), (), False, False),
    ],
    ids=["tells-nothing", "tells-the-same", "runs-a-turn", "tells-otherwise", "is-unknown"],
)
def test_who_goes_on_where_a_worker_waits_need_not_wait(
    tmp_path: Path, key: ConversationKey, past: tuple[Message, ...], held: bool, ready: bool
) -> None:
    async def test() -> None:
        store = Store(tmp_path)
        await store.open()
        await know(store)
        service = a_service(store, OneIdle(held=held), wall=lambda: 0.0, clock=lambda: 0.0)
        request = TurnRequest(key, PROFILE, (*past, Message.of(Role.USER, "two")))
        assert service.is_ready(await service.locate(request)) is ready
        await store.close()

    asyncio.run(test())


class NoRun:
    """A turn that ends at once."""

    def __init__(self, *_: object) -> None: ...

    async def events(self) -> AsyncIterator[list[AnswerEvent]]:
        yield []

    def leave(self) -> None: ...


def test_what_is_outdated_is_looked_for_again_after_so_many_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claude_coded.service.Run", NoRun)
    located = Located(asking("x", 1), Told((), (), b"", ()))

    async def run(service: TurnService, turns: int) -> None:
        for _ in range(turns):
            async for _events in service.run(located):
                await asyncio.sleep(0)

    async def test() -> None:
        looks = asyncio.Queue[None]()

        async def look() -> None:
            looks.put_nowait(None)
            raise NotRecorded("the disk is full")

        service = a_service(Store(tmp_path), OneIdle(), wall=lambda: 0.0, clock=lambda: 0.0)
        service.forget_outdated = look  # type: ignore[method-assign]
        housekeeping = asyncio.ensure_future(service.housekeeping())
        await looks.get()
        for _ in range(2):
            await run(service, FULL_HOUSE - 1)
            assert looks.empty()
            await run(service, 1)
            async with asyncio.timeout(10):
                await looks.get()
        housekeeping.cancel()

    asyncio.run(test())


def test_the_loop_goes_on_while_many_conversations_are_listed(tmp_path: Path) -> None:
    async def test() -> None:
        store = Store(tmp_path)
        await store.open()
        await know(store)
        known = (await store.all(None)) * 100_000
        service = a_service(store, OneIdle(), wall=lambda: 0.0, clock=lambda: 0.0)
        service.store.all = lambda _: asyncio.sleep(0, known)  # type: ignore[method-assign, assignment]
        listing, steps = asyncio.ensure_future(service.conversations(None, stored=True)), 0
        while not listing.done():
            await asyncio.sleep(0)
            steps += 1
        assert steps > 100
        assert {item.state for item in await listing} == {"idle"}
        assert len(await listing) == len(known)
        await store.close()

    asyncio.run(test())
