"""What happens, counted for Prometheus.

A `Metrics` listens: turns tell it what they come to, as they tell `tracing`, the stream of events what
becomes of workers, and whoever asks for the page how things stand. Nothing is done for a piece of an answer
but to add the bytes of what is sent to an integer.

Labels come from small sets. No tenant is among them: whoever has a key may read the page.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Info, Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder

from claude_coded.metrics.standing import Gauges, Standing, Traffic
from claude_coded.metrics.turns import TurnMetrics, Turns
from claude_coded.metrics.vocabulary import NAMESPACE
from claude_coded.metrics.workers import Workers

__all__ = ["Metrics", "Standing", "Traffic"]


class Metrics:
    """All that is counted. `now` returns seconds of a clock that never goes back, the event loop's.

    `version` is the daemon's, `claude` the CLI's.
    """

    def __init__(self, version: str, claude: str, now: Callable[[], float]) -> None:
        self.traffic = Traffic()
        self._registry = registry = CollectorRegistry(auto_describe=True)
        self._turns = Turns(registry, now)
        self._workers = Workers(registry)
        self._gauges = Gauges(registry, self.traffic)
        build = Info("build", "The versions that run.", namespace=NAMESPACE, registry=registry)
        build.info({"version": version, "claude": claude})
        ProcessCollector(registry=registry)

    def turn(
        self, carrier: Mapping[str, str], operation: str, model: str, arrived: float, **told: object
    ) -> TurnMetrics:
        """Begin to watch a turn, as `tracing.Tracing` has it."""
        return self._turns.begin(model, arrived)

    def close(self) -> None:
        """Do nothing: who wants the page asks for it."""

    def hear(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Take note of an event of the stream."""
        self._workers.hear(kind, fields)

    def look(self, standing: Standing) -> None:
        """Take note of how things stand."""
        self._gauges.look(standing)

    def page(self, accept: str) -> tuple[bytes, str]:
        """Return the page and its media type, by a request's Accept header; for a thread: a few ms."""
        encode, media_type = choose_encoder(accept)
        return encode(_Uncreated(self._registry)), media_type

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics, with their samples."""
        return _Uncreated(self._registry).collect()


class _Uncreated:
    """A registry without the times at which each series began: they would be half of all series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [it for it in metric.samples if not it.name.endswith("_created")]
            yield metric
