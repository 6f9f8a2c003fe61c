"""Spans of turns, as OpenTelemetry's SDK exports them."""

import logging
import socket
import threading

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from claude_coded import tracing
from claude_coded.tracing import ENDPOINTS, NoTracing, opentelemetry
from claude_coded.tracing.opentelemetry import OpenTelemetry, provider

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> OpenTelemetry:
    return OpenTelemetry(provider(SimpleSpanProcessor(exporter), "1.0"))


def test_a_turn_is_a_span_of_its_callers_trace(spans: OpenTelemetry, exporter: InMemorySpanExporter) -> None:
    turn = spans.turn(
        {"traceparent": PARENT}, "invoke_agent", "claude-code", 0.0, conversation="c", tenant="t"
    )
    turn.reach("asked", worker="w1", hot=True)
    assert exporter.get_finished_spans() == ()
    turn.end(reason="stop", input=3, output=None)
    turn.end("late")
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.kind, span.status.status_code) == (
        "invoke_agent claude-code",
        SpanKind.SERVER,
        StatusCode.UNSET,
    )
    assert span.parent is not None
    assert f"{span.parent.trace_id:x}" == "af7651916cd43dd8448eb211c80319c"
    assert f"{span.parent.span_id:x}" == "b7ad6b7169203331"
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-code",
        "gen_ai.conversation.id": "c",
        "claude_coded.tenant": "t",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 3,
    }
    (event,) = span.events
    assert (event.name, dict(event.attributes or {})) == (
        "asked",
        {"claude_coded.worker": "w1", "claude_coded.hot": True},
    )
    assert span.resource.attributes["service.name"] == "claude-coded"
    assert span.resource.attributes["service.version"] == "1.0"


def test_a_turn_that_fails_says_by_what(spans: OpenTelemetry, exporter: InMemorySpanExporter) -> None:
    spans.turn({}, "chat", "claude-code-chat", 0.0).end("queue_full")
    (span,) = exporter.get_finished_spans()
    assert span.parent is None
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "queue_full"


@pytest.mark.parametrize(
    "parent", ["", "00-0-0-01", "no trace", PARENT + "-more", "00-" + "0" * 32 + "-1-01"]
)
def test_what_is_no_trace_context_begins_a_trace(
    spans: OpenTelemetry, exporter: InMemorySpanExporter, parent: str
) -> None:
    spans.turn({"traceparent": parent}, "chat", "m", 0.0).end()
    (span,) = exporter.get_finished_spans()
    assert span.parent is None


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_spans_are_wanted_where_opentelemetrys_variables_say_so(
    environment: dict[str, str], wanted: bool
) -> None:
    assert tracing.wanted(environment) is wanted


def test_without_its_packages_there_are_no_spans_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "EXPORTER", "no.such.package")
    with caplog.at_level(logging.WARNING):
        made = tracing.begin({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, "1.0")
    assert isinstance(made, NoTracing)
    assert "the extra otel is not installed" in caplog.text
    made.turn({}, "chat", "m", 0.0).end()
    made.close()


def test_a_collector_that_never_answers_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv(ENDPOINTS[0], f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        monkeypatch.setattr(opentelemetry, "CLOSE_SECONDS", 0.05)
        spans = opentelemetry.sending("1")
        spans.turn({}, "chat", "m", 0).end()
        spans.close()
        with silent.accept()[0] as asked:
            assert asked.recv(4) == b"POST"
    assert "the last spans are lost" in caplog.text
    # Its retries draw random numbers, at which Hypothesis complains in whatever test comes next.
    for thread in threading.enumerate():
        if thread.name == "spans":
            thread.join(20)
            assert not thread.is_alive()
