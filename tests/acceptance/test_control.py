"""The control socket: who may ask, and what an operator does to turns, workers and settings."""

import json
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from claude_coded.control.page import FILE
from tests.acceptance.conftest import Start
from tests.support.client import Client, function, used
from tests.support.daemon import Daemon, Json, Model, chat, eventually

WORDS = "[[delay 20]] [[words 400]]"


@pytest.fixture(scope="module")
def operated(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon of this module's own."""
    settings = {"ANTHROPIC_BASE_URL": served_model.url, "POOL_SIZE": "4"}
    daemon = Daemon(tmp_path_factory.mktemp("operated"), settings)
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture
def later() -> Iterator[Callable[..., Future[httpx.Response]]]:
    """Return a function that lets a request run meanwhile."""
    with ThreadPoolExecutor(8) as threads:
        yield threads.submit


def ask(daemon: Daemon, method: str, path: str, **options: object) -> Json:
    response = daemon.control(method, path, **options)
    assert response.status_code == 200, response.text
    answer: Json = response.json()
    return answer


def fault(response: httpx.Response) -> tuple[int, str]:
    error = response.json()["error"]
    assert set(error) == {"kind", "message", "tenants"}
    return response.status_code, error["kind"]


def events(daemon: Daemon, since: int = 0) -> list[str]:
    text = daemon.control("GET", f"/v1/events?since={since}").text
    return [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]


def state(daemon: Daemon, conversation: str) -> str:
    shown = ask(daemon, "GET", f"/v1/conversations/{conversation}")
    return str(shown["conversation"]["state"])


# Who may ask -------------------------------------------------------------------------------------------


def test_only_the_socket_group_and_no_web_page(operated: Daemon) -> None:
    mode = operated.socket.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660
    assert stat.S_IMODE(operated.socket.parent.stat().st_mode) == 0o750
    browsers: list[dict[str, str]] = [
        {"Origin": "http://x"},
        {"Origin": "null"},
        {"Referer": "http://x/"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Host": "example.com"},
        {"Host": "127.0.0.1.evil.example:80"},
    ]
    for header in browsers:
        assert fault(operated.control("GET", "/v1/status", headers=header)) == (403, "forbidden")
        assert fault(operated.control("POST", "/v1/drain", headers=header)) == (403, "forbidden")
    level = ask(operated, "GET", "/v1/log-level")
    form = {"Content-Type": "text/plain;json"}
    asked = operated.control("PUT", "/v1/log-level", content=b'{"level":"error"}', headers=form)
    assert fault(asked) == (415, "invalid")
    assert ask(operated, "GET", "/v1/log-level") == level
    assert ask(operated, "GET", "/v1/status")["state"] == "ok"


def test_the_status_page_comes_with_its_policy(operated: Daemon) -> None:
    page = operated.control("GET", "/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'sha256-")
    assert page.text == FILE.read_text()


def test_errors_have_a_kind(operated: Daemon) -> None:
    post, get = ("POST", "GET")
    assert fault(operated.control(get, "/v1/nothing")) == (404, "not_found")
    assert fault(operated.control(post, "/v1/status")) == (405, "method_not_allowed")
    assert fault(operated.control(get, "/v1/conversations/nobody")) == (404, "not_found")
    assert fault(operated.control(get, "/v1/workers/w999")) == (404, "not_found")
    assert fault(operated.control("DELETE", "/v1/workers/7")) == (404, "not_found")
    assert fault(operated.control(get, f"/v1/workers/w{'9' * 5000}")) == (404, "not_found")
    assert operated.control(get, "/v1/events", headers={"Last-Event-ID": "9" * 5000}).status_code == 200
    assert fault(operated.control("DELETE", "/v1/conversations")) == (400, "invalid")
    assert fault(operated.control(post, "/v1/requests/1", json={"decision": "perhaps"})) == (400, "invalid")
    assert fault(operated.control(post, "/v1/requests/1", json={"decision": "allow"})) == (404, "not_found")
    assert fault(operated.control("PUT", "/v1/log-level", json={"level": "loud"})) == (400, "invalid")
    assert fault(operated.control("PUT", "/v1/log-level", content=b"level")) == (415, "invalid")
    assert fault(operated.control("PUT", "/v1/log-level", json={"level": 1, "x": 2})) == (400, "invalid")
    assert fault(operated.control(post, "/v1/drain?wait=soon")) == (400, "invalid")


def test_who_changes_what_is_logged_with_the_user_id(operated: Daemon) -> None:
    ask(operated, "PUT", "/v1/log-level", json={"level": "debug"})
    assert ask(operated, "GET", "/v1/log-level") == {"level": "debug"}
    ask(operated, "PUT", "/v1/log-level", json={"level": "info"})
    told = '"message":"control request","method":"PUT","path":"/v1/log-level","uids":[%d]'
    assert told % os.getuid() in operated.log


def test_a_second_daemon_on_the_socket_is_told_who_has_it(operated: Daemon, make: Start) -> None:
    second = make(CLAUDE_CODED_SOCKET=operated.socket)
    assert second.spawn().wait(20) == 1
    assert f"cannot listen on {operated.socket}: process {operated.pid} serves it already" in second.log
    assert not (second.state / "claude-coded.db").exists()
    assert ask(operated, "GET", "/v1/ready")["ready"]


def test_a_stale_socket_is_replaced_and_another_file_is_not(make: Start) -> None:
    daemon = make(POOL_SIZE=1)
    daemon.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(daemon.socket))
    daemon.start()
    assert ask(daemon, "GET", "/v1/ready")["ready"]
    daemon.stop()
    assert not daemon.socket.exists()
    daemon.socket.write_text("mine")
    assert daemon.spawn().wait(20) == 1
    assert "there is a file that is no socket" in daemon.log
    assert daemon.socket.read_text() == "mine"


def test_a_group_that_does_not_exist_is_said(make: Start) -> None:
    daemon = make(CLAUDE_CODED_SOCKET_GROUP="no-such-group")
    assert daemon.spawn().wait(20) == 1
    assert "there is no group 'no-such-group'" in daemon.log


# What is shown -----------------------------------------------------------------------------------------


def test_a_worker_in_the_middle_of_a_turn(operated: Daemon, name: str) -> None:
    text = '[[say working]] [[tool Bash {"command": "true; sleep 30"}]] [[result]]'
    with operated.stream(text, name) as stream:
        stream.until("working")
        shown = ask(operated, "GET", f"/v1/conversations/{name}")
        assert shown["conversation"]["state"] == "busy"
        assert [step["state"] for step in shown["worker"]["story"]][-1] == "busy"
        eventually(lambda: running(operated, name)["turn"]["doing"] == "Bash")
        seen = running(operated, name)
        assert seen["turn"]["model"] == "claude-code"
        assert abs(seen["turn"]["started_at"] - time.time()) < 30
        assert seen["tree"]["memory"] > 50_000_000
        eventually(lambda: running(operated, name)["tree"]["processes"] > 1)
        assert seen["tree"]["cpu_s"] > 0
    operated.settled()
    assert running(operated, name)["turn"] is None


def running(daemon: Daemon, conversation: str) -> Json:
    workers: list[Json] = daemon.control("GET", "/v1/workers").json()
    (found,) = [worker for worker in workers if worker["conversation"] == conversation]
    return found


def test_events_tell_a_turn_in_order_and_go_on_as_they_come(operated: Daemon, name: str) -> None:
    since = len(events(operated))
    transport = httpx.HTTPTransport(uds=str(operated.socket))
    with (
        httpx.Client(transport=transport, base_url="http://localhost") as http,
        http.stream("GET", f"/v1/events?follow=true&since={since}") as response,
    ):
        assert response.headers["Content-Type"].startswith("text/event-stream")
        lines = response.iter_lines()
        operated.ask("[[say hi]]", name)
        seen = []
        while "turn.finished" not in seen:
            line = next(lines)
            if line.startswith("event: "):
                seen.append(line.removeprefix("event: "))
    turn = [kind for kind in seen if kind.startswith("turn.") and kind != "turn.waiting"]
    assert turn == ["turn.started", "turn.first_token", "turn.finished"]


def test_events_tell_what_goes_another_way(make: Start, name: str) -> None:
    daemon = make(POOL_SIZE=1, CLAUDE_CODED_QUEUE_SIZE=1).start()
    assert daemon.ask('[[tool Bash {"command": "true"}]] [[say done]]', name).ok
    with daemon.stream(f"again {WORDS}", name) as running:
        running.until("w3 ")
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(daemon.ask, "[[say hi]]", "other")
            eventually(lambda: daemon.pool()["queued"])
            assert daemon.ask("[[say hi]]", "third").code == "queue_full"
            ask(daemon, "POST", f"/v1/conversations/{name}/interrupt")
            running.rest()
            assert waiting.result().ok
    assert ask(daemon, "PUT", "/v1/log-level", json={"level": "debug"}) == {"level": "debug"}
    (daemon.directory / "config.toml").write_text("nonsense = 1\n")
    assert daemon.control("POST", "/v1/reload").status_code == 409
    told = told_since(daemon)
    mine = [it for it in told if it["fields"].get("conversation") == name]
    assert [it["fields"]["tool"] for it in mine if it["kind"] == "turn.tool"] == ["Bash"]
    assert [it["kind"] for it in mine if it["kind"].startswith("turn.")][-3:] == [
        "turn.started",
        "turn.first_token",
        "turn.failed",
    ]
    others = {it["fields"].get("conversation"): it for it in told if it["kind"] == "turn.waiting"}
    assert others["other"]["fields"]["for"] == "worker"
    (refused,) = [it["fields"] for it in told if it["kind"] == "turn.refused"]
    assert (refused["conversation"], refused["code"]) == ("third", "queue_full")
    assert {"worker.ready", "daemon.serving", "log.level", "settings.refused"} <= {it["kind"] for it in told}
    numbers = [it["number"] for it in told]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_same_name_of_two_tenants(start: Start) -> None:
    daemon = start(key="k1", CLAUDE_CODED_API_KEYS="ann:k1,bob:k2", CLAUDE_CODED_SPARE_WORKERS=0)
    assert daemon.ask("[[say a]]", "same").ok
    daemon.key = "k2"
    assert daemon.ask("[[say b]]", "same").ok
    ambiguous = daemon.control("GET", "/v1/conversations/same")
    assert fault(ambiguous) == (409, "ambiguous")
    assert ambiguous.json()["error"]["tenants"] == ["ann", "bob"]
    assert "ann/same and bob/same" in ambiguous.json()["error"]["message"]
    shown = ask(daemon, "GET", "/v1/conversations/same?tenant=bob")
    assert shown["conversation"]["tenant"] == "bob"
    assert ask(daemon, "DELETE", "/v1/conversations/same?tenant=ann") == {"evicted": ["ann/same"]}
    assert len(daemon.control("GET", "/v1/conversations").json()) == 1
    assert len(daemon.control("GET", "/v1/conversations?all=true").json()) == 2


# Turns and workers -------------------------------------------------------------------------------------


def test_an_eviction_waits_for_the_turn(
    operated: Daemon, name: str, later: Callable[..., Future[httpx.Response]]
) -> None:
    with operated.stream("[[delay 20]] [[words 60]]", name) as stream:
        stream.until("w3 ")
        evicting = later(operated.control, "DELETE", f"/v1/conversations/{name}")
        stream.rest()
        assert stream.text.split()[-1] == "w59"
    assert evicting.result().json() == {"evicted": [f"default/{name}"]}
    assert state(operated, name) == "cold"
    assert operated.ask("[[recall]]", name).said[-1] == "[[recall]]"
    assert ask(operated, "DELETE", f"/v1/conversations/{name}?now=true") == {"evicted": [f"default/{name}"]}
    assert ask(operated, "DELETE", f"/v1/conversations/{name}") == {"evicted": []}


def test_an_eviction_now_ends_the_turn(operated: Daemon, name: str) -> None:
    with operated.stream(WORDS, name) as stream:
        stream.until("w3 ")
        ask(operated, "DELETE", f"/v1/conversations/{name}?now=true")
        assert stream.rest()[-1]["error"]["code"] == "conversation_evicted"
    assert state(operated, name) == "cold"


def test_an_interrupt_ends_the_turn_and_the_worker_stays(operated: Daemon, name: str) -> None:
    operated.ask("one [[say 1]]", name)
    before = running(operated, name)["pid"]
    with operated.stream(f"two {WORDS}", name) as stream:
        stream.until("w3 ")
        assert ask(operated, "POST", f"/v1/conversations/{name}/interrupt") == {"interrupted": True}
        assert stream.rest()[-1]["error"]["code"] == "turn_interrupted"
    assert ask(operated, "POST", f"/v1/conversations/{name}/interrupt") == {"interrupted": False}
    operated.settled()
    assert running(operated, name)["pid"] == before
    interrupted = operated.ask("three [[recall]]", name).said
    assert (interrupted[0], interrupted[-1]) == ("one [[say 1]]", "three [[recall]]")


@pytest.mark.soak
def test_who_does_not_read_keeps_neither_a_worker_nor_the_daemon(make: Start, name: str) -> None:
    daemon = make(CLAUDE_CODED_SPARE_WORKERS=0).start()
    with silent(daemon, name):
        assert ask(daemon, "POST", f"/v1/conversations/{name}/interrupt") == {"interrupted": True}
        daemon.settled()
        told = [it for it in told_since(daemon) if it["kind"].startswith("turn.")]
        assert [it["kind"] for it in told] == ["turn.started", "turn.failed"]
        assert told[-1]["fields"]["code"] == "turn_interrupted"
        assert daemon.stop() == 0


@contextmanager
def silent(daemon: Daemon, conversation: str) -> Iterator[None]:
    """Have a client that asks for much and reads nothing, and wait until its turn stands still."""
    body = json.dumps({**chat("[[words 100000]]"), "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-Conversation-ID: {conversation}\r\n"
    rest = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", daemon.port))
        client.sendall((head + rest).encode() + body)
        eventually(lambda: running(daemon, conversation)["turn"], 20)
        eventually(lambda: standing_still(daemon, conversation), 30)
        yield


def standing_still(daemon: Daemon, conversation: str) -> bool:
    """Return whether the worker has stopped to write."""
    before = running(daemon, conversation)["tree"]["cpu_s"]
    time.sleep(0.5)  # what is measured
    return bool(running(daemon, conversation)["tree"]["cpu_s"] - before < 0.1)


def told_since(daemon: Daemon, since: int = 0) -> list[Json]:
    text = daemon.control("GET", f"/v1/events?since={since}").text
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


def test_spares_and_idle_workers_are_evicted_alone_or_together(operated: Daemon, name: str) -> None:
    spare = eventually(lambda: [it for it in workers(operated) if it["state"] in {"spare", "prepared"}])[0]
    assert ask(operated, "DELETE", f"/v1/workers/{spare['id']}") == {"evicted": [spare["id"]]}
    assert spare["id"] not in [worker["id"] for worker in workers(operated)]
    operated.ask("[[say 1]]", name)
    with operated.stream(WORDS, f"{name}-busy") as stream:
        stream.until("w3 ")
        evicted = ask(operated, "DELETE", "/v1/conversations?which=idle")["evicted"]
        assert f"default/{name}" in evicted
        assert state(operated, f"{name}-busy") == "busy"
        evicted = ask(operated, "DELETE", "/v1/conversations?which=all&now=true")["evicted"]
        assert f"default/{name}-busy" in evicted
        assert stream.rest()[-1]["error"]["code"] == "conversation_evicted"
    assert not [worker for worker in workers(operated) if worker["conversation"]]


def workers(daemon: Daemon) -> list[Json]:
    found: list[Json] = daemon.control("GET", "/v1/workers").json()
    return found


# Drain and resume --------------------------------------------------------------------------------------


def test_a_drain_ends_when_no_turn_runs_and_resume_takes_new_ones(
    operated: Daemon, name: str, later: Callable[..., Future[httpx.Response]]
) -> None:
    with operated.stream("[[delay 20]] [[words 60]]", name) as stream:
        stream.until("w3 ")
        assert ask(operated, "POST", "/v1/drain") == {"draining": True, "running": 1, "parked": 0}
        refused = operated.ask("[[say no]]")
        assert (refused.status, refused.code) == (503, "draining")
        assert int(refused.headers["Retry-After"]) >= 1
        assert operated.control("GET", "/v1/ready").status_code == 503
        draining = later(operated.control, "POST", "/v1/drain?wait=30")
        stream.rest()
        assert stream.text.split()[-1] == "w59"
    assert draining.result().json() == {"draining": True, "running": 0, "parked": 0}
    assert ask(operated, "GET", "/v1/status")["state"] == "draining"
    assert ask(operated, "POST", "/v1/resume")["draining"] is False
    assert operated.ask("[[say yes]]").text == "yes"
    assert "pool.draining" in events(operated)


def test_a_stop_cannot_be_resumed_from(make: Start, name: str) -> None:
    daemon = make(CLAUDE_CODED_SPARE_WORKERS=0).start()
    with daemon.stream("[[delay 20]] [[words 60]]", name) as stream:
        stream.until("w3 ")
        ask(daemon, "POST", "/v1/drain")
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        eventually(lambda: ask(daemon, "GET", "/v1/status")["state"] == "stopping")
        assert fault(daemon.control("POST", "/v1/resume")) == (409, "refused")
        assert daemon.ask("[[say no]]").code == "draining"
        stream.rest()
        assert stream.text.split()[-1] == "w59"
    assert daemon.process.wait(10) == 0


# A person ----------------------------------------------------------------------------------------------


def test_a_conversation_that_a_person_has_is_nobody_elses(operated: Daemon, name: str) -> None:
    operated.ask("one [[say 1]]", name)
    with attached(operated, name) as told:
        assert told["directory"] == str(operated.workspace)
        assert told["command"][1:3] == ["--resume", told["session"]]
        assert told["environment"]["ANTHROPIC_API_KEY"] == "sk-ant-test"
        assert (told["uid"], state(operated, name)) == (os.getuid(), "attached")
        assert name in [it["id"] for it in operated.control("GET", "/v1/conversations").json()]
        assert operated.shown(name)["state"] == "busy"
        held = operated.ask("two [[say 2]]", name)
        assert (held.status, held.code) == (409, "conversation_attached")
        assert held.headers["x-should-retry"] == "false"
        assert operated.delete(f"/conversations/{name}?purge=true").code == "conversation_attached"
        assert fault(operated.control("POST", f"/v1/conversations/{name}/attach")) == (409, "refused")
        subprocess.run(
            [told["command"][0], "-p", "by hand [[say hand]]", *told["command"][1:]],
            cwd=told["directory"], env={**operated.environment, **told["environment"]},
            check=True, capture_output=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    eventually(lambda: state(operated, name) == "cold")
    said = [message["content"] for message in operated.shown(name)["messages"]]
    assert said == ["one [[say 1]]", "1", "by hand [[say hand]]", "hand"]
    recalled = operated.ask("three [[recall]]", name).said
    assert recalled == ["one [[say 1]]", "by hand [[say hand]]", "three [[recall]]"]


def test_what_a_person_has_got_meanwhile_is_not_forgotten(operated: Daemon, name: str) -> None:
    operated.ask("one [[say 1]]", name)
    transport = httpx.HTTPTransport(uds=str(operated.socket))
    with (
        ThreadPoolExecutor(1) as threads,
        httpx.Client(transport=transport, base_url="http://localhost", timeout=30) as http,
        operated.stream(f"two {WORDS}", name) as stream,
    ):
        stream.until("w3 ")
        waiting = http.build_request("POST", f"/v1/conversations/{name}/attach")
        attaching = threads.submit(http.send, waiting, stream=True)
        eventually(lambda: operated.pool()["queued"])
        assert operated.delete(f"/conversations/{name}?purge=true").code == "conversation_attached"
        response = attaching.result()
        told = response.iter_text()
        assert "event: attached" in next(told)
        assert state(operated, name) == "attached"
        response.close()
    eventually(lambda: state(operated, name) == "cold")


def test_who_tells_its_history_goes_on_behind_what_a_person_said(operated: Daemon, name: str) -> None:
    told: list[Json] = [{"role": "user", "content": f"{name} one [[say 1]]"}]
    answer = operated.ask(told)
    with attached(operated, answer.conversation) as terminal:
        subprocess.run(
            [terminal["command"][0], "-p", "by hand [[say hand]]", *terminal["command"][1:]],
            cwd=terminal["directory"], env={**operated.environment, **terminal["environment"]},
            check=True, capture_output=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    eventually(lambda: state(operated, answer.conversation) == "cold")
    told += [{"role": "assistant", "content": "1"}, {"role": "user", "content": "two [[recall]]"}]
    again = operated.ask(told)
    assert again.conversation == answer.conversation
    assert again.said == [f"{name} one [[say 1]]", "by hand [[say hand]]", "two [[recall]]"]


def test_there_is_nothing_to_attach_where_no_turn_is_whole(operated: Daemon, name: str) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    operated.ask("[[tool f {}]]", name, tools=[tool], model="claude-code-chat")
    refused = operated.control("POST", f"/v1/conversations/{name}/attach")
    assert fault(refused) == (409, "refused")
    assert "client's tools" in refused.json()["error"]["message"]
    assert operated.ask("[[say on]]", name, model="claude-code-chat").text == "on"


class attached:  # noqa: N801 - a context manager
    """Holds a conversation as claude-codectl does while the context lasts."""

    def __init__(self, daemon: Daemon, conversation: str) -> None:
        self._daemon = daemon
        self._path = f"/v1/conversations/{conversation}/attach"
        self._stack = ExitStack()

    def __enter__(self) -> Json:
        transport = httpx.HTTPTransport(uds=str(self._daemon.socket))
        client = httpx.Client(transport=transport, base_url="http://localhost", timeout=30)
        http = self._stack.enter_context(client)
        response = self._stack.enter_context(http.stream("POST", self._path))
        assert response.status_code == 200
        self._lines = response.iter_lines()  # kept: its end would be the connection's
        data = next(line for line in self._lines if line.startswith("data: "))
        told: Json = json.loads(data.removeprefix("data: "))
        return told

    def __exit__(self, *_: object) -> None:
        self._stack.close()


# Reload ------------------------------------------------------------------------------------------------


def test_a_reload_changes_what_it_can_and_drops_no_turn(make: Start, name: str) -> None:
    daemon = make(CLAUDE_CODED_SPARE_WORKERS=0)
    config = daemon.directory / "config.toml"
    config.write_text('pool_size = 2\napi_keys = {ann = "k1"}\n')
    daemon.key = "k1"
    daemon.start()
    with daemon.stream("[[delay 20]] [[words 80]]", name) as stream:
        stream.until("w3 ")
        config.write_text(
            'pool_size = 1\napi_keys = {ann = "k2"}\nstate_dir = "/elsewhere"\nlog_level = "debug"\n'
            'retention_count = 900\n[models.reader]\ntools = ["Read"]\n'
        )
        told = ask(daemon, "POST", "/v1/reload")
        keys, level = "CLAUDE_CODED_API_KEYS", "CLAUDE_CODED_LOG_LEVEL"
        assert set(told["changed"]) >= {"POOL_SIZE", level, keys, "models"}
        assert told["restart"] == []  # the environment's state directory goes before the file's
        stream.rest()
        assert stream.text.split()[-1] == "w79"
    assert daemon.ask("[[say no]]").status == 401
    daemon.key = "k2"
    assert daemon.pool()["size"] == 1
    assert "reader" in [model["id"] for model in daemon.get("/v1/models").body["data"]]
    assert daemon.ask("[[say yes]]", name, model="reader").text == "yes"
    assert ask(daemon, "GET", "/v1/log-level") == {"level": "debug"}


def test_a_reload_does_not_end_a_turn_that_calls_its_clients_tools_after_it(
    make: Start, model: Model, name: str
) -> None:
    daemon = make(ANTHROPIC_API_KEY="", POOL_SIZE=2, CLAUDE_CODED_SPARE_WORKERS=0)
    config = daemon.directory / "config.toml"
    config.write_text("anthropic_api_key = 'sk-ant-one'\n")
    client = Client(daemon.start(), model, more={"tools": [function("lookup")]})
    with ThreadPoolExecutor(1) as threads:
        script = '[[tool Bash {"command": "sleep 1; echo kept"}]] [[say ran]] [[tool lookup {}]] [[say done]]'
        asking = threads.submit(client.ask, f"{name} {script}", name)
        eventually(lambda: daemon.runs("sleep 1"))
        config.write_text("anthropic_api_key = 'sk-ant-two'\n")
        assert ask(daemon, "POST", "/v1/reload")["changed"] == ["ANTHROPIC_API_KEY"]
        assert asking.result().finish == "tool_calls"
    assert state(daemon, name) == "parked"
    assert client.returns("found").text == "done"
    assert "-> kept" in used(model.requests(name)[-1])
    eventually(lambda: state(daemon, name) == "cold")


def test_a_bad_configuration_changes_nothing_and_is_reported(make: Start) -> None:
    daemon = make(CLAUDE_CODED_SPARE_WORKERS=0)
    config = daemon.directory / "config.toml"
    config.write_text("pool_size = 2\nhost = '127.0.0.1'\n")
    daemon.start()
    for text in ("pool_size = 0", "pool_size = 3\nhost = '0.0.0.0'", "pool_size = ", "wrong = 1"):
        config.write_text(text)
        refused = daemon.control("POST", "/v1/reload")
        assert fault(refused) == (409, "configuration"), text
        assert daemon.pool()["size"] == 2
    config.write_bytes(b"# \xff")
    assert fault(daemon.control("POST", "/v1/reload")) == (409, "configuration")
    config.unlink()
    assert fault(daemon.control("POST", "/v1/reload")) == (409, "configuration")
    settings = daemon.control("GET", "/v1/config").json()
    shown = {it["name"]: (it["value"], it["source"]) for it in settings}
    assert shown["POOL_SIZE"] == ("2", "pool_size in the configuration file")
    config.write_text("pool_size = 4\nhost = 'localhost'")
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: daemon.pool()["size"] == 4)
    assert '"message":"reloaded","changed":["POOL_SIZE"],"restart":["HOST"]' in daemon.log


def test_a_new_key_of_the_models_reaches_every_worker(make: Start, name: str) -> None:
    daemon = make(ANTHROPIC_API_KEY="", POOL_SIZE=3)
    config = daemon.directory / "config.toml"
    config.write_text("anthropic_api_key = 'sk-ant-one'\n")
    daemon.start()
    daemon.ask("one [[say 1]]", name)
    before = {worker["pid"] for worker in workers(daemon)}
    config.write_text("anthropic_api_key = 'sk-ant-two'\n")
    assert ask(daemon, "POST", "/v1/reload")["changed"] == ["ANTHROPIC_API_KEY"]
    assert daemon.ask("two [[recall]]", name).said == ["one [[say 1]]", "two [[recall]]"]
    spare = eventually(lambda: [it for it in workers(daemon) if it["state"] == "spare"])[0]
    assert not before & {spare["pid"], running(daemon, name)["pid"]}
    keys = {psutil_environment(worker["pid"])["ANTHROPIC_API_KEY"] for worker in workers(daemon)}
    assert keys == {"sk-ant-two"}
    shown = {it["name"]: it["value"] for it in daemon.control("GET", "/v1/config").json()}
    assert shown["ANTHROPIC_API_KEY"] == "(set)"


def psutil_environment(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)
