"""Responses: a request -> a TurnRequest's parts, and what the response repeats of it."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from claude_coded.errors import InvalidRequest, UnsupportedParameter
from claude_coded.openai.fields import SHARED, Rule, honoured, ignored, refused, review
from claude_coded.openai.options import ANY_OBJECT, EFFORTS
from claude_coded.openai.responses.items import Item, hosted, references
from claude_coded.openai.responses.tools import Toolbox, parse_tools
from claude_coded.openai.schemas import SchemaCheck, object_schema, rooted
from claude_coded.openai.tools import check_name
from claude_coded.openai.wire import BodyDecoder, convert
from claude_coded.turn import Options

ENCRYPTED: Final = "reasoning.encrypted_content"
LOGPROBS: Final = "message.output_text.logprobs"

RESPONSE_FIELDS: Final[Mapping[str, Rule]] = {
    **SHARED,
    "model": honoured(),
    "input": honoured(),
    "instructions": honoured(),
    "previous_response_id": honoured(),
    "conversation": honoured(),
    "store": honoured(),
    "stream": honoured(),
    "stream_options": honoured(),
    "tools": honoured(),
    "tool_choice": honoured(),
    "parallel_tool_calls": honoured(),
    "text": honoured(),
    "reasoning": honoured(),
    "include": honoured(),
    "max_output_tokens": honoured(),
    "metadata": honoured(),
    "background": refused(bool, False),
    "prompt": refused(dict),
    "truncation": ignored(Literal["auto", "disabled"]),
    "max_tool_calls": ignored(Annotated[int, Meta(ge=1)]),
    "context_management": ignored(list),
    "client_metadata": ignored(dict, str),
}


class Reasoning(Struct, frozen=True):
    """OpenAI's `reasoning`; a summary is told anyway."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class TextFormat(Struct, frozen=True):
    """OpenAI's `text.format`."""

    type: str
    name: str | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class TextOptions(Struct, frozen=True):
    """OpenAI's `text`."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ConversationRef(Struct, frozen=True):
    """A conversation, as an object."""

    id: str


class ResponseBody(Struct, frozen=True):
    """The fields that are honoured, besides those of tools, and those that are hints."""

    model: str
    input: str | list[Item]
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationRef | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    include: list[str] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    prompt_cache_key: str | None = None


class ResponseRequest(Struct, frozen=True):
    """A checked request. `conversation` is named by the field of that name, else by the model's suffix.

    `body` is what was sent, and `fields` are its fields without the input, to be repeated in the response.
    """

    model: str
    conversation: str | None
    previous: str | None
    instructions: str | None
    items: tuple[Item, ...]
    stream: bool
    store: bool
    encrypted: bool
    hint: str
    toolbox: Toolbox
    options: Options
    ignored: tuple[str, ...]
    fields: Mapping[str, Any]
    body: bytes
    references: Sequence[tuple[int, str]]


_FIELDS: Final = BodyDecoder(RESPONSE_FIELDS, "input", Item)


def parse_response(body: bytes) -> ResponseRequest:
    """Return the request. Raises InvalidRequest and UnsupportedParameter that name the parameter."""
    fields = _FIELDS.decode(body)
    asked = convert(fields, ResponseBody)
    del fields["input"]
    let_be = review(fields, RESPONSE_FIELDS)
    model, colon, suffix = asked.model.partition(":")
    if not model:
        raise InvalidRequest("a model is needed", param="model")
    _check_include(asked.include or ())
    conversation = (
        asked.conversation.id if isinstance(asked.conversation, ConversationRef) else asked.conversation
    )
    if conversation is not None and asked.previous_response_id is not None:
        raise InvalidRequest(
            "there is a conversation, too: it is one or the other", param="previous_response_id"
        )
    items = [Item(role="user", content=asked.input)] if isinstance(asked.input, str) else asked.input
    toolbox = parse_tools(fields)
    return ResponseRequest(
        model=model,
        conversation=conversation if conversation is not None else (suffix if colon else None),
        previous=asked.previous_response_id,
        instructions=asked.instructions,
        items=tuple(items),
        stream=bool(asked.stream),
        store=asked.store is not False,
        encrypted=ENCRYPTED in (asked.include or ()),
        hint=asked.prompt_cache_key or asked.user or "",
        toolbox=toolbox,
        options=_options(asked),
        ignored=(*let_be, *toolbox.ignored, *hosted(items)),
        fields=fields,
        body=body,
        references=tuple(references(items)),
    )


def _check_include(include: Sequence[str]) -> None:
    if LOGPROBS in include:
        raise UnsupportedParameter(
            "there are no log probabilities", param=f"include[{include.index(LOGPROBS)}]"
        )


def _options(asked: ResponseBody) -> Options:
    effort = asked.reasoning.effort if asked.reasoning is not None else None
    return Options(
        max_tokens=asked.max_output_tokens,
        effort=EFFORTS[effort] if effort else None,
        schema=_schema(asked.text.format if asked.text is not None else None),
    )


def _schema(given: TextFormat | None) -> str | None:
    """Return the JSON text of the schema that the answer has to fit."""
    match given:
        case None | TextFormat(type="text"):
            return None
        case TextFormat(type="json_object"):
            return object_schema(ANY_OBJECT, "text.format")
        case TextFormat(type="json_schema", name=name, schema=schema):
            check_name(name or "", "text.format.name")
            if schema is None:
                raise InvalidRequest("this holds the schema", param="text.format.schema")
            param = "text.format.schema"
            return SchemaCheck()(object_schema(rooted(schema), param), param)
    raise UnsupportedParameter(
        f"answers in the format {given.type!r:.60} are not supported", param="text.format.type"
    )
