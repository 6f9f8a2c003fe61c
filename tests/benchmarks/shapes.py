"""Requests of a wanted size in the shapes that clients send: what the parts of a history are like.

A history is told in chat's messages; `response_body` tells the same in items of the Responses API.
"""

import base64
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

Message = dict[str, Any]

SYSTEM: Final = "You are a helpful assistant."
TOOLS: Final = 20
VOCABULARY: Final = 4000
QUESTION: Final = {"role": "user", "content": "And what does that come to?"}


class Dice:
    """Makes text and bytes, the same for the same seed."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        letters = "etaoinshrdlucm"
        self._words = ["".join(self._random.choices(letters, k=2 + n % 8)) for n in range(VOCABULARY)]

    def text(self, size: int, marks: str = " ") -> str:
        """Return a text with lines and quotes; `marks` are the signs that a model sets."""
        ends = (" ", "\n", ' "', f"{self._random.choice(marks)} ")
        words = self._random.choices(self._words, k=size // 6 + 1)
        set_ends = self._random.choices(ends, weights=(40, 4, 1, 1), k=len(words))
        return "".join(word + end for word, end in zip(words, set_ends, strict=True))[:size].strip() or "x"

    def code(self, size: int) -> str:
        """Return lines as a tool returns them of a file: numbered, indented, with quotes and tabs."""
        line = '{:05d}| \t{} = self.{}("{}", {})  # {}'
        words = iter(self._random.choices(self._words, k=size // 8 + 5))
        lines = (
            line.format(n, next(words), next(words), next(words), n * 7, next(words))
            for n in range(size // 60 + 1)
        )
        return "\n".join(lines)[:size]

    def image(self, size: int) -> str:
        """Return the data URL of an image."""
        return "data:image/png;base64," + base64.b64encode(self._random.randbytes(size * 3 // 4)).decode()


def prose(dice: Dice) -> Iterator[Message]:
    """Yield a chat: questions and answers of 2.6 kB."""
    while True:
        yield {"role": "user", "content": dice.text(2600)}
        yield {"role": "assistant", "content": dice.text(2600, marks="—…→é")}


def short(dice: Dice) -> Iterator[Message]:
    """Yield many short messages."""
    while True:
        yield {"role": "user", "content": dice.text(110)}
        yield {"role": "assistant", "content": dice.text(110)}


def huge(dice: Dice) -> Iterator[Message]:
    """Yield a few messages of a quarter of a megabyte."""
    while True:
        yield {"role": "user", "content": dice.text(250_000)}
        yield {"role": "assistant", "content": dice.text(250_000, marks="—…→é")}


def images(dice: Dice) -> Iterator[Message]:
    """Yield questions with an image of 200 kB each."""
    while True:
        picture = {"type": "image_url", "image_url": {"url": dice.image(200_000)}}
        yield {"role": "user", "content": [{"type": "text", "text": dice.text(100)}, picture]}
        yield {"role": "assistant", "content": dice.text(600)}


def agent(dice: Dice) -> Iterator[Message]:
    """Yield what an agent's client sends: replies that call one to three tools, and what those returned."""
    number = 0
    while True:
        yield {"role": "user", "content": [{"type": "text", "text": dice.text(300)}]}
        for step in range(5):
            calls = []
            for _ in range(1 + step % 3):
                number += 1
                calls.append(_call(dice, number))
            yield {"role": "assistant", "content": dice.text(150), "tool_calls": calls}
            for call in calls:
                yield {"role": "tool", "tool_call_id": call["id"], "content": dice.code(4000)}
        yield {"role": "assistant", "content": dice.text(900, marks="—…→é")}


def _call(dice: Dice, number: int) -> Message:
    """Return a call: every fourth writes a file, the others read one."""
    path = f"/home/someone/project/src/module_{number}.py"
    given: Message = {"filePath": path, "offset": number, "limit": 200}
    if number % 4 == 0:
        given = {"filePath": path, "content": dice.code(2500)}
    function = {"name": f"tool_{number % TOOLS}", "arguments": orjson.dumps(given).decode()}
    return {"id": f"call_{number:08d}", "type": "function", "function": function}


SHAPES: Final[Mapping[str, Callable[[Dice], Iterator[Message]]]] = {
    "prose": prose,
    "short": short,
    "huge": huge,
    "images": images,
    "agent": agent,
}


def told(shape: str, size: int, seed: str) -> list[Message]:
    """Return a history of about so many bytes of JSON, with a question at its end."""
    messages: list[Message] = [{"role": "system", "content": SYSTEM}]
    left = size
    for message in SHAPES[shape](Dice(seed)):
        if left <= 0 and message["role"] == "user":
            break
        messages.append(message)
        left -= len(orjson.dumps(message))
    return [*messages, QUESTION]


def chat_body(shape: str, size: int, seed: str = "known", **fields: object) -> bytes:
    """Return a chat request that tells a history."""
    tools = (
        {"tools": [{"type": "function", "function": tool} for tool in _tools()]} if shape == "agent" else {}
    )
    messages = told(shape, size, seed)
    return orjson.dumps({"model": "claude-code", "stream": True, "messages": messages, **tools, **fields})


def response_body(shape: str, size: int, seed: str = "known", **fields: object) -> bytes:
    """Return a request for a response that tells the same."""
    tools = {"tools": [{"type": "function", **tool} for tool in _tools()]} if shape == "agent" else {}
    items = [item for message in told(shape, size, seed) for item in _items(message)]
    return orjson.dumps({"model": "claude-code", "stream": True, "input": items, **tools, **fields})


def _items(message: Message) -> Iterator[Message]:
    role, content = message["role"], message["content"]
    if role == "tool":
        yield {"type": "function_call_output", "call_id": message["tool_call_id"], "output": content}
        return
    kind = "output_text" if role == "assistant" else "input_text"
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    yield {"type": "message", "role": role, "content": [_part(part, kind) for part in parts]}
    for call in message.get("tool_calls", ()):
        yield {"type": "function_call", "call_id": call["id"], **call["function"]}


def _part(part: Message, kind: str) -> Message:
    if part["type"] == "image_url":
        return {"type": "input_image", "image_url": part["image_url"]["url"], "detail": "auto"}
    return {"type": kind, "text": part["text"]}


def _tools() -> Sequence[Message]:
    """Return what a coding agent offers: descriptions of a screen or two, schemas of some parameters."""
    dice = Dice("tools")
    return [
        {
            "name": f"tool_{number}",
            "description": dice.text(1500),
            "parameters": {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "properties": {
                    name: {"type": kind, "description": dice.text(80)}
                    for name, kind in (("filePath", "string"), ("offset", "number"), ("limit", "number"))
                },
                "required": ["filePath"],
                "additionalProperties": False,
            },
        }
        for number in range(TOOLS)
    ]
