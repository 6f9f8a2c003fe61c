"""What the control interface shows, made of what the service and its pool hold."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import partial

from claude_coded.accounts import Account
from claude_coded.control import api
from claude_coded.errors import NotFound
from claude_coded.history import Conversation
from claude_coded.proc import Tree, trees
from claude_coded.scheduler import WorkerView, worker_name
from claude_coded.service import Listed, TurnService
from claude_coded.turn import ConversationKey, Usage
from claude_coded.worker import Worker


@dataclass(frozen=True, slots=True)
class Identity:
    """What does not change while the daemon runs. `started` in Unix seconds."""

    version: str
    claude: str
    pid: int
    address: str
    socket: str
    started: float


async def status(
    service: TurnService, identity: Identity, *, phase: str, requests: int, log_level: str
) -> api.Status:
    """Return how the daemon is."""
    pool = service.pool
    state = phase or ("draining" if pool.draining else "unhealthy" if pool.failure else "ok")
    return api.Status(
        state=state,
        version=identity.version,
        claude=identity.claude,
        pid=identity.pid,
        address=identity.address,
        socket=identity.socket,
        uptime_s=round(service.now() - identity.started, 3),
        started_at=identity.started,
        pool=api.PoolCounts(size=pool.size, **asdict(pool.figures)),
        hot=service.hot(),
        stored=await service.store.count(),
        requests=requests,
        log_level=log_level,
        workspace=str(service.settings.claude.workspace),
        reason=pool.failure,
    )


async def workers(service: TurnService) -> list[api.Worker]:
    """Return all workers, with what their processes use."""
    found = [(view, service.pool.worker(view.id)) for view in service.pool.views]
    live = [(view, worker) for view, worker in found if worker is not None]
    measured = await asyncio.to_thread(trees, service.pool.pids)
    return [await _worker(service, view, worker, measured) for view, worker in live]


async def story(service: TurnService, number: int) -> api.WorkerStory:
    """Return a worker and how it came to where it is. Raises NotFound."""
    view = next((view for view in service.pool.views if view.id == number), None)
    worker = service.pool.worker(number)
    if view is None or worker is None:
        raise NotFound(f"there is no worker {worker_name(number)}")
    measured = await asyncio.to_thread(trees, [worker.pid] if worker.pid is not None else [])
    wall = partial(_wall, service)
    return api.WorkerStory(
        await _worker(service, view, worker, measured),
        [api.Step(wall(step.at), step.state.value, step.why) for step in worker.life.story],
        worker.stderr,
    )


async def conversations(service: TurnService, *, stored: bool) -> list[api.Conversation]:
    """Return the hot conversations of all tenants, or the stored ones too."""
    return [_conversation(service, item) for item in await service.conversations(None, stored=stored)]


async def conversation(service: TurnService, key: ConversationKey) -> api.Shown:
    """Return a conversation, and its worker's story if it has one. Raises NotFound."""
    listed, messages = await service.conversation(key)
    view = service.pool.view_of(key)
    told = await story(service, view.id) if view is not None and service.pool.worker(view.id) else None
    return api.Shown(_conversation(service, listed), len(messages), told)


async def usage(service: TurnService, by: Collection[str], since: str) -> list[api.Usage]:
    """Return what turns have used."""
    return [
        api.Usage(it.day, it.tenant, it.model, it.turns, _summed(it))
        for it in await service.store.used(by, since)
    ]


def _summed(it: Account) -> api.Tokens:
    return api.Tokens(it.input, it.output, it.cached, round(it.cost_usd, 6))


def _conversation(service: TurnService, listed: Listed) -> api.Conversation:
    known = listed.conversation
    view = service.pool.view_of(known.key)
    return api.Conversation(
        id=known.key.id,
        tenant=known.key.tenant,
        state=listed.state,
        model=known.profile.name,
        created_at=known.created_at,
        last_used_at=known.last_used_at,
        turns=known.turns,
        workspace=str(known.workspace),
        session=known.session,
        usage=_tokens(known.usage),
        worker=worker_name(view.id) if view is not None else None,
    )


async def _worker(
    service: TurnService, view: WorkerView, worker: Worker, measured: Mapping[int, Tree]
) -> api.Worker:
    key = view.conversation
    known = await service.store.load(key) if key is not None else None
    return api.Worker(
        id=worker_name(view.id),
        state=worker.state.value,
        pid=worker.pid,
        since=_wall(service, worker.life.story[-1].at),
        turns=view.turns,
        session=worker.session,
        workspace=str(worker.launch.workspace),
        tenant=key.tenant if key is not None else None,
        conversation=key.id if key is not None else None,
        model=known.profile.name if known is not None else None,
        pending=worker.pending,
        turn=_turn(service, key),
        usage=_usage(known),
        tree=_tree(measured.get(worker.pid or 0, Tree())),
    )


def _turn(service: TurnService, key: ConversationKey | None) -> api.Turn | None:
    progress = service.progress(key) if key is not None else None
    if progress is None:
        return None
    began = progress.began or service.now()
    return api.Turn(began, progress.model, progress.output, progress.doing, progress.turn)


def _tree(tree: Tree) -> api.Tree:
    return api.Tree(tree.memory, round(tree.cpu, 3), tree.processes)


def _usage(known: Conversation | None) -> api.Tokens:
    return _tokens(known.usage) if known is not None else api.Tokens()


def _tokens(usage: Usage) -> api.Tokens:
    return api.Tokens(usage.input, usage.output, usage.cache_read, round(usage.cost_usd, 6))


def _wall(service: TurnService, at: float) -> float:
    """Return a time of the loop's clock in Unix seconds."""
    return round(service.now() - (asyncio.get_running_loop().time() - at), 3)
