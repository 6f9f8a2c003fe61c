"""The client's tools as an MCP server of the CLI's: what they are, which calls wait, what was answered. Pure.

The CLI reaches it over its control protocol (`mcp_message`), in JSON-RPC as the Model Context Protocol has
it. A call is not answered before the client has sent its outcome, however long that takes.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

import msgspec

from claude_coded.profiles import CLIENT_SERVER
from claude_coded.turn import Image, RemoteImage, Text, ToolOutcome, ToolSpec

SERVER: Final = CLIENT_SERVER
PREFIX: Final = f"mcp__{SERVER}__"

RESULT_LIMIT: Final = 500_000
"""Most characters of a result that the CLI hands on whole (2.1.330); a longer one has to be seeded."""

LIST_CHANGED: Final[Mapping[str, str]] = {
    "jsonrpc": "2.0",
    "method": "notifications/tools/list_changed",
}

_STRANGE: Final = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST: Final = 64


def qualified(name: str) -> str:
    """Return the name under which the model sees a tool of the client's; different ones stay different."""
    plain = _STRANGE.sub("_", name)[:_LONGEST]
    if plain != name:
        plain = f"{plain[: _LONGEST - 9]}_{sha256(name.encode()).hexdigest()[:8]}"
    return PREFIX + plain


def fits(outcome: ToolOutcome) -> bool:
    """Return whether an outcome can be the answer to a call: it is short enough, and text and images only."""
    length = sum(len(part.text) for part in outcome.parts if isinstance(part, Text))
    return length <= RESULT_LIMIT and all(isinstance(part, Text | Image) for part in outcome.parts)


Reply = tuple[str, dict[str, Any]]
"""A control request's id, and what it is answered with."""


@dataclass(slots=True)
class Bridge:
    """One process's view of the client's tools.

    `listed` says whether the CLI knows of the tools as they are now. `expected` are the calls that the client
    is told of, `refused` those that it is not, and why: both are the present turn's, and change with it.
    """

    specs: tuple[ToolSpec, ...] = ()
    listed: bool = True
    expected: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    _held: dict[str, tuple[str, Any]] = field(default_factory=dict)  # by the call's id
    _outcomes: dict[str, ToolOutcome] = field(default_factory=dict)

    def offer(self, specs: tuple[ToolSpec, ...]) -> bool:
        """Change the tools; return whether that is a change, of which the CLI has to be told."""
        if specs == self.specs:
            return False
        self.specs, self.listed = specs, False
        return True

    def supply(self, outcomes: Iterable[ToolOutcome]) -> list[Reply]:
        """Take the outcomes of calls; return the answers to those that the CLI has asked for already."""
        replies = []
        for outcome in outcomes:
            self.expected.discard(outcome.id)
            if (held := self._held.pop(outcome.id, None)) is not None:
                replies.append(_answer(held, _content(outcome)))
            else:
                self._outcomes[outcome.id] = outcome
        return replies

    def refuse(self) -> list[Reply]:
        """Return the answers to calls that were found at fault when the CLI had asked for them already."""
        faulty = self._held.keys() & self.refused.keys()
        return [_answer(self._held.pop(call), _fault(self.refused.pop(call))) for call in faulty]

    def begin(self, expected: set[str], refused: dict[str, str]) -> None:
        """Forget the calls of an earlier turn, and follow a new one's."""
        self.expected, self.refused = expected, refused
        self._held.clear()
        self._outcomes.clear()

    def receive(self, request_id: str, message: Mapping[str, Any]) -> Reply | None:
        """Take a message of the CLI; return the answer, or None where that has to wait for the client."""
        asked = (request_id, message.get("id"))
        match message.get("method"):
            case "initialize":
                version = (message.get("params") or {}).get("protocolVersion")
                return _answer(asked, _introduction(version))
            case "tools/list":
                self.listed = True
                return _answer(asked, {"tools": [_description(spec) for spec in self.specs]})
            case "tools/call":
                return self._call(asked, message.get("params") or {})
            case _ if "id" not in message:
                return request_id, {"jsonrpc": "2.0", "result": {}}
            case "ping":
                return _answer(asked, {})
            case method:
                error = {"code": -32601, "message": f"method {method!r} is not known here"}
                return request_id, {"jsonrpc": "2.0", "id": message["id"], "error": error}

    def _call(self, asked: tuple[str, Any], params: Mapping[str, Any]) -> Reply | None:
        call = str((params.get("_meta") or {}).get("claudecode/toolUseId") or "")
        if (outcome := self._outcomes.pop(call, None)) is not None:
            return _answer(asked, _content(outcome))
        if call in self.expected:
            self._held[call] = asked
            return None
        # A subagent's, for one: the client has not been told of it, and cannot be.
        why = self.refused.pop(call, "Only the main agent can call this tool, and not in this turn.")
        return _answer(asked, _fault(why))


def _answer(asked: tuple[str, Any], result: dict[str, Any]) -> Reply:
    request_id, number = asked
    return request_id, {"jsonrpc": "2.0", "id": number, "result": result}


def _fault(why: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": why}], "isError": True}


def _introduction(version: object) -> dict[str, Any]:
    return {
        "protocolVersion": version,
        "capabilities": {"tools": {"listChanged": True}},
        "serverInfo": {"name": SERVER, "version": "1"},
    }


def _description(spec: ToolSpec) -> dict[str, Any]:
    """Return a tool as MCP lists it.

    `readOnlyHint` lets several calls of one reply wait at the same time; `alwaysLoad` keeps the CLI from
    hiding the tool behind its tool search; `maxResultSizeChars` is what it would cut results at.
    """
    return {
        "name": qualified(spec.name).removeprefix(PREFIX),
        "description": spec.description,
        "inputSchema": msgspec.json.decode(spec.parameters),
        "annotations": {"readOnlyHint": True},
        "_meta": {"anthropic/alwaysLoad": True, "anthropic/maxResultSizeChars": RESULT_LIMIT},
    }


def _content(outcome: ToolOutcome) -> dict[str, Any]:
    return {"content": [_part(part) for part in outcome.parts]}


def _part(part: object) -> dict[str, Any]:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Image(media_type, data):
            return {"type": "image", "data": data, "mimeType": media_type}
        case RemoteImage(url):
            return {"type": "text", "text": url}
        case _:
            raise TypeError(f"{type(part).__name__} cannot be part of an answer to a call")
