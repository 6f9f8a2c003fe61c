"""The CLI's control protocol without I/O: bytes in, messages out; commands in, bytes out.

Also the life of a worker: its states and which may follow which.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import count
from typing import Any, Final

import msgspec
import orjson
from msgspec import Struct

from claude_coded.claude.toolbridge import LIST_CHANGED, SERVER, Reply, qualified
from claude_coded.claude.wire import ControlRequest, Line, LineSplitter, messages
from claude_coded.turn import (
    Document,
    Image,
    Message,
    Part,
    Prompting,
    RemoteImage,
    Role,
    Text,
    ToolCall,
    ToolOutcome,
    ToolSpec,
)


class WorkerState(StrEnum):
    """Where a worker stands."""

    SPAWNING = "spawning"
    SPARE = "spare"  # runs, and waits for the prompt of its first conversation
    INITIALIZING = "initializing"
    PREPARED = "prepared"  # a spare with the prompt of a conversation that is expected
    IDLE = "idle"
    BUSY = "busy"
    PARKED = "parked"  # waits for what the client's tools return
    INTERRUPTING = "interrupting"
    STOPPING = "stopping"
    DEAD = "dead"


_S = WorkerState
TRANSITIONS: Final[Mapping[WorkerState, frozenset[WorkerState]]] = {
    _S.SPAWNING: frozenset({_S.SPARE, _S.STOPPING, _S.DEAD}),
    _S.SPARE: frozenset({_S.INITIALIZING, _S.STOPPING, _S.DEAD}),
    _S.INITIALIZING: frozenset({_S.PREPARED, _S.BUSY, _S.STOPPING, _S.DEAD}),
    _S.PREPARED: frozenset({_S.BUSY, _S.STOPPING, _S.DEAD}),
    _S.IDLE: frozenset({_S.BUSY, _S.STOPPING, _S.DEAD}),
    _S.BUSY: frozenset({_S.IDLE, _S.PARKED, _S.INTERRUPTING, _S.STOPPING, _S.DEAD}),
    _S.PARKED: frozenset({_S.BUSY, _S.INTERRUPTING, _S.STOPPING, _S.DEAD}),
    _S.INTERRUPTING: frozenset({_S.IDLE, _S.STOPPING, _S.DEAD}),
    _S.STOPPING: frozenset({_S.DEAD}),
    _S.DEAD: frozenset(),
}


class Step(Struct, frozen=True):
    """One step of a worker's story; `at` is in seconds of the caller's clock."""

    at: float
    state: WorkerState
    why: str


class IllegalTransition(Exception):
    """A worker was asked to do what its state forbids; the message tells its story."""


class Life:
    """A worker's state and its bounded story."""

    __slots__ = ("state", "story")

    def __init__(self, now: float) -> None:
        self.state = WorkerState.SPAWNING
        self.story: deque[Step] = deque([Step(now, self.state, "created")], maxlen=32)

    def transition(self, to: WorkerState, why: str, now: float) -> None:
        """Go to a state. Raises IllegalTransition, which says how the worker came to where it is."""
        if to not in TRANSITIONS[self.state]:
            raise IllegalTransition(f"{self.state} -> {to} ({why}) after {self.tell()}")
        self.state = to
        self.story.append(Step(now, to, why))

    def tell(self) -> str:
        """Return the story in one line."""
        return ", ".join(f"{step.state} ({step.why})" for step in self.story)


class Setup(Struct, frozen=True):
    """What the `initialize` request fixes for the life of a process."""

    system: str = ""
    prompting: Prompting = Prompting.APPENDED
    resumed: bool = False
    tools: bool = False  # the client has some
    schema: str | None = None  # JSON text

    def request(self) -> dict[str, Any]:
        """Return the request's fields.

        A resumed session keeps the prompt that it began with, unless it is told that the new text counts.
        """
        fields: dict[str, Any] = {"hooks": None}
        if self.prompting is Prompting.REPLACING:
            fields["systemPrompt"] = [self.system] if self.system else []
        elif self.system:
            fields["appendSystemPrompt"] = self.system
        if self.resumed:
            fields["systemPromptSnapshot"] = False
        if self.tools:
            fields["sdkMcpServers"] = [SERVER]
        if self.schema is not None:
            fields["jsonSchema"] = orjson.loads(self.schema)
        return fields


class Outfit(Struct, frozen=True):
    """All that a process is given before its first message. `model` is chosen before the setup."""

    setup: Setup = Setup()
    model: str | None = None
    tools: tuple[ToolSpec, ...] = ()


class Limits(Struct, frozen=True):
    """What a turn's requests to the model are made with; None is the CLI's own choice."""

    max_tokens: int | None = None
    effort: str | None = None


class Protocol:
    """One connection with a CLI. Commands return the bytes to write and, where one comes, the answer's id."""

    __slots__ = ("_ids", "_splitter")

    def __init__(self) -> None:
        self._splitter = LineSplitter()
        self._ids = count(1)

    def receive(self, data: bytes) -> Iterable[Line]:
        """Yield the messages that `data` completes. Raises LineTooLong."""
        return messages(self._splitter, data)

    def initialize(self, setup: Setup) -> tuple[bytes, str]:
        """Set prompt and tools; only the first one of a process counts."""
        return self._request("initialize", **setup.request())

    def warm_up(self) -> list[tuple[bytes, str]]:
        """Ask what makes a waiting CLI load what its first turn needs, with no call of the model's API.

        The last of them answers with the list of models.
        """
        return [self._request(name) for name in ("get_settings", "list_permission_rules", "list_models")]

    def probe(self) -> tuple[bytes, str]:
        """Ask for a sign of life: it is answered at any time, in the middle of a turn or of a command too."""
        return self._request("get_settings")

    def rewind(self, first: str, last: str) -> tuple[bytes, str]:
        """Take the history back to before the user message `first`; `last` is the newest one that we sent.

        A running turn is stopped first. The answer has `rewound` and, where that is false, a `reason`;
        `target_not_found` means that the session does not hold the message.
        """
        return self._request(
            "rewind_conversation",
            target_message_uuid=first,
            last_seen_user_message_uuid=last,
            interrupt_if_running=True,
        )

    def interrupt(self) -> tuple[bytes, str]:
        """Stop the running turn; a call that waits is closed as rejected by the user."""
        return self._request("interrupt")

    def set_limits(self, limits: Limits) -> tuple[bytes, str]:
        """Choose what the model's next requests are made with; None is the CLI's own choice."""
        tokens = "" if limits.max_tokens is None else str(limits.max_tokens)
        settings = {"effortLevel": limits.effort, "env": {"CLAUDE_CODE_MAX_OUTPUT_TOKENS": tokens}}
        return self._request("apply_flag_settings", settings=settings)

    def list_changed(self) -> tuple[bytes, str]:
        """Tell the CLI that the client's tools are others now: it asks for them at once."""
        return self._request("mcp_message", server_name=SERVER, message=LIST_CHANGED)

    def answer_tool(self, reply: Reply) -> bytes:
        """Answer a message to the client's tools."""
        request_id, message = reply
        return _response(request_id, {"mcp_response": message})

    def answer_permit(self, request_id: str, answer: Mapping[str, Any]) -> bytes:
        """Answer the question whether a tool may be used."""
        return _response(request_id, answer)

    def set_model(self, model: str) -> tuple[bytes, str]:
        """Choose the model of the turns to come; `default` is the CLI's own choice."""
        return self._request("set_model", model=model)

    def refuse(self, request: ControlRequest, why: str) -> bytes:
        """Answer a question of the CLI with an error, so that it does not wait for ever."""
        response = {"subtype": "error", "request_id": request.request_id, "error": why}
        return _line({"type": "control_response", "response": response})

    def _request(self, subtype: str, **fields: object) -> tuple[bytes, str]:
        request_id = f"coded-{next(self._ids)}"
        request = {"subtype": subtype, **fields}
        return _line({"type": "control_request", "request_id": request_id, "request": request}), request_id


def message_line(message: Message, uuid: str, *, query: bool) -> bytes:
    """Return the line that adds a message to the history and, with `query`, starts a turn.

    `client_composed` keeps the text as written: no slash commands, no `@file` references.
    """
    content = [block(part) for part in message.parts]
    if message.role is Role.ASSISTANT:
        return _line(
            {"type": "assistant", "uuid": uuid, "message": {"role": "assistant", "content": content}}
        )
    line = {
        "type": "user",
        "uuid": uuid,
        "message": {"role": "user", "content": content},
        "parent_tool_use_id": None,
        "client_composed": True,
    }
    return _line(line if query else {**line, "shouldQuery": False})


def block(part: Part) -> dict[str, Any]:
    """Return a part as a content block of Anthropic's Messages API."""
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Image(media_type, data):
            source = {"type": "base64", "media_type": media_type, "data": data}
            return {"type": "image", "source": source}
        case RemoteImage(url):
            return {"type": "image", "source": {"type": "url", "url": url}}
        case Document(media_type, data, name):
            source = {"type": "base64", "media_type": media_type, "data": data}
            title = {"title": name} if name else {}
            return {"type": "document", "source": source, **title}
        case ToolCall(call, name, arguments):
            return {"type": "tool_use", "id": call, "name": qualified(name), "input": orjson.loads(arguments)}
        case ToolOutcome(call, parts):
            return {"type": "tool_result", "tool_use_id": call, "content": [block(p) for p in parts]}


REHEARSAL: Final = Message.of(Role.USER, "(a rehearsal)")
REHEARSALS: Final = 8
"""What a spare's first message is rehearsed with, as a message of the history, and how often: the CLI
compiles as it goes, and what it has run a few times runs faster."""

LONGEST_RUN: Final = 256
"""Messages of the assistant in a row that are written at once: others wait meanwhile."""


def split_batches(seeds: Sequence[tuple[Message, str]]) -> Iterator[list[tuple[Message, str]]]:
    """Cut messages to seed into runs that each end with a user message, or are long enough.

    The CLI sends a receipt for a seeded user message, and none for an assistant message.
    """
    run: list[tuple[Message, str]] = []
    for seed in seeds:
        run.append(seed)
        if seed[0].role is Role.USER or len(run) == LONGEST_RUN:
            yield run
            run = []
    if run:
        yield run


def _response(request_id: str, answer: Mapping[str, Any]) -> bytes:
    response = {"subtype": "success", "request_id": request_id, "response": answer}
    # Not orjson: what the CLI hands back and forth may hold numbers that it does not take.
    return msgspec.json.encode({"type": "control_response", "response": response}) + b"\n"


def _line(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
