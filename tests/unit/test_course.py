"""What is told of a turn: each that was told to wait or to start is told to end, once."""

from collections.abc import Callable
from itertools import count
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st

from claude_coded.course import Course
from claude_coded.errors import InvalidRequest, QueueFull, WorkerDied
from claude_coded.events import EventKind, Events
from claude_coded.tracing import NoTracing
from claude_coded.turn import (
    ConversationKey,
    ReasoningDelta,
    TextDelta,
    ToolActivity,
    ToolCallStarted,
    Usage,
)

KEY = ConversationKey("ann", "c")
USED = Usage(input=7, output=3, cost_usd=0.5)
BEGINS: Final = {"turn.waiting", "turn.started"}
ENDS: Final = {"turn.finished", "turn.failed", "turn.abandoned", "turn.withdrawn", "turn.refused"}


def courses(wall: Callable[[], float]) -> tuple[Course, Events]:
    events = Events(wall)
    return Course(events, KEY, 12, wall, NoTracing().turn({}, "chat", "m", 0.0)), events


def told(events: Events) -> list[tuple[str, dict[str, Any]]]:
    """Return kinds and fields, without those that all have."""
    common = {"turn": "t12", "tenant": "ann", "conversation": "c"}
    for event in events.since(0).events:
        assert common.items() <= event.fields.items()
    return [
        (event.kind, {name: value for name, value in event.fields.items() if name not in common})
        for event in events.since(0).events
    ]


def test_a_turn_from_its_wait_to_its_end() -> None:
    clock = [10.0]
    course, events = courses(lambda: clock[0])
    course.waits("worker")
    clock[0] = 12.5
    course.starts("w1", "fresh", hot=False)
    clock[0] = 13.0
    course.hears([TextDelta("a")], Usage)
    course.hears([TextDelta("b"), ToolActivity("Bash", "rm -rf secret"), TextDelta("c")], lambda: USED)
    course.hears([ToolActivity("Bash", "", "no such file")], lambda: USED)
    clock[0] = 16.0
    course.ends(EventKind.TURN_FINISHED, USED, reason="stop")
    assert told(events) == [
        ("turn.waiting", {"for": "worker"}),
        ("turn.started", {"worker": "w1", "way": "fresh", "hot": False, "waited": 2.5}),
        ("turn.first_token", {"seconds": 0.5}),
        ("turn.tool", {"tool": "Bash", "output": 3}),
        ("turn.tool", {"tool": "Bash", "failed": True, "output": 3}),
        ("turn.finished", {"seconds": 3.5, "reason": "stop", "input": 7, "output": 3, "cost_usd": 0.5}),
    ]


class Ended:
    """A span that notes how it ends."""

    def __init__(self) -> None:
        self.error: str | None = None

    def reach(self, what: str, **told: object) -> None: ...

    def end(self, error: str = "", **told: object) -> None:
        assert self.error is None
        self.error = error


def test_its_span_ends_with_what_went_wrong_be_that_of_a_code_or_not() -> None:
    ends: dict[str, Callable[[Course], None]] = {
        "": lambda it: it.ends(EventKind.TURN_PARKED, USED, calls=1, reason="tool_calls"),
        "abandoned": lambda it: it.ends(EventKind.TURN_ABANDONED, USED),
        "worker_died": lambda it: it.fails(WorkerDied("gone"), USED),
        "invalid_request_error": lambda it: it.fails(InvalidRequest("no"), USED),
    }
    for error, end in ends.items():
        for started in (True, False):
            span = Ended()
            course = Course(Events(lambda: 1.0), KEY, 12, lambda: 1.0, span)
            if started:
                course.starts("w1", "fresh", hot=True)
            end(course)
            assert span.error == error


def test_reasoning_and_a_call_are_first_tokens_too() -> None:
    for first in (ReasoningDelta("hm"), ToolCallStarted(0, "call", "lookup")):
        course, events = courses(lambda: 1.0)
        course.starts("w1", "fresh", hot=True)
        course.hears([first, first], Usage)
        assert [kind for kind, _ in told(events)] == ["turn.started", "turn.first_token"]


def test_what_goes_wrong_before_it_starts_and_after() -> None:
    course, events = courses(lambda: 1.0)
    course.fails(QueueFull("too many"), Usage())
    assert told(events) == [("turn.refused", {"code": "queue_full", "error": "too many"})]
    course, events = courses(lambda: 1.0)
    course.starts("w1", "fresh", hot=True)
    course.fails(WorkerDied("it is gone"), USED)
    kind, fields = told(events)[-1]
    assert (kind, fields["code"], fields["error"], fields["output"]) == (
        "turn.failed",
        "worker_died",
        "it is gone",
        3,
    )


def test_who_leaves_before_anything_was_told_leaves_nothing() -> None:
    course, events = courses(lambda: 1.0)
    course.is_left()
    assert told(events) == []


STEPS: Final[dict[str, Callable[[Course], None]]] = {
    "waits": lambda it: it.waits("worker"),
    "starts": lambda it: it.starts("w1", "fresh", hot=True),
    "loses": lambda it: it.loses_worker(),
    "hears": lambda it: it.hears([TextDelta("a")], Usage),
}
LAST: Final[dict[str, Callable[[Course], None]]] = {
    "finishes": lambda it: it.ends(EventKind.TURN_FINISHED, USED),
    "fails": lambda it: it.fails(WorkerDied("gone"), USED),
    "is left": lambda it: it.ends(EventKind.TURN_ABANDONED, USED),
    "is left waiting": lambda it: it.is_left(),
}


@given(
    st.lists(st.sampled_from(["waits", "starts", "loses"]), max_size=8),
    st.sampled_from(sorted(LAST)),
    st.sampled_from(sorted(LAST)),
)
def test_what_begins_ends_once(steps: list[str], last: str, later: str) -> None:
    clock = count(1.0)
    course, events = courses(lambda: next(clock))
    running = waiting = False
    for step in steps:
        if step == "starts" or (step == "waits" and not running) or (step == "loses" and running):
            running, waiting = step == "starts", step != "starts"
            STEPS[step](course)
    if running and last == "is left waiting":
        last = "is left"  # its lease says which
    if waiting and last in {"finishes", "is left"}:
        last = "is left waiting"
    LAST[last](course)
    LAST[later](course)
    kinds = [kind for kind, _ in told(events)]
    begun = bool(BEGINS & set(kinds))
    ended = sum(kind in ENDS for kind in kinds)
    assert ended == 1 if begun else ended <= 1
    if begun:
        assert kinds[-1] in ENDS
