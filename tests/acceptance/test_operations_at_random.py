"""Clients and operators at random: every request ends as documented, and afterwards all is at rest."""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import httpx
import psutil
import pytest

from tests.acceptance.conftest import Start
from tests.support.daemon import Daemon, Json, eventually

CODES = {
    *("conversation_attached", "conversation_evicted", "draining", "queue_full", "turn_interrupted"),
    *("worker_died", "worker_start_failed"),
}
"""How a request may end that somebody or something has disturbed."""

NAMES = ("a", "b", "c", "d", "e")
CLIENTS = 4
ENDS = {"turn.finished", "turn.failed", "turn.abandoned", "turn.parked"}


@dataclass
class Walk:
    """A seeded walk: clients that ask, leave and come back, and operators that do what they can."""

    daemon: Daemon
    seed: int
    until: float
    ended: list[str] = field(default_factory=list)

    def clients(self, number: int) -> None:
        chance = random.Random(f"{self.seed} client {number}")
        count = 0
        while time.monotonic() < self.until:
            count += 1
            name = chance.choice(NAMES)
            text = f"{number}.{count} [[delay 5]] [[words {chance.choice((1, 20, 100))}]]"
            with self.daemon.stream(text, name) as stream:
                if chance.random() < 0.2:
                    with suppress(AssertionError):
                        stream.until("w0")
                    self.ended.append("left")
                    continue
                answer = stream.answer()
            self.ended.append("stop" if answer.ok else str(answer.code))
            assert answer.ok or answer.code in CODES, answer.body
            time.sleep(0 if answer.ok else 0.05)

    def operator(self) -> None:
        chance = random.Random(f"{self.seed} operator")
        deeds: list[Callable[[random.Random], None]] = [
            *(self.evict, self.evict, self.interrupt, self.interrupt),
            *(self.attach, self.reload, self.drain, self.hang_up, self.kill, self.look),
        ]
        while time.monotonic() < self.until:
            chance.choice(deeds)(chance)
            time.sleep(chance.uniform(0, 0.3))

    def ask(self, method: str, path: str) -> None:
        status = self.daemon.control(method, path).status_code
        assert status in {200, 404, 409}, (path, status)

    def evict(self, chance: random.Random) -> None:
        self.ask("DELETE", f"/v1/conversations/{chance.choice(NAMES)}?now={chance.choice(('true', 'false'))}")

    def interrupt(self, chance: random.Random) -> None:
        self.ask("POST", f"/v1/conversations/{chance.choice(NAMES)}/interrupt")

    def attach(self, chance: random.Random) -> None:
        transport = httpx.HTTPTransport(uds=str(self.daemon.socket))
        path = f"/v1/conversations/{chance.choice(NAMES)}/attach?now=true"
        with (
            httpx.Client(transport=transport, base_url="http://localhost", timeout=30) as http,
            http.stream("POST", path) as response,
        ):
            assert response.status_code in {200, 404, 409}, response.status_code
            time.sleep(chance.uniform(0, 0.3))

    def reload(self, chance: random.Random) -> None:
        size, key = chance.randint(1, 4), chance.choice(("one", "two"))
        config = f"pool_size = {size}\nanthropic_api_key = 'sk-ant-{key}'\n"
        (self.daemon.directory / "config.toml").write_text(chance.choice((config, config, "bad")))
        self.ask("POST", "/v1/reload")

    def hang_up(self, _: random.Random) -> None:
        for _time in range(5):
            os.kill(self.daemon.pid, signal.SIGHUP)

    def drain(self, chance: random.Random) -> None:
        self.ask("POST", f"/v1/drain?wait={chance.choice((0, 1))}")
        self.ask("POST", "/v1/resume")

    def kill(self, chance: random.Random) -> None:
        if workers := self.daemon.workers():
            with suppress(psutil.NoSuchProcess):
                chance.choice(workers).kill()

    def look(self, _: random.Random) -> None:
        for path in ("status", "workers", "conversations?all=true", "requests", "config", "events"):
            self.ask("GET", f"/v1/{path}")


def told(daemon: Daemon) -> list[Json]:
    text = daemon.control("GET", "/v1/events").text
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


def check_turns(daemon: Daemon) -> None:
    """Check that each turn that began has ended, once; one that begins again tells of that once more."""
    events = told(daemon)
    if events[0]["number"] > 1:
        return  # some are forgotten already
    for name in NAMES:
        kinds = [event["kind"] for event in events if event["fields"].get("conversation") == name]
        logged = [line for line in daemon.log.splitlines() if '"a turn begins again"' in line]
        again = sum(json.loads(line)["conversation"] == name for line in logged)
        ended = sum(kind in ENDS for kind in kinds)
        assert ended <= kinds.count("turn.started") <= ended + again


@pytest.mark.parametrize(
    ("seed", "seconds"),
    [(1, 4), *(pytest.param(seed, 60, marks=pytest.mark.soak) for seed in range(2, 8))],
)
def test_nothing_is_left_of_a_random_walk(make: Start, seed: int, seconds: float) -> None:
    daemon = make(ANTHROPIC_API_KEY="", CLAUDE_CODED_SPARE_WORKERS=1)
    (daemon.directory / "config.toml").write_text("pool_size = 3\nanthropic_api_key = 'sk-ant-one'\n")
    daemon.start()
    assert daemon.ask("[[say hi]]", "a").ok
    before = psutil.Process(daemon.pid).num_fds()
    walk = Walk(daemon, seed, time.monotonic() + seconds)
    with ThreadPoolExecutor(CLIENTS + 1) as threads:
        working = [threads.submit(walk.clients, number) for number in range(CLIENTS)]
        working.append(threads.submit(walk.operator))
        for work in working:
            work.result()
    (daemon.directory / "config.toml").write_text("pool_size = 2\nanthropic_api_key = 'sk-ant-one'\n")
    walk.ask("POST", "/v1/reload")
    assert "stop" in walk.ended
    eventually(lambda: daemon.ask("[[say hi]]", "last").ok, 60, every=0.5)
    daemon.settled(30)
    eventually(lambda: len(daemon.workers()) <= 2, 30)
    assert daemon.pool()["queued"] == 0
    assert psutil.Process(daemon.pid).num_fds() <= before + 16
    assert '"exception"' not in daemon.log, daemon.log
    check_turns(daemon)
