"""A program in the place of the CLI, for load: it writes recorded lines as fast as they are read.

What it writes is the recording tests/data/turn.jsonl of the real CLI, with as many deltas as a message asks
for, in the words of the scripted model: `[[pause MS]]` before them, `[[words N]]`, and `[[delay MS]]` between
them. With `[[clock]]` a delta's text is the time of its writing, in nanoseconds (CLOCK_MONOTONIC). It keeps
no history.
"""

import json
import os
import re
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any, Final
from uuid import UUID

RECORDING: Final = Path(__file__).parent.parent / "data" / "turn.jsonl"
VERSION: Final = "2.1.331 (Claude Code)"
ASKED: Final = str(UUID(int=7)).encode()
"""What the asked message is called in the recording."""

CHUNK: Final = 64 * 1024
"""Bytes of a write: a pipe holds no more."""

_WORDS: Final = re.compile(r"\[\[words (\d+)\]\]")
_PAUSE: Final = re.compile(r"\[\[pause (\d+)\]\]")
_DELAY: Final = re.compile(r"\[\[delay (\d+)\]\]")


@cache
def parts() -> tuple[bytes, bytes, bytes]:
    """Return the lines before the deltas, the first delta, and the lines after the deltas."""
    lines = RECORDING.read_bytes().splitlines(keepends=True)
    deltas = [number for number, line in enumerate(lines) if b'"text_delta"' in line]
    start = next(number for number, line in enumerate(lines) if b'"state":"running"' in line)
    return b"".join(lines[start : deltas[0]]), lines[deltas[0]], b"".join(lines[deltas[-1] + 1 :])


@cache
def deltas(count: int) -> list[bytes]:
    """Return the lines of so many deltas."""
    line = parts()[1]
    return [line.replace(b'"w0 "', b'"w%d "' % number) for number in range(count)]


def turn(text: str, asked: bytes) -> None:
    """Write the lines of a turn."""
    words, delay = _WORDS.search(text), _DELAY.search(text)
    before, _, after = (part.replace(ASKED, asked) for part in parts())
    count = int(words[1]) if words else 1
    lines = [parts()[1]] * count if "[[clock]]" in text else deltas(count)
    if pause := _PAUSE.search(text):
        time.sleep(int(pause[1]) / 1000)
    if delay is None:
        write(b"".join((before, *lines, after)))
        return
    clock = time.monotonic_ns if "[[clock]]" in text else None
    write(before)
    started = time.monotonic()
    for number, line in enumerate(lines, 1):
        write(line if clock is None else line.replace(b'"w0 "', b'"%d "' % clock()))
        time.sleep(max(0.0, started + number * int(delay[1]) / 1000 - time.monotonic()))
    write(after)


def write(data: bytes) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view[:CHUNK]) :]


def take(line: dict[str, Any]) -> None:
    """Answer a line of the daemon's."""
    match line:
        case {"type": "control_request", "request_id": asked}:
            response = {"subtype": "success", "request_id": asked, "response": {}}
            write(json.dumps({"type": "control_response", "response": response}).encode() + b"\n")
        case {"type": "user", "uuid": uuid, "shouldQuery": False}:
            receipt = {"type": "result", "subtype": "success", "num_turns": 0, "user_message_uuids": [uuid]}
            write(json.dumps({**receipt, "is_error": False, "result": ""}).encode() + b"\n")
        case {"type": "user", "uuid": uuid, "message": {"content": content}}:
            turn("".join(part.get("text", "") for part in content), uuid.encode())


def main() -> None:
    """Answer until the end of the input."""
    if "--version" in sys.argv:
        print(VERSION)
        return
    for line in sys.stdin.buffer:
        take(json.loads(line))


def install(directory: Path, module: str = __name__) -> Path:
    """Write a module like this one as an executable into a directory; return its path."""
    program = directory / "claude"
    start = _START.format(root=str(RECORDING.parents[2]), module=module)
    program.write_text(f"#!{sys.executable} -S\n{start}")
    program.chmod(0o755)
    return program


_START: Final = """\
import sys

sys.path.insert(0, {root!r})
from {module} import main

main()
"""
