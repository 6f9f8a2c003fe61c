"""A program in the place of the CLI, for faults: what the real one never does, or not when it is asked to.

It answers turns as `replay` does. A new process has the fault that the file FAULTY names, if any; a message
with `[[fault NAME]]` has its turn go wrong so, in the middle of what `replay` would write, after the word w1.
"""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.support.replay import reply
from tests.support.stub import VERSION

CHOICE: Final = "FAULTY"
"""The variable with the file's path."""

CHUNK: Final = 64 * 1024
"""Bytes of a write: a pipe holds no more."""

LONG_LINE: Final = 50 * 1024 * 1024
"""Bytes."""

_FAULT: Final = re.compile(r"\[\[fault ([\w-]+)\]\]")


def write(data: bytes) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view[:CHUNK]) :]


def for_ever() -> None:
    """Do nothing any more, and notice nothing."""
    while True:
        time.sleep(60)


# Of a process ------------------------------------------------------------------------------------------


def exit_at_once() -> None:
    print("the frobnicator is missing", file=sys.stderr)
    sys.exit(3)


def exit_when_warm() -> None:
    """Answer what a spare is asked, and then end."""
    for _ in range(3):
        answer(sys.stdin.buffer.readline())
    sys.exit(3)


def stay() -> None:
    """End neither with the input nor at SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        take(line)
    for_ever()


STARTS: Final[Mapping[str, Callable[[], None]]] = {
    "exit": exit_at_once,
    "exit-warm": exit_when_warm,
    "mute": for_ever,
    "stubborn": stay,
}


# Of a turn ---------------------------------------------------------------------------------------------


def half_a_line() -> None:
    write(b'{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_d')
    sys.exit(0)


def garbage() -> None:
    """Write what is no message, none that is known, or none of its kind; the turn goes on."""
    deep = b'{"type":"system","subtype":' + b"[" * 100_000 + b"\n"
    lines = [b"\n", b"Segmentation fault?\n", b"\xff\xfe\x00\n", b"{\n", b"[1]\n", b'{"type":7}\n', deep]
    kinds = [
        b'{"type":"%s"}\n' % kind for kind in (b"stream_event", b"assistant", b"user", b"control_response")
    ]
    odd = [b'{"type":"result","num_turns":"many"}\n', b'{"type":"control_request","request_id":"1"}\n']
    write(b"".join((*lines, *kinds, *odd)))


def long_line() -> None:
    """Write a line of 50 MB; the turn goes on."""
    write(b'{"type":"tomorrow","x":"' + b"x" * LONG_LINE + b'"}\n')


def endless_line() -> None:
    while True:
        write(b"x" * CHUNK)


def flood() -> None:
    lines = b'{"type":"system","subtype":"status"}\n' * 1000
    while True:
        write(lines)


def flood_stderr() -> None:
    while True:
        os.write(2, b"x" * CHUNK)


def close_output() -> None:
    os.close(1)
    for_ever()


def close_input() -> None:
    os.close(0)
    for_ever()


TURNS: Final[Mapping[str, Callable[[], None]]] = {
    "exit": lambda: sys.exit(0),
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "half-line": half_a_line,
    "garbage": garbage,
    "long-line": long_line,
    "endless-line": endless_line,
    "flood": flood,
    "flood-stderr": flood_stderr,
    "close-output": close_output,
    "close-input": close_input,
    "hang": for_ever,
    "no-result": lambda: None,
}


def turn(uuid: str, fault: str) -> None:
    """Write a turn of two words, and have it go wrong between the second and its end."""
    content = [{"type": "text", "text": "[[words 2]] [[delay 0]]"}]
    whole = reply(json.dumps({"type": "user", "uuid": uuid, "message": {"content": content}}).encode())
    assert whole is not None
    *begin, after = whole.pieces
    if fault == "hang-unbegun":
        for_ever()
    write(b"".join(begin))
    TURNS[fault]()
    if fault == "no-result":
        after = b"".join(line for line in after.splitlines(keepends=True) if b'"type":"result"' not in line)
    write(after)


def take(line: bytes) -> None:
    """Answer a line of the daemon's."""
    match json.loads(line):
        case {"type": "user", "uuid": uuid, "message": {"content": content}, **rest}:
            text = "".join(part.get("text", "") for part in content)
            if "shouldQuery" not in rest and (fault := _FAULT.search(text)):
                turn(uuid, fault[1])
                return
    answer(line)


def answer(line: bytes) -> None:
    """Write what a worker that replays would."""
    if (whole := reply(line)) is None:
        return
    began = time.monotonic()
    for number in range(len(whole.pieces)):
        time.sleep(max(0.0, began + whole.due(number) - time.monotonic()))
        write(whole.piece(number, time.monotonic_ns()))


def install(directory: Path) -> Path:
    """Write the program as an executable into a directory; return its path."""
    program = directory / "claude"
    program.write_text(f"#!{sys.executable} -S\n{_START.format(root=str(Path(__file__).parents[2]))}")
    program.chmod(0o755)
    return program


def main() -> None:
    """Answer until the end of the input."""
    if "--version" in sys.argv:
        print(VERSION)
        return
    chosen = Path(os.environ[CHOICE]) if CHOICE in os.environ else None
    if chosen is not None and chosen.exists() and (name := chosen.read_text().strip()):
        STARTS[name]()
    for line in sys.stdin.buffer:
        take(line)


_START: Final = """\
import sys

sys.path.insert(0, {root!r})
from tests.support.faulty import main

main()
"""
