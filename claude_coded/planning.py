"""How a request gets at a session that holds its history, and at a worker that suits it."""

import os
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from claude_coded import history, workspaces
from claude_coded.ask import Manner
from claude_coded.claude.launch import TRANSCRIPTS, Launch
from claude_coded.claude.protocol import Limits, Outfit, Setup
from claude_coded.claude.toolbridge import fits
from claude_coded.errors import (
    CodedError,
    InvalidRequest,
    ParkLost,
    RewindRefused,
    SessionMissing,
    UnsupportedParameter,
    WorkerDied,
    WorkspaceGone,
)
from claude_coded.history import Conversation, Head, Plan, Told, Way
from claude_coded.pool import Pool
from claude_coded.settings import TENANT, Settings
from claude_coded.store import Store
from claude_coded.turn import Options, Profile, ToolSpec, TurnRequest

DEFAULT_MODEL: Final = "default"
"""What the CLI calls its own choice."""

PLAN: Final = "plan"
"""The permission mode in which Claude only looks."""

LOOKS: Final = 50
"""In so many places of a history, and conversations there, a lost session is looked for."""

REPLANNED: Final = (SessionMissing, RewindRefused, ParkLost, WorkerDied)
"""The failures of a plan after which there may be another one."""


class Located(Struct, frozen=True):
    """A request with its conversation: a known one, or a new one, which may begin with a fork.

    `points` are where to fork, the best first, and `workspace` is that of the sessions there.
    """

    request: TurnRequest
    told: Told
    points: tuple[Head, ...] = ()
    workspace: Path | None = None


class Fit(Struct, frozen=True):
    """What a process is set up with: nothing of it changes while it is idle.

    `generation` counts the conversation's sessions. The client's tools could be changed, but not without a
    trace: the CLI goes on to name those that are gone.
    """

    profile: Profile
    system: str
    generation: int
    schema: str | None
    permission_mode: str
    tools: tuple[ToolSpec, ...]


class Seat(Struct, frozen=True):
    """What a worker has to be for a turn: a hot one of this fit, or one that is launched and set up so."""

    fit: Fit
    launch: Launch

    @property
    def outfit(self) -> Outfit:
        """Return what a process of this launch is given before its first turn."""
        profile, resumed = self.fit.profile, self.launch.session is not None
        setup = Setup(
            profile.system_text(self.fit.system),
            profile.prompting,
            resumed=resumed,
            tools=bool(self.fit.tools),
            schema=self.fit.schema,
        )
        return Outfit(setup, None if resumed else profile.model, self.fit.tools)


def launch_of(
    profile: Profile,
    settings: Settings,
    options: Options | None = None,
    root: Path | None = None,
    workspace: Path | None = None,
) -> Launch:
    """Return how a fresh worker for a profile is started.

    It works in `workspace`, where a conversation has one, else where request or profile say, else in `root`,
    which is the tenant's, or WORKSPACE_DIR.
    """
    options = options or Options()
    claude = settings.claude
    return Launch(
        profile.agent,
        workspace or options.workspace or profile.workspace or root or claude.workspace,
        options.permission_mode or profile.permission_mode or claude.permission_mode,
        profile.tools,
        profile.mcp,
        auto_compact=claude.auto_compact,
        retention_days=settings.retention_days,
        hidden=_hidden(settings) if claude.sandbox else None,
    )


def _hidden(settings: Settings) -> tuple[str, ...]:
    """Return what commands in the sandbox are not to read, their own workspace excepted."""
    others = (str(settings.claude.workspace),) if settings.claude.workspaces == TENANT else ()
    return (str(settings.state_dir), TRANSCRIPTS, *others)


def is_anothers(workspace: Path, profile: Profile, settings: Settings) -> bool:
    """Return whether only other models work in a directory: a conversation there is theirs to go on with.

    What lies in WORKSPACE_DIR is everybody's.
    """
    others = [it.workspace for it in settings.models if it.workspace not in (None, profile.workspace)]
    return workspace in others and not workspace.is_relative_to(settings.claude.workspace)


async def in_full(store: Store, request: TurnRequest) -> TurnRequest:
    """Return a brief request with all that was said."""
    assert request.after is not None
    said = await store.said_until(request.after.turn)
    messages = (*said, *request.messages)
    size = max(request.size, history.MESSAGE_SIZE * len(messages))
    return replace(request, messages=messages, brief=False, size=size)


class Planner:
    """Plans one turn, and again where a plan fails: each kind of failure rules out what failed."""

    def __init__(self, store: Store, pool: Pool, settings: Settings, located: Located) -> None:
        self._store = store
        self._pool = pool
        self._settings = settings
        self._request = located.request
        self._told = located.told
        self._points = located.points
        self._workspace = located.workspace
        self._forks_failed = 0
        self._lost = False  # the conversation's session cannot be gone on with
        self._late = False  # the turn that waited for the client's tools is no more
        self._died = False  # a worker has died under the turn

    @property
    def manner(self) -> Manner:
        """Return how the response is to be had."""
        options = self._request.options
        limits = Limits(options.max_tokens, options.effort or self._request.profile.effort)
        return Manner(self._request.tools, limits, structured=options.schema is not None)

    def learn(self, error: CodedError, plan: Plan) -> None:
        """Rule out what has failed. Raises the error where nothing is left to try."""
        if isinstance(error, ParkLost) and not self._late:
            self._late = True
        elif isinstance(error, WorkerDied) and not self._died:
            self._died = True
        elif isinstance(error, SessionMissing | RewindRefused) and plan.way is Way.FORK:
            # Where it was to end may have been dropped meanwhile by who goes on there, or compacted.
            self._forks_failed += 1
        elif isinstance(error, SessionMissing | RewindRefused) and not self._lost:
            self._lost = True
        else:
            raise error

    async def plan(self, known: Conversation | None) -> Plan:
        """Return how the turn meets its conversation."""
        if self._told.brief and not self._stands(known):
            self._told = history.read(await in_full(self._store, self._request))
        told = self._told
        if known is not None and not told.has_history:
            return await self._go_on(known)
        if self._lost and known is not None and known.head is not None:
            return history.begin_again((await self._forks(known))[self._forks_failed :], told)
        if known is None or known.head is None:
            return history.begin(told, next(iter(self._points[self._forks_failed :]), None))
        return self._at_head(known, known.head) or await self._follow(known)

    def _stands(self, known: Conversation | None) -> bool:
        """Return whether the conversation stands, and can be gone on with, where a brief request goes on."""
        head = known.head if known is not None else None
        failed = self._lost or self._forks_failed > 0
        return head is not None and head.whole and self._told.digests == (head.digest,) and not failed

    def _at_head(self, known: Conversation, head: Head) -> Plan | None:
        """Return how a turn goes on right at the head, as nearly all do."""
        if self._told.digests[-1:] != (head.digest,) or self._forks_failed:
            return None
        if head.whole:
            return history.follow_head(known, head, self._told)
        return history.answer(known, head, self._told) if self._answers(known) else None

    async def _follow(self, known: Conversation) -> Plan:
        """Return how a turn goes on from where its history and what is known part."""
        told = self._told
        points = await self._forks(known)
        if self._forks_failed:
            return history.begin_again(points[self._forks_failed :], told)
        return history.follow(known, await self._store.path(known.key), points, told)

    async def _forks(self, known: Conversation) -> tuple[Head, ...]:
        """Return where the conversation can be forked, the best first; then other ones, after a failure.

        A fork that was killed may not have written what it holds: the conversation that it is of may have it.
        """
        points = history.fork_points(await self._store.turns(known.key, self._told.digests), self._told)
        failed = self._lost or self._forks_failed > 0
        return (*points, *await self._others(known)) if points and failed else points

    async def _others(self, known: Conversation) -> list[Head]:
        """Return where conversations can be forked that have the newest part of the history in common."""
        told, points = self._told, list[Head]()
        for length in told.ends[:LOOKS]:
            for found in (await self._store.find([told.digests[length - 1]]))[:LOOKS]:
                if found.key != known.key and found.workspace == known.workspace:
                    points += history.fork_points(await self._store.turns(found.key, told.digests), told)
            if points:
                break
        return points

    async def _go_on(self, known: Conversation) -> Plan:
        """Return how the server's own history goes on."""
        told, head = self._told, known.head
        if head is None or head.whole:
            plan = history.go_on(known, told)
        else:
            path = await self._store.path(known.key)
            standing = history.standing(path)
            since = await self._store.said(path[standing:])
            if self._pool.is_parked(known.key) and not self._lost:
                return history.cancel(known, head, since, told)
            plan = history.go_on(known, told, path[standing - 1] if standing else None, since)
        if self._lost and plan.way is Way.FRESH:
            plan = replace(plan, back_hot=())
        if self._lost and plan.way is Way.CONTINUE:
            path = await self._store.path(known.key)
            plan = history.rebuild(await self._store.said(path[: history.standing(path)]), plan)
        return plan

    def _answers(self, known: Conversation) -> bool:
        """Return whether the request brings just what a parked turn waits for.

        The CLI makes all requests of a turn with the limits that it began with: others need another turn.
        """
        outcomes = () if self._late else history.outcomes(self._told)
        waits = self._pool.is_parked(known.key) and self._pool.limits_of(known.key) == self.manner.limits
        return waits and bool(outcomes) and all(map(fits, outcomes))

    def seat(self, known: Conversation | None, plan: Plan) -> Seat:
        """Return what worker suits a plan. Raises WorkspaceGone."""
        request = self._request
        profile, system, model = request.profile, request.system or "", request.profile.model
        root = workspaces.prepare(self._settings.claude, request.key.tenant)
        workspace = known.workspace if known is not None else self._workspace
        launch = launch_of(profile, self._settings, request.options, root, workspace)
        generation = 0
        if known is not None:
            system = known.system if request.system is None else system
            empty = known.head is None or bool(plan.back_hot)  # so is a session that a fresh plan goes on in
            same = plan.way in {Way.ANSWER, Way.CONTINUE} or (plan.way is Way.FRESH and empty)
            generation = known.generation if same else known.generation + 1
            if known.profile.model is not None:
                # A resumed session goes on with its last model unless it is told.
                model = model or DEFAULT_MODEL
        if plan.session is not None:
            launch = launch.resuming(plan.session, model, plan.at or None)
        self._check(launch)
        self._check_workspace(launch.workspace)
        schema, mode = request.options.schema, launch.permission_mode
        fit = Fit(profile, system, generation, schema, mode, request.tools.specs)
        if plan.way is Way.ANSWER:
            waits = self._pool.fit_of(request.key)
            fit = replace(fit, tools=waits.tools) if isinstance(waits, Fit) else fit
        return Seat(fit, launch)

    def _check(self, launch: Launch) -> None:
        """Raise UnsupportedParameter or InvalidRequest for what cannot be had in this conversation."""
        request = self._request
        if request.tools.specs and launch.permission_mode == PLAN:
            raise UnsupportedParameter(
                "in permission mode plan Claude Code calls no tools of a client's", param="tools"
            )
        if is_anothers(launch.workspace, request.profile, self._settings):
            raise InvalidRequest(
                f"the conversation works in {launch.workspace}, which is another model's", param="model"
            )
        chosen = request.options.workspace
        if chosen is not None and chosen != launch.workspace:
            raise InvalidRequest(
                f"the conversation works in {launch.workspace}, and stays there", param="X-Claude-Workspace"
            )

    def _check_workspace(self, workspace: Path) -> None:
        """Raise WorkspaceGone where nothing is any more, or something else."""
        if not os.path.isdir(workspace):  # noqa: PTH112 - each turn looks, and pathlib takes thrice as long
            raise WorkspaceGone(f"the conversation's workspace {workspace} does not exist any more")
        tenant, models = self._request.key.tenant, self._request.profile.workspace
        if models is None and not workspaces.admits(self._settings.claude, tenant, workspace):
            raise WorkspaceGone(f"the conversation's workspace {workspace} is not its tenant's")
