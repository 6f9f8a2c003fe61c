"""`python -m tests.benchmarks.unmetered serve`: the daemon as it is, but for all that it counts."""

from collections.abc import Mapping
from typing import Any

from claude_coded import daemon
from claude_coded.command_line import main
from claude_coded.http.turns import EventStream
from claude_coded.metrics import Traffic
from claude_coded.tracing import NoTracing


class Uncounted(NoTracing):
    """Takes what metrics are told, and does nothing with it."""

    def __init__(self, *_: object) -> None:
        super().__init__()
        self.traffic = Traffic()

    def hear(self, kind: str, fields: Mapping[str, Any]) -> None:
        pass


if __name__ == "__main__":
    daemon.Metrics = Uncounted  # type: ignore[attr-defined,assignment]
    EventStream.__anext__ = EventStream._next  # type: ignore[method-assign]
    main()
