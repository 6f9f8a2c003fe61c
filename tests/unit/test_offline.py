"""The scripted Messages API: what goes over the wire."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.listener import Listener, bind_tcp
from claude_coded.offline import OfflineModel
from claude_coded.offline.app import BATCH_BYTES
from claude_coded.offline.exchange import CutConnectionError
from claude_coded.offline.memory import PromptCache
from claude_coded.offline.wire import ERROR_TYPES
from tests.support.offline import Exchange, ask, assistant, fold, request, text_of, user


@pytest.fixture
def app() -> OfflineModel:
    return OfflineModel()


# --- The reply


def test_without_a_directive_the_text_comes_back(app: OfflineModel) -> None:
    assert text_of(app, "x" * 300) == f"You said: {'x' * 200}"
    events = ask(app, "a b", stream=True).events
    assert [event["delta"]["text"] for event in events if "text" in event.get("delta", {})] == [
        "You ",
        "said: ",
        "a ",
        "b",
    ]


def test_events_are_those_of_the_api(app: OfflineModel) -> None:
    exchange = ask(app, "[[think hm, so]][[say a ]][[words 2]][[tool Bash {}]]", stream=True)
    kinds = [event["type"].removeprefix("content_block_") for event in exchange.events]
    first = ["message_start", "start", "ping", *["delta"] * 3, "stop"]
    assert kinds == [
        *first,
        "start",
        *["delta"] * 3,
        "stop",
        "start",
        "delta",
        "stop",
        "message_delta",
        "message_stop",
    ]
    headers = dict(exchange.sent[0]["headers"])
    assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert exchange.events[0]["message"]["usage"]["output_tokens"] == 1


@pytest.mark.parametrize(
    "script",
    [
        *("hello", "[[say]]", "[[say x]][[tool Bash {}]] [[tool Bash]]", "[[words 2000]]"),
        *(
            "[[think a b]][[say c]][[think d]][[say e]]",
            "[[words 3]][[stop refusal]]",
            "[[say é ✓ \U0001f600]]",
        ),
    ],
)
def test_the_stream_and_the_whole_message_agree(script: str) -> None:
    whole = ask(OfflineModel(), script).json
    folded = fold(ask(OfflineModel(), script, stream=True).events)
    for message in (whole, folded):
        for part in (message, *message["content"]):
            part.pop("id", None)
    assert folded == whole
    assert whole["usage"]["output_tokens"] <= 1000


@pytest.mark.parametrize(
    "script", ["[[words 9]]", "[[think 0 1 2 3 4 5]]", "[[say 0 1 2]][[think 3 4]][[words 9]]"]
)
@pytest.mark.parametrize("limit", [1, 3, 5])
def test_max_tokens_bounds_the_deltas(script: str, limit: int) -> None:
    message = fold(ask(OfflineModel(), script, stream=True, max_tokens=limit).events)
    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens"] == limit
    assert all(block[block["type"]] for block in message["content"])


def test_a_reply_just_as_long_as_the_limit_ends_by_itself(app: OfflineModel) -> None:
    assert ask(app, "[[words 5]]", max_tokens=5).json["stop_reason"] == "end_turn"


def test_a_tool_input_cut_by_the_limit_is_empty(app: OfflineModel) -> None:
    script = f"[[tool Bash {json.dumps({'a': 'x' * 100})}]]"
    assert ask(app, script, max_tokens=2).json["content"][0]["input"] == {}


def test_many_deltas_share_a_send_unless_they_are_paced(app: OfflineModel) -> None:
    quick = ask(app, "[[words 10000]]", stream=True, max_tokens=10**6).chunks
    assert len(quick) < sum(map(len, quick)) / BATCH_BYTES + 1
    assert max(map(len, quick)) < BATCH_BYTES + 1000
    paced = ask(app, "[[delay 1]][[words 5]]", stream=True).chunks
    assert [chunk.count(b"text_delta") for chunk in paced] == [1] * 5


def test_pings_fill_a_pause(app: OfflineModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("claude_coded.offline.app.PING_SECONDS", 0.004)
    kinds = [event["type"] for event in ask(app, "[[pause 10]][[say x]]", stream=True).events]
    assert kinds[:4] == ["message_start", "ping", "ping", "content_block_start"]


def test_a_key_that_is_told_to_be_refused_is_and_models_are_listed(app: OfflineModel) -> None:
    def call(method: str, path: str, *headers: tuple[bytes, bytes]) -> Exchange:
        return asyncio.run(Exchange(app).run(method, path, request("[[say x]]"), headers))

    listed = call("GET", "/v1/models", (b"x-api-key", b"sk-good")).json
    assert listed["has_more"] is False
    assert {item["type"] for item in listed["data"]} == {"model"}
    for header in ((b"x-api-key", b"sk-refused"), (b"authorization", b"Bearer refused")):
        for method, path in (("GET", "/v1/models"), ("POST", "/v1/messages")):
            exchange = call(method, path, header)
            assert exchange.status == 401
            error = {"type": "authentication_error", "message": "invalid x-api-key"}
            assert exchange.json == {"type": "error", "error": error}


# --- Faults


@pytest.mark.parametrize("status", ERROR_TYPES)
def test_an_error_that_comes_first_is_a_status(app: OfflineModel, status: int) -> None:
    exchange = ask(app, f"[[error {status} saying so]]", stream=True)
    assert exchange.status == status
    error = {"type": ERROR_TYPES[status], "message": "so"}
    assert exchange.json == {"type": "error", "error": error}
    assert b"retry-after" not in dict(exchange.sent[0]["headers"])


def test_an_error_later_on_is_an_event(app: OfflineModel) -> None:
    events = ask(app, "[[say a]][[error 529]][[say b]]", stream=True).events
    assert events[-1] == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "offline overloaded_error"},
    }
    assert "message_stop" not in [event["type"] for event in events]
    assert ask(app, "[[say a]][[error 529]]").status == 529


def test_faults_are_counted_for_each_conversation(app: OfflineModel) -> None:
    script = "[[error 529 times 2]][[error 429 times 1]][[say ok]]"
    assert [ask(app, script, metadata={"user_id": "a"}).status for _ in range(5)] == [529, 529, 429, 200, 200]
    assert ask(app, script, metadata={"user_id": "b"}).status == 529
    assert ask(app, "before", assistant(), script, metadata={"user_id": "a"}).status == 529


@pytest.mark.parametrize("stream", [True, False])
def test_a_cut_leaves_the_application(app: OfflineModel, stream: bool) -> None:
    script = "[[say a]][[cut times 1]][[say b]]"
    with pytest.raises(CutConnectionError):
        ask(app, script, stream=stream)
    assert text_of(app, script) == "ab"
    assert app.active == 0


@pytest.mark.parametrize(
    ("script", "stream"),
    [
        *(("[[hang]]", True), ("[[words 100000000]]", True), ("[[say a]][[delay 60000]][[words 9]]", True)),
        *(("[[hang]]", False), ("[[say a]][[delay 60000]][[words 9]]", False)),
    ],
)
def test_a_client_that_leaves_ends_the_reply(app: OfflineModel, script: str, stream: bool) -> None:

    async def leave() -> dict[str, Any]:
        exchange = Exchange(app)
        body = request(script, stream=stream, max_tokens=10**9)
        running = asyncio.ensure_future(exchange.run("POST", "/v1/messages", body))
        if stream:
            await exchange.first_body.wait()
        else:
            await asyncio.sleep(0)
        assert app.active == 1
        exchange.left.set()
        await running
        stats: dict[str, Any] = (await Exchange(app).run("GET", "/_offline/stats")).json
        return stats

    assert asyncio.run(leave()) == {"requests": 1, "active": 0, "disconnects": 1}


# --- Usage


def tokens(usage: dict[str, int]) -> tuple[int, int, int]:
    return (usage["input_tokens"], usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"])


def test_an_earlier_request_is_read_from_the_cache(app: OfflineModel) -> None:
    first = tokens(ask(app, "hello", system="x" * 400).json["usage"])
    mark = {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}
    longer = tokens(ask(app, user(mark), assistant(), "more", system="x" * 400).json["usage"])
    other = tokens(ask(app, user(mark), assistant(), "more", system="y" * 400).json["usage"])
    assert first[2] == other[2] == 0
    assert longer[2] == sum(first) > 100
    assert sum(longer) == sum(other)
    assert longer[0] == other[0]


@given(st.lists(st.text(), min_size=1, max_size=6), st.integers(0, 5))
def test_usage_always_adds_up(texts: list[str], known: int) -> None:
    cache = PromptCache()
    bodies = [request(*texts[: length + 1]) for length in range(len(texts))]
    cache.usage(bodies[min(known, len(bodies) - 1)])
    whole = tokens(PromptCache().usage(bodies[-1]))
    usage = tokens(cache.usage(bodies[-1]))
    assert min(usage) >= 0
    assert sum(usage) == sum(whole)


# --- The other endpoints


def get(app: OfflineModel, path: str, method: str = "GET", body: object = None) -> Exchange:
    return asyncio.run(Exchange(app).run(method, path, body))


def test_requests_are_recorded_and_forgotten(app: OfflineModel) -> None:
    ask(app, "one")
    ask(app, "[[error 500]]")
    recorded = get(app, "/_offline/requests").json
    assert [entry["body"]["messages"][0]["content"][0]["text"] for entry in recorded] == [
        "one",
        "[[error 500]]",
    ]
    assert recorded[0]["at"] <= recorded[1]["at"]
    assert get(app, "/_offline/requests", "DELETE").status == 200
    assert get(app, "/_offline/requests").json == []


def test_small_endpoints(app: OfflineModel) -> None:
    assert get(app, "/").status == get(app, "/", "HEAD").status == 200
    assert get(app, "/v1/models").json["data"][0]["type"] == "model"
    counted = get(app, "/v1/messages/count_tokens", "POST", request("x" * 400, system="y" * 400)).json
    assert 200 < counted["input_tokens"] < 250
    missing = get(app, "/v2/nothing")
    assert (missing.status, missing.json["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize("body", [b"{", b"[]", {}, {"messages": "x"}, {"messages": []}, {"messages": [1]}])
def test_a_bad_body_is_refused(app: OfflineModel, body: object) -> None:
    exchange = get(app, "/v1/messages", "POST", body)
    assert (exchange.status, exchange.json["error"]["type"]) == (400, "invalid_request_error")
    assert not app.requests


# --- Over a real socket


async def over_socket(app: OfflineModel, script: str) -> bytes:
    """Post a script over TCP and return all that came until the end of the connection."""
    listener = Listener(app, bind_tcp("127.0.0.1", 0))
    serving = asyncio.ensure_future(listener.serve())
    await listener.started()
    body = json.dumps(request(script, stream=True)).encode()
    head = f"Host: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(listener.address.rsplit(":", 1)[1]))
    writer.write(b"POST /v1/messages?beta=true HTTP/1.1\r\n" + head.encode() + body)
    received = await reader.read()
    writer.close()
    await writer.wait_closed()
    listener.stop()
    await serving
    return received


def test_a_cut_reply_reaches_the_client_truncated(app: OfflineModel) -> None:
    ended = asyncio.run(over_socket(app, "[[say a]]"))
    assert ended.startswith(b"HTTP/1.1 200 OK")
    assert ended.endswith(b"\r\n0\r\n\r\n")
    cut = asyncio.run(over_socket(app, "[[say a]][[cut]]"))
    assert b'"text":"a"' in cut
    assert not cut.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_a_signal(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "claude_coded.offline"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        host, port = process.stdout.readline().removeprefix("listening on http://").split(":")
        body = json.dumps(request("[[hang]]", stream=True)).encode()
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(
                b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
            process.send_signal(number)
            assert process.wait(10) == 0
