"""Benchmark of a client's tools: from their results to the next piece of the answer."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from statistics import median
from typing import Any, Final
from uuid import uuid4

import orjson

from claude_coded.claude.protocol import Protocol, Setup, message_line
from claude_coded.claude.toolbridge import Bridge
from claude_coded.turn import Message, Role, ToolSpec
from tests.benchmarks.harness import (
    SETTLE,
    BenchmarkError,
    Command,
    Daemon,
    Marks,
    PipeReader,
    StatelessConversation,
    end,
    follow,
    pipes,
)
from tests.benchmarks.latency import ROUNDS, WARM_UP_TURNS, alternate
from tests.benchmarks.measure import Figure, Interval, Pairs, Timing

TOOL_LIMIT: Final = 1.10
"""The round trip through the daemon, to that on the CLI itself."""

NAME: Final = "look"
DESCRIPTION: Final = "Looks at something."
SCHEMA: Final[Any] = {"type": "object", "properties": {"at": {"type": "string"}}}
STEP: Final = '[[say I shall look.]] [[tool look {"at": "it"}]] '
RESULT: Final = "It looks well. " * 20

CALL_MARKS: Final = Marks(b'"text_delta"', b'"method":"tools/call"', b'"method":"tools/call"')
"""Of a reply that ends with a call: the CLI goes on when that is answered."""


def tool_round_trip(daemon: Daemon, *, quick: bool) -> Iterator[Figure]:
    """Measure what comes between a tool's result and the next piece of the answer."""
    rounds = [_round(daemon, 10 if quick else 20) for _ in range(3 if quick else ROUNDS)]
    pairs = Pairs(
        [value for part in rounds for value in part.ours], [v for part in rounds for v in part.theirs]
    )
    name = "tool-round-trip"
    yield Figure(
        name,
        "ratio of medians to the CLI itself",
        pairs.ratio,
        "",
        TOOL_LIMIT,
        pairs.ratio_interval(),
        pairs.noise.ratio,
    )
    interval = pairs.difference_interval()
    yield Figure(
        name,
        "added by the daemon, median of paired differences",
        pairs.median_difference * 1000,
        "ms",
        interval=Interval(interval.low * 1000, interval.high * 1000),
        floor=abs(pairs.noise.median_difference) * 1000,
    )
    noise = abs(pairs.noise.quartile_difference) * 1000
    yield Figure(name, "difference of lower quartiles", pairs.quartile_difference * 1000, "ms", floor=noise)
    ours, theirs = (median(side) * 1000 for side in (pairs.ours, pairs.theirs))
    yield Figure(name, "results in to next content, median", ours, "ms", floor=theirs)


def _round(daemon: Daemon, count: int) -> Pairs:
    """Measure pairs of round trips: two turns a side that take turns, with equally many calls before."""
    with ExitStack() as stack:
        ours = [stack.enter_context(closing(HttpTools(daemon.port))) for _ in range(2)]
        theirs = [stack.enter_context(closing(DirectTools(daemon.command))) for _ in range(2)]
        sides: list[HttpTools | DirectTools] = [*ours, *theirs]
        for side in sides:
            side.ask(STEP * (WARM_UP_TURNS + count))
            for _ in range(WARM_UP_TURNS):
                side.answer()
        daemon.await_spare()
        return alternate(count, lambda turn: _first(ours[turn % 2]), lambda turn: _first(theirs[turn % 2]))


def _first(turn: "HttpTools | DirectTools") -> float:
    time.sleep(SETTLE)
    return turn.answer().first


class HttpTools(StatelessConversation):
    """A turn through the daemon that calls a tool again and again; the client sends all that was said."""

    def ask(self, text: str) -> Timing:
        """Run the turn up to its first call."""
        self.said.append({"role": "user", "content": text})
        return self._run()

    def answer(self) -> Timing:
        """Send the result of the last call, and go on to the next one."""
        call = self.said[-1]["tool_calls"][0]["id"]
        self.said.append({"role": "tool", "tool_call_id": call, "content": RESULT})
        return self._run()

    def _run(self) -> Timing:
        function = {"name": NAME, "description": DESCRIPTION, "parameters": SCHEMA}
        timing, answer = self.send(tools=[{"type": "function", "function": function}])
        self.said.append(_answer(answer))
        return timing


def _answer(stream: bytes) -> dict[str, Any]:
    """Return the message that a stream tells, which calls a tool."""
    text, calls = "", list[Any]()
    for line in stream.split(b"\n"):
        choices = orjson.loads(line[6:])["choices"] if line.startswith(b"data: {") else []
        for choice in choices:
            text += choice["delta"].get("content") or ""
            calls += choice["delta"].get("tool_calls") or ()
    if not calls:
        raise BenchmarkError(f"the daemon tells of no call: {stream[-600:]!r}")
    function = {"name": NAME, "arguments": "".join(call["function"].get("arguments", "") for call in calls)}
    call = {"id": calls[0]["id"], "type": "function", "function": function}
    return {"role": "assistant", "content": text, "tool_calls": [call]}


class DirectTools:
    """The same turn with a CLI of our own, which has the tool from us."""

    def __init__(self, command: Command) -> None:
        spec = ToolSpec(NAME, DESCRIPTION, orjson.dumps(SCHEMA).decode())
        self._bridge = Bridge((spec,))
        self._protocol = Protocol()
        self._process: subprocess.Popen[bytes] = command.spawn()
        self._stdin, self._stdout = pipes(self._process)
        self._reader = PipeReader(self._stdout)
        self._unread = b""
        self._calls: list[tuple[str, Any]] = []

    def ask(self, text: str) -> None:
        """Run the turn up to its first call."""
        self._stdin.write(self._protocol.initialize(Setup(tools=True))[0])
        self._stdin.write(message_line(Message.of(Role.USER, text), str(uuid4()), query=True))
        while not self._calls:
            self._take(self._reader.read())

    def answer(self) -> Timing:
        """Send the result of the last call, and go on to the next one."""
        request, number = self._calls.pop()
        result = {"content": [{"type": "text", "text": RESULT}]}
        line = self._protocol.answer_tool((request, {"jsonrpc": "2.0", "id": number, "result": result}))
        pieces: list[bytes] = []

        def read() -> bytes:
            pieces.append(self._reader.read())
            return pieces[-1]

        started = time.perf_counter()
        self._stdin.write(line)
        timing = follow(read, CALL_MARKS, started)
        self._take(b"".join(pieces))
        while not self._calls:  # its line may not be whole yet
            self._take(self._reader.read())
        return timing

    def close(self) -> None:
        """End the process."""
        self._stdin.close()
        end(self._process)
        self._stdout.close()

    def _take(self, data: bytes) -> None:
        """Serve the CLI's requests, but hold a call."""
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            if line.startswith(b"{") and b'"control_request"' in line:
                self._serve(orjson.loads(line))

    def _serve(self, request: Any) -> None:
        message = request["request"]["message"]
        if message.get("method") == "tools/call":
            self._calls.append((request["request_id"], message["id"]))
        elif (reply := self._bridge.receive(request["request_id"], message)) is not None:
            self._stdin.write(self._protocol.answer_tool(reply))
