"""Workers, as the stream of events tells of them."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter

from claude_coded.events import EventKind
from claude_coded.metrics.vocabulary import NAMESPACE

TOLD_APART: Final = frozenset({429, 500, 502, 503, 504, 529})
"""The statuses of the model's API that are told apart."""


class Workers:
    """Counts what becomes of workers, and what they tell."""

    def __init__(self, registry: CollectorRegistry) -> None:
        given: dict[str, Any] = {"namespace": NAMESPACE, "registry": registry}
        self._starts = Counter("worker_starts", "Processes started, by what for.", ("reason",), **given)
        self._stops = Counter(
            "worker_stops",
            "Processes stopped, by why; those that died unasked or failed to start among them.",
            ("reason",),
            **given,
        )
        self._retries = Counter(
            "upstream_retries",
            "Tries of the CLI after a failure of the model's API, by that one's status.",
            ("status",),
            **given,
        )
        self._handlers: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
            EventKind.WORKER_STARTED: lambda fields: self._starts.labels(fields["reason"]).inc(),
            EventKind.WORKER_STOPPING: lambda fields: self._stops.labels(fields["reason"]).inc(),
            EventKind.WORKER_DIED: lambda _: self._stops.labels("died").inc(),
            EventKind.WORKER_FAILED: lambda _: self._stops.labels("start_failed").inc(),
            EventKind.UPSTREAM_RETRY: self._retried,
        }

    def hear(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Take note of an event."""
        if (handler := self._handlers.get(kind)) is not None:
            handler(fields)

    def _retried(self, fields: Mapping[str, Any]) -> None:
        status = fields.get("status")  # none where there was no answer at all
        label = "none" if status is None else str(status) if status in TOLD_APART else "other"
        self._retries.labels(label).inc()
