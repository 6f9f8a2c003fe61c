"""A turn's events on their way to their reader, in virtual time."""

import json
from uuid import uuid4

import pytest

from claude_coded.ask import Ask, Turn
from claude_coded.claude.translate import Translator
from claude_coded.claude.wire import parse
from claude_coded.errors import Interrupted
from claude_coded.turn import Message, Role, TextDelta, TurnFailed, TurnFinished
from tests.support import virtual
from tests.support.replay import reply

PATIENCE = 15.0
PACE = 0.02


class Speaker:
    """A turn, and what the CLI says of it: `pieces`, a delta each but for the first and the last one.

    The first one has been said already, if the model has `begun` to answer.
    """

    def __init__(self, words: int, *, begun: bool = True) -> None:
        uuid = str(uuid4())
        translator = Translator(uuid, retries=3)
        self.turn = Turn(Ask(Message.of(Role.USER, "hello"), uuid), translator, lambda: None)
        content = [{"type": "text", "text": f"[[words {words}]] [[delay 20]]"}]
        said = reply(json.dumps({"type": "user", "uuid": uuid, "message": {"content": content}}).encode())
        assert said is not None
        self.pieces = list(said.pieces)
        if begun:
            self.say()

    def say(self) -> None:
        """Say the next piece."""
        self.feed(self.pieces.pop(0))

    async def take(self, seconds: float) -> list[str]:
        """Return the texts that have come."""
        return [event.text for event in await self.turn.take(seconds) if isinstance(event, TextDelta)]

    def feed(self, piece: bytes) -> None:
        """Say some lines."""
        for line in piece.splitlines():
            message = parse(line)
            assert message is not None
            self.turn.add(message)


def test_one_timer_serves_for_all_waits_of_a_turn() -> None:
    words = 5000

    async def read() -> tuple[int, float]:
        loop, speaker = virtual.loop(), Speaker(words)
        for number in range(words):
            loop.call_at((number + 1) * PACE, speaker.say)
        before = loop.timers
        for number in range(words):
            assert await speaker.take(PATIENCE) == [f"w{number} "]
        speaker.say()
        assert isinstance((await speaker.turn.take(PATIENCE))[-1], TurnFinished)
        return loop.timers - before, loop.now

    timers, seconds = virtual.run(read())
    assert seconds == pytest.approx(words * PACE)
    assert 1 <= timers <= 1 + seconds / (PATIENCE - PACE)


@pytest.mark.parametrize("heard", [0, 1, 7, 1000])
def test_silence_is_told_as_late_after_the_last_event_as_was_asked_for(heard: int) -> None:
    async def read() -> None:
        loop, speaker = virtual.loop(), Speaker(1000)
        for _ in range(heard):
            loop.call_later(PACE, speaker.say)
            assert await speaker.take(PATIENCE)
        for silences in (1, 2):
            assert await speaker.turn.take(PATIENCE) == []
            assert loop.now == pytest.approx(heard * PACE + silences * PATIENCE)

    virtual.run(read())


def test_who_waits_less_than_before_is_told_in_time() -> None:
    async def read() -> float:
        loop, speaker = virtual.loop(), Speaker(2)
        loop.call_later(1, speaker.say)
        await speaker.take(PATIENCE)
        assert await speaker.turn.take(PATIENCE / 10) == []
        return loop.now

    assert virtual.run(read()) == pytest.approx(1 + PATIENCE / 10)


def test_who_waits_is_woken_when_the_model_begins_and_then_by_its_words() -> None:
    async def read() -> None:
        loop, speaker = virtual.loop(), Speaker(2, begun=False)
        *before, begins, content = speaker.pieces.pop(0).splitlines()
        for after, line in enumerate((b"\n".join(before), begins, content, speaker.pieces.pop(0))):
            loop.call_later(after + 1, speaker.feed, line)
        assert await speaker.turn.take() == []
        assert loop.now == pytest.approx(2)
        assert await speaker.turn.take() == [TextDelta("w0 ")]
        assert loop.now == pytest.approx(4)

    virtual.run(read())


def test_who_waits_without_end_is_not_woken() -> None:
    async def read() -> float:
        loop, speaker = virtual.loop(), Speaker(2)
        loop.call_later(1, speaker.say)
        loop.call_later(100 * PATIENCE, speaker.say)
        assert await speaker.take(PATIENCE) == ["w0 "]
        assert await speaker.turn.take() == [TextDelta("w1 ")]
        return loop.now

    assert virtual.run(read()) == pytest.approx(100 * PATIENCE)


def test_a_turn_that_has_ended_leaves_no_timer() -> None:
    ends = []

    async def read() -> None:
        loop, speaker = virtual.loop(), Speaker(1)
        loop.call_later(1, speaker.turn.fail, Interrupted("stopped"))
        assert isinstance((await speaker.turn.take(PATIENCE))[-1], TurnFailed)
        ends.append(loop)
        await loop.create_future()

    with pytest.raises(AssertionError, match="nothing will ever happen"):
        virtual.run(read())
    assert [loop.now for loop in ends] == [1]
