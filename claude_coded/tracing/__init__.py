"""Turns as spans of OpenTelemetry: where its packages are there (the extra `otel`), and told where to send.

What is told follows OpenTelemetry's semantic conventions for generative AI; who calls is told by W3C's trace
context. Nothing that is said in a turn is in a span.
"""

import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Final, Protocol

log = logging.getLogger(__name__)

EXPORTER: Final = "opentelemetry.exporter.otlp.proto.http"
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""The variables by which OpenTelemetry's specification says where spans go; without one there are none."""


class TurnSpan(Protocol):
    """One turn, as it goes on."""

    def reach(self, what: str, **told: object) -> None:
        """Note that the turn has come to something."""

    def end(self, error: str = "", **told: object) -> None:
        """End it, once; later calls count for nothing. `error` is a code."""


class Tracing(Protocol):
    """What makes spans."""

    def turn(
        self, carrier: Mapping[str, str], operation: str, model: str, arrived: float, **told: object
    ) -> TurnSpan:
        """Begin a turn's span. `carrier` holds W3C's `traceparent` and `tracestate` as they came, or nothing.

        `operation` is one of the semantic conventions'. `arrived` is when the request had come, in seconds of
        the monotonic clock; 0: now. What is told are attributes: None is left out.
        """

    def close(self) -> None:
        """Send what is left; that may take seconds."""


class _NoSpan:
    def reach(self, what: str, **told: object) -> None:
        pass

    def end(self, error: str = "", **told: object) -> None:
        pass


class NoTracing:
    """Makes none."""

    def __init__(self) -> None:
        self._span = _NoSpan()

    def turn(
        self, carrier: Mapping[str, str], operation: str, model: str, arrived: float, **told: object
    ) -> TurnSpan:
        """Return what notes nothing."""
        return self._span

    def close(self) -> None:
        """Do nothing."""


class _Spans:
    def __init__(self, spans: Sequence[TurnSpan]) -> None:
        self._spans = spans

    def reach(self, what: str, **told: object) -> None:
        for span in self._spans:
            span.reach(what, **told)

    def end(self, error: str = "", **told: object) -> None:
        for span in self._spans:
            span.end(error, **told)


class Several:
    """Tells several of each turn."""

    def __init__(self, *tracings: Tracing) -> None:
        self._tracings = tracings

    def turn(
        self, carrier: Mapping[str, str], operation: str, model: str, arrived: float, **told: object
    ) -> TurnSpan:
        """Begin a span with each."""
        return _Spans([it.turn(carrier, operation, model, arrived, **told) for it in self._tracings])

    def close(self) -> None:
        """Have each send what is left."""
        for tracing in self._tracings:
            tracing.close()


def wanted(environment: Mapping[str, str]) -> bool:
    """Return whether spans are to be sent, by OpenTelemetry's own variables."""
    off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    none = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    return not off and not none and any(environment.get(name) for name in ENDPOINTS)


def installed() -> bool:
    """Return whether the packages are there."""
    try:
        return find_spec(EXPORTER) is not None
    except ModuleNotFoundError:
        return False


def begin(environment: Mapping[str, str], version: str) -> Tracing:
    """Return what makes spans, if they are wanted; how they are sent say OpenTelemetry's variables."""
    if not wanted(environment):
        return NoTracing()
    if not installed():
        log.warning("spans are wanted, but the extra otel is not installed")
        return NoTracing()
    from claude_coded.tracing.opentelemetry import sending  # noqa: PLC0415 - its packages are an extra

    return sending(version)
