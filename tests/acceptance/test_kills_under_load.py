"""The daemon is killed at random times under load: nothing runs on, no finished turn is lost."""

import random
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

import httpx
import pytest

from tests.acceptance.conftest import Start
from tests.support.daemon import Answer, Daemon, eventually

TALKERS = 4
SCRIPTS = (
    "",
    "[[words 30]]",
    "[[delay 10]] [[words 50]]",
    '[[tool Bash {"command": "true; sleep 0.2"}]]',
    '[[delay 5]] [[words 10]] [[tool Bash {"command": "echo made >> file; sleep 0.1"}]] [[words 10]]',
)


@dataclass
class Shift:
    """When the daemon is there to be asked."""

    daemon: Daemon
    up: threading.Event = field(default_factory=threading.Event)
    over: bool = False


@dataclass
class Talker:
    """Asks one question after the other in its conversation, and again what was lost.

    `said` are the questions that have certainly been answered; `lost` counts those that broke off, and
    `kept` those of them that had been recorded by then.
    """

    shift: Shift
    name: str
    chance: random.Random
    said: list[str] = field(default_factory=list)
    lost: int = 0
    kept: int = 0

    def run(self) -> None:
        while not self.shift.over:
            self.ask(f"{self.name} {len(self.said)} {self.chance.choice(SCRIPTS)} [[recall]]")

    def ask(self, question: str) -> None:
        """Ask until it is answered; check that the model knew what was answered before, once, in order."""
        while True:
            self.shift.up.wait()
            try:
                answer = self.answer(question)
            except httpx.TransportError:
                self.lost += 1
                if self.was_recorded():
                    self.kept += 1
                    break
                continue
            assert answer.ok, answer.body
            known = answer.text[answer.text.index('["') :]
            assert Answer(200, answer.headers, _saying(known)).said == [*self.said, question]
            break
        self.said.append(question)

    def answer(self, question: str) -> Answer:
        if self.chance.random() < 0.5:
            return self.shift.daemon.ask(question, self.name)
        with self.shift.daemon.stream(question, self.name) as stream:
            return stream.answer()

    def was_recorded(self) -> bool:
        """Return whether the turn that broke off counts as finished; no turn before it may be gone."""
        while True:
            self.shift.up.wait()
            try:
                shown = self.shift.daemon.get(f"/conversations/{self.name}")
            except httpx.TransportError:
                continue
            turns = shown.body["turns"] if shown.ok else 0
            assert turns in {len(self.said), len(self.said) + 1}, (turns, self.said)
            return bool(turns > len(self.said))


def _saying(text: str) -> dict[str, list[dict[str, dict[str, str]]]]:
    return {"choices": [{"message": {"content": text}}]}


def check_database(daemon: Daemon) -> None:
    with closing(sqlite3.connect(daemon.state / "claude-coded.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []


@pytest.mark.parametrize(("seed", "kills"), [(1, 1), pytest.param(2, 50, marks=pytest.mark.soak)])
def test_a_daemon_killed_again_and_again_loses_no_finished_turn(start: Start, seed: int, kills: int) -> None:
    chance = random.Random(seed)
    daemon = start(POOL_SIZE=TALKERS + 1, CLAUDE_CODED_LOG_LEVEL="debug")
    shift = Shift(daemon)
    talkers = [Talker(shift, f"kills-{n}", random.Random(f"{seed} {n}")) for n in range(TALKERS)]
    with ThreadPoolExecutor(TALKERS) as threads:
        talking = [threads.submit(talker.run) for talker in talkers]
        try:
            shift.up.set()
            for _ in range(kills):
                time.sleep(chance.uniform(0.3, 4))  # the random time of the kill
                shift.up.clear()
                daemon.kill()
                eventually(lambda: not daemon.processes(), 15)
                check_database(daemon)
                daemon.start()
                shift.up.set()
        finally:
            shift.over = True
            shift.up.set()
        for talk in talking:
            talk.result()
    for talker in talkers:
        talker.ask("last [[recall]]")
        assert daemon.shown(talker.name)["turns"] == len(talker.said)
    print({talker.name: (len(talker.said), talker.lost, talker.kept) for talker in talkers})
    assert sum(talker.lost for talker in talkers) >= kills  # under load: each kill has broken something off
    assert '"exception"' not in daemon.log
