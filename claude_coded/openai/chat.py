"""Chat completions: a request -> a TurnRequest's parts."""

from typing import Any, Final

from msgspec import Struct

from claude_coded.errors import InvalidRequest
from claude_coded.openai.fields import FIELDS, review
from claude_coded.openai.messages import ChatMessage, history
from claude_coded.openai.options import parse_options
from claude_coded.openai.tools import parse_tools
from claude_coded.openai.wire import BodyDecoder, convert
from claude_coded.turn import Message, Options, Tools


class StreamOptions(Struct, frozen=True):
    """OpenAI's `stream_options`; there is no obfuscation to be left out."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatBody(Struct, frozen=True):
    """The fields that are honoured, besides those of tools and options, and those that are hints."""

    model: str
    messages: list[Any]  # ChatMessages: to look at each of them again would take one more way through them
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = None
    user: str | None = None
    prompt_cache_key: str | None = None


class ChatRequest(Struct, frozen=True):
    """A checked request. `conversation` is the model's suffix, if it has one.

    `hint` tells apart who asks, where equal histories have to be told apart; `store` false leaves nothing.
    `functions`: the tools came as the deprecated `functions`, and the answer calls them that way.
    """

    model: str
    conversation: str | None
    system: str | None
    messages: tuple[Message, ...]
    stream: bool
    include_usage: bool
    ignored: list[str]
    hint: str
    store: bool
    tools: Tools
    options: Options
    functions: bool


_FIELDS: Final = BodyDecoder(FIELDS, "messages", ChatMessage)


def parse_chat(body: bytes) -> ChatRequest:
    """Return the request. Raises InvalidRequest and UnsupportedParameter that name the parameter."""
    fields = _FIELDS.decode(body)
    chat = convert(fields, ChatBody)
    ignored = review(fields)
    model, colon, suffix = chat.model.partition(":")
    if not model:
        raise InvalidRequest("a model is needed", param="model")
    system, messages = history(chat.messages)
    stream_options = chat.stream_options or StreamOptions()
    return ChatRequest(
        model=model,
        conversation=suffix if colon else None,
        system=system,
        messages=messages,
        stream=bool(chat.stream),
        include_usage=bool(stream_options.include_usage),
        ignored=ignored,
        hint=chat.prompt_cache_key or chat.user or "",
        store=chat.store is not False,
        tools=parse_tools(fields),
        options=parse_options(fields),
        functions=bool(fields.get("functions")),
    )
