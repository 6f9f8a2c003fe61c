"""Stop sequences, wherever the deltas are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.errors import UpstreamError
from claude_coded.stopping import Stopper
from claude_coded.turn import (
    AnswerEvent,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    TurnFailed,
    TurnFinished,
    Usage,
)

FEW = st.text("ab\n", max_size=40)
STOPS = st.lists(st.text("ab\n", min_size=1, max_size=6), min_size=1, max_size=4).map(tuple)
CALL = ToolCallStarted(0, "call_1", "f")
END = TurnFinished()


def texts(*pieces: str) -> list[AnswerEvent]:
    return [TextDelta(piece) for piece in pieces]


def text(events: list[AnswerEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def expected(whole: str, stops: tuple[str, ...]) -> str:
    return min((whole.partition(stop)[0] for stop in stops), key=len)


@st.composite
def cut(draw: st.DrawFn, whole: st.SearchStrategy[str] = FEW) -> list[str]:
    """Return a text in pieces, some of them empty."""
    said = draw(whole)
    places = sorted(draw(st.lists(st.integers(0, len(said)), max_size=8)))
    return [said[start:end] for start, end in zip([0, *places], [*places, len(said)], strict=True)]


@given(cut(), STOPS, st.lists(st.integers(0, 40), max_size=4))
def test_the_text_ends_before_the_first_stop_however_it_is_cut(
    pieces: list[str], stops: tuple[str, ...], batches: list[int]
) -> None:
    stopper, shown, whole = Stopper(stops), "", "".join(pieces)
    places = sorted({0, *(min(place, len(pieces)) for place in batches), len(pieces)})
    for start, end in pairwise(places):
        shown += text(stopper.feed(texts(*pieces[start:end])))
        so_far = expected("".join(pieces[:end]), stops)
        assert expected(whole, stops).startswith(shown)
        assert stopper.stopped or len("".join(pieces[:end])) - len(shown) < max(map(len, stops))
        assert not stopper.stopped or shown == so_far
    shown += text(stopper.feed([END]))
    assert shown == expected(whole, stops)
    assert stopper.stopped == any(stop in whole for stop in stops)


@given(cut(), STOPS, st.data())
def test_reasoning_keeps_its_place_and_never_matches(
    pieces: list[str], stops: tuple[str, ...], data: st.DataObject
) -> None:
    events: list[AnswerEvent] = texts(*pieces)
    for number in range(data.draw(st.integers(0, 4))):
        events.insert(data.draw(st.integers(0, len(events))), ReasoningDelta(f"{stops[0]}{number}"))
    stopper = Stopper(stops)
    shown = [it for event in [*events, END] for it in stopper.feed([event])]
    limit = len(expected("".join(pieces), stops))
    assert places(shown, limit) == places(events, limit)
    assert text(shown) == "".join(pieces)[:limit]


def places(events: list[AnswerEvent], limit: int) -> list[tuple[int, str]]:
    """Return each piece of reasoning that stands before the limit, with how much text is before it."""
    found, length = [], 0
    for event in events:
        if isinstance(event, ReasoningDelta) and length <= limit:
            found.append((length, event.text))
        length += len(event.text) if isinstance(event, TextDelta) else 0
    return found


@given(cut(), st.text("xyz", min_size=1))
def test_what_cannot_begin_a_stop_is_not_touched(pieces: list[str], stop: str) -> None:
    stopper, events = Stopper((stop,)), texts(*pieces)
    assert stopper.feed(events) == events


def test_with_no_stops_the_events_are_not_looked_at() -> None:
    events = texts("a", "b")
    assert Stopper(()).feed(events) is events


def test_what_may_begin_a_stop_waits_for_what_follows() -> None:
    stopper = Stopper(("END",))
    assert stopper.feed(texts("one E")) == texts("one ")
    assert stopper.feed(texts("N")) == []
    assert stopper.feed(texts("O")) == texts("E", "N", "O")
    assert not stopper.stopped


def test_an_earlier_longer_stop_wins_over_a_later_shorter_one() -> None:
    stopper = Stopper(("bc", "abcd"))
    assert stopper.feed(texts("xabc")) == texts("x")
    assert not stopper.stopped
    assert stopper.feed(texts("d")) == []
    assert stopper.stopped


def test_a_shorter_stop_within_one_that_does_not_come_counts() -> None:
    stopper = Stopper(("abcd", "bc"))
    assert stopper.feed(texts("xabc")) == texts("x")
    assert stopper.feed(texts("e")) == texts("a")
    assert stopper.stopped


@pytest.mark.parametrize("end", [END, TurnFailed(UpstreamError("down")), CALL])
def test_ends_and_calls_release_what_is_held_back(end: AnswerEvent) -> None:
    stopper = Stopper(("END",))
    assert stopper.feed([*texts("one EN"), end]) == [*texts("one EN"), end]


def test_a_call_parts_the_text() -> None:
    stopper = Stopper(("END",))
    events = [*texts("EN"), CALL, ToolCallDelta(0, "{}"), *texts("D")]
    assert stopper.feed([*events, END]) == [*events, END]


def test_nothing_comes_after_the_stop_but_the_turns_end() -> None:
    stopper = Stopper(("END",))
    after = [ReasoningDelta("hm"), CALL, ToolCallDelta(0, "{}"), *texts("two")]
    assert stopper.feed([*texts("one END two"), *after]) == texts("one ")
    assert stopper.stopped
    assert stopper.feed(after) == []
    usage = Usage(output=3)
    assert stopper.feed([TurnFinished(FinishReason.LENGTH, usage)]) == [
        TurnFinished(FinishReason.STOP, usage)
    ]
    failed = TurnFailed(UpstreamError("down"))
    assert stopper.feed([failed]) == [failed]
