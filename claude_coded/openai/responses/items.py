"""The items of a response's `input`: the system texts and the messages that they tell."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import orjson
from msgspec import Struct
from msgspec.json import Decoder
from msgspec.json import encode as encode_json

from claude_coded.errors import InvalidRequest, UnsupportedParameter
from claude_coded.openai.content import File, document, given, image
from claude_coded.openai.messages import FunctionCall, is_blank, tool_call
from claude_coded.openai.responses.tools import CUSTOM_INPUT, full_name
from claude_coded.openai.telling import Content, Telling
from claude_coded.openai.wire import decode, raw_field, raw_items
from claude_coded.turn import Document, Image, Message, Part, RemoteImage, Role, Text

MESSAGE: Final = "message"
REFERENCE: Final = "item_reference"
CALLS: Final = frozenset({"function_call", "custom_tool_call"})
OUTPUTS: Final = frozenset({"function_call_output", "custom_tool_call_output"})

THOUGHT: Final = "reasoning"
HOSTED: Final = frozenset(
    {
        "web_search_call",
        "file_search_call",
        "code_interpreter_call",
        "image_generation_call",
        "mcp_list_tools",
        "mcp_call",
        "mcp_approval_request",
        "mcp_approval_response",
        "tool_search_call",
        "tool_search_output",
    }
)
"""Items that tell what tools of OpenAI's servers did."""

_TEXTS: Final = frozenset({"input_text", "output_text", "text", "summary_text"})


class ContentPart(Struct, frozen=True, gc=False):
    """A part of an item's content, or of what a tool returned."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None
    file_url: str | None = None


class Item(Struct, frozen=True, gc=False):
    """An item as a client sends it; fields that are not known are let be. `input` is a custom tool's."""

    type: str | None = None
    id: str | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[ContentPart] | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    input: str | None = None
    output: str | list[ContentPart] | None = None

    @property
    def kind(self) -> str:
        """Return its type: a message may have none, and a reference too."""
        return self.type or (REFERENCE if self.role is None and self.id is not None else MESSAGE)


def references(items: Sequence[Item]) -> Iterator[tuple[int, str]]:
    """Yield the places of the items that stand for others, and the ids of those."""
    for index, item in enumerate(items):
        if item.kind == REFERENCE:
            yield index, item.id or ""


def hosted(items: Sequence[Item]) -> list[str]:
    """Return the names of the items that are left out."""
    return [f"input[{index}]" for index, item in enumerate(items) if item.kind in HOSTED]


def answers_calls(items: Sequence[Item]) -> bool:
    """Return whether the items bring outputs of calls that are not among them."""
    calls = {item.call_id for item in items if item.kind in CALLS}
    return any(item.kind in OUTPUTS and item.call_id not in calls for item in items)


def only_says(items: Sequence[Item]) -> bool:
    """Return whether the items are messages that come after an answer: nothing of what was said before."""
    return all(item.kind == MESSAGE and item.role != "assistant" for item in items)


def history(items: Sequence[Item], past: tuple[Message, ...] = ()) -> tuple[list[str], tuple[Message, ...]]:
    """Return the system texts, and the messages after those of the past; they end with the user's.

    Raises InvalidRequest and UnsupportedParameter.
    """
    if not items:
        raise InvalidRequest("at least one item is needed", param="input")
    told = _History(past)
    for index, item in enumerate(items):
        told.add(item, f"input[{index}]")
    told.check_answered("input")
    told.telling.end()
    messages = told.telling.messages
    if not messages or messages[-1].role is not Role.USER:
        raise InvalidRequest(
            "the last item must be the user's, or what a tool returned", param=f"input[{len(items) - 1}]"
        )
    return told.system, tuple(messages)


class _History:
    """What the items tell: those of one answer belong together."""

    def __init__(self, past: tuple[Message, ...]) -> None:
        self.telling = _InOneText(past)
        self.system: list[str] = []

    def add(self, item: Item, place: str) -> None:
        kind = item.kind
        if kind == MESSAGE:
            self._message(item, place)
        elif kind in CALLS:
            self._call(item, place)
        elif kind in OUTPUTS:
            self._output(item, place)
        elif kind == REFERENCE:
            raise InvalidRequest(f"there is no item {item.id!r:.80} here", param=f"{place}.id")
        elif kind != THOUGHT and kind not in HOSTED:
            raise UnsupportedParameter(f"items of type {kind!r:.60} are not supported", param=f"{place}.type")

    def check_answered(self, place: str) -> None:
        if self.telling.open:
            missing = ", ".join(self.telling.open)
            raise InvalidRequest(f"no outputs were found of these tool calls: {missing}", param=place)

    def _message(self, item: Item, place: str) -> None:
        if item.role is None:
            raise InvalidRequest("a message has a role", param=f"{place}.role")
        parts = _content(item.content, item.role, f"{place}.content")
        if item.role in {"system", "developer"}:
            self.system.append("\n".join(part.text for part in parts if isinstance(part, Text)))
        elif item.role == "assistant":
            self._answer([part for part in parts if isinstance(part, Text)], place)
        else:
            said = tuple(part for part in parts if not is_blank(part))
            if not said:
                raise InvalidRequest("a user message must not be empty", param=f"{place}.content")
            self.telling.add_question(said)

    def _call(self, item: Item, place: str) -> None:
        if not item.call_id or item.call_id in self.telling.open:
            raise InvalidRequest("a call has a call_id of its own", param=f"{place}.call_id")
        arguments = item.arguments or ""
        if item.kind == "custom_tool_call":
            arguments = orjson.dumps({CUSTOM_INPUT: item.input or ""}).decode()
        named = FunctionCall(full_name(item.name or "", item.namespace), arguments)
        self._answer([tool_call(item.call_id, named, place)], place)

    def _answer(self, parts: Sequence[Part], place: str) -> None:
        """Add to the answer that is being told, or begin one."""
        if not self.telling.answers:
            self.check_answered(place)
        self.telling.add_answer(parts)

    def _output(self, item: Item, place: str) -> None:
        if item.call_id is None or item.call_id not in self.telling.open:
            raise InvalidRequest(
                f"no call {item.call_id!r:.80} of the answer before waits for an output",
                param=f"{place}.call_id",
            )
        if item.output is None:
            raise InvalidRequest("what has the tool returned?", param=f"{place}.output")
        self.telling.add_outcome(item.call_id, tuple(_content(item.output, "tool", f"{place}.output")))


class _InOneText(Telling):
    """A telling of answers whose texts are one; as they were told, they begin with what parts them."""

    def __init__(self, past: tuple[Message, ...]) -> None:
        super().__init__(past)
        self._last, self._blank = "", True  # of the text of the answer that is being told

    def add_answer(self, parts: Iterable[Part]) -> None:
        """Add to what the assistant says; what is blank is no answer."""
        super().add_answer(self._parted(part) if isinstance(part, Text) else part for part in parts)
        if self._blank:
            self._texts, self._last = [], ""

    def _parted(self, part: Text) -> Text:
        text = part.text
        if self._last and not (text[:1].isspace() or self._last.isspace()):
            text = f"\n\n{text}"
        self._last = text[-1:] or self._last
        self._blank = self._blank and is_blank(part)
        return Text(text)

    def end(self) -> None:
        """End the newest message."""
        if self._texts:
            self._texts = [Text("".join(part.text for part in self._texts if isinstance(part, Text)))]
        super().end()
        self._last, self._blank = "", True


def _content(content: str | list[ContentPart] | None, role: str, place: str) -> list[Content]:
    if content is None or isinstance(content, str):
        return [Text(content or "")]
    if len(content) == 1 and content[0].type in _TEXTS and content[0].text is not None:  # as most are
        return [Text(content[0].text)]
    return [_part(part, role, f"{place}[{index}]") for index, part in enumerate(content)]


def _part(part: ContentPart, role: str, place: str) -> Content:
    if part.type in _TEXTS:
        return Text(given(part.text, f"{place}.text"))
    if part.type == "refusal" and role == "assistant":
        return Text(given(part.refusal, f"{place}.refusal"))
    if role in {"user", "tool"}:
        if part.type == "input_image":
            return _image(part, place)
        if part.type == "input_file":
            return _file(part, place)
    raise UnsupportedParameter(
        f"content of type {part.type!r:.60} is not supported in a {role} message", param=f"{place}.type"
    )


def _image(part: ContentPart, place: str) -> Image | RemoteImage:
    if part.file_id is not None:
        raise UnsupportedParameter(
            "there are no uploaded files here: send image_url", param=f"{place}.file_id"
        )
    return image(part.image_url or "", f"{place}.image_url")


def _file(part: ContentPart, place: str) -> Document:
    if part.file_url is not None:
        raise UnsupportedParameter("files are not fetched: send file_data", param=f"{place}.file_url")
    return document(File(part.file_data, part.filename, part.file_id), place)


def listed(items: str | Sequence[Mapping[str, Any]], serial: str) -> list[dict[str, Any]]:
    """Return the items of an input as they are listed later, each with an id."""
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    return [_listed(item, f"{serial}_i{index}") for index, item in enumerate(items)]


def _listed(item: Mapping[str, Any], name: str) -> dict[str, Any]:
    kind = item.get("type") or MESSAGE
    listed = {**item, "type": kind, "id": item.get("id") or f"{PREFIXES.get(kind, 'item')}_{name}"}
    if kind == MESSAGE:
        said = item.get("content")
        text = "output_text" if item.get("role") == "assistant" else "input_text"
        extra: dict[str, Any] = {"annotations": [], "logprobs": []} if text == "output_text" else {}
        listed["status"] = item.get("status") or "completed"
        listed["content"] = [{"type": text, "text": said, **extra}] if isinstance(said, str) else said
    return listed


class _Named(Struct, frozen=True, gc=False):
    """What an item is called by."""

    id: str | None = None


_NAMED: Final = Decoder(_Named)
_ITEM: Final = Decoder(Item)


def kept_items(body: bytes, given: bytes, ids: Collection[str]) -> dict[str, tuple[Item, int]]:
    """Return some items of a response that was kept, by id, each with the length of its JSON text.

    `body` is the response, `given` its input as it is listed.
    """
    found: dict[str, tuple[Item, int]] = {}
    for item in (*raw_items(raw_field(body, "output")), *raw_items(given)):
        if (id_ := _NAMED.decode(item).id) in ids and id_ is not None:
            found[id_] = decode(item, _ITEM), len(item)
    return found


def page(given: bytes, limit: int, *, newest_first: bool, after: str | None) -> bytes:
    """Return so many items of an input, as it is listed, from after the one that is called so."""
    items = raw_items(given)
    if newest_first:
        items.reverse()
    start = 0
    if after is not None:
        start = next((n for n, item in enumerate(items, 1) if _NAMED.decode(item).id == after), len(items))
    data = items[start : start + limit]
    more = start + limit < len(items)
    first, last = (_NAMED.decode(data[n]).id if data else None for n in (0, -1))
    told = {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more}
    return encode_json(told)


PREFIXES: Final[Mapping[str, str]] = {
    MESSAGE: "msg",
    THOUGHT: "rs",
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "function_call_output": "fco",
    "custom_tool_call_output": "ctco",
}
"""How the ids of items begin, by type."""
