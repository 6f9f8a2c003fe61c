"""What a daemon counts for Prometheus, and what a real Prometheus makes of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.conftest import Start
from tests.support.daemon import Daemon, Model, eventually
from tests.support.dashboard import queries
from tests.support.prometheus import lint, needs_prometheus, needs_promtool, scraping

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def page(daemon: Daemon) -> str:
    answer = daemon.http.get(f"{daemon.base_url}/metrics", headers=daemon.headers)
    assert answer.status_code == 200
    return answer.text


def samples(daemon: Daemon) -> Samples:
    return {
        (sample.name.removeprefix("claude_coded_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page(daemon))
        for sample in family.samples
    }


def value(counted: Samples, name: str, **labels: str) -> float:
    return counted.get((name, frozenset(labels.items())), 0.0)


def use(daemon: Daemon, name: str) -> None:
    """Have a bit of everything happen."""
    assert daemon.ask('[[tool Bash {"command": "echo 1"}]] [[say done]]', name).ok
    said = [{"role": "user", "content": "[[recall]]"}, {"role": "assistant", "content": "of elsewhere"}]
    assert daemon.ask([*said, {"role": "user", "content": "[[say seeded]]"}]).ok
    assert daemon.ask("[[error 529]]", name).code == "overloaded"
    assert daemon.ask("[[error 400]]", name).status == 400
    with daemon.stream("[[delay 20]] [[words 1000]]", name) as stream:
        stream.until("w3 ")
    with daemon.stream("[[words 200]]", name) as stream:
        stream.rest()
    called = daemon.ask("[[tool look {}]]", f"{name}-tools", tools=[TOOL], model="claude-code-chat")
    assert called.body["choices"][0]["finish_reason"] == "tool_calls", called.body


@pytest.fixture(scope="module")
def used(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon in which a bit of everything has happened."""
    settings = {"ANTHROPIC_BASE_URL": served_model.url, "CLAUDE_CODED_UPSTREAM_RETRIES": "1"}
    daemon = Daemon(tmp_path_factory.mktemp("used"), settings)
    try:
        daemon.start()
        eventually(lambda: daemon.pool()["spare"])
        use(daemon, "named")
        eventually(lambda: value(samples(daemon), "turns_running") == 0)
        yield daemon
    finally:
        daemon.close()


def test_what_happens_is_counted(used: Daemon) -> None:
    counted = samples(used)

    def more(what: str, **labels: str) -> float:
        return value(counted, what, **labels)

    assert more("turns_total", outcome="finished", reason="stop") == 3
    assert more("turns_total", outcome="finished", reason="tool_calls") == 1
    assert more("turns_total", outcome="failed", reason="overloaded") == 1
    assert more("turns_total", outcome="failed", reason="invalid_request_error") == 1
    assert more("turns_total", outcome="abandoned", reason="") == 1
    assert more("history_matches_total", kind="fresh", hot="false") == 2
    assert more("history_matches_total", kind="rebuild", hot="false") == 1
    assert more("history_matches_total", kind="continue", hot="true") == 4
    assert more("tool_calls_total", by="claude") == more("tool_calls_total", by="client") == 1
    assert more("upstream_retries_total", status="529") == 1
    assert more("stream_bytes_total") > 200 * len("w100 ")
    assert more("output_tokens_total", model="claude-code") > 200
    assert more("output_tokens_total", model="claude-code-chat") > 0
    assert more("input_tokens_total", model="claude-code") > more(
        "cached_input_tokens_total", model="claude-code"
    )
    assert more("cost_usd_total", model="claude-code") > 0
    assert more("turn_duration_seconds_count") == 4
    assert more("first_token_duration_seconds_count") == 5
    phases = [more("turn_phase_seconds_sum", phase=it) for it in ("queue", "start", "cli", "daemon")]
    assert sum(phases) == pytest.approx(more("turn_duration_seconds_sum"))
    assert min(phases[2:]) > 0
    assert phases[3] < phases[2]
    started = sum(more("worker_starts_total", reason=it) for it in ("spare", "new", "resume", "fork"))
    assert started >= 2
    assert more("workers", state="idle") == 2
    assert more("workers", state="parked") == 1
    assert more("conversations", set="hot") == 3
    assert more("workers_resident_memory_bytes") > 100e6
    assert more("workers_cpu_seconds_total") > 0
    assert not any(word in str(key) for key in counted for word in ("named", "default"))


def test_workers_that_end_are_counted_by_why_and_their_cpu_time_stays(start: Start, name: str) -> None:
    daemon = start(CLAUDE_CODED_SPARE_WORKERS=0)
    assert daemon.ask("[[say hi]]", name).ok
    before = value(samples(daemon), "workers_cpu_seconds_total")
    assert daemon.delete(f"/conversations/{name}").ok
    eventually(lambda: value(samples(daemon), "workers", state="stopping") == 0 and not daemon.workers())
    counted = samples(daemon)
    assert value(counted, "worker_stops_total", reason="evicted") == 1
    assert value(counted, "workers_cpu_seconds_total") >= before > 0
    assert daemon.ask("[[say again]]", name).ok
    (worker,) = daemon.workers()
    worker.kill()
    eventually(lambda: value(samples(daemon), "worker_stops_total", reason="died") == 1)
    assert value(samples(daemon), "worker_starts_total", reason="new") == 1
    assert value(samples(daemon), "worker_starts_total", reason="resume") == 1


def test_the_page_needs_a_key_where_there_are_keys_unless_it_is_open(start: Start) -> None:
    keys = {"CLAUDE_CODED_API_KEYS": "ann:key-of-ann", "CLAUDE_CODED_SPARE_WORKERS": 0}
    daemon = start(key="key-of-ann", **keys)
    url = f"{daemon.base_url}/metrics"
    assert daemon.http.get(url).json()["error"]["code"] == "invalid_api_key"
    assert "claude_coded_ready 1.0" in daemon.http.get(url, headers=daemon.headers).text
    (daemon.directory / "config.toml").write_text("metrics_open = true\n")
    assert daemon.control("POST", "/v1/reload").json()["changed"] == ["CLAUDE_CODED_METRICS_OPEN"]
    assert "claude_coded_ready 1.0" in daemon.http.get(url).text


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_page(used: Daemon) -> None:
    assert lint(page(used)) == ""
    assert "histogram" in lint("# HELP x_bucket x\n# TYPE x_bucket gauge\nx_bucket 1\n")  # it would say so


@needs_prometheus
def test_each_query_of_the_dashboard_has_an_answer(used: Daemon, tmp_path: Path) -> None:
    assert used.delete("/conversations/named-tools").ok  # so that a worker has stopped
    with scraping(tmp_path, f"127.0.0.1:{used.port}") as prometheus:
        assert used.ask("[[say hi]]", "named").ok
        asked = {
            query: query.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".+")
            for query in queries()
        }

        def unanswered() -> list[str]:
            return [query for query, it in asked.items() if not prometheus.query(it)]

        eventually(lambda: not unanswered(), every=0.25)
        finished = 'sum(increase(claude_coded_turns_total{outcome="finished"}[1m]))'
        eventually(lambda: float(prometheus.query(finished)[0]["value"][1]) > 0, every=0.25)
