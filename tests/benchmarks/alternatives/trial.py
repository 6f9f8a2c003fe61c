"""A server under observation, and what was seen of it."""

from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Final
from uuid import uuid4

import orjson

from tests.benchmarks.alternatives.client import Asker, Json, Reply
from tests.benchmarks.alternatives.running import Running, serving, settle_in, until
from tests.benchmarks.alternatives.servers import Server
from tests.benchmarks.harness import BenchmarkError
from tests.support.daemon import Model

LINE: Final = 160
"""Characters of an answer that are shown."""


class Verdict(Enum):
    """Whether a server does it."""

    YES = "yes"
    PARTLY = "partly"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen, in a few words."""

    verdict: Verdict
    what: str


def yes(what: str) -> Seen:
    return Seen(Verdict.YES, what)


def no(what: str) -> Seen:
    return Seen(Verdict.NO, what)


def partly(what: str) -> Seen:
    return Seen(Verdict.PARTLY, what)


@dataclass
class Trial:
    """One server under observation, and the scripted model behind it."""

    server: Server
    program: Path
    directory: Path
    model: Model

    def __post_init__(self) -> None:
        self._stack = ExitStack()
        self.running: Running | None = None

    @property
    def asker(self) -> Asker:
        """Return how the server is asked."""
        assert self.running is not None
        return self.running.asker

    @cached_property
    def mark(self) -> str:
        """Return a word that nobody else says."""
        return uuid4().hex[:8]

    def start(self) -> None:
        """Start the server: for the first time, or again with all that it has on disk."""
        spot = settle_in(self.directory)
        self.running = self._stack.enter_context(serving(self.server, self.program, spot, self.model.url))

    def close(self) -> None:
        """Stop the server."""
        self._stack.close()

    def stop(self) -> int:
        """Stop the server; return how many processes it has left behind."""
        self.close()
        return self.running.left if self.running else 0

    def received(self, marker: str) -> list[Json]:
        """Return the requests that have reached the model with this text."""
        return [body for body in self.model.requests() if marker in orjson.dumps(body["messages"]).decode()]

    def newest(self, marker: str) -> Json:
        """Return the newest of them."""
        bodies = self.received(marker)
        if not bodies:
            raise BenchmarkError("nothing reached the model")
        return bodies[-1]


def fault(trial: Trial, error: BaseException) -> str:
    """Tell of a failure; a server that has died of it is started again."""
    running = trial.running
    assert running is not None
    died = until(lambda: running.process.poll() is not None, 1) is not None
    if died:
        trial.stop()
        trial.start()
    return f"{'the server died: ' if died else ''}{type(error).__name__}: {error}"[:LINE]


def shown(reply: Reply) -> str:
    """Return what an answer said, shortly."""
    text = f"error {reply.error!r}" if reply.error is not None else repr(reply.text)
    return f"{reply.status}, {text[:LINE]}"
