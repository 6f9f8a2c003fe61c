"""The neutral vocabulary between the two sides: what a turn is asked, and what comes out of it.

`openai` turns requests into these types and these types into answers; `claude` turns the CLI's messages
into events. Neither knows the other.

What is made for each turn is a Struct, here and elsewhere: some forty of them are, and a frozen dataclass
takes several times as long. Messages and their parts hold each other in no circle. The collector does not
look at them (`gc=False`): a history has tens of thousands.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import msgspec
import orjson
from msgspec import Struct

from claude_coded.errors import CodedError
from claude_coded.profiles import McpFile


class Role(Enum):
    """Who said a message of the history. System text is no message: it stands beside the chain."""

    USER = "user"
    ASSISTANT = "assistant"


class Text(Struct, frozen=True, gc=False, tag="text"):
    """A piece of text."""

    text: str


class Image(Struct, frozen=True, gc=False, tag="image"):
    """An image; `data` is base64."""

    media_type: str
    data: str


class RemoteImage(Struct, frozen=True, gc=False, tag="remote_image"):
    """An image that is to be fetched before the turn; never stored."""

    url: str


class Document(Struct, frozen=True, gc=False, tag="document"):
    """A file for the model to read; `data` is base64."""

    media_type: str
    data: str
    name: str = ""


class ToolCall(Struct, frozen=True, dict=True, tag="tool_call"):
    """A call that the assistant made of a tool of the client's; `arguments` is the JSON text of an object."""

    id: str
    name: str
    arguments: str

    @property
    def canonical(self) -> bytes:
        """Return the arguments' one JSON text, keys sorted.

        Raises ValueError where they are no JSON, and TypeError where they are nested too deep.
        """
        held = self.__dict__  # no cached_property: its lock takes longer than to parse what most calls have
        made: bytes
        if "canonical" in held:
            made = held["canonical"]
        else:
            parsed = orjson.loads(self.arguments)
            made = held["canonical"] = orjson.dumps(parsed, option=orjson.OPT_SORT_KEYS)
        return made


class ToolOutcome(Struct, frozen=True, gc=False, tag="tool_outcome"):
    """What the client's tool returned for the call `id`."""

    id: str
    parts: tuple[Text | Image | RemoteImage | Document, ...]


Part = Text | Image | RemoteImage | Document | ToolCall | ToolOutcome


class Message(Struct, frozen=True, gc=False):
    """One message of a conversation; the outcomes of tools are the user's."""

    role: Role
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, role: Role, text: str) -> "Message":
        """Return a message of one text."""
        return cls(role, (Text(text),))

    @property
    def text(self) -> str:
        """Return the text parts, a line each."""
        return "\n".join(part.text for part in self.parts if isinstance(part, Text))


class Prompting(Enum):
    """What a client's system text is to the model."""

    APPENDED = "appended"  # follows Claude Code's own prompt
    REPLACING = "replacing"  # stands in its place


class Profile(Struct, frozen=True):
    """A kind of worker that a model name chooses.

    `name` is the name under which the API lists it; `model` is what the CLI's `set_model` takes (None:
    the CLI's default). `system` goes before the client's system text. `tools` are those of Claude Code's
    own (None: what the kind has). Permission mode, effort and workspace are what a client does not choose;
    the mode is the most that it may choose.
    """

    name: str
    agent: bool
    model: str | None = None
    prompt: Prompting | None = None
    system: str = ""
    tools: tuple[str, ...] | None = None
    permission_mode: str | None = None
    effort: str | None = None
    mcp: McpFile | None = None
    workspace: Path | None = None

    @property
    def prompting(self) -> Prompting:
        """Return what the client's system text is: an agent keeps Claude Code's own prompt."""
        return self.prompt or (Prompting.APPENDED if self.agent else Prompting.REPLACING)

    def system_text(self, client: str) -> str:
        """Return all system text: the operator's, then the client's."""
        return "\n\n".join(text for text in (self.system, client) if text)


class ConversationKey(NamedTuple):
    """A conversation's name within its tenant."""

    tenant: str
    id: str


class ToolSpec(Struct, frozen=True):
    """A tool of the client's, as it was given; `parameters` is the JSON text of a schema, keys sorted."""

    name: str
    description: str
    parameters: str
    strict: bool = False


class Tools(Struct, frozen=True):
    """The client's tools that may be called in this turn.

    With `required` the answer has to call one. Without `parallel` it calls one at a time.
    """

    specs: tuple[ToolSpec, ...] = ()
    required: bool = False
    parallel: bool = True


class Options(Struct, frozen=True):
    """What else a client asks of a turn.

    The answer ends before the first of the `stop` texts, and after `max_tokens`. With a `schema` (the JSON
    text of one, its root an object) the answer is JSON that fits. `effort` is one of Claude Code's levels.
    `permission_mode` and `workspace` (a directory) are None for what the operator has set.
    """

    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    effort: str | None = None
    schema: str | None = None
    permission_mode: str | None = None
    workspace: Path | None = None


class After(Struct, frozen=True):
    """The finished turn that a request goes on after. `digest` is of all that was said by then."""

    key: ConversationKey
    turn: int
    digest: bytes


class TurnRequest(Struct, frozen=True):
    """One request, checked and in neutral terms.

    `system` is None when the client sent no system text, which leaves an earlier one standing.
    `messages` end with the user's. `streamed` says whether the client sees the answer as it comes, or not
    before it is whole. `named`: the client chose the conversation; else its key is to be found, and `hint`
    breaks ties between equal histories; so does the conversation of the turn that it goes on `after`, and
    before that. If it is `brief`, the messages do not tell what was said up to there. `ephemeral`: what it
    begins is forgotten with its process. `size` is how many bytes it was sent in, by which is known whether
    the work for it takes long. `trace` holds W3C's `traceparent` and `tracestate` as they came, if they did.
    `arrived` is when all of it had come, in seconds of the monotonic clock; 0: nobody has looked.
    """

    key: ConversationKey
    profile: Profile
    messages: tuple[Message, ...]
    system: str | None = None
    streamed: bool = False
    named: bool = True
    hint: str = ""
    after: After | None = None
    brief: bool = False
    ephemeral: bool = False
    tools: Tools = Tools()
    options: Options = Options()
    size: int = 0
    trace: Mapping[str, str] = msgspec.field(default_factory=dict)
    arrived: float = 0.0


class Usage(Struct, frozen=True, gc=False):
    """Tokens of one turn. `input` counts everything that the model read, cache reads and writes included."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    cost_usd: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        """Return the sum, field by field."""
        return Usage(
            self.input + other.input,
            self.output + other.output,
            self.cache_read + other.cache_read,
            self.cache_write + other.cache_write,
            self.reasoning + other.reasoning,
            self.cost_usd + other.cost_usd,
        )


class FinishReason(Enum):
    """Why the answer ends."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    REFUSAL = "refusal"


class TextDelta(Struct, frozen=True, gc=False):
    """A piece of the answer."""

    text: str


class ReasoningDelta(Struct, frozen=True, gc=False):
    """A piece of the model's thinking."""

    text: str


class ToolCallStarted(Struct, frozen=True, gc=False):
    """The answer calls a tool of the client's: its `index`th call, from 0, under the client's name for it."""

    index: int
    id: str
    name: str


class ToolCallDelta(Struct, frozen=True, gc=False):
    """A piece of the JSON text of a call's arguments."""

    index: int
    arguments: str


class ToolActivity(Struct, frozen=True, gc=False):
    """Claude's own use of a tool: a call when `failure` is None, else how that call failed."""

    name: str
    summary: str
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class TurnFinished:
    """The turn ended well; always the last event.

    `turn` is its number in the store, once it is there, and `at` when that was, in Unix seconds.
    """

    reason: FinishReason = FinishReason.STOP
    usage: Usage = field(default_factory=Usage)
    turn: int | None = field(default=None, compare=False)
    at: float = field(default=0.0, compare=False)


class TurnFailed(Struct, frozen=True):
    """The turn ended badly; always the last event."""

    error: CodedError


AnswerEvent = TextDelta | ReasoningDelta | ToolCallStarted | ToolCallDelta | TurnFinished | TurnFailed
"""What a client is told of a turn: Claude's own tool activity is put into words, or left out."""
TurnEvent = AnswerEvent | ToolActivity
