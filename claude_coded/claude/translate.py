"""The CLI's messages of one turn -> TurnEvents.

The answer is the main thread's text. A turn of an agent has several replies of the model with tool use
between them; their texts are joined by a blank line.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from claude_coded.claude.calls import Calls
from claude_coded.claude.toolbridge import PREFIX
from claude_coded.claude.wire import (
    ApiEvent,
    ApiUsage,
    Assistant,
    Block,
    Delta,
    Line,
    Result,
    StreamEvent,
    System,
    User,
)
from claude_coded.errors import (
    CodedError,
    ContextLengthExceeded,
    InvalidRequest,
    ModelNotFound,
    SchemaNotMet,
    UpstreamAuthentication,
    UpstreamError,
    UpstreamOverloaded,
    UpstreamRateLimited,
    WorkerDied,
)
from claude_coded.turn import (
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolActivity,
    ToolSpec,
    TurnEvent,
    TurnFailed,
    TurnFinished,
    Usage,
)

SUMMARY_LIMIT: Final = 160
"""Longest summary of a tool's input or failure, in characters."""

SYNTHETIC: Final = "<synthetic>"
"""The `model` of messages that the CLI wrote itself: what it says of an API error, for one."""

STRUCTURED: Final = "StructuredOutput"
"""The CLI's own tool through which the model gives an answer that fits a schema."""

REPLY_SEPARATOR: Final = "\n\n"
RATE_LIMIT_RETRY: Final = 30.0
OVERLOAD_RETRY: Final = 15.0
"""Seconds that a client is asked to wait; the CLI does not hand on what the API asked for."""


class Terms(Struct, frozen=True):
    """What a client asked of a response that shows in how it is told.

    `tools` are its own by the names that the model sees; it takes several calls at once if `parallel`.
    `limited`: it set a limit of tokens, at which the answer ends. `structured`: the answer is the CLI's
    structured output, and text beside it is no more than thinking aloud.
    """

    tools: Mapping[str, ToolSpec] = msgspec.field(default_factory=dict)
    parallel: bool = True
    limited: bool = False
    structured: bool = False


class Translator:
    """Turns the messages of one turn into events; `ended` once the last one is out.

    `uuid` is the turn's user message: what comes before the CLI names it belongs to a turn that nobody
    here asked for. `retries` is how many tries of the CLI on 429, 5xx and 529 are waited for.
    `cost_before` is the process's running total in USD.

    A reply that calls the client's tools ends a response, but not the turn: it is `parked` until `go_on`.
    It is `astray` if it went on without that.
    """

    def __init__(
        self, uuid: str, *, retries: int, cost_before: float = 0.0, terms: Terms | None = None
    ) -> None:
        terms = terms or Terms()
        self.ended = False
        self.parked = False
        self.astray = False
        self.answering = False  # the model has begun to, whatever it may say
        self.calls = Calls(terms.tools, parallel=terms.parallel)
        self.started = False
        self.cost_total = cost_before
        self._uuid = uuid
        self._retries = retries
        self._cost_before = cost_before
        self._terms = terms
        self._later: list[TurnEvent] = []  # what came while it was parked
        self._usage = Usage()  # of the replies so far
        self._reported = Usage()
        self._input = Usage()  # what the present reply has read
        self._streaming = False
        self._streamed = ""  # the id of the reply that comes as a stream
        self._whole = ""  # the id of the reply that comes without one
        self._sent: list[str] = []  # its text so far
        self._stop: str | None = None  # its stop reason; None while it is open, or broken off
        self._repeat = ""  # text of a broken reply that is about to come again
        self._separate = False
        self._wrote = False
        self._refused = False
        self._calling = False  # the present reply calls tools, whose results the CLI goes on with
        self._tools: dict[str, str] = {}
        self._out: list[TurnEvent] = []
        self._handlers: Mapping[type, Callable[[Any], None]] = {
            StreamEvent: self._stream_event,
            Assistant: self._assistant,
            User: self._user,
            System: self._system,
            Result: self._result,
        }

    def feed(self, message: Line) -> list[TurnEvent]:
        """Return the events of one message; none after the end."""
        handler = self._handlers.get(type(message))
        if handler is None or self.ended:
            return []
        waits = self.parked
        if not self.started:
            self.started = self._begins(message)
        if self.started:
            handler(message)
        events, self._out = self._out, []
        if waits:
            self._later += events
            return []
        return events

    def go_on(self, terms: Terms) -> list[TurnEvent]:
        """Begin the next response of a parked turn; return the events that there are already."""
        self._terms = terms
        self.parked = self.answering = self._wrote = self._separate = False
        events, self._later = self._later, []
        if told := self.calls.go_on(terms.tools, parallel=terms.parallel):
            self._out = [*events, *told]
            self._park()
            events, self._out = self._out, []
        return events

    def called(self) -> list[TurnEvent]:
        """Take note that the CLI has asked for a call: a reply that came without a stream is then whole.

        One that streams may have more calls to come: the CLI runs each as soon as its block has ended.
        """
        if not (self.parked or self.ended or self._streaming) and self.calls.told:
            self._park()
        events, self._out = self._out, []
        return events

    @property
    def usage(self) -> Usage:
        """Return what the present response has used so far; of a reply that streams, what it has read."""
        used = self._usage + self._input if self._streaming else self._usage
        return _difference(used, self._reported)

    @property
    def calling(self) -> bool:
        """Return whether the newest reply calls tools, the client's or others."""
        return self._calling

    def _park(self) -> None:
        self.parked = True
        self._out.append(TurnFinished(FinishReason.TOOL_CALLS, self.usage))
        self._reported = self._usage

    def _begins(self, message: Line) -> bool:
        return isinstance(message, System | Result) and self._uuid in message.user_message_uuids

    # The model's answer --------------------------------------------------------------------------------

    def _stream_event(self, message: StreamEvent) -> None:
        if message.parent_tool_use_id is not None:
            return
        event = message.event
        if event.delta is not None:
            self._delta(event.delta, event)
        elif event.type == "content_block_start":
            if event.content_block is not None and event.content_block.type == "tool_use":
                self._calling = True
                self._out += self.calls.begin(event.content_block)
        elif event.type == "content_block_stop":
            self._out += self.calls.end()
        elif event.type == "message_start":
            self.astray |= self.parked
            self._streamed = event.message.id if event.message else ""
            self._input = _usage(event.message.usage if event.message else None)
            self._streaming = self.answering = True
            self._start_reply()

    def _delta(self, delta: Delta, event: ApiEvent) -> None:
        if delta.type == "text_delta":
            self._text(delta.text)
        elif delta.type == "thinking_delta":
            self._out.append(ReasoningDelta(delta.thinking))
        elif delta.type == "input_json_delta":
            self._out += self.calls.add(delta.partial_json)
        elif event.type == "message_delta":
            self._reply_ends(delta.stop_reason, event.usage)

    def _reply_ends(self, stop: str | None, usage: ApiUsage | None) -> None:
        self._stop = stop
        self._streaming = False
        self._refused |= stop == "refusal"
        output = _usage(usage)
        self._usage += replace(self._input, output=output.output, reasoning=output.reasoning)
        if self._terms.limited and stop == "max_tokens":
            self.ended = True
            self._out.append(TurnFinished(FinishReason.LENGTH, self.usage))
        elif self.calls.told:
            self._park()

    def _start_reply(self) -> None:
        # A reply that was cut off, by a limit or a broken connection, is gone on with where it stopped.
        self._separate = self._wrote and self._stop not in {None, "max_tokens"}
        self._stop = None
        self._calling = False
        if not self._repeat:
            self._sent.clear()

    def _text(self, text: str) -> None:
        """Add the part of a reply's text that was not sent before the connection to the API broke."""
        if self._repeat:
            common = min(len(text), len(self._repeat))
            if text[:common] != self._repeat[:common]:
                self._differs()
                return
            self._repeat, text = self._repeat[common:], text[common:]
        if not text:
            return
        self._sent.append(text)
        if self._terms.structured:
            self._out.append(ReasoningDelta(text))
            return
        if self._separate:
            self._separate = False
            self._out.append(TextDelta(REPLY_SEPARATOR + text))
        else:
            self._out.append(TextDelta(text))
        self._wrote = True

    def _expect_repeat(self) -> None:
        if self._stop is not None:
            return
        self._repeat = "".join(self._sent)
        if self.calls.told:
            # Its call will come again, under another id.
            self._differs()

    def _differs(self) -> None:
        self.ended = True
        self._out.append(TurnFailed(UpstreamError("the model's answer broke off and came again differently")))

    def _assistant(self, message: Assistant) -> None:
        if message.parent_tool_use_id is not None or message.message.model == SYNTHETIC:
            return
        whole = message.message.id != self._streamed
        if whole and message.message.id != self._whole:
            # The CLI fell back to a request without streaming; what it began to stream comes again.
            self._whole = message.message.id
            self._expect_repeat()
            self._start_reply()
            self._stop = "end_turn"
            self._streaming = False
            self._usage += _usage(message.message.usage)
        for block in message.message.blocks:
            if block.type == "tool_use":
                self._tool_use(block)
            elif whole and block.type == "text":
                self._text(block.text)

    def _tool_use(self, block: Block) -> None:
        if self.calls.is_client(block.name):
            self._out += self.calls.whole(block)  # nothing, if it was streamed
        elif block.name != STRUCTURED and not block.name.startswith(PREFIX):
            self._tools[block.id] = block.name
            self._out.append(ToolActivity(block.name, summarize(block.input)))

    def _user(self, message: User) -> None:
        if message.parent_tool_use_id is not None:
            return
        for block in message.message.blocks:
            name = self._tools.get(block.tool_use_id)
            if block.type == "tool_result" and block.is_error and name is not None:
                self._out.append(ToolActivity(name, "", failure=_one_line(_result_text(block))))

    # Trouble and the end -------------------------------------------------------------------------------

    def _system(self, message: System) -> None:
        if message.subtype == "session_state_changed" and message.state == "idle":
            # It falls idle after its result. A turn whose result was lost would never end.
            self.ended = True
            self._out.append(TurnFailed(WorkerDied("Claude Code has ended the turn without its result")))
        if message.subtype != "api_retry":
            return
        self._expect_repeat()
        status = message.error_status
        if status in {401, 403} or message.attempt > self._retries:
            self.ended = True
            self._out.append(TurnFailed(upstream_error(status, "")))

    def _result(self, message: Result) -> None:
        if self._uuid not in message.user_message_uuids:
            return
        self.astray |= self.parked
        self.ended = True
        if message.total_cost_usd is not None:
            self.cost_total = message.total_cost_usd
        if self._stop == "refusal" and message.is_error and message.api_error_status is None:
            # The CLI's words for it are no answer, and none of the API's failures.
            self._out.append(TurnFinished(FinishReason.REFUSAL, self._rest(message)))
            return
        if message.is_error or message.subtype != "success":
            self._out.append(TurnFailed(_failure(message)))
            return
        if self._repeat:
            self._differs()
            return
        if self._terms.structured:
            self._structured(message)
            return
        if not self._wrote and message.result and not self._reported.output:
            # A reply of the CLI itself, with no message of the model behind it.
            self._out.append(TextDelta(message.result))
        reason = FinishReason.REFUSAL if self._refused else FinishReason.STOP
        self._out.append(TurnFinished(reason, self._rest(message)))

    def _structured(self, message: Result) -> None:
        if message.structured_output is None and self._refused:
            self._out.append(TurnFinished(FinishReason.REFUSAL, self._rest(message)))
            return
        if message.structured_output is None:
            said = _one_line(message.result or "")
            fault = SchemaNotMet(f"the model gave no answer that fits the schema: {said}")
            self._out.append(TurnFailed(fault))
            return
        self._out.append(TextDelta(msgspec.json.encode(message.structured_output).decode()))
        self._out.append(TurnFinished(FinishReason.STOP, self._rest(message)))

    def _rest(self, message: Result) -> Usage:
        """Return what of the turn's usage no response has told yet."""
        cost = self.cost_total - self._cost_before
        return replace(_difference(_usage(message.usage), self._reported), cost_usd=cost)


def upstream_error(status: int | None, detail: str) -> CodedError:
    """Return the error that tells a client of a failure of the model's API, by its HTTP status."""
    said = f": {detail}" if detail else ""
    match status:
        case 401 | 403:
            error: CodedError = UpstreamAuthentication(
                f"the model's API refused the daemon's own credentials ({status}): a matter for its operator"
            )
        case 429:
            error = UpstreamRateLimited(
                f"the model's API limits the daemon's key (429){said}", retry_after=RATE_LIMIT_RETRY
            )
        case 529:
            error = UpstreamOverloaded(
                f"the model's API is overloaded (529){said}", retry_after=OVERLOAD_RETRY
            )
        case 404:
            error = ModelNotFound(f"the model's API does not know this model{said}", param="model")
        case 400 | 413 if _is_overflow(detail):
            error = ContextLengthExceeded(
                f"the conversation exceeds the model's context window{said}", param="messages"
            )
        case 400 | 413:
            error = InvalidRequest(f"the model's API refused the request ({status}){said}")
        case _:
            shown = f" ({status})" if status else ""
            error = UpstreamError(f"the model's API failed{shown}{said}")
    return error


def _is_overflow(detail: str) -> bool:
    lowered = detail.lower()
    return "prompt is too long" in lowered or "context" in lowered


def _failure(message: Result) -> CodedError:
    detail = _one_line(message.result or "; ".join(message.errors))
    if message.api_error_status is None and message.subtype != "success":
        return UpstreamError(f"the turn failed ({message.subtype}): {detail}")
    if message.api_error_status is None and _is_overflow(detail):
        return upstream_error(400, detail)
    return upstream_error(message.api_error_status, detail)


def _difference(total: Usage, part: Usage) -> Usage:
    return Usage(
        max(0, total.input - part.input),
        max(0, total.output - part.output),
        max(0, total.cache_read - part.cache_read),
        max(0, total.cache_write - part.cache_write),
        max(0, total.reasoning - part.reasoning),
    )


def _usage(usage: ApiUsage | None) -> Usage:
    if usage is None:
        return Usage()
    read, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    return Usage(
        input=(usage.input_tokens or 0) + read + written,
        output=usage.output_tokens or 0,
        cache_read=read,
        cache_write=written,
        reasoning=usage.output_tokens_details.thinking_tokens if usage.output_tokens_details else 0,
    )


_TELLING: Final = ("command", "file_path", "path", "pattern", "url", "query", "description", "prompt")


def summarize(tool_input: object) -> str:
    """Return one line that says what a tool is asked to do: its most telling argument."""
    if not isinstance(tool_input, dict):
        return ""
    for name in (*_TELLING, *tool_input):
        if isinstance(value := tool_input.get(name), str) and value.strip():
            return _one_line(value)
    return ""


def _result_text(block: Block) -> str:
    if isinstance(block.content, str):
        return block.content
    if isinstance(block.content, list):
        parts = [part.get("text", "") for part in block.content if isinstance(part, dict)]
        return "\n".join(part for part in parts if isinstance(part, str))
    return ""


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SUMMARY_LIMIT else line[: SUMMARY_LIMIT - 1] + "…"
