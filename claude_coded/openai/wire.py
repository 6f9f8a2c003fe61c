"""What every OpenAI endpoint shares: decoding with the path of what is wrong, encoding, event streams."""

import re
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec
import orjson
from msgspec import UNSET, Raw

from claude_coded.errors import CodedError, InvalidRequest
from claude_coded.turn import Usage

T = TypeVar("T")

DONE: Final = b"data: [DONE]\n\n"
KEEP_ALIVE: Final = b": keep-alive\n\n"

CONVERSATION_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_LINE_ENDS: Final = tuple((end.encode(), b"\\u%04x" % ord(end)) for end in "\x85\u2028\u2029")
_PATH: Final = re.compile(r" - at `\$(.*)`$")


def decode(body: bytes | Raw, decoder: msgspec.json.Decoder[T], at: str = "") -> T:
    """Return the typed body, or part of one, which stood `at` a place.

    Raises InvalidRequest; its `param` is the path of what is wrong.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(error, at) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None


IN_ONE_GO: Final = 2 << 20
"""Bytes of a body that are decoded in one call: a megabyte takes 1 to 5 ms."""

_BODY: Final = msgspec.json.Decoder(dict[str, Raw])
_ITEMS: Final[msgspec.json.Decoder[list[Raw]]] = msgspec.json.Decoder(list[Raw])
_ANY: Final = msgspec.json.Decoder(Any)


class BodyDecoder:
    """Decodes a body to its fields by name: a list of `kind` in the field `long`, any JSON in the others.

    What else `long` may be is left as it is. No other thread runs while the decoder does: a long list is
    decoded one item at a time.
    """

    def __init__(self, known: Iterable[str], long: str, kind: type[Any]) -> None:
        self._long = long
        self._names = tuple(known)
        self._list = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
        self._item = msgspec.json.Decoder(kind)
        self._usual = self._fields_with(list[kind] | str)  # type: ignore[valid-type]
        self._in_items = self._fields_with(list[Raw])

    def _fields_with(self, long: Any) -> msgspec.json.Decoder[Any]:  # noqa: ANN401 - types are values here
        """Return a decoder of bodies that have known fields alone."""
        types = dict.fromkeys(self._names, Any) | {self._long: long}
        fields = [(name, type_, UNSET) for name, type_ in types.items()]
        return msgspec.json.Decoder(msgspec.defstruct("Usual", fields, forbid_unknown_fields=True, gc=False))

    def decode(self, body: bytes) -> dict[str, Any]:
        """Return the fields. Raises as `decode` does."""
        in_one_go = len(body) < IN_ONE_GO
        fields = self._decode_usual(body, self._usual if in_one_go else self._in_items)
        if fields is None:
            return self._decode_any(body)
        if not in_one_go and self._long in fields:
            fields[self._long] = self._decode_items(fields[self._long])
        return fields

    def _decode_usual(self, body: bytes, decoder: msgspec.json.Decoder[Any]) -> dict[str, Any] | None:
        """Return the fields of nearly all bodies; None where one is not known, or anything is wrong."""
        try:
            usual = decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return {name: value for name, value in msgspec.structs.asdict(usual).items() if value is not UNSET}

    def _decode_any(self, body: bytes) -> dict[str, Any]:
        raw = decode(body, _BODY)
        fields: dict[str, Any] = {
            name: decode(value, _ANY, name) for name, value in raw.items() if name != self._long
        }
        if (given := raw.get(self._long)) is not None:
            fields[self._long] = self._decode_list(given) if _is_list(given) else decode(given, _ANY)
        return fields

    def _decode_list(self, raw: Raw) -> list[Any]:
        if len(raw) < IN_ONE_GO:
            return decode(raw, self._list, self._long)
        return self._decode_items(decode(raw, _ITEMS, self._long))

    def _decode_items(self, items: list[Raw]) -> list[Any]:
        return [decode(item, self._item, f"{self._long}[{index}]") for index, item in enumerate(items)]


def _is_list(raw: Raw) -> bool:
    return bytes(memoryview(raw)[:1]) == b"["


def field_of(body: bytes, name: str) -> Any:  # noqa: ANN401 - any JSON
    """Return a field of a body that was decoded before; a long list is decoded one item at a time."""
    raw = raw_field(body, name)
    if len(raw) < IN_ONE_GO or not _is_list(raw):
        return _ANY.decode(raw)
    return [_ANY.decode(item) for item in _ITEMS.decode(raw)]


def raw_items(text: bytes | Raw) -> list[Raw]:
    """Return the items of a list, each as its JSON text."""
    return _ITEMS.decode(text)


def raw_field(body: bytes, name: str) -> Raw:
    """Return the JSON text of a field of a body that was decoded before."""
    return _BODY.decode(body)[name]


def convert(value: object, kind: type[T], at: str = "") -> T:
    """Return what was decoded untyped as its type; `at` is where it stood. Raises as `decode` does."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _invalid(error, at) from None


def _invalid(error: msgspec.ValidationError, at: str = "") -> InvalidRequest:
    text = str(error)
    place = _PATH.search(text)
    param = (at + (place.group(1) if place else "")).removeprefix(".") or None
    text = _PATH.sub("", text)
    return InvalidRequest(f"{text} (at {param})" if param else text, param=param)


def canonical(value: object, param: str) -> str:
    """Return the one JSON text of a value that was sent, keys sorted. Raises InvalidRequest."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:  # so it calls what it cannot write, too
        raise InvalidRequest("nested too deep, or a number is beyond 64 bits", param=param) from None


def encode(value: object) -> bytes:
    """Return JSON; what Unicode calls a line end is escaped: clients that split events by it break."""
    data = orjson.dumps(value)
    if data.isascii():
        return data
    for raw, escaped in _LINE_ENDS:
        data = data.replace(raw, escaped)
    return data


def encode_list(values: Iterable[object]) -> bytes:
    """Return the JSON of a list as `encode` does, one item at a time: no other thread runs while it does."""
    return b"[%b]" % b",".join(map(encode, values))


def error_event(error: CodedError) -> bytes:
    """Return the event that tells of an error once a stream has begun."""
    return b"data: " + encode(error.body()) + b"\n\n"


def check_conversation_id(text: str, param: str) -> str:
    """Return the id. Raises InvalidRequest."""
    if not CONVERSATION_ID.fullmatch(text):
        raise InvalidRequest(
            "a conversation id is up to 128 letters, digits, '.', '_' and '-', a letter or digit first",
            param=param,
        )
    return text


def usage_object(usage: Usage) -> dict[str, Any]:
    """Return OpenAI's CompletionUsage; `prompt_tokens` includes what was read from and put into the cache."""
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def model_object(name: str, created: int) -> dict[str, Any]:
    """Return OpenAI's Model; `created` in Unix seconds."""
    return {"id": name, "object": "model", "created": created, "owned_by": "anthropic"}
