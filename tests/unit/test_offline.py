"""The scripted Messages API: its script, what it reads from a history, and what goes over the wire."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded import offline
from claude_coded.listener import Listener, bind_tcp
from claude_coded.offline import (
    Ask,
    Call,
    Cut,
    Delay,
    Fail,
    OfflineModel,
    Pause,
    Say,
    Stop,
    Think,
    Tools,
    Words,
    parse_script,
    read_conversation,
)

BASH = {"name": "Bash"}
REMINDER = "<system-reminder>\nmind this\n</system-reminder>"
LIMIT_LINE = "Output token limit hit. Resume directly."


@dataclass
class Exchange:
    """One ASGI call in this process: what the app sent, and a client that can leave."""

    app: OfflineModel
    sent: list[dict[str, Any]] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    first_body: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, method: str, path: str, body: object = None) -> "Exchange":
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        incoming = iter([{"type": "http.request", "body": raw[:5], "more_body": True}])

        async def receive() -> dict[str, Any]:
            if message := next(incoming, None):
                return message
            if not self._read:
                self._read = True
                return {"type": "http.request", "body": raw[5:], "more_body": False}
            await self.left.wait()
            return {"type": "http.disconnect"}

        await self.app({"type": "http", "method": method, "path": path}, receive, self._send)
        return self

    _read: bool = False

    async def _send(self, message: Any) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body":
            self.first_body.set()

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def chunks(self) -> list[bytes]:
        return [message["body"] for message in self.sent[1:]]

    @property
    def json(self) -> Any:
        return json.loads(b"".join(self.chunks))

    @property
    def events(self) -> list[dict[str, Any]]:
        return list(read_events(b"".join(self.chunks)))


def read_events(raw: bytes) -> Iterator[dict[str, Any]]:
    for event in raw.decode().split("\n\n")[:-1]:
        name, data = event.split("\n")
        value = json.loads(data.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        yield value


def fold(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Put a message together from its events, as a client does; checks their order."""
    events = [event for event in events if event["type"] != "ping"]
    assert [event["type"] for event in (events[0], *events[-2:])] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]
    message = {**events[0]["message"], "content": []}
    pieces: list[str] = []
    for event in events[1:-2]:
        kind = event["type"].removeprefix("content_block_")
        assert event["index"] == len(message["content"]) - (kind != "start")
        if kind == "start":
            message["content"].append(event["content_block"])
            pieces = []
        elif kind == "delta":
            _add(message["content"][-1], pieces, event["delta"])
    return {**message, **events[-2]["delta"], "usage": events[-2]["usage"]}


def _add(block: dict[str, Any], pieces: list[str], delta: dict[str, Any]) -> None:
    if delta["type"] == "input_json_delta":
        pieces.append(delta["partial_json"])
        with contextlib.suppress(json.JSONDecodeError):  # until the last piece came
            block["input"] = json.loads("".join(pieces))
    else:
        ((key, text),) = ((key, text) for key, text in delta.items() if key != "type")
        block[key] += text


def user(*content: Any) -> dict[str, Any]:
    blocks = [{"type": "text", "text": item} if isinstance(item, str) else item for item in content]
    return {"role": "user", "content": blocks}


def assistant(text: str = "…") -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def result(text: str, *, is_error: bool = False) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "t", "content": text, "is_error": is_error}


def request(*messages: Any, **fields: Any) -> dict[str, Any]:
    history = [user(message) if isinstance(message, str) else message for message in messages]
    return {"model": "claude-test", "max_tokens": 1000, "messages": history, "tools": [BASH], **fields}


def ask(app: OfflineModel, *messages: Any, **fields: Any) -> Exchange:
    return asyncio.run(Exchange(app).run("POST", "/v1/messages", request(*messages, **fields)))


def text_of(app: OfflineModel, *messages: Any, **fields: Any) -> str:
    content = ask(app, *messages, **fields).json["content"]
    return "".join(block.get("text", f"<{block['type']}>") for block in content)


@pytest.fixture
def app() -> OfflineModel:
    return OfflineModel()


# --- The script


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("no directive, [[1, 2]] and [x]", ()),
        ("[[never closed", ()),
        ("a [[say  hi there]] b", (Say(" hi there"),)),
        ("[[say]][[say ]]", (Say(""), Say(""))),
        ("[[think hm]][[words 3]]", (Think("hm"), Words(3))),
        ("[[delay 20]] [[pause 1500]]", (Delay(0.02), Pause(1.5))),
        ("[[result]][[max_tokens]]", (Ask("result"), Ask("max_tokens"))),
        ("[[error 529]]", (Fail(529),)),
        ("[[error 429 times 2]]", (Fail(429, 2),)),
        ("[[error 400 saying too long: 2 > 1]]", (Fail(400, None, "too long: 2 > 1"),)),
        ("[[cut]][[cut times 1]]", (Cut(), Cut(1))),
        ("[[stop refusal]][[stop max_tokens]]", (Stop("refusal"), Stop("max_tokens"))),
        ("[[hang]]", (Pause(float("inf")),)),
        ("[[tool Bash]]", (Tools((Call("Bash", "{}"),)),)),
        ('[[tool f {"a": [[1]]}]]', (Tools((Call("f", '{"a": [[1]]}'),)),)),
        ("[[tool f {}]]\n [[tool g {} ]]", (Tools((Call("f", "{}"), Call("g", "{}"))),)),
        ("[[tool f]] then [[tool g]]", (Tools((Call("f", "{}"),)), Tools((Call("g", "{}"),)))),
    ],
)
def test_script(text: str, steps: tuple[offline.Step, ...]) -> None:
    assert parse_script(text) == steps


@pytest.mark.parametrize(
    "text",
    [
        *("bogus", "bogus 1", "words", "words x", "error 200", "error", "stop end_turn", "say:x", "hang on"),
        *(
            "cut 1",
            "tool",
            "tool f {",
            "tool f 1",
            "tool f {} x",
            'tool f {"a": NaN}',
            "tool f " + "[" * 100_000,
        ),
    ],
)
def test_what_is_no_directive_is_said(text: str) -> None:
    assert parse_script(f"[[{text}]]") == (Say(f"unknown directive: {text}"),)


FRAGMENTS = st.sampled_from(
    ["[[", "]]", "tool ", "say ", "error ", "500 ", "times ", "saying ", "words ", "9", "{", "}"]
)


@given(st.lists(FRAGMENTS | st.text(max_size=5)).map("".join) | st.text())
def test_any_text_parses(text: str) -> None:
    for step in parse_script(text):
        assert not isinstance(step, Tools) or step.calls


@given(st.text().filter(lambda text: "]" not in text))
def test_what_is_said_arrives_as_written(text: str) -> None:
    if offline.parse_script(f"[[say x{text}]]"):
        assert text_of(OfflineModel(), f"[[say x{text}]]", max_tokens=10**6) == f"x{text}"


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_tool_input_arrives_as_written(value: Any) -> None:
    script = f"[[tool Bash {json.dumps({'value': value})}]]"
    for stream in (False, True):
        exchange = ask(OfflineModel(), script, max_tokens=10**6, stream=stream)
        message = fold(exchange.events) if stream else exchange.json
        assert message["content"][0]["input"] == {"value": value}
        assert message["stop_reason"] == "tool_use"


# --- What a history says


def test_recall_lists_only_what_the_user_wrote(app: OfflineModel) -> None:
    history = (
        user(REMINDER, "one"),
        {"role": "system", "content": "# Environment\nyou are here"},
        assistant(),
        {"role": "user", "content": "two\n"},
        assistant(),
        user("three\n", "four\n", {"type": "image"}, "five\n", "[Image: source: /tmp/1.png]"),
        assistant(),
        user("[Request interrupted by user]\n", "six"),
        assistant(),
        user("<local-command-caveat>…\n", "<command-name>/usage…\n", "[[recall]]", REMINDER),
    )
    assert json.loads(text_of(app, *history)) == [
        "one",
        "two\n",
        "three",
        "four\n",
        "five",
        "six",
        "[[recall]]",
    ]


def test_a_message_sent_in_mid_turn_counts_as_the_newest(app: OfflineModel) -> None:
    start = "The user sent a new message while you were working:\n"
    line = f"{start}[[recall]]\n\nThis is how Claude Code surfaces messages."
    history = (
        "[[tool Bash]][[say late]]",
        assistant(),
        user(result("ok")),
        {"role": "system", "content": line},
    )
    assert json.loads(text_of(app, *history)) == ["[[tool Bash]][[say late]]", "[[recall]]"]


def test_questions_about_the_request(app: OfflineModel) -> None:
    image = {"type": "image", "source": {}}
    shot = {**result(""), "content": [image, {"type": "text", "text": "shot"}]}
    system = [
        {"type": "text", "text": text} for text in ("x-anthropic-billing-header: v", "Be brief.", "Be kind.")
    ]
    script = "[[model]]|[[max_tokens]]|[[images]]|[[offered]]|[[system]]".replace("|", "[[say |]]")
    said = text_of(app, user("x", image), assistant(), user(shot), assistant(), script, system=system)
    assert said == 'claude-test|1000|2|["Bash"]|Be brief.\nBe kind.'


def test_history_is_given_normalised(app: OfflineModel) -> None:
    call = {"type": "tool_use", "id": "t", "name": "Bash", "input": {"a": 1}}
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    history = (
        user(REMINDER, "go", {"type": "image"}),
        {"role": "assistant", "content": [thought, call]},
        user(result("bad", is_error=True)),
        "[[history]]",
    )
    assert json.loads(text_of(app, *history)) == [
        {"role": "user", "text": "go"},
        {"role": "user", "type": "image"},
        {"role": "assistant", "thinking": "hm"},
        {"role": "assistant", "tool_use": "Bash", "input": {"a": 1}},
        {"role": "user", "tool_result": "error: bad"},
        {"role": "user", "text": "[[history]]"},
    ]


BLOCKS = st.dictionaries(
    st.sampled_from(["type", "text", "content", "is_error"]),
    st.sampled_from(["text", "tool_result", "image"])
    | st.text()
    | st.none()
    | st.lists(st.just({"type": "text"})),
)


@given(
    st.lists(st.fixed_dictionaries({"role": st.text(), "content": st.text() | st.lists(BLOCKS) | st.none()}))
)
def test_any_history_is_read(messages: list[Any]) -> None:
    assert read_conversation({"messages": messages}).body["messages"] is messages


# --- Where a script goes on


def test_steps_after_a_call_run_when_its_results_came(app: OfflineModel) -> None:
    script = "[[say a]][[tool Bash]] [[tool Bash]][[result]][[tool Bash]][[say b]]"
    results = user(result("one"), result("two", is_error=True))
    assert text_of(app, script) == "a<tool_use><tool_use>"
    assert text_of(app, script, assistant(), results) == "one\nerror: two<tool_use>"
    assert text_of(app, script, assistant(), results, assistant(), user(result("three"), REMINDER)) == "b"
    assert text_of(app, script, *(assistant(), results) * 3) == "done"


def test_a_new_message_starts_its_own_script(app: OfflineModel) -> None:
    assert text_of(app, "[[tool Bash]][[say old]]", assistant(), user(result("x"), "[[say new]]")) == "new"


def test_results_in_two_messages_are_one_round(app: OfflineModel) -> None:
    history = ("[[tool Bash]][[tool Bash]][[result]]", assistant(), user(result("1")), user(result("2")))
    assert text_of(app, *history) == "1\n2"


@pytest.mark.parametrize("reason", ["max_tokens", "refusal"])
def test_a_stopped_reply_goes_on(app: OfflineModel, reason: str) -> None:
    line = {"max_tokens": LIMIT_LINE, "refusal": "Your response above was stopped by a safety classifier."}[
        reason
    ]
    script = f"[[say a]][[stop {reason}]][[say b]]"
    assert ask(app, script).json["stop_reason"] == reason
    assert text_of(app, script, assistant(), line) == "b"
    assert text_of(app, user(f"{script}\n", line)) == "b"


def test_a_cut_reply_goes_on(app: OfflineModel) -> None:
    line = "Your response above was cut off mid-stream. Resume directly."
    script = "[[think a]][[say b]][[cut times 1]][[say c]]"
    assert text_of(app, script, assistant(), line) == "c"
    assert text_of(app, "[[say b]][[error 529]]", assistant(), line) == "continued"
    assert (
        text_of(app, "[[tool Bash]][[cut]][[say d]]", assistant(), user(result("x")), assistant(), line)
        == "d"
    )


def test_a_reply_cut_by_the_limit_goes_on_at_the_next_call(app: OfflineModel) -> None:
    assert text_of(app, "[[words 50]]", assistant(), LIMIT_LINE) == "continued"
    assert text_of(app, "[[words 50]][[tool Bash]][[say x]]", assistant(), LIMIT_LINE) == "<tool_use>"


@pytest.mark.parametrize(
    "notice",
    [
        "<system-reminder>\n[SYSTEM NOTIFICATION - NOT USER INPUT]\nended\n</system-reminder>",
        "[structured-output-enforce] You MUST call the StructuredOutput tool",
    ],
)
def test_news_of_the_cli_repeats_nothing(app: OfflineModel, notice: str) -> None:
    assert text_of(app, "[[say once]]", assistant(), notice) == "noted"
    assert text_of(app, "[[tool Bash]][[say x]]", assistant(), user(result("ok"), notice)) == "x"


def test_tools_are_found_by_their_short_name(app: OfflineModel) -> None:
    tools = [{"name": "mcp__client__get"}, {"name": "mcp__a__two"}, {"name": "mcp__b__two"}]
    content = ask(app, "[[tool get]] [[tool two]] [[tool none]][[say x]]", tools=tools).json["content"]
    assert content[0]["text"] == "no such tool on offer: twono such tool on offer: none"
    assert [block["name"] for block in content[1:]] == ["mcp__client__get"]
    assert text_of(app, "[[tool none]][[say  x]]") == "no such tool on offer: none x"


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
    assert len(quick) < 10_000 / offline.BATCH_EVENTS + 3
    assert max(map(len, quick)) < offline.BATCH_BYTES + 1000
    paced = ask(app, "[[delay 1]][[words 5]]", stream=True).chunks
    assert [chunk.count(b"text_delta") for chunk in paced] == [1] * 5


def test_pings_fill_a_pause(app: OfflineModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "PING_SECONDS", 0.004)
    kinds = [event["type"] for event in ask(app, "[[pause 10]][[say x]]", stream=True).events]
    assert kinds[:4] == ["message_start", "ping", "ping", "content_block_start"]


# --- Faults


@pytest.mark.parametrize("status", offline.ERROR_TYPES)
def test_an_error_that_comes_first_is_a_status(app: OfflineModel, status: int) -> None:
    exchange = ask(app, f"[[error {status} saying so]]", stream=True)
    assert exchange.status == status
    error = {"type": offline.ERROR_TYPES[status], "message": "so"}
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
    with pytest.raises(offline.CutConnectionError):
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
    cache = offline.PromptCache()
    bodies = [request(*texts[: length + 1]) for length in range(len(texts))]
    cache.usage(bodies[min(known, len(bodies) - 1)])
    whole = tokens(offline.PromptCache().usage(bodies[-1]))
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
