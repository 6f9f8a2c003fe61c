"""The benchmarks by name, and how they are run."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from claude_coded.claude.launch import find_binary
from tests.benchmarks.admin import client_start
from tests.benchmarks.ceiling import MANY_SETTINGS, ceiling, idle_connections, many_streams, many_turns
from tests.benchmarks.charts import Chart
from tests.benchmarks.harness import Daemon, daemon, model, replayer, stamper_of
from tests.benchmarks.latency import (
    AT_ONCE_SETTINGS,
    hot_path,
    hot_turn,
    new_conversation,
    new_conversations_at_once,
    responses_turn,
)
from tests.benchmarks.matching import matching, seeding, stateless_turn
from tests.benchmarks.measure import Figure
from tests.benchmarks.memory import memory
from tests.benchmarks.observing import observing
from tests.benchmarks.operation import BUSY_SETTINGS, control_under_load, start_to_ready
from tests.benchmarks.report import brief
from tests.benchmarks.requests import STALL_SETTINGS, reading, stalls
from tests.benchmarks.streams import cpu_per_delta, stream_rate
from tests.benchmarks.sweeps import HOT_SETTINGS, conversations, deltas, history, stored
from tests.benchmarks.tools import tool_round_trip


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark; `settings` are those of its daemon.

    If it is `replayed`, workers replay a recording; if it is `stamped`, they note when their turns pass.
    """

    run: Callable[..., Iterator[Figure | Chart]]
    settings: Mapping[str, str] = field(default_factory=dict)
    replayed: bool = False
    stamped: bool = False


BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    "hot-turn": Benchmark(hot_turn),
    "hot-path": Benchmark(hot_path, stamped=True),
    "responses-turn": Benchmark(responses_turn),
    "tool-round-trip": Benchmark(tool_round_trip),
    "new-conversation": Benchmark(new_conversation),
    "new-conversations-at-once": Benchmark(new_conversations_at_once, AT_ONCE_SETTINGS),
    # In process: the daemon must only be quiet.
    "matching": Benchmark(matching, {"CLAUDE_CODED_SPARE_WORKERS": "0"}),
    "stateless-turn": Benchmark(stateless_turn),
    "seeding": Benchmark(seeding),
    "stream-rate": Benchmark(stream_rate),
    "cpu-per-delta": Benchmark(cpu_per_delta),
    "observing": Benchmark(observing, replayed=True),
    "start-to-ready": Benchmark(start_to_ready),
    "control-under-load": Benchmark(control_under_load, BUSY_SETTINGS),
    "client-start": Benchmark(client_start),
    # Without spares the whole pool can belong to conversations.
    "memory": Benchmark(memory, {"CLAUDE_CODED_SPARE_WORKERS": "0"}),
    "reading": Benchmark(reading, {"CLAUDE_CODED_SPARE_WORKERS": "0"}),
    "stalls": Benchmark(stalls, STALL_SETTINGS, replayed=True),
    "ceiling": Benchmark(ceiling, replayed=True),
    "many-streams": Benchmark(many_streams, MANY_SETTINGS, replayed=True),
    "idle-connections": Benchmark(idle_connections, replayed=True),
    "many-turns": Benchmark(many_turns, replayed=True),
    "deltas": Benchmark(deltas),
    "conversations": Benchmark(conversations, HOT_SETTINGS),
    "history": Benchmark(history),
    "stored": Benchmark(stored, {"CLAUDE_CODED_SPARE_WORKERS": "0"}),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to; `claude` is the CLI's version, `rival` another server, if one ran beside ours."""

    results: Sequence[Figure | Chart]
    claude: str
    rival: str = ""

    @property
    def figures(self) -> list[Figure]:
        """Return the numbers."""
        return [result for result in self.results if isinstance(result, Figure)]

    @property
    def charts(self) -> list[Chart]:
        """Return the sweeps."""
        return [result for result in self.results if isinstance(result, Chart)]

    @property
    def holds(self) -> bool:
        """Return whether every limit was kept."""
        return all(result.holds for result in self.results)


def run(names: Sequence[str], *, quick: bool) -> Outcome:
    """Run benchmarks, each with a daemon of its own, on one scripted model. Raises BenchmarkError."""
    results: list[Figure | Chart] = []
    claude = ""
    with tempfile.TemporaryDirectory(prefix="claude-coded-") as folder, model() as url:
        for name in names:
            benchmark = BENCHMARKS[name]
            with _daemon_of(benchmark, Path(folder) / name, url) as running:
                claude = running.health()["claude"]["version"]
                results += _shown(benchmark, running, quick=quick)
    return Outcome(results, claude)


@contextmanager
def _daemon_of(benchmark: Benchmark, folder: Path, url: str) -> Iterator[Daemon]:
    folder.mkdir()
    settings = dict(benchmark.settings)
    with ExitStack() as stack:
        if benchmark.replayed:
            settings["CLAUDE_CODED_CLAUDE_BIN"] = str(stack.enter_context(replayer(folder)))
        if benchmark.stamped:
            settings["CLAUDE_CODED_CLAUDE_BIN"] = str(stamper_of(folder, find_binary(None, shutil.which)))
        yield stack.enter_context(daemon(folder, url, **settings))


def _shown(benchmark: Benchmark, running: Daemon, *, quick: bool) -> Iterator[Figure | Chart]:
    for result in benchmark.run(running, quick=quick):
        print(brief(result), file=sys.stderr, flush=True)
        yield result
