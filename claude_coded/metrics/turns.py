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


class TurnMetrics:
    """One turn, as it goes on: a `tracing.TurnSpan`.

    All time since the step before goes to what the turn waited for until this one. A turn that begins again
    goes on to count. What took the first token is counted with the step after it: that one is on its way.
    """

    def __init__(self, turns: Turns, model: str, arrived: float) -> None:
        self._turns = turns
        self._model = model
        self._last = arrived
        self._spent = [0.0] * len(Phase)
        self._to_first: list[float] | None = None
        self._tools = 0
        self._ended = False
        self._spend(Phase.DAEMON)
        self._steps: dict[str, Callable[..., None]] = {
            "admitted": self._admitted,
            "planned": self._planned,
            "granted": self._granted,
            "asked": self._asked,
            "answering": self._answering,
            "lost": self._lost,
            "execute_tool": self._used,
            "answered": self._answered,
        }

    def reach(self, what: str, **told: Any) -> None:  # noqa: ANN401 - the values of attributes
        """Take note of a step."""
        self._count_first()
        if (step := self._steps.get(what)) is not None:
            step(**told)

    def end(self, error: str = "", **told: Any) -> None:  # noqa: ANN401 - the values of attributes
        """Count the turn, once."""
        if self._ended:
            return
        self._ended = True
        self._count_first()
        turns = self._turns
        if error:
            outcome, reason = (ABANDONED, "") if error == ABANDONED else ("failed", error)
            turns.ended.labels(outcome, reason).inc()
        else:
            self._spend(Phase.DAEMON)
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

    def _admitted(self) -> None:
        self._spend(Phase.QUEUE)

    def _planned(self) -> None:
        self._spend(Phase.DAEMON)

    def _granted(self, *, age: float, **_: object) -> None:
        """Take note of a worker; one that is younger than the wait for it was started within that."""
        waited = self._turns.now() - self._last
        self._spend(Phase.QUEUE, before=age if age < waited else 0.0)
        self._spend(Phase.START)

    def _asked(self, *, kind: str, hot: bool, **_: object) -> None:
        self._spend(Phase.DAEMON)
        self._turns.match(kind, hot=hot)

    def _answering(self, *, loaded: float | None, **_: object) -> None:
        """Take note of the first of the answer. The process answered anything at all `loaded` seconds ago."""
        waited = self._turns.now() - self._last
        self._spend(Phase.START, before=min(waited, loaded or 0.0))
        self._spend(Phase.CLI)
        self._to_first = self._spent.copy()

    def _count_first(self) -> None:
        if self._to_first is not None:
            self._turns.first.observe(self._to_first)
            self._to_first = None

    def _lost(self) -> None:
        self._spend(Phase.CLI)

    def _answered(self) -> None:
        self._spend(Phase.CLI)

    def _used(self, *, count: int, **_: object) -> None:
        self._turns.tools.labels("claude").inc(count - self._tools)
        self._tools = count

    def _spend(self, phase: Phase, before: float = 0.0) -> None:
        """Give a phase the time since the last step, up to so many seconds ago."""
        until = self._turns.now() - before
        self._spent[phase] += max(0.0, until - self._last)
        self._last = max(until, self._last)
