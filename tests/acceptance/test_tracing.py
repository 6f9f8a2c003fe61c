"""Turns as spans, as a collector of OpenTelemetry gets them."""

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.acceptance.conftest import Start
from tests.support.daemon import Daemon, eventually

STEPS = ["admitted", "planned", "granted", "asked", "answering", "execute_tool", "answered"]
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector:
    """Takes spans by OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    data = gzip.decompress(data)
                for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
                    for scope in resource.scope_spans:
                        collector.spans += scope.spans
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def of(self, conversation: str) -> list[Any]:
        """Return the spans of a conversation, in order."""
        found = [it for it in self.spans if told(it).get("gen_ai.conversation.id") == conversation]
        return sorted(found, key=lambda it: it.start_time_unix_nano)


def told(it: Any) -> dict[str, Any]:
    """Return the attributes of a span or an event."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in it.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def traced(start: Start, collector: Collector) -> Daemon:
    return start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY=100)


def test_each_turn_is_a_span_below_its_callers(start: Start, collector: Collector, name: str) -> None:
    daemon = traced(start, collector)
    used = '[[tool Bash {"command": "echo 1"}]] [[say done]]'
    assert daemon.ask(used, name, headers={"traceparent": PARENT}).ok
    assert daemon.ask("[[error 529]]", name).code == "overloaded"
    with daemon.stream("[[delay 50]] [[words 1000]]", name) as stream:
        stream.until("w3 ")
    finished, failed, left = eventually(lambda: (it := collector.of(name))[2:] and it)
    assert finished.name == "invoke_agent claude-code"
    assert finished.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert finished.parent_span_id.hex() == "b7ad6b7169203331"
    attributes = told(finished)
    assert attributes["gen_ai.provider.name"] == "anthropic"
    assert attributes["gen_ai.usage.input_tokens"] > 0
    assert attributes["gen_ai.usage.output_tokens"] > 0
    assert [event.name for event in finished.events] == STEPS
    assert told(finished.events[5])["gen_ai.tool.name"] == "Bash"
    assert finished.start_time_unix_nano <= finished.events[0].time_unix_nano
    assert finished.events[-1].time_unix_nano <= finished.end_time_unix_nano
    assert failed.trace_id != finished.trace_id
    assert told(failed)["error.type"] == "overloaded"
    assert told(left)["error.type"] == "abandoned"
    assert "echo 1" not in str(collector.spans)


def test_spans_that_wait_are_sent_at_the_end(start: Start, collector: Collector, name: str) -> None:
    daemon = start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY=60_000)
    assert daemon.ask("[[say hi]]", name).ok
    assert collector.spans == []
    assert daemon.stop() == 0
    assert len(collector.of(name)) == 1


def test_a_collector_that_is_not_there_harms_nothing(start: Start, name: str) -> None:
    daemon = start(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_BSP_SCHEDULE_DELAY=50)
    assert daemon.ask("[[say hi]]", name).ok
    assert daemon.ask("[[say still]]", name).text == "still"
