"""How a request finds its conversation."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from claude_coded import history
from claude_coded.events import Events
from claude_coded.history import Conversation, Span, Unfinished
from claude_coded.models import Models
from claude_coded.pool import Pool
from claude_coded.rows import Record
from claude_coded.scheduler import Phase, WorkerView
from claude_coded.service import PROMISE, TurnService
from claude_coded.settings import Settings
from claude_coded.store import Store
from claude_coded.tracing import NoTracing
from claude_coded.turn import ConversationKey, Message, Profile, Role, TurnRequest, Usage

KEY = ConversationKey("default", "known")
PROFILE = Profile("claude-code", agent=True)
SAID = (Message.of(Role.USER, "one"), Message.of(Role.ASSISTANT, "1"))


@dataclass
class OneIdle:
    """A pool with one worker that waits, for the known conversation."""

    views: list[WorkerView] = field(
        default_factory=lambda: [WorkerView(1, "launch", Phase.IDLE, conversation=KEY)]
    )

    def on_release(self, tell: object, unused: object) -> None: ...

    def is_idle(self, key: ConversationKey) -> bool:
        return key == KEY

    def is_parked(self, _: ConversationKey) -> bool:
        return False

    def holds(self, _: ConversationKey) -> bool:
        return False


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


def test_a_conversation_is_found_by_one_of_those_who_ask_at_once(tmp_path: Path) -> None:
    clock = [1000.0]

    async def test() -> None:
        store = Store(tmp_path)
        await store.open()
        await know(store)
        service = TurnService(
            store,
            cast("Pool", OneIdle()),
            Models(()),
            Settings(),
            Events(lambda: 0.0),
            traces=(),
            wall=lambda: clock[0],
            tracing=NoTracing(),
        )
        found: list[Any] = [(await service.locate(asking("two", n))).request.key for n in range(3)]
        assert found == [KEY, ConversationKey("default", "new-1"), ConversationKey("default", "new-2")]
        clock[0] += PROMISE  # the one who found it has left before its turn began
        assert (await service.locate(asking("two", 3))).request.key == KEY
        await store.close()

    asyncio.run(test())
