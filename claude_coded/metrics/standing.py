"""How things stand when somebody looks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from claude_coded.metrics.vocabulary import NAMESPACE


@dataclass(slots=True)
class Traffic:
    """Bytes of streamed answers so far: the one thing that is counted piece by piece."""

    streamed: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """The daemon at a moment.

    `workers` are counts by state, `size` is the most that there may be. `memory` (resident bytes) and
    `processes` are of workers with all that they have started, and so is `cpu`, seconds so far, in which are
    those that have ended.
    """

    workers: Mapping[str, int]
    size: int
    queued: int
    running: int
    hot: int
    stored: int
    ready: bool
    memory: int
    processes: int
    cpu: float


class Gauges:
    """Shows the last look."""

    def __init__(self, registry: CollectorRegistry, traffic: Traffic) -> None:
        given: dict[str, Any] = {"namespace": NAMESPACE, "registry": registry}
        self._traffic = traffic
        self._workers = Gauge("workers", "Worker processes by state.", ("state",), **given)
        self._size = Gauge("pool_size", "The most worker processes that there may be.", **given)
        self._queue = Gauge("queue_length", "Requests that wait for their conversation or a worker.", **given)
        self._running = Gauge("turns_running", "Turns that run.", **given)
        self._conversations = Gauge(
            "conversations",
            "Conversations that have a worker (hot), and all that are stored.",
            ("set",),
            **given,
        )
        self._ready = Gauge("ready", "1 while turns are taken and workers start, else 0.", **given)
        self._memory = Gauge(
            "workers_resident_memory_bytes", "Resident memory of workers and all that they run.", **given
        )
        self._processes = Gauge("workers_processes", "Processes of workers and all that they run.", **given)
        self._cpu = Counter("workers_cpu_seconds", "CPU time of workers and all that they ran.", **given)
        self._streamed = Counter("stream_bytes", "Bytes of streamed answers.", **given)
        self._seen_cpu = 0.0
        self._seen_streamed = 0

    def look(self, standing: Standing) -> None:
        """Take note of how things stand."""
        for state, count in standing.workers.items():
            self._workers.labels(state).set(count)
        self._size.set(standing.size)
        self._queue.set(standing.queued)
        self._running.set(standing.running)
        self._conversations.labels("hot").set(standing.hot)
        self._conversations.labels("stored").set(standing.stored)
        self._ready.set(standing.ready)
        self._memory.set(standing.memory)
        self._processes.set(standing.processes)
        self._count(standing.cpu)

    def _count(self, cpu: float) -> None:
        # A process that ends between two reads is in neither: a counter must not go back for that.
        self._cpu.inc(max(0.0, cpu - self._seen_cpu))
        self._seen_cpu = max(self._seen_cpu, cpu)
        streamed = self._traffic.streamed
        self._streamed.inc(streamed - self._seen_streamed)
        self._seen_streamed = streamed
