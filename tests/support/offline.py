"""Calls of the scripted Messages API in this process, and the requests that the CLI would send."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from claude_coded.offline import OfflineModel

BASH = {"name": "Bash"}
REMINDER = "<system-reminder>\nmind this\n</system-reminder>"


@dataclass
class Exchange:
    """One ASGI call in this process: what the app sent, and a client that can leave."""

    app: OfflineModel
    sent: list[dict[str, Any]] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    first_body: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(
        self, method: str, path: str, body: object = None, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> "Exchange":
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        incoming = iter([{"type": "http.request", "body": raw[:5], "more_body": True}])

        async def receive() -> dict[str, Any]:
            if message := next(incoming, None):
                return message
            if not self._read:
                self._read = True
                return {"type": "http.request", "body": raw[5:], "more_body": False}
            await self.left.wait()
            return {"type": "http.disconnect"}

        scope = {"type": "http", "method": method, "path": path, "headers": headers}
        await self.app(scope, receive, self._send)
        return self

    _read: bool = False

    async def _send(self, message: Any) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body":
            self.first_body.set()

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def chunks(self) -> list[bytes]:
        return [message["body"] for message in self.sent[1:]]

    @property
    def json(self) -> Any:
        return json.loads(b"".join(self.chunks))

    @property
    def events(self) -> list[dict[str, Any]]:
        return list(read_events(b"".join(self.chunks)))


def read_events(raw: bytes) -> Iterator[dict[str, Any]]:
    for event in raw.decode().split("\n\n")[:-1]:
        name, data = event.split("\n")
        value = json.loads(data.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        yield value


def fold(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Put a message together from its events, as a client does; checks their order."""
    events = [event for event in events if event["type"] != "ping"]
    assert [event["type"] for event in (events[0], *events[-2:])] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]
    message = {**events[0]["message"], "content": []}
    pieces: list[str] = []
    for event in events[1:-2]:
        kind = event["type"].removeprefix("content_block_")
        assert event["index"] == len(message["content"]) - (kind != "start")
        if kind == "start":
            message["content"].append(event["content_block"])
            pieces = []
        elif kind == "delta":
            _add(message["content"][-1], pieces, event["delta"])
    return {**message, **events[-2]["delta"], "usage": events[-2]["usage"]}


def _add(block: dict[str, Any], pieces: list[str], delta: dict[str, Any]) -> None:
    if delta["type"] == "input_json_delta":
        pieces.append(delta["partial_json"])
        with contextlib.suppress(json.JSONDecodeError):  # until the last piece came
            block["input"] = json.loads("".join(pieces))
    else:
        ((key, text),) = ((key, text) for key, text in delta.items() if key != "type")
        block[key] += text


def user(*content: Any) -> dict[str, Any]:
    blocks = [{"type": "text", "text": item} if isinstance(item, str) else item for item in content]
    return {"role": "user", "content": blocks}


def assistant(text: str = "…") -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def result(text: str, *, is_error: bool = False) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "t", "content": text, "is_error": is_error}


def request(*messages: Any, **fields: Any) -> dict[str, Any]:
    history = [user(message) if isinstance(message, str) else message for message in messages]
    return {"model": "claude-test", "max_tokens": 1000, "messages": history, "tools": [BASH], **fields}


def ask(app: OfflineModel, *messages: Any, **fields: Any) -> Exchange:
    return asyncio.run(Exchange(app).run("POST", "/v1/messages", request(*messages, **fields)))


def text_of(app: OfflineModel, *messages: Any, **fields: Any) -> str:
    content = ask(app, *messages, **fields).json["content"]
    return "".join(block.get("text", f"<{block['type']}>") for block in content)
