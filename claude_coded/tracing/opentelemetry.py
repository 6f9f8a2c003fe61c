"""Spans by OpenTelemetry's SDK."""

import logging
import time
from collections.abc import Mapping
from threading import Thread
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from claude_coded.tracing import TurnSpan

log = logging.getLogger(__name__)

NAME: Final = "claude-coded"

CLOSE_SECONDS: Final = 3.0
"""How long the daemon's end waits for a collector; the SDK's own bound is 30 s."""


class OpenTelemetry:
    """Makes spans for a provider of OpenTelemetry's SDK."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer(NAME)
        self._context = TraceContextTextMapPropagator()

    def turn(
        self, carrier: Mapping[str, str], operation: str, model: str, arrived: float, **told: object
    ) -> TurnSpan:
        """Begin a turn's span, below the caller's where that is told."""
        ago = time.monotonic() - arrived if arrived else 0.0
        span = self._tracer.start_span(
            f"{operation} {model}",
            self._context.extract(carrier),
            SpanKind.SERVER,
            {
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": "anthropic",
                "gen_ai.request.model": model,
                **_attributes(told),
            },
            start_time=time.time_ns() - int(ago * 1e9),
        )
        return _TurnSpan(span)

    def close(self) -> None:
        """Send what is left, within `CLOSE_SECONDS`; what a collector has not taken by then is lost."""
        sending_rest = Thread(target=self._provider.shutdown, name="spans", daemon=True)
        sending_rest.start()
        sending_rest.join(CLOSE_SECONDS)
        if sending_rest.is_alive():
            log.warning("the last spans are lost: the collector took too long")


class _TurnSpan:
    def __init__(self, span: Span) -> None:
        self._span = span

    def reach(self, what: str, **told: object) -> None:
        self._span.add_event(what, _attributes(told))

    def end(self, error: str = "", **told: object) -> None:
        if not self._span.is_recording():
            return
        self._span.set_attributes(_attributes(told))
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


ATTRIBUTES: Final[Mapping[str, str]] = {
    "conversation": "gen_ai.conversation.id",
    "input": "gen_ai.usage.input_tokens",
    "output": "gen_ai.usage.output_tokens",
    "cache_read": "gen_ai.usage.cache_read.input_tokens",
    "cache_write": "gen_ai.usage.cache_creation.input_tokens",
    "reason": "gen_ai.response.finish_reasons",
    "tool": "gen_ai.tool.name",
    "agent": "gen_ai.agent.name",
}
"""What the semantic conventions have a name for; what else is told is called `claude_coded.` and its name."""


def _attributes(told: Mapping[str, object]) -> dict[str, Any]:
    named = {ATTRIBUTES.get(key, f"{NAME.replace('-', '_')}.{key}"): it for key, it in told.items()}
    return {name: (it,) if name.endswith("reasons") else it for name, it in named.items() if it is not None}


def sending(version: str) -> OpenTelemetry:
    """Return what sends spans by OTLP over HTTP; OpenTelemetry's own variables say where, and how."""
    return OpenTelemetry(provider(BatchSpanProcessor(OTLPSpanExporter()), version))


def provider(processor: SpanProcessor, version: str) -> TracerProvider:
    """Return a provider of the SDK's; the service's name is OTEL_SERVICE_NAME, else ours."""
    ours = Resource({SERVICE_NAME: NAME, SERVICE_VERSION: version})
    made = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    made.add_span_processor(processor)
    return made
