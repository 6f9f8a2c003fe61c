"""What a worker says that replays, for load: recorded lines, as many as a message asks for.

They are those of the recording tests/data/turn.jsonl of the real CLI, with as many deltas as asked for in the
words of the scripted model: `[[pause MS]]` before them, `[[words N]]`, and `[[delay MS]]` between them. With
`[[clock]]` a delta's text is the time of its writing, in nanoseconds (CLOCK_MONOTONIC). No history is kept.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final
from uuid import UUID

RECORDING: Final = Path(__file__).parent.parent / "data" / "turn.jsonl"
ASKED: Final = str(UUID(int=7)).encode()
"""What the asked message is called in the recording."""

_WORDS: Final = re.compile(r"\[\[words (\d+)\]\]")
_PAUSE: Final = re.compile(r"\[\[pause (\d+)\]\]")
_DELAY: Final = re.compile(r"\[\[delay (\d+)\]\]")
_WORD: Final = b'"w0 "'


@dataclass(frozen=True, slots=True)
class Reply:
    """What is written for a line: pieces, the first after `pause`, with `delay` between them (seconds).

    The deltas of a `clocked` one are told when they are written.
    """

    pieces: Sequence[bytes]
    pause: float = 0.0
    delay: float = 0.0
    clocked: bool = False

    def due(self, number: int) -> float:
        """Return how many seconds after its beginning a piece is due."""
        return self.pause + number * self.delay

    def piece(self, number: int, nanoseconds: int) -> bytes:
        """Return a piece as it is written at a time."""
        piece = self.pieces[number]
        return piece.replace(_WORD, b'"%d "' % nanoseconds) if self.clocked else piece


def reply(line: bytes) -> Reply | None:
    """Return what is to be written for a line of the daemon's."""
    match json.loads(line):
        case {"type": "control_request", "request_id": asked}:
            response = {"subtype": "success", "request_id": asked, "response": {}}
            return _said({"type": "control_response", "response": response})
        case {"type": "user", "uuid": uuid, "shouldQuery": False}:
            receipt = {"type": "result", "subtype": "success", "num_turns": 0, "user_message_uuids": [uuid]}
            return _said({**receipt, "is_error": False, "result": ""})
        case {"type": "user", "uuid": uuid, "message": {"content": content}}:
            return _turn("".join(part.get("text", "") for part in content), uuid.encode())
    return None


def _said(line: object) -> Reply:
    return Reply([json.dumps(line).encode() + b"\n"])


def _turn(text: str, asked: bytes) -> Reply:
    words, pause, delay = (pattern.search(text) for pattern in (_WORDS, _PAUSE, _DELAY))
    before, delta, after = (part.replace(ASKED, asked) for part in _parts())
    count, clocked = int(words[1]) if words else 1, "[[clock]]" in text
    lines = [delta] * count if clocked else _deltas(count)
    pieces = [before, *lines, after]
    if delay is None:
        pieces = [b"".join(pieces)]
    return Reply(pieces, _seconds(pause), _seconds(delay), clocked)


def _seconds(found: re.Match[str] | None) -> float:
    return int(found[1]) / 1000 if found else 0.0


@cache
def _parts() -> tuple[bytes, bytes, bytes]:
    """Return the lines before the deltas, the first delta, and the lines after the deltas."""
    lines = RECORDING.read_bytes().splitlines(keepends=True)
    deltas = [number for number, line in enumerate(lines) if b'"text_delta"' in line]
    start = next(number for number, line in enumerate(lines) if b'"state":"running"' in line)
    return b"".join(lines[start : deltas[0]]), lines[deltas[0]], b"".join(lines[deltas[-1] + 1 :])


@cache
def _deltas(count: int) -> list[bytes]:
    line = _parts()[1]
    return [line.replace(_WORD, b'"w%d "' % number) for number in range(count)]
