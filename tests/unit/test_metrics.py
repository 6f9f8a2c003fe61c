"""What is counted for Prometheus, in virtual time."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.metrics import Metrics, Standing
from claude_coded.metrics.turns import MODELS, Phase
from claude_coded.metrics.vocabulary import NAMESPACE
from claude_coded.tracing import Several

STANDING = Standing({"busy": 1}, 5, 2, 1, 1, 7, ready=True, memory=100, processes=3, cpu=4.0)


class Counted:
    """Metrics with a clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.metrics = Metrics("1", "2", lambda: self.now)

    def turn(self, arrived: float = 0.0, model: str = "claude-code") -> "Turn":
        return Turn(self, arrived, model)

    def value(self, name: str, **labels: str) -> float | None:
        """Return a sample's value; None where there is no such sample."""
        for metric in self.metrics.collect():
            for sample in metric.samples:
                if (sample.name, sample.labels) == (f"{NAMESPACE}_{name}", labels):
                    return sample.value
        return None

    def seconds(self, what: str) -> dict[str, float]:
        """Return the sums by phase."""
        names = [it.name.lower() for it in Phase]
        sums = {name: self.value(f"{what}_phase_seconds_sum", phase=name) for name in names}
        return {phase: round(value or 0.0, 6) for phase, value in sums.items()}


class Turn:
    """A turn that takes steps in virtual time."""

    def __init__(self, counted: Counted, arrived: float, model: str) -> None:
        self._counted = counted
        self._span = Several(counted.metrics).turn({}, "chat", model, arrived, tenant="t")

    def reach(self, what: str, after: float, **told: Any) -> "Turn":
        self._counted.now += after
        self._span.reach(what, **told)
        return self

    def granted(self, after: float, age: float = 100.0) -> "Turn":
        return self.reach("granted", after, age=age, worker="w1")

    def asked(self, after: float, kind: str = "continue", hot: bool = True) -> "Turn":
        return self.reach("asked", after, kind=kind, way="continue", hot=hot)

    def answering(self, after: float, loaded: float | None = 100.0) -> "Turn":
        return self.reach("answering", after, loaded=loaded)

    def end(self, after: float, error: str = "", **told: Any) -> None:
        self._counted.now += after
        self._span.end(error, **told)


@pytest.fixture
def counted() -> Counted:
    return Counted()


def test_a_turns_time_goes_to_what_it_waited_for(counted: Counted) -> None:
    turn = counted.turn(arrived=counted.now - 0.5)
    turn.reach("admitted", 2).reach("planned", 0.25).granted(3).asked(0.125).answering(1)
    turn.reach("answered", 10)
    assert counted.seconds("first_token") == {"queue": 5, "start": 0, "cli": 1, "daemon": 0.875}
    turn.end(0.5, reason="stop")
    assert counted.seconds("turn") == {"queue": 5, "start": 0, "cli": 11, "daemon": 1.375}
    assert counted.value("turn_duration_seconds_sum") == 17.375
    assert counted.value("first_token_duration_seconds_sum") == 6.875
    assert counted.value("queue_wait_seconds_sum") == 5


def test_the_start_of_a_process_is_no_waiting_in_the_queue(counted: Counted) -> None:
    turn = counted.turn().reach("admitted", 0).reach("planned", 0)
    turn.granted(3, age=1).asked(0.5, "fresh", hot=False).answering(4, loaded=1.5).end(0, "failed")
    assert counted.seconds("first_token") == {"queue": 2, "start": 3.5, "cli": 1.5, "daemon": 0.5}


def test_a_spare_that_still_loads_is_waited_for_and_one_that_never_answered_is_all_start(
    counted: Counted,
) -> None:
    counted.turn().granted(3, age=4).asked(0).answering(2, loaded=0.5).end(0, "failed")
    assert counted.seconds("first_token") == {"queue": 3, "start": 1.5, "cli": 0.5, "daemon": 0}
    counted.turn().granted(0).asked(0).answering(2, loaded=None).end(0, "failed")
    assert counted.seconds("first_token")["start"] == 3.5


def test_a_turn_that_begins_again_loses_none_of_its_time(counted: Counted) -> None:
    turn = counted.turn().reach("admitted", 1).reach("planned", 0).granted(1).asked(0).reach("lost", 5)
    turn.reach("admitted", 0).reach("planned", 0).granted(2).asked(0).answering(1).end(0, "failed")
    assert counted.seconds("first_token") == {"queue": 4, "start": 0, "cli": 6, "daemon": 0}


STEPS: st.SearchStrategy[tuple[str, dict[str, Any]]] = st.one_of(
    st.tuples(st.sampled_from(["admitted", "planned", "lost", "answered", "unknown"]), st.just({})),
    st.tuples(st.just("granted"), st.builds(lambda age: {"age": age}, st.floats(0, 50))),
    st.tuples(st.just("asked"), st.just({"kind": "fresh", "hot": False})),
    st.tuples(
        st.just("answering"), st.builds(lambda it: {"loaded": it}, st.one_of(st.none(), st.floats(0, 50)))
    ),
)


@given(st.lists(st.tuples(st.floats(0, 20), STEPS), max_size=12), st.floats(0, 5))
def test_the_phases_are_all_of_the_time(steps: list[tuple[float, tuple[str, Any]]], rest: float) -> None:
    counted = Counted()
    turn, began = counted.turn(), counted.now
    for after, (what, told) in steps:
        turn.reach(what, after, **told)
    turn.end(rest, reason="stop")
    assert min(counted.seconds("turn").values()) >= 0
    assert sum(counted.seconds("turn").values()) == pytest.approx(counted.now - began, abs=1e-5)


def test_turns_are_counted_by_how_they_end_once(counted: Counted) -> None:
    counted.turn().end(0, reason="stop")
    counted.turn().end(0, reason="tool_calls", calls=2)
    counted.turn().end(0, "queue_full")
    left = counted.turn()
    left.end(0, "abandoned")
    left.end(0, reason="stop")
    outcomes = [("finished", "stop"), ("finished", "tool_calls"), ("failed", "queue_full"), ("abandoned", "")]
    for outcome, reason in outcomes:
        assert counted.value("turns_total", outcome=outcome, reason=reason) == 1
    assert counted.value("turn_duration_seconds_count") == 2
    assert counted.value("queue_wait_seconds_count") == 4
    assert counted.value("tool_calls_total", by="client") == 2


def test_tokens_and_cost_are_counted_by_model_and_tools_as_they_are_used(counted: Counted) -> None:
    turn = counted.turn(model="opus").reach("execute_tool", 0, tool="Bash", count=2)
    turn.reach("execute_tool", 0, tool="Read", count=3)
    turn.end(0, reason="stop", input=100, output=7, cache_read=60, cache_write=1, cost_usd=0.5)
    values = {
        name: counted.value(f"{name}_total", model="opus")
        for name in ("input_tokens", "cached_input_tokens", "output_tokens", "cost_usd")
    }
    assert values == {
        "input_tokens": 100,
        "cached_input_tokens": 60,
        "output_tokens": 7,
        "cost_usd": 0.5,
    }
    assert counted.value("tool_calls_total", by="claude") == 3


def test_of_too_many_models_the_later_ones_are_others(counted: Counted) -> None:
    for number in [*range(MODELS + 2), 0]:
        counted.turn(model=f"claude-{number}").end(0, reason="stop", output=1)
    assert counted.value("output_tokens_total", model="claude-0") == 2
    assert counted.value("output_tokens_total", model=f"claude-{MODELS}") is None
    assert counted.value("output_tokens_total", model="other") == 2


def test_turns_are_counted_by_how_their_history_met_what_is_known(counted: Counted) -> None:
    counted.turn().asked(0, "branch", hot=True).end(0, "failed")
    counted.turn().asked(0, "fresh", hot=False).end(0, "failed")
    assert counted.value("history_matches_total", kind="branch", hot="true") == 1
    assert counted.value("history_matches_total", kind="fresh", hot="false") == 1


def test_workers_are_counted_by_why_they_start_and_stop(counted: Counted) -> None:
    for kind, fields in (
        ("worker.started", {"reason": "spare"}),
        ("worker.stopping", {"reason": "idle"}),
        ("worker.exited", {"failed": False}),
        ("worker.died", {"status": "exit status -9"}),
        ("worker.failed", {"error": "no such file"}),
    ):
        counted.metrics.hear(kind, fields)
    assert counted.value("worker_starts_total", reason="spare") == 1
    for reason in ("idle", "died", "start_failed"):
        assert counted.value("worker_stops_total", reason=reason) == 1


@pytest.mark.parametrize(("status", "label"), [(529, "529"), (418, "other"), (None, "none")])
def test_tries_are_counted_by_a_status_of_few(counted: Counted, status: int | None, label: str) -> None:
    counted.metrics.hear("upstream.retry", {"worker": "w1"} | ({"status": status} if status else {}))
    assert counted.value("upstream_retries_total", status=label) == 1


def test_how_things_stand_is_shown_and_counters_never_go_back(counted: Counted) -> None:
    counted.metrics.traffic.streamed += 500
    counted.metrics.look(STANDING)
    assert counted.value("workers", state="busy") == 1
    assert counted.value("conversations", set="stored") == 7
    assert (counted.value("ready"), counted.value("queue_length")) == (1, 2)
    assert counted.value("stream_bytes_total") == 500
    for cpu, told in ((3.0, 4.0), (4.5, 4.5)):
        counted.metrics.look(Standing({}, 5, 0, 0, 0, 0, ready=False, memory=0, processes=0, cpu=cpu))
        assert counted.value("workers_cpu_seconds_total") == told
    assert counted.value("stream_bytes_total") == 500
    assert counted.value("ready") == 0


def test_every_name_says_its_unit_and_no_label_names_a_conversation_or_a_tenant(counted: Counted) -> None:
    counted.turn().asked(0).answering(0).end(0, reason="stop", output=1)
    counted.metrics.look(STANDING)
    for metric in counted.metrics.collect():
        assert metric.documentation.endswith("."), metric.name
        assert metric.name.startswith((f"{NAMESPACE}_", "process_"))
        for sample in metric.samples:
            assert (metric.type == "counter") == sample.name.endswith("_total"), sample.name
            assert set(sample.labels) <= {
                *("outcome", "reason", "phase", "kind", "hot", "by", "model", "state", "set", "status", "le"),
                *("version", "claude"),
            }


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [("*/*", "text/plain; version=0.0.4"), ("application/openmetrics-text", "application/openmetrics-text")],
)
def test_the_page_is_in_the_format_that_is_asked_for(counted: Counted, accept: str, media_type: str) -> None:
    counted.turn().end(0, reason="stop")
    page, told = counted.metrics.page(accept)
    assert told.startswith(media_type)
    assert b'claude_coded_turns_total{outcome="finished",reason="stop"} 1.0\n' in page
    assert b"_created" not in page
