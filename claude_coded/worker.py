"""One Claude Code process: it alone changes its state.

The shell around `claude.protocol`. A turn's events are handed over in batches, each what came since the last
was taken; a reader that does not take them stops the reading, and with it, in the end, the CLI.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from claude_coded.ask import Ask, Manner, Turn
from claude_coded.cgroups import Groups
from claude_coded.claude.launch import Launch, additions, arguments
from claude_coded.claude.permits import Permit, read
from claude_coded.claude.protocol import (
    REHEARSAL,
    REHEARSALS,
    Life,
    Limits,
    Outfit,
    Protocol,
    WorkerState,
    message_line,
    split_batches,
)
from claude_coded.claude.toolbridge import SERVER, Bridge
from claude_coded.claude.translate import Translator
from claude_coded.claude.wire import (
    Answer,
    ControlCancel,
    ControlRequest,
    ControlResponse,
    Line,
    Result,
    System,
)
from claude_coded.errors import (
    CodedError,
    ModelNotFound,
    ParkLost,
    RewindRefused,
    SessionMissing,
    WorkerDied,
    WorkerStartFailed,
)
from claude_coded.history import Span
from claude_coded.pending import Pending
from claude_coded.process import Listener, Process
from claude_coded.scheduler import worker_name
from claude_coded.turn import Message, Role, ToolOutcome
from claude_coded.vigil import Vigil

log = logging.getLogger(__name__)

SETTLE_TIMEOUT: Final = 30.0
NOTICE_TIMEOUT: Final = 5.0
EOF_GRACE: Final = 2.0
TERM_GRACE: Final = 5.0
KILL_GRACE: Final = 5.0
"""Seconds: to fall idle after a turn, for what the CLI says at a limit, and for each step of a stop."""

MISSING_SESSION: Final = ("No conversation found", "No message found")
"""What the CLI says of a session that it was to resume, or of the message that it was to end at."""


@dataclass(frozen=True, slots=True)
class Cli:
    """What all workers have in common.

    `prefix` is a command that wraps the CLI's own; `groups` is where control groups can be made. `patience`
    is how many seconds an answer to a control request may take.
    """

    binary: Path
    environment: Mapping[str, str]
    retries: int
    prefix: tuple[str, ...] = ()
    groups: Groups | None = None
    patience: float = 30.0


@dataclass(frozen=True, slots=True)
class Watch:
    """Whom a worker tells. `models` gets the CLI's model list whenever one comes by.

    `loaded` hears of its first answer, of whatever kind, and `prepared` of the end of a preparation, and
    whether that went well. `asked` gets what the CLI wants to be allowed, to be
    answered by `permit`, and `cancelled` the id of such a question that needs no answer any more. `retried`
    hears that the CLI tries again after a failure of the model's API, with that one's status, if it had one.
    """

    loaded: Callable[["Worker"], None]
    prepared: Callable[["Worker", bool], None]
    exited: Callable[["Worker"], None]
    stirred: Callable[["Worker", bool], None]
    asked: Callable[["Worker", Permit], None]
    cancelled: Callable[["Worker", str], None]
    retried: Callable[["Worker", int | None], None]
    models: Callable[[list[dict[str, Any]]], None]


class Worker:
    """A process and what is said with it."""

    def __init__(self, number: int, launch: Launch, cli: Cli, watch: Watch) -> None:
        self.id = number
        self.launch = launch
        self.session = str(uuid4()) if launch.fork_at or not launch.session else launch.session
        self.life = Life(_now())
        self._made_at = _now()
        self._loaded_at: float | None = None
        self.rehearsed = False  # its session holds what was rehearsed, and nothing of anybody's
        self._cli = cli
        self._watch = watch
        group = cli.groups.make(number) if cli.groups is not None else None
        self._process = Process(Listener(self._received, self._ended, self._full), group)
        self._protocol = Protocol()
        self._vigil = Vigil(
            cli.patience,
            owes=self._owes,
            excused=lambda: self._process.paused,
            ask=lambda: self._request(self._protocol.probe()),
            give_up=self._give_up,
        )
        self._cause = ""  # why it was killed, where that was not asked for
        self._pending = Pending()
        self._turn: Turn | None = None
        self._preparation: asyncio.Task[None] | None = None
        self._outfit: Outfit | None = None
        self._bridge = Bridge()
        self._listed = asyncio.Event()
        self._limits = Limits()
        self._running = False
        self._tasks = 0
        self._stirred = False  # what was told last of `pending`
        self._idle = asyncio.Event()
        self._idle.set()
        self._cost = 0.0

    @property
    def name(self) -> str:
        """Return what people call it."""
        return worker_name(self.id)

    @property
    def state(self) -> WorkerState:
        """Return where it stands."""
        return self.life.state

    @property
    def age(self) -> float:
        """Return how many seconds ago it was made."""
        return _now() - self._made_at

    @property
    def loaded(self) -> float | None:
        """Return how many seconds ago it answered for the first time; None before that."""
        return _now() - self._loaded_at if self._loaded_at is not None else None

    @property
    def served(self) -> bool:
        """Return whether it has answered once: whatever ends it then is no failure to start."""
        return self._loaded_at is not None

    @property
    def pending(self) -> bool:
        """Return whether it works, or may start to, with nobody asking."""
        return self._running or self._tasks > 0

    @property
    def failed_to_start(self) -> bool:
        """Return whether it ended by itself before it answered anything, for no fault of its session."""
        missing = self._misses_session
        return self.state is WorkerState.DEAD and not (self.served or self.stopped or missing)

    @property
    def stopped(self) -> bool:
        """Return whether it was asked to end."""
        return any(step.state is WorkerState.STOPPING for step in self.life.story)

    @property
    def _misses_session(self) -> bool:
        return any(text in self.stderr for text in MISSING_SESSION)

    @property
    def limits(self) -> Limits:
        """Return what the requests to the model are made with."""
        return self._limits

    @property
    def pid(self) -> int | None:
        """Return the process's id; None before its start."""
        return self._process.pid

    @property
    def status(self) -> str:
        """Return how the process ended."""
        return self._process.status

    @property
    def stderr(self) -> str:
        """Return the last that the CLI said on stderr."""
        return self._process.stderr

    # Life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the process. Raises WorkerStartFailed."""
        command = [*self._cli.prefix, str(self._cli.binary), *arguments(self.launch, self.session)]
        environment = {**self._cli.environment, **additions(self.launch)}
        try:
            await self._process.start(command, self.launch.workspace, environment)
        except OSError as error:
            self._enter(WorkerState.DEAD, "spawn failed")
            raise WorkerStartFailed(f"Claude Code could not be started: {error}") from None
        if self.state is WorkerState.SPAWNING:
            self._enter(WorkerState.SPARE, f"pid {self.pid}")

    def warm_up(self) -> None:
        """Let a spare load what its first turn needs, and tell the model list."""
        if self.state is not WorkerState.SPARE:
            return
        requests = self._protocol.warm_up()
        for line, _ in requests:
            self._process.write(line)
        answer = self._expect(requests[-1][1])
        answer.add_done_callback(self._note_models)
        self._vigil.begin()

    def prepare(self, outfit: Outfit) -> None:
        """Let a spare get as far as it can ahead of a conversation that wants this outfit."""
        if self.state is WorkerState.SPARE:
            self._preparation = asyncio.get_running_loop().create_task(self._rehearse(outfit))
            self._preparation.add_done_callback(self._tell_prepared)

    async def _rehearse(self, outfit: Outfit) -> None:
        """Set the session up and have messages go through it, with no call of the model; take them back.

        They do not reach the model, but the disk. Raises ModelNotFound, WorkerDied and RewindRefused.
        """
        await self._initialize(outfit, "prepared", wait=True)
        uuids = [str(uuid4()) for _ in range(REHEARSALS)]
        self.rehearsed = True
        for uuid in uuids:
            await self._seed([(REHEARSAL, uuid)])
        await self._take_back([Span(uuids[0], uuids[-1], certain=True)])
        await self._within_time(self._idle.wait(), "did not settle")
        self._enter(WorkerState.PREPARED, "rehearsed")

    def _tell_prepared(self, preparation: "asyncio.Task[None]") -> None:
        failure = None if preparation.cancelled() else preparation.exception()
        if failure is not None and self.state is not WorkerState.STOPPING:
            log.warning("a spare could not be prepared", extra={"worker": self.name, "error": str(failure)})
        self._watch.prepared(self, failure is None)

    async def stop(self) -> None:
        """End the process: stdin EOF, which flushes the transcript; then TERM; then KILL."""
        if self.state is WorkerState.DEAD:
            return
        # A running tool does not notice EOF; TERM makes the CLI clean up its children.
        waits = self.state in (WorkerState.SPARE, WorkerState.PREPARED, WorkerState.IDLE)
        gentle = waits and not self.pending
        if self.state is not WorkerState.STOPPING:
            self._enter(WorkerState.STOPPING, "asked to")
        if await self._process.begin_stop(close=gentle) and await self._process.gone_within(EOF_GRACE):
            return
        for number, grace in ((signal.SIGTERM, TERM_GRACE), (signal.SIGKILL, KILL_GRACE)):
            self._process.kill(number)
            if await self._process.gone_within(grace):
                return
        log.error("a worker survived SIGKILL", extra={"worker": self.name, "pid": self.pid})

    async def gone(self) -> None:
        """Wait until the process has ended."""
        await self._process.gone()

    def _enter(self, state: WorkerState, why: str) -> None:
        self.life.transition(state, why, _now())

    # Turns ---------------------------------------------------------------------------------------------

    async def begin(self, ask: Ask) -> Turn:
        """Bring the session to where the message can be asked, ask it, and return the turn.

        After that, and after every error that this raises, `settle` is due for a turn that finished, else
        `abandon`. Raises SessionMissing and RewindRefused (the session cannot go on), ModelNotFound,
        WorkerDied and WorkerStartFailed.
        """
        if self._preparation is not None:
            await asyncio.shield(self._preparation)
        if self.state is WorkerState.PARKED and not ask.back:
            await self._close_calls()
        self._turn = turn = Turn(ask, self._translator(ask.uuid, ask.manner), self._process.go_on)
        self._bridge.begin(turn.open_calls, turn.refused_calls)
        if ask.outfit is not None and self._preparation is None:
            await self._initialize(ask.outfit, "first turn", wait=bool(self.launch.session or ask.seeds))
        assert ask.outfit in (None, self._outfit)
        self.rehearsed = False
        self._alive()
        self._enter(WorkerState.BUSY, "turn")
        await self._take_back(ask.back)
        await self._prepare(ask.manner)
        for run in split_batches(ask.seeds):
            await self._seed(run)
        self._alive()
        self._idle.clear()
        self._process.write(message_line(ask.message, ask.uuid, query=True))
        self._vigil.begin()
        return turn

    async def answer(self, outcomes: Sequence[ToolOutcome], manner: Manner) -> Turn:
        """Hand what the client's tools returned to the parked turn, which goes on. Raises ParkLost.

        The outcomes come in the order of the calls: their ids may be the client's own.
        """
        turn = self._turn
        waits = turn.awaited if turn is not None else []
        if self.state is not WorkerState.PARKED or turn is None or len(waits) != len(outcomes):
            raise ParkLost("the turn no longer waits for these results")
        named = [ToolOutcome(call, outcome.parts) for call, outcome in zip(waits, outcomes, strict=True)]
        self._enter(WorkerState.BUSY, "results")
        await self._prepare(manner)
        turn.go_on(manner)
        for reply in self._bridge.supply(named):
            self._process.write(self._protocol.answer_tool(reply))
        self._vigil.begin()
        return turn

    def ask_more(self, message: Message) -> None:
        """Ask something more in a turn whose answer has ended."""
        assert self._turn is not None
        uuid = str(uuid4())
        self._turn.ask_more(uuid, self._translator(uuid, self._turn.ask.manner))
        self._bridge.begin(self._turn.open_calls, self._turn.refused_calls)
        self._process.write(message_line(message, uuid, query=True))

    def permit(self, asked: str, answer: Mapping[str, Any]) -> None:
        """Answer what the CLI asked to be allowed."""
        self._process.write(self._protocol.answer_permit(asked, answer))

    def _translator(self, uuid: str, manner: Manner) -> Translator:
        return Translator(uuid, retries=self._cli.retries, cost_before=self._cost, terms=manner.terms)

    async def _prepare(self, manner: Manner) -> None:
        """Have the next requests to the model made as the client wants it."""
        if manner.limits != self._limits:
            self._limits = manner.limits
            self._request(self._protocol.set_limits(manner.limits))
        if self._bridge.offer(manner.tools.specs):
            # A request to the model before the CLI has read the list would be made with the old one.
            self._listed.clear()
            self._request(self._protocol.list_changed())
            await self._within_time(self._listed.wait(), "did not ask for the client's tools")

    async def _close_calls(self) -> None:
        """End a parked turn: the model is told that its calls were rejected."""
        self._idle.clear()
        await self._answer(self._request(self._protocol.interrupt()))
        await self._within_time(self._idle.wait(), "did not end its turn")

    async def _within_time(self, wait: Awaitable[Any], late: str) -> None:
        try:
            async with asyncio.timeout(self._cli.patience):
                await wait
        except TimeoutError:
            raise WorkerDied(f"Claude Code {late}") from None
        self._alive()

    def _alive(self) -> None:
        if self.state in (WorkerState.STOPPING, WorkerState.DEAD):
            raise self.death

    async def _initialize(self, outfit: Outfit, why: str, *, wait: bool) -> None:
        """Write what the process needs before its first turn; with `wait` until it has it."""
        self._alive()
        self._enter(WorkerState.INITIALIZING, why)
        self._outfit = outfit
        self._bridge.offer(outfit.tools)
        chosen = self._request(self._protocol.set_model(outfit.model)) if outfit.model else None
        initialized = self._request(self._protocol.initialize(outfit.setup))
        initialized.add_done_callback(self._note_models)
        if chosen is not None:
            self._check_model(await self._answer(chosen), outfit.model)
        if wait:
            await self._answer(initialized)

    def _check_model(self, answer: Answer, model: str | None) -> None:
        if not answer.ok:
            raise ModelNotFound(f"the model {model!r} cannot be used: {answer.error}", param="model")

    async def _take_back(self, spans: Sequence[Span]) -> None:
        """Rewind the session to before each of the spans that it holds.

        A resumed process may begin a turn of its own at once, on the news of a background command.
        """
        for span in spans:
            sent = self._request(self._protocol.rewind(span.first, span.last))
            check_rewound(await self._answer(sent), certain=span.certain)

    async def _seed(self, run: Sequence[tuple[Message, str]]) -> None:
        """Add messages; the CLI acknowledges a user message, which is then the last of them."""
        data = b"".join(message_line(message, uuid, query=False) for message, uuid in run)
        message, uuid = run[-1]
        if message.role is Role.ASSISTANT:
            self._process.write(data)
            await asyncio.sleep(0)
            return
        receipt = self._pending.receipt(uuid)
        self._process.write(data)
        await self._within_time(receipt, "did not take the conversation's history")

    def settle(self) -> bool:
        """Take note that the turn has finished; False when the process is gone.

        The CLI still tidies up for some milliseconds. The next message may be written meanwhile: it waits.
        """
        self._turn = None
        self._running = False
        return self._rest()

    def park(self) -> bool:
        """Let a turn wait that has called the client's tools; False when the process is gone."""
        if self.state is not WorkerState.BUSY:
            return False
        self._enter(WorkerState.PARKED, "waits for results")
        return True

    async def cut_short(self) -> Span | None:
        """Take back what the CLI goes on with after an answer that a limit of the client's has cut.

        Return what was taken back; None when that cannot be had: `abandon` is due then.
        """
        turn = self._turn
        if turn is None or turn.calling or self.state is not WorkerState.BUSY:
            return None
        try:
            async with asyncio.timeout(NOTICE_TIMEOUT):
                span = Span(await turn.notice(), turn.ask.span.last)
            check_rewound(await self._answer(self._request(self._protocol.rewind(span.first, span.last))))
        except (CodedError, TimeoutError):
            return None
        return span

    async def abandon(self) -> bool:
        """Stop the running turn and take the session back to before it; False when that cannot be had."""
        turn, self._turn = self._turn, None
        self._process.resume()
        if turn is None or self.state is not WorkerState.BUSY:
            return False
        self._enter(WorkerState.INTERRUPTING, "abandoned")
        span = turn.ask.span
        sent = self._request(self._protocol.rewind(span.first, span.last))
        try:
            check_rewound(await self._answer(sent))
        except CodedError:
            return False
        return await self._fall_idle()

    async def _fall_idle(self) -> bool:
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT):
                await self._idle.wait()
        except TimeoutError:
            return False
        return self._rest()

    def _rest(self) -> bool:
        if self.state not in (WorkerState.BUSY, WorkerState.INTERRUPTING):
            return False
        self._enter(WorkerState.IDLE, "turn ended")
        # What a turn leaves running in the background may start a turn of its own.
        self._tell_pending()
        return True

    def _tell_pending(self) -> None:
        if self.pending != self._stirred:
            self._stirred = self.pending
            self._watch.stirred(self, self._stirred)

    # Talk ----------------------------------------------------------------------------------------------

    def _request(self, command: tuple[bytes, str]) -> asyncio.Future[Answer]:
        line, request_id = command
        answer = self._expect(request_id)
        self._process.write(line)
        return answer

    def _expect(self, request_id: str) -> asyncio.Future[Answer]:
        answer = self._pending.answer(request_id)
        if self.state is WorkerState.DEAD:
            self._pending.fail(self.death)
        return answer

    async def _answer(self, answer: asyncio.Future[Answer]) -> Answer:
        try:
            async with asyncio.timeout(self._cli.patience):
                return await answer
        except TimeoutError:
            raise WorkerDied("Claude Code did not answer") from None

    def _owes(self) -> bool:
        """Return whether something is to come from the process: an answer, or what a turn says."""
        ending = self.state in (WorkerState.STOPPING, WorkerState.DEAD)
        return not ending and (self.state is WorkerState.BUSY or self._pending.unanswered)

    def _give_up(self) -> None:
        seconds = round(self._cli.patience * 1000)
        self._kill(f"it did not answer for {seconds} ms (CLAUDE_CODED_ANSWER_TIMEOUT_MS)")

    def _kill(self, cause: str) -> None:
        """End a process that is of no use any more."""
        self._cause = cause
        log.error("a worker is killed", extra={"worker": self.name, "pid": self.pid, "cause": cause})
        self._process.kill(signal.SIGKILL)

    def _note_models(self, answer: asyncio.Future[Answer]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            models = (answer.result().response or {}).get("models")
            if isinstance(models, list):
                self._watch.models(models)

    # What comes in --------------------------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        self._vigil.hear()
        before = self._turn.produced if self._turn is not None else 0
        try:
            for message in self._protocol.receive(data):
                self._take(message)
        except Exception:
            # A line too long, or a fault of ours: a turn would wait for what was never understood.
            log.exception("a worker's output cannot be read", extra={"worker": self.name})
            self._kill("its output cannot be read")
        if self._turn is not None and self._turn.produced > before:
            self._process.pace()

    def _full(self) -> bool:
        return self._turn is not None and self._turn.full

    def _take(self, message: Line) -> None:
        match message:
            case ControlResponse(response):
                if not self.served:
                    self._loaded_at = _now()
                    self._watch.loaded(self)
                self._pending.hear(response)
            case ControlRequest():
                self._serve(message)
            case ControlCancel(request_id):
                self._watch.cancelled(self, request_id)
            case System():
                self._note(message)
            case Result():
                self._cost = message.total_cost_usd or self._cost
                if message.num_turns == 0:  # it is about messages that were seeded
                    self._pending.acknowledge(message.user_message_uuids)
            case _:
                pass
        if self._turn is not None:
            self._turn.add(message)
        for reply in self._bridge.refuse() if self._bridge.refused else ():
            self._process.write(self._protocol.answer_tool(reply))

    def _serve(self, message: ControlRequest) -> None:
        request = message.request
        if (permit := read(message)) is not None:
            self._watch.asked(self, permit)
            return
        if request.get("subtype") != "mcp_message" or request.get("server_name") != SERVER:
            self._process.write(self._protocol.refuse(message, "this host does not serve such requests"))
            return
        reply = self._bridge.receive(message.request_id, request.get("message") or {})
        if reply is not None:
            self._process.write(self._protocol.answer_tool(reply))
        elif self._turn is not None:
            self._turn.called()
        if self._bridge.listed:
            self._listed.set()

    def _note(self, message: System) -> None:
        if message.subtype == "session_state_changed":
            # Not only `running`: while it waits for leave to do something, it is `requires_action`.
            self._running = message.state != "idle"
            self._idle.clear() if self._running else self._idle.set()
        elif message.subtype == "background_tasks_changed":
            self._tasks = len(message.tasks or ())
        elif message.subtype == "api_retry":
            self._watch.retried(self, message.error_status)
        if self._turn is None and self.state is not WorkerState.INITIALIZING:
            self._tell_pending()

    def _ended(self) -> None:
        self._vigil.end()
        death = self.death
        self._enter(WorkerState.DEAD, self._process.status)
        self._idle.set()
        self._pending.fail(death)
        if self._turn is not None:
            self._turn.fail(death)
        self._watch.exited(self)

    @property
    def death(self) -> CodedError:
        """Return the error of whoever counted on this process."""
        how = f"{self._process.status}; {self._cause}" if self._cause else self._process.status
        said = f" ({how})" + (f": {self.stderr}" if self.stderr else "")
        if not self.served and self._misses_session:
            return SessionMissing(f"Claude Code has lost the session{said}")
        if not self.served:
            return WorkerStartFailed(f"Claude Code did not start{said}", retry_after=1)
        return WorkerDied(f"the Claude Code process ended in the middle of the turn{said}")


def check_rewound(answer: Answer, *, certain: bool = False) -> None:
    """Raise RewindRefused unless the session no longer holds what it was to lose."""
    response = answer.response or {}
    if not response.get("rewound") and (certain or response.get("reason") != "target_not_found"):
        raise RewindRefused(f"the session could not be rewound: {response.get('reason') or answer.error}")


def _now() -> float:
    return asyncio.get_running_loop().time()
