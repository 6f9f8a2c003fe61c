"""The reply over the wire: as server-sent events, as one message, or as an error."""

import contextlib
import hashlib
import json
import secrets
from collections.abc import Iterable
from typing import Final

import orjson

from claude_coded.offline.reply import Begin, Part
from claude_coded.offline.request import Json
from claude_coded.offline.script import Fail, Stop

ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
_DELTAS: Final = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}


def message_head(model: object, usage: Json) -> Json:
    """Return a message without content."""
    return {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def error_body(status: int, message: str | None) -> Json:
    """Return the body of an error answer."""
    kind = ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message or f"offline {kind}"}}


def _signature(thoughts: Iterable[str]) -> str:
    return hashlib.blake2b("".join(thoughts).encode(), digest_size=24).hexdigest()


# --- Events -----------------------------------------------------------------------------------------------


def _event(kind: str, **fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


PING: Final = _event("ping")


class EventEncoder:
    """Encodes the parts of one reply as the API's server-sent events."""

    def __init__(self, head: Json) -> None:
        self._head = head
        self._index = -1
        self._kind = ""
        self._prefix = b""
        self._thoughts: list[str] = []
        self._sent = 0

    def start(self) -> bytes:
        """Return the first event."""
        usage = {**self._head["usage"], "output_tokens": 1}
        return _event("message_start", message={**self._head, "usage": usage})

    def encode(self, part: Part) -> bytes:
        """Return the events of one part, none for one that only takes time or breaks the connection."""
        match part:
            case str():
                self._sent += 1
                if self._kind == "thinking":
                    self._thoughts.append(part)
                return b"%b%b}}\n\n" % (self._prefix, orjson.dumps(part))
            case Begin(block):
                return self._finish() + self._begin(block)
            case Stop(reason):
                return self._finish() + self._end(reason)
            case Fail(status, _, message):
                return _event("error", error=error_body(status, message)["error"])
            case _:
                return b""

    def _begin(self, block: Json) -> bytes:
        self._index += 1
        self._kind = block["type"]
        kind, field = _DELTAS[self._kind]
        self._prefix = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"%b","%b":' % (self._index, kind.encode(), field.encode())
        )
        start = _event("content_block_start", index=self._index, content_block=block)
        return start if self._index else start + PING

    def _finish(self) -> bytes:
        """End the open block, if any; a thinking block is signed."""
        if self._index < 0:
            return b""
        signed = b""
        if self._kind == "thinking":
            delta = {"type": "signature_delta", "signature": _signature(self._thoughts)}
            signed = _event("content_block_delta", index=self._index, delta=delta)
            self._thoughts.clear()
        return signed + _event("content_block_stop", index=self._index)

    def _end(self, reason: str) -> bytes:
        delta = {"stop_reason": reason, "stop_sequence": None}
        usage = {**self._head["usage"], "output_tokens": self._sent}
        return _event("message_delta", delta=delta, usage=usage) + _event("message_stop")


# --- One message ------------------------------------------------------------------------------------------


def whole_message(head: Json, parts: Iterable[Part]) -> Json:
    """Return the message that the parts make."""
    content: list[tuple[Json, list[str]]] = []
    reason = ""
    for part in parts:
        match part:
            case Begin(block):
                content.append((block, []))
            case str():
                content[-1][1].append(part)
            case Stop(reason):
                pass
    usage = {**head["usage"], "output_tokens": sum(len(deltas) for _, deltas in content)}
    blocks = [_whole_block(block, deltas) for block, deltas in content]
    return {**head, "content": blocks, "stop_reason": reason, "usage": usage}


def _whole_block(block: Json, deltas: list[str]) -> Json:
    text = "".join(deltas)
    match block["type"]:
        case "text":
            return {**block, "text": text}
        case "thinking":
            return {**block, "thinking": text, "signature": _signature(deltas)}
    with contextlib.suppress(ValueError):  # max_tokens may have left half an object
        json.loads(text)
        return {**block, "input": orjson.Fragment(text)}  # as it was written
    return block
