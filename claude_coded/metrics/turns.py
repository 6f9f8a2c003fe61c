"""Turns, as they tell of themselves: how they end, where their time goes, what they use."""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from claude_coded.metrics.vocabulary import NAMESPACE, SECONDS

MODELS: Final = 50
"""Names of models that are told apart; the CLI takes any that begins with `claude-`."""

OTHER: Final = "other"

ABANDONED: Final = "abandoned"
"""What a turn tells as its error when its client has left."""


class Phase(IntEnum):
    """What a turn waits for."""

    QUEUE = 0  # its conversation, or a worker
    START = 1  # a process that loads
    CLI = 2  # Claude Code, with the model and tools; a reader that takes nothing shows here, too
    DAEMON = 3


class Turns:
    """Counts turns."""

    def __init__(self, registry: CollectorRegistry, now: Callable[[], float]) -> None:
        self.now = now
        given: dict[str, Any] = {"namespace": NAMESPACE, "registry": registry}
        timed: dict[str, Any] = {**given, "buckets": SECONDS}
        self.ended = Counter(
            "turns",
            "Turns by how they ended; the reason is a finish reason, or the code of an error.",
            ("outcome", "reason"),
            **given,
        )
        self.first = Timed("first_token", "from a request to the first of its answer", timed)
        self.whole = Timed("turn", "from a request to the recorded end of its answer", timed)
        self.waits = Histogram(
            "queue_wait_seconds",
            "Time that turns waited for their conversation and a worker, refused ones too.",
            **timed,
        )
        self.matches = Counter(
            "history_matches",
            "Turns asked, by how their history met what is known, and whether their process was hot.",
            ("kind", "hot"),
            **given,
        )
        self.tools = Counter("tool_calls", "Calls of Claude's own tools, and of clients'.", ("by",), **given)
        self.input = Counter("input_tokens", "Tokens read, from the cache too.", ("model",), **given)
        self.cached = Counter("cached_input_tokens", "Tokens read from the cache.", ("model",), **given)
        self.output = Counter("output_tokens", "Tokens written.", ("model",), **given)
        self.cost = Counter("cost_usd", "What the CLI says that turns cost.", ("model",), **given)
        self._models: set[str] = set()
        self._matches: dict[tuple[str, bool], Counter] = {}
        for by in ("claude", "client"):
            self.tools.labels(by)

    def begin(self, model: str, arrived: float) -> "TurnMetrics":
        """Begin to watch a turn whose request came at a time of the clock; 0: now."""
        return TurnMetrics(self, model, arrived or self.now())

    def match(self, kind: str, *, hot: bool) -> None:
        """Count how a turn's history met what is known."""
        if (found := self._matches.get((kind, hot))) is None:
            found = self._matches[kind, hot] = self.matches.labels(kind, "true" if hot else "false")
        found.inc()

    def model(self, name: str) -> str:
        """Return the label for a model: of too many names the later ones have none of their own."""
        if len(self._models) < MODELS:
            self._models.add(name)
        return name if name in self._models else OTHER


class Timed:
    """A time, in all and by phase."""

    def __init__(self, name: str, what: str, given: dict[str, Any]) -> None:
        self._total = Histogram(f"{name}_duration_seconds", f"Time {what}.", **given)
        by_phase = Histogram(f"{name}_phase_seconds", f"Time {what}, by what took it.", ("phase",), **given)
        self._phases = [by_phase.labels(phase.name.lower()) for phase in Phase]

    def observe(self, spent: Sequence[float]) -> None:
        """Count a turn's time, given in seconds by phase."""
        self._total.observe(sum(spent))
        for phase, seconds in zip(self._phases, spent, strict=True):
            phase.observe(seconds)


ON_THE_WAY: Final = frozenset({"admitted", "planned", "granted", "asked", "answering"})
"""The steps up to the first of an answer: they are noted, and counted with the next one after them."""


class TurnMetrics:
    """One turn, as it goes on: a `tracing.TurnSpan`.

    All time since the step before goes to what the turn waited for until this one. A turn that begins again
    goes on to count.
    """

    def __init__(self, turns: Turns, model: str, arrived: float) -> None:
        self._turns = turns
        self._model = model
        self._last = arrived
        self._spent = [0.0] * len(Phase)
        self._tools = 0
        self._ended = False
        self._noted: list[tuple[str, float, dict[str, Any]]] = [("begun", turns.now(), {})]

    def reach(self, what: str, **told: Any) -> None:  # noqa: ANN401 - the values of attributes
        """Take note of a step."""
        self._noted.append((what, self._turns.now(), told))
        if what not in ON_THE_WAY:
            self._count_steps()

    def end(self, error: str = "", **told: Any) -> None:  # noqa: ANN401 - the values of attributes
        """Count the turn, once."""
        if self._ended:
            return
        self._ended = True
        now = self._turns.now()
        self._count_steps()
        turns = self._turns
        if error:
            outcome, reason = (ABANDONED, "") if error == ABANDONED else ("failed", error)
            turns.ended.labels(outcome, reason).inc()
        else:
            self._spend(Phase.DAEMON, now)
            turns.whole.observe(self._spent)
            self._count(**told)
        turns.waits.observe(self._spent[Phase.QUEUE])

    def _count(
        self,
        *,
        reason: str,
        input: int = 0,  # noqa: A002 - the name of the attribute
        output: int = 0,
        cache_read: int = 0,
        cost_usd: float = 0.0,
        calls: int = 0,
        **_: object,
    ) -> None:
        turns, model = self._turns, self._turns.model(self._model)
        turns.ended.labels("finished", reason).inc()
        turns.input.labels(model).inc(input)
        turns.output.labels(model).inc(output)
        turns.cached.labels(model).inc(cache_read)
        turns.cost.labels(model).inc(cost_usd)
        turns.tools.labels("client").inc(calls)

    # Steps ---------------------------------------------------------------------------------------------

    def _count_steps(self) -> None:
        noted, self._noted = self._noted, []
        for what, now, told in noted:
            match what:
                case "begun" | "planned":
                    self._spend(Phase.DAEMON, now)
                case "admitted":
                    self._spend(Phase.QUEUE, now)
                case "granted":
                    self._granted(now, **told)
                case "asked":
                    self._asked(now, **told)
                case "answering":
                    self._answering(now, **told)
                case "lost" | "answered":
                    self._spend(Phase.CLI, now)
                case "execute_tool":
                    self._used(**told)

    def _granted(self, now: float, *, age: float, **_: object) -> None:
        """Take note of a worker; one that is younger than the wait for it was started within that."""
        self._spend(Phase.QUEUE, now - age if age < now - self._last else now)
        self._spend(Phase.START, now)

    def _asked(self, now: float, *, kind: str, hot: bool, **_: object) -> None:
        self._spend(Phase.DAEMON, now)
        self._turns.match(kind, hot=hot)

    def _answering(self, now: float, *, loaded: float | None, **_: object) -> None:
        """Take note of the first of the answer. The process answered anything at all `loaded` seconds ago."""
        self._spend(Phase.START, now - min(now - self._last, loaded or 0.0))
        self._spend(Phase.CLI, now)
        self._turns.first.observe(self._spent)

    def _used(self, *, count: int, **_: object) -> None:
        self._turns.tools.labels("claude").inc(count - self._tools)
        self._tools = count

    def _spend(self, phase: Phase, until: float) -> None:
        """Give a phase the time since the last step."""
        self._spent[phase] += max(0.0, until - self._last)
        self._last = max(until, self._last)
