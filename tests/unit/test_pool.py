"""The pool's shell, where no process is needed."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from claude_coded.claude.launch import Launch
from claude_coded.errors import CodedError, Draining, Evicted, QueueFull
from claude_coded.events import Events
from claude_coded.permissions import Desk
from claude_coded.pool import Pool
from claude_coded.scheduler import Limits, Want
from claude_coded.store import Store
from claude_coded.turn import ConversationKey
from claude_coded.worker import Cli

KEY = ConversationKey("default", "a")
LAUNCH = Launch(agent=True, workspace=Path("/"), permission_mode="plan")


def a_pool(queue_timeout: float = 60.0) -> Pool:
    cli = Cli(Path("/nowhere/claude"), {}, retries=0)
    desk = Desk(Store(Path("/nowhere")), timeout=lambda: 60.0, wall=lambda: 0.0)
    return Pool(
        Limits(1, 0, 0.0, 8, queue_timeout, 0.0),
        cli,
        LAUNCH,
        models=lambda _: None,
        desk=desk,
        events=Events(lambda: 0.0),
    )


@pytest.mark.parametrize(
    ("event", "error"), [(lambda pool: pool.evict(KEY), Evicted), (lambda pool: pool.drain(), Draining)]
)
def test_who_is_rejected_while_it_plans_its_turn_is_told_when_it_wants_a_worker(
    event: Callable[[Pool], None], error: type[CodedError]
) -> None:
    async def plan() -> None:
        pool = a_pool()
        admission = await pool.admit(KEY)
        event(pool)
        async with asyncio.timeout(5):
            with pytest.raises(error):
                await admission.acquire(Want("fit", LAUNCH, fresh=True))

    asyncio.run(plan())


def test_who_waits_is_refused_in_time_though_nothing_else_happens() -> None:
    async def wait() -> None:
        pool = a_pool(queue_timeout=0.05)
        await pool.admit(KEY)
        async with asyncio.timeout(5):
            with pytest.raises(QueueFull):
                await pool.admit(KEY)

    asyncio.run(wait())
