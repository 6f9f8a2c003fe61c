"""Spares that are prepared for what new conversations wish for: nobody can tell, but by the time it takes."""

import asyncio
import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest

from claude_coded.ask import Ask
from claude_coded.claude.launch import Launch, environment, find_binary
from claude_coded.claude.protocol import REHEARSAL, Outfit, Setup, WorkerState
from claude_coded.errors import WorkerDied
from claude_coded.scheduler import STABLE
from claude_coded.turn import Message, Role, Text, TurnFinished
from claude_coded.worker import Cli, Watch, Worker
from tests.acceptance.conftest import Start
from tests.support.client import function, user
from tests.support.daemon import SESSION, Answer, Daemon, Json, Model, eventually, texts

TOOLS = [function("get", {"type": "object", "properties": {"x": {"type": "integer"}}}), function("put")]
SCHEMA: Json = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "schema": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    },
}
DEVICE = re.compile("[0-9a-f]{64}")
KINDS: list[Any] = [
    pytest.param({}, id="agent"),
    pytest.param({"model": "claude-code-chat"}, id="chat", marks=pytest.mark.soak),
    pytest.param({"model": "haiku"}, id="model", marks=pytest.mark.soak),
    pytest.param({"tools": TOOLS}, id="tools", marks=pytest.mark.soak),
    pytest.param({"model": "claude-code-chat", "tools": TOOLS}, id="chat-tools"),
]


def workers(daemon: Daemon) -> list[Json]:
    """Return the operator's view of the workers."""
    found: list[Json] = daemon.control("GET", "/v1/workers").raise_for_status().json()
    return found


def prepared(daemon: Daemon) -> list[Json]:
    return [worker for worker in workers(daemon) if worker["state"] == "prepared"]


def await_prepared(daemon: Daemon) -> Json:
    return eventually(lambda: prepared(daemon))[0]


def begin(daemon: Daemon, name: str, count: int = STABLE, **more: Any) -> None:
    """Begin equal conversations."""
    for number in range(count):
        assert daemon.ask("[[say 1]]", f"{name}-{number}", **more).ok


def transcripts(daemon: Daemon) -> dict[str, str]:
    """Return what the CLI has on disk, by session."""
    return {path.stem: path.read_text() for path in (daemon.home / ".claude/projects").rglob("*.jsonl")}


def rehearsal() -> str:
    (part,) = REHEARSAL.parts
    assert isinstance(part, Text)
    return part.text


def plain(body: Json) -> Json:
    """Return a request without the ids of session and device: a new home's first processes may disagree."""
    made: Json = json.loads(DEVICE.sub("ID", SESSION.sub("ID", json.dumps(body))))
    return made


class Pair:
    """Two conversations in which the same is said: one on a plain spare, the other on a prepared one."""

    def __init__(self, daemon: Daemon, model: Model, name: str, more: Json) -> None:
        self.daemon, self.model, self.more = daemon, model, more
        self.names = (f"{name}-plain", f"{name}-prepared")

    def first(self, text: str) -> None:
        """Have the first turn of each, with others between, so that the second is expected."""
        eventually(lambda: [w for w in workers(self.daemon) if w["state"] == "spare"])
        answer = self.ask(self.names[0], text)
        begin(self.daemon, self.names[0], STABLE - 1, **self.more)
        expected = await_prepared(self.daemon)
        assert self.ask(self.names[1], text) == answer
        served = next(w for w in workers(self.daemon) if w["conversation"] == self.names[1])
        assert served["id"] == expected["id"]

    def both(self, text: str | list[Json]) -> None:
        before, after = (self.ask(name, text) for name in self.names)
        assert before == after

    def ask(self, name: str, text: str | list[Json]) -> tuple[Json, list[Json]]:
        """Return the answer, and what the model was asked."""
        self.model.forget()
        answer: Answer = self.daemon.ask(text, name, **self.more)
        return answer.message, [plain(body) for body in self.model.requests()]


@pytest.mark.parametrize("more", KINDS)
def test_the_model_is_asked_the_same_on_a_prepared_spare_as_on_a_plain_one(
    start: Start, model: Model, name: str, more: Json
) -> None:
    pair = Pair(daemon := start(), model, name, more)
    pair.first("one [[recall]]")
    pair.both("two [[recall]]")
    for conversation in pair.names:
        assert daemon.delete(f"/conversations/{conversation}").ok
    eventually(lambda: {daemon.shown(name)["state"] for name in pair.names} == {"cold"})
    pair.both("three [[recall]]")
    daemon.restart()
    pair.both("four [[recall]]")
    said = daemon.ask("five [[recall]]", pair.names[1], **more).said
    assert said == [f"{number} [[recall]]" for number in ("one", "two", "three", "four", "five")]


def test_another_wish_never_gets_what_was_prepared(start: Start, model: Model, name: str) -> None:
    daemon = start()
    for number in range(STABLE):
        first = [{"role": "system", "content": "Alpha"}, user("[[say 1]]")]
        assert daemon.ask(first, f"{name}-{number}").ok
    await_prepared(daemon)
    model.forget()
    asked = [{"role": "system", "content": "Beta"}, user("other [[recall]]")]
    assert daemon.ask(asked, f"{name}-other").said == ["other [[recall]]"]
    (body,) = model.requests("other")
    assert "Beta" in json.dumps(body)
    assert "Alpha" not in json.dumps(body)


def test_a_turn_that_dies_on_a_prepared_spare_leaves_nothing_of_the_rehearsal(
    start: Start, model: Model, name: str
) -> None:
    daemon = start()
    begin(daemon, name)
    await_prepared(daemon)
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(daemon.ask, "one [[pause 1500]] [[recall]]", name)
        daemon.worker_of(model.session("one")).kill()
        assert asked.result().code == "worker_died"
    assert daemon.ask("one [[pause 1500]] [[recall]]", name).said == ["one [[pause 1500]] [[recall]]"]
    begin(daemon, f"{name}-more", STABLE)
    await_prepared(daemon)
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(daemon.ask, "two [[hang]]", f"{name}-killed")
        model.session("two")
        daemon.kill()
        with contextlib.suppress(httpx.HTTPError):
            asked.result()
    daemon.start()
    assert daemon.ask("three [[recall]]", f"{name}-killed").said[-1] == "three [[recall]]"
    assert rehearsal() not in json.dumps(model.requests())


def test_sessions_that_were_only_prepared_leave_nothing_on_disk(start: Start, name: str) -> None:
    daemon = start()
    begin(daemon, name)
    expected = await_prepared(daemon)
    assert rehearsal() in transcripts(daemon)[expected["session"]]
    assert daemon.control("DELETE", f"/v1/workers/{expected['id']}").is_success
    eventually(lambda: expected["session"] not in transcripts(daemon))
    other = eventually(lambda: [it for it in prepared(daemon) if it["id"] != expected["id"]])[0]
    psutil.Process(other["pid"]).kill()
    eventually(lambda: other["session"] not in transcripts(daemon))
    last = eventually(lambda: [it for it in prepared(daemon) if it["id"] != other["id"]])[0]
    assert daemon.stop() == 0
    assert last["session"] not in transcripts(daemon)
    assert rehearsal() not in json.dumps(transcripts(daemon))


# A worker by itself ------------------------------------------------------------------------------------


class Bench:
    """A worker in front of a Messages API that is there, and never takes a connection."""

    def __init__(self, home: Path, url: str) -> None:
        base = {
            "HOME": str(home),
            "PATH": "/usr/bin:/bin",
            "IS_SANDBOX": "1",
            "ANTHROPIC_BASE_URL": url,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }
        cli = Cli(find_binary(None, shutil.which), environment(base, api_key="sk-ant-test", retries=0), 0)
        launch = Launch(agent=True, workspace=home, permission_mode="bypassPermissions")
        self.prepared: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        loaded = self.loaded = asyncio.Event()
        watch = Watch(
            lambda _: loaded.set(), lambda _, fit: self.prepared.set_result(fit), *[lambda *_: None] * 6
        )
        self.worker = Worker(1, launch, cli, watch)


@contextlib.asynccontextmanager
async def loaded_spare(home: Path, url: str) -> AsyncIterator[Bench]:
    bench = Bench(home, url)
    await bench.worker.start()
    try:
        bench.worker.warm_up()
        await asyncio.wait_for(bench.loaded.wait(), 20)
        yield bench
    finally:
        await bench.worker.stop()


def test_a_preparation_asks_the_model_nothing_and_runs_no_hooks_of_prompts(tmp_path: Path) -> None:
    (tmp_path / ".claude").mkdir()
    events = ("UserPromptSubmit", "Stop")
    hooks = {it: [{"hooks": [{"type": "command", "command": f"touch {tmp_path}/ran"}]}] for it in events}
    (tmp_path / ".claude/settings.json").write_text(json.dumps({"hooks": hooks}))

    async def run(url: str) -> None:
        async with loaded_spare(tmp_path, url) as bench:
            bench.worker.prepare(Outfit(Setup("be brief")))
            assert await asyncio.wait_for(bench.prepared, 20)
            assert bench.worker.state is WorkerState.PREPARED
            assert bench.worker.rehearsed

    with socket.create_server(("127.0.0.1", 0)) as api:
        asyncio.run(run(f"http://127.0.0.1:{api.getsockname()[1]}"))
        assert not select.select([api], [], [], 0)[0]
    assert not (tmp_path / "ran").exists()


def test_a_turn_that_comes_during_a_preparation_waits_for_its_end(tmp_path: Path, model: Model) -> None:
    async def run() -> None:
        async with loaded_spare(tmp_path, model.url) as bench:
            outfit = Outfit(Setup("be brief"))
            bench.worker.prepare(outfit)
            asked = Ask(Message.of(Role.USER, "hello [[recall]]"), str(uuid4()), outfit=outfit)
            turn = await bench.worker.begin(asked)
            assert bench.prepared.result()
            while not any(isinstance(event, TurnFinished) for event in await turn.take()):
                pass
            assert not bench.worker.rehearsed

    asyncio.run(run())
    (body,) = model.requests()
    assert texts(body) == ["hello [[recall]]"]
    assert "be brief" in json.dumps(body)


def test_a_process_that_is_killed_during_a_preparation_fails_it_and_the_turn_that_waits(
    tmp_path: Path, model: Model
) -> None:
    async def run() -> None:
        async with loaded_spare(tmp_path, model.url) as bench:
            assert bench.worker.pid is not None
            os.kill(bench.worker.pid, signal.SIGSTOP)
            bench.worker.prepare(Outfit())
            asked = Ask(Message.of(Role.USER, "hello"), str(uuid4()), outfit=Outfit())
            begun = asyncio.create_task(bench.worker.begin(asked))
            await asyncio.sleep(0)
            os.kill(bench.worker.pid, signal.SIGKILL)
            with pytest.raises(WorkerDied):
                await begun
            assert not await bench.prepared

    asyncio.run(run())
    assert not model.requests()
