"""The history that a request tells: the system text and the messages."""

from typing import Any, Final, Literal

from msgspec import Struct

from claude_coded.errors import InvalidRequest, UnsupportedParameter
from claude_coded.openai.content import ContentPart, content_part
from claude_coded.openai.telling import Content, Telling
from claude_coded.turn import Message, Part, Role, Text, ToolCall

FUNCTION_CALL_ID: Final = "function_call_{}"
"""The id that the deprecated `function_call` of a message is given, which has none: the message's index."""


class FunctionCall(Struct, frozen=True, gc=False):
    """What a call calls; `arguments` is JSON text."""

    name: str
    arguments: str = ""


class Call(Struct, frozen=True, gc=False):
    """A tool call of the assistant."""

    id: str
    type: str = "function"
    function: FunctionCall | None = None


class ChatMessage(Struct, frozen=True, gc=False):
    """A message as a client sends it; fields that are not known are let be."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    name: str | None = None
    audio: Any = None


def history(given: list[ChatMessage]) -> tuple[str | None, tuple[Message, ...]]:
    """Return the system text and the messages, which end with the user's. Raises InvalidRequest."""
    if not given:
        raise InvalidRequest("at least one message is needed", param="messages")
    told = _Told()
    telling, user, assistant = told.telling, Role.USER, Role.ASSISTANT
    add = telling.messages.append
    for index, message in enumerate(given):
        content, role = message.content, message.role
        # Nearly all messages are one text and nothing more: they are taken at once.
        if content.__class__ is list and len(content) == 1 and content[0].type == "text":
            content = content[0].text
        if content.__class__ is str and content and not (telling.open or content.isspace()):
            if role == "user":
                add(Message(user, (Text(content),)))
                continue
            if role == "assistant" and not (
                message.tool_calls or message.function_call or message.refusal or message.audio is not None
            ):
                add(Message(assistant, (Text(content),)))
                continue
        told.add(message, index)
    messages = told.end(len(given) - 1)
    return "\n\n".join(told.system) if told.system else None, messages


class _Told:
    """What is told so far.

    Text of the assistant that comes after its calls belongs to the reply that called, and was said before.
    """

    def __init__(self) -> None:
        self.telling = Telling()
        self.system: list[str] = []
        self._made = 0, ""  # where the calls stand that wait: the message's index, and the field

    def add(self, message: ChatMessage, index: int) -> None:
        """Add a message, whatever it says."""
        match message.role:
            case "assistant":
                self._add_answer(message, _answer(message, index), index)
            case "tool" | "function":
                self._add_outcome(message, index)
            case "user":
                self.telling.add_question(_question(message, index))
            case "system" | "developer":
                self.system.append("\n".join(_texts(message, index)))

    def end(self, last: int) -> tuple[Message, ...]:
        """Return all messages. Raises InvalidRequest unless the last of what was given is the user's."""
        self._check_answered()
        self.telling.end()
        messages = self.telling.messages
        if not messages or messages[-1].role is not Role.USER:
            raise InvalidRequest("the last message must be the user's", param=f"{_place(last)}.role")
        return tuple(messages)

    def _add_answer(self, message: ChatMessage, parts: tuple[Part, ...], index: int) -> None:
        """Add what the assistant said; if that is nothing, there is no message."""
        telling = self.telling
        if telling.open:
            if telling.answers and all(isinstance(part, Text) for part in parts):
                telling.add_answer(parts)
                return
            self._check_answered()
        telling.add_answer(parts)
        if telling.open:
            self._made = index, "function_call" if message.function_call else "tool_calls"
        else:
            telling.end()

    def _add_outcome(self, message: ChatMessage, index: int) -> None:
        call = self._called(message, index)
        self.telling.add_outcome(call, _content(message, index))

    def _called(self, message: ChatMessage, index: int) -> str:
        """Return the id of the call that a message answers: a function's names the function alone."""
        waiting = self.telling.open
        if message.role == "function":
            if (id_ := next(iter(waiting), None)) is None or waiting[id_] != message.name:
                raise InvalidRequest(
                    f"no call of the function {message.name!r} in the message before waits for a result",
                    param=f"{_place(index)}.name",
                )
            return id_
        if message.tool_call_id is None or message.tool_call_id not in waiting:
            raise InvalidRequest(
                f"no call {message.tool_call_id!r} of the assistant message before waits for a result",
                param=f"{_place(index)}.tool_call_id",
            )
        return message.tool_call_id

    def _check_answered(self) -> None:
        if self.telling.open:
            missing, (index, field) = ", ".join(self.telling.open), self._made
            raise InvalidRequest(
                f"these tool calls have no results: {missing}", param=f"{_place(index)}.{field}"
            )


def _question(message: ChatMessage, index: int) -> tuple[Part, ...]:
    """Return a user message's parts."""
    if not (parts := _said(message, index)):
        raise InvalidRequest("a user message must not be empty", param=f"{_place(index)}.content")
    return parts


def _answer(message: ChatMessage, index: int) -> tuple[Part, ...]:
    """Return an assistant message's parts: text, what it refused, calls; it may be empty, and is nothing."""
    if message.audio is not None:
        raise UnsupportedParameter("audio is not supported", param=f"{_place(index)}.audio")
    said = _said(message, index)
    if message.refusal and not message.refusal.isspace():
        said = (*said, Text(message.refusal))
    if message.tool_calls or message.function_call is not None:
        return (*said, *_calls(message, index))
    return said


def _calls(message: ChatMessage, index: int) -> list[ToolCall]:
    """Return the calls of an assistant message."""
    if (function := message.function_call) is not None:
        place = f"{_place(index)}.function_call"
        if message.tool_calls:
            raise InvalidRequest("tool_calls stand here already", param=place)
        return [tool_call(FUNCTION_CALL_ID.format(index), function, place)]
    ids: set[str] = set()
    calls: list[ToolCall] = []
    try:
        for call in message.tool_calls or ():
            if not call.id or call.id in ids:
                raise InvalidRequest("a call has an id of its own", param="id")
            ids.add(call.id)
            calls.append(_tool_call(call))
    except InvalidRequest as error:  # to have its place at hand takes as long as a call
        error.param = f"{_place(index)}.tool_calls[{len(calls)}].{error.param}"
        raise
    return calls


def is_blank(part: Part) -> bool:
    """Return whether a part says nothing."""
    return isinstance(part, Text) and (not part.text or part.text.isspace())


def _tool_call(call: Call) -> ToolCall:
    if call.type != "function":
        raise UnsupportedParameter(f"calls of type {call.type!r} are not supported", param="type")
    if call.function is None:
        raise InvalidRequest("a call has a function", param="function")
    return tool_call(call.id, call.function, "function")


def tool_call(id_: str, function: FunctionCall, place: str) -> ToolCall:
    """Return a call of a function. Raises InvalidRequest."""
    if not function.name:
        raise InvalidRequest("a function has a name", param=f"{place}.name")
    call = ToolCall(id_, function.name, function.arguments or "{}")
    try:
        is_object = call.canonical.startswith(b"{")  # histories are compared by it
    except ValueError:
        is_object = False
    except TypeError:
        raise InvalidRequest("these arguments are nested too deep", param=f"{place}.arguments") from None
    if not is_object:
        raise InvalidRequest("arguments are the JSON text of an object", param=f"{place}.arguments")
    return call


def _place(index: int) -> str:
    return f"messages[{index}]"


def _said(message: ChatMessage, index: int) -> tuple[Part, ...]:
    """Return the parts of a message's content that say something."""
    if not message.content:
        return ()
    parts = _content(message, index)
    for part in parts:
        if is_blank(part):
            return tuple([part for part in parts if not is_blank(part)])
    return parts


def _content(message: ChatMessage, index: int) -> tuple[Content, ...]:
    content = message.content
    if content is None or isinstance(content, str):
        return () if content is None else (Text(content),)
    if len(content) == 1 and (part := content[0]).type == "text" and part.text is not None:  # as in most
        return (Text(part.text),)
    return tuple(
        [
            content_part(part, message.role, f"{_place(index)}.content[{number}]")
            for number, part in enumerate(content)
        ]
    )


def _texts(message: ChatMessage, index: int) -> list[str]:
    return [part.text for part in _content(message, index) if isinstance(part, Text)]
