"""`python -m tests.benchmarks.least PROGRAM ARGUMENT...`: the least server that a CLI can be behind.

Granian, asyncio and one process, as the daemon has them, and nothing else: it knows no routes, keys,
histories or faults. It prints its port. What it takes is the floor of what the daemon takes.
"""

import asyncio
import socket
import sys
from typing import Any
from uuid import uuid4

import orjson

from claude_coded.claude.protocol import Protocol, Setup, message_line
from claude_coded.listener import Listener
from claude_coded.server import Message, Receive, Scope, Send
from claude_coded.turn import Message as Said
from claude_coded.turn import Role

EVENT_STREAM = [(b"content-type", b"text/event-stream")]
DELTA, END = b'"text_delta"', b'"type":"result"'


class Pipes(asyncio.SubprocessProtocol):
    """Hands what the CLI says to the turn that runs."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Hand on."""
        if fd == 1:
            self.heard.put_nowait(data)


class App:
    """Asks whatever is posted."""

    def __init__(self, stdin: Any, pipes: Pipes) -> None:
        self._stdin = stdin
        self._pipes = pipes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve."""
        if scope["method"] != "POST":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"{}"})
            return
        body = orjson.loads((await receive())["body"])
        text = body["messages"][-1]["content"]
        self._stdin.write(message_line(Said.of(Role.USER, text), str(uuid4()), query=True))
        await send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
        ended = False
        while not ended:
            data = await self._pipes.heard.get()
            ended = END in data
            if DELTA in data or ended:
                event = b'data: {"content":"x"}\n\n' * (DELTA in data) + b"data: [DONE]\n\n" * ended
                await send(_piece(event, more=True))
        await send(_piece(b"", more=False))


def _piece(body: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def main() -> None:
    """Serve until it is ended."""
    loop = asyncio.get_running_loop()
    transport, pipes = await loop.subprocess_exec(Pipes, *sys.argv[1:], start_new_session=True)
    stdin: Any = transport.get_pipe_transport(0)
    stdin.write(Protocol().initialize(Setup())[0])
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    await Listener(App(stdin, pipes), listening).serve()


if __name__ == "__main__":
    asyncio.run(main())
