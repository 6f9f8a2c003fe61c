"""What the comparison with other servers makes of answers and of what reached the model."""

from typing import Any

import orjson
import pytest

from tests.benchmarks.alternatives.behaviours import judge_history
from tests.benchmarks.alternatives.client import Event, Reply, fold_calls, read_events, said
from tests.benchmarks.alternatives.servers import ALTERNATIVES, OURS
from tests.benchmarks.alternatives.speed import Speed
from tests.benchmarks.alternatives.tables import Outcome, document, markdown, spread, table
from tests.benchmarks.alternatives.trial import Seen, Verdict
from tests.benchmarks.harness import BenchmarkError

BODIES = [{"choices": [{"delta": {"content": text}}]} for text in ("", "one ", "two")]
STREAM = (
    b": hello\r\n\r\n"
    + b"".join(b"data: %b\n\n" % orjson.dumps(body) for body in BODIES)
    + b"data: [DONE]\n\n"
)
EMPTY: dict[str, str] = {}


def reply(*bodies: Any, status: int = 200, raw: bytes = b"") -> Reply:
    return Reply(status, EMPTY, [Event(float(at), body) for at, body in enumerate(bodies)], 9.0, raw)


def function(name: str, arguments: str, **more: object) -> dict[str, object]:
    return {"function": {"name": name, "arguments": arguments}, **more}


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_an_event_came_when_its_line_was_whole(size: int) -> None:
    pieces = [(float(at), STREAM[at : at + size]) for at in range(0, len(STREAM), size)]
    events = list(read_events(pieces))
    assert [event.body for event in events] == BODIES
    ends = [STREAM.index(orjson.dumps(body)) + len(orjson.dumps(body)) for body in BODIES]
    assert [event.at for event in events] == [end // size * size for end in ends]


def test_the_first_content_is_the_first_that_is_not_empty() -> None:
    streamed = reply(*BODIES, {"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": []})
    assert (streamed.first, streamed.text, streamed.finish, streamed.error) == (1.0, "one two", "stop", None)


def test_a_whole_answer_reads_like_a_stream() -> None:
    message = {"content": "all", "tool_calls": [function("get", "{}", id="a")]}
    whole = reply({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    assert (whole.text, whole.finish, whole.calls[0]["id"]) == ("all", "tool_calls", "a")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply({"error": {"message": "no"}}), "no"),
        (reply({"error": "no"}), "no"),
        (reply(status=500, raw=b"broken"), "broken"),
        (reply(status=200, raw=b"fine"), None),
    ],
    ids=["event", "text", "status", "none"],
)
def test_an_error_is_found_wherever_it_is(answer: Reply, error: str | None) -> None:
    assert answer.error == error


def test_calls_are_joined_by_their_index() -> None:
    first = [function("get", "", index=0, id="a"), function("set", '{"x"', index=1, id="b")]
    second = [{"index": 1, "function": {"arguments": ":1}"}}, {"index": 0, "function": {"arguments": "{}"}}]
    calls = fold_calls([{"tool_calls": first}, {"tool_calls": None}, {}, {"tool_calls": second}])
    told = [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls]
    assert told == [("a", "get", "{}"), ("b", "set", '{"x":1}')]


ANT, BEE, COW = said("user", "ant"), said("assistant", "bee"), said("user", "cow")


@pytest.mark.parametrize(
    ("messages", "verdict"),
    [
        ([ANT, said("system", "where you are"), BEE, COW], Verdict.YES),
        ([COW], Verdict.NO),
        ([said("user", "ant\n[assistant] bee\ncow")], Verdict.NO),
        ([ANT, BEE, ANT, BEE, COW], Verdict.PARTLY),
        ([ANT, said("user", "bee"), COW], Verdict.PARTLY),
        ([BEE, ANT, COW], Verdict.PARTLY),
        ([said("user", "ant [[say bee]]"), BEE, COW], Verdict.YES),
    ],
    ids=["true", "lost", "pasted", "twice", "roles", "order", "script"],
)
def test_a_history_is_judged_by_what_the_model_got(messages: list[Any], verdict: Verdict) -> None:
    assert judge_history({"messages": messages}, "ant", "bee", "cow").verdict is verdict


def test_a_failure_is_a_result() -> None:
    def breaks_off() -> None:
        raise BenchmarkError("it broke off")

    speed = Speed()
    with speed.forgiving("stream"):
        breaks_off()
    assert speed.faults == ["stream: it broke off"]


def test_figures_are_shown_with_their_range() -> None:
    assert (spread([0.3, 0.1, 1.2]), spread([])) == ("300 (100 to 1,200)", "")


def test_a_cell_does_not_end_early() -> None:
    assert table(("a", "b"), [("x|y", "z")]).splitlines()[2] == "| x\\|y | z |"


def test_the_outcome_is_told_in_words_and_in_figures() -> None:
    speeds = {"one": Speed(new=[0.1], pieces=[3], right=[7, 8], faults=["stream: no"]), "bare": Speed()}
    seen = {"one": {"stop": Seen(Verdict.NO, "it says all")}, "two": {}}
    outcome = Outcome([OURS], speeds, seen, "2.1.331")
    text = markdown(outcome)
    for part in ("| one | 100 (100 to 100) |", "15 of 16", "- one: stream: no", "| stop | no | not asked |"):
        assert part in text
    told = orjson.loads(document(outcome))
    assert told["behaviour"]["one"]["stop"] == {"verdict": "no", "seen": "it says all"}
    assert told["speed"]["one"]["right"] == [7, 8]


def test_every_server_says_whence_it_is() -> None:
    assert len({server.name for server in ALTERNATIVES}) == len(ALTERNATIVES)
    for server in ALTERNATIVES:
        name, version = server.package.split()[1:3]
        assert name.startswith(server.name)
        assert version[0].isdigit()
