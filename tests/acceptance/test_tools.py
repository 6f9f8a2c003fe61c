"""The client's own tools: real calls on the hot worker, and turns that are rebuilt where that is gone."""

import contextlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from tests.acceptance.conftest import Start
from tests.support.client import (
    Client,
    assistant,
    evict,
    function,
    kill,
    newest,
    nothing,
    restart,
    user,
)
from tests.support.daemon import Daemon, Json, Model, eventually

GET, PUT = function("get", {"type": "object", "properties": {"x": {"type": "integer"}}}), function("put")
EXACT: Json = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9aw"
    "AAAABJRU5ErkJggg=="
)
OWN = '[[tool Bash {"command": "echo own"}]]'
DONE = ['Bash {"command": "echo own"}', "-> own"]


@pytest.fixture
def client(pool: Daemon, model: Model) -> Client:
    return Client(pool, model, more={"tools": [GET, PUT]})


def offered(client: Client, text: str, **more: Any) -> set[str]:
    """Return which of the client's tools the model is offered."""
    names = json.loads(client.ask(f"{text} [[offered]]", **more).text)
    return {name.removeprefix("mcp__client__") for name in names if name.startswith("mcp__client__")}


# Calls and their results -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["claude-code", "claude-code-chat"])
def test_calls_end_the_response_and_their_results_go_on_with_the_turn(
    client: Client, name: str, kind: str
) -> None:
    client.kind = kind
    answer = client.ask(f'{name} [[say Let me see.]] [[tool get {{"x": 1}}]] [[tool put {{}}]] [[result]]')
    choice = answer.body["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me see."
    assert client.calls == [("get", '{"x": 1}'), ("put", "{}")]
    assert client.daemon.shown(client.conversation)["state"] == "parked"
    before = client.conversation, client.pid
    assert client.returns("one", "two").text == "one\ntwo"
    assert (client.conversation, client.pid) == before
    client.ask(f"{name} more [[say 3]]")
    assert (client.conversation, client.pid) == before


def test_a_loop_of_calls_stays_on_its_worker(client: Client, name: str) -> None:
    steps = " ".join(f'[[tool get {{"x": {n}}}]] [[say step {n}]]' for n in range(6))
    client.ask(f"{name} {steps}")
    before = client.pid
    for number in range(5):
        assert client.calls == [("get", f'{{"x": {number}}}')]
        client.returns(f"result {number}")
    assert client.returns("last").text == "step 5"
    assert client.pid == before


def test_arguments_come_as_they_are_made(pool: Daemon, name: str) -> None:
    asked = f'{name} [[say Look.]] [[tool get {{"x": 12345}}]] [[tool put {{}}]]'
    with pool.stream(asked, tools=[GET, PUT]) as stream:
        chunks = stream.rest()
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    first, second = ([call for call in calls if call["index"] == index] for index in (0, 1))
    assert {key: first[0][key] for key in ("index", "type")} == {"index": 0, "type": "function"}
    assert first[0]["function"] == {"name": "get", "arguments": ""}
    assert first[0]["id"] != second[0]["id"]
    assert "".join(call["function"]["arguments"] for call in first) == '{"x": 12345}'
    assert "".join(call["function"]["arguments"] for call in second) == "{}"
    assert all(call.keys() == {"index", "function"} for call in (*first[1:], *second[1:]))
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_claudes_own_tools_in_the_same_reply(client: Client, name: str) -> None:
    answer = client.ask(f"{name} {OWN} [[tool get {{}}]] [[result]]")
    assert client.calls == [("get", "{}")]
    assert "Bash" in answer.message["reasoning_content"]
    assert sorted(client.returns("theirs").text.split("\n")) == ["own", "theirs"]
    assert client.used == DONE


def test_one_call_at_a_time(client: Client, name: str) -> None:
    client.more |= {"parallel_tool_calls": False}
    client.ask(f'{name} [[tool get {{"x": 1}}]] [[tool get {{"x": 2}}]] [[result]]')
    assert client.calls == [("get", '{"x": 1}')]
    client.messages += client.results("1")
    client.messages.append(client.daemon.ask(client.messages, **client.more).message)
    assert client.calls == [("get", '{"x": 2}')]
    answer = client.daemon.ask([*client.messages, *client.results("2")], **client.more)
    assert answer.text == "1\n2"
    assert client.daemon.worker_of(client.model.session(name)).pid == client.pid


def test_results_with_images_and_large_ones_reach_the_model_whole(client: Client, name: str) -> None:
    asked = f"{name} one [[tool get {{}}]] [[tool put {{}}]] [[images]]"
    client.ask(asked)
    parts: list[Json] = [{"type": "text", "text": "seen"}, {"type": "image_url", "image_url": {"url": PNG}}]
    results = client.results(parts, "x" * 500_000)
    assert client.daemon.ask([*client.messages, *results], **client.more).text == "1"
    assert client.daemon.worker_of(client.model.session(asked)).pid == client.pid
    assert "x" * 500_000 in json.dumps(newest(client.model, asked))


def test_a_result_too_large_for_a_call_goes_the_way_of_a_history(client: Client, name: str) -> None:
    client.ask(f"{name} zero [[say 0]]")
    client.ask(f"{name} [[tool get {{}}]] [[say ok]]")
    assert client.returns("x" * 500_001).text == "ok"
    assert client.ask(f"{name} more [[say 1]]").text == "1"


def test_a_text_after_the_results_is_delivered_too(client: Client, name: str) -> None:
    client.ask(f"{name} zero [[say 0]]")
    client.ask(f"{name} [[tool get {{}}]] [[result]]")
    client.returns("found", then=f"{name} and now [[say both]]")
    assert client.messages[-1]["content"] == "both"


def test_missing_results_are_named(client: Client, name: str) -> None:
    client.ask(f"{name} [[tool get {{}}]] [[tool put {{}}]]")
    first, second = client.messages[-1]["tool_calls"]
    result = {"role": "tool", "tool_call_id": first["id"], "content": "1"}
    answer = client.daemon.ask([*client.messages, result], **client.more)
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert second["id"] in answer.error["message"]
    assert first["id"] not in answer.error["message"]
    assert client.returns("1", "2").ok


# Limits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_may_be_cut_in_the_arguments_of_a_call(client: Client, name: str, streamed: bool) -> None:
    client.ask(f"{name} zero [[say 0]]")
    asked = user(f'{name} [[say Look.]] [[tool get {{"x": 1, "y": "{"y" * 400}"}}]] [[say 1]]')
    if streamed:
        with client.daemon.stream([*client.messages, asked], max_tokens=3, **client.more) as stream:
            assert stream.rest()[-1]["choices"][0]["finish_reason"] == "length"
    else:
        answer = client.daemon.ask([*client.messages, asked], max_tokens=3, **client.more)
        assert answer.body["choices"][0]["finish_reason"] == "length"
    # No client can send such a call again.
    client.send([*client.messages, asked, assistant("Look."), user(f"{name} more [[say 2]]")])


def test_an_answer_that_is_cut_behind_a_call_ends_at_once(client: Client, name: str) -> None:
    asked = user(f"{name} [[tool get {{}}]] [[tool put {{}}]]")
    begun = time.monotonic()
    answer = client.daemon.ask([asked], max_tokens=1, **client.more)
    assert answer.body["choices"][0]["finish_reason"] == "length"
    assert time.monotonic() - begun < 4
    client.messages = [asked, answer.message]
    client.returns("1")


@pytest.mark.parametrize(("first", "second"), [(None, 5), (5, None)])
def test_limits_that_come_with_results_count(
    client: Client, name: str, first: int | None, second: int | None
) -> None:
    client.ask(f"{name} zero {OWN} [[say 0]]")
    client.ask(f"{name} [[tool get {{}}]] [[words 9]]", max_tokens=first)
    answer = client.returns("1", max_tokens=second)
    assert answer.text.split()[-1] == ("w4" if second else "w8")
    assert answer.body["choices"][0]["finish_reason"] == ("length" if second else "stop")
    assert client.used == DONE


# Which tools -------------------------------------------------------------------------------------------


def test_the_tools_may_change_in_mid_conversation(client: Client, name: str) -> None:
    assert offered(client, f"{name} one") == {"get", "put"}
    assert offered(client, f"{name} two", tools=[GET, PUT, function("new")]) == {"get", "put", "new"}
    assert offered(client, f"{name} three", tools=[function("new")]) == {"new"}
    changed = function("new", {"type": "object", "properties": {"y": {}}})
    assert offered(client, f"{name} four", tools=[changed]) == {"new"}
    assert offered(client, f"{name} five", tools=None) == set()
    assert offered(client, f"{name} six", tools=[GET]) == {"get"}


def test_a_turn_that_waits_goes_on_with_other_tools(client: Client, name: str) -> None:
    client.ask(f"{name} [[tool get {{}}]] [[say Now that.]] [[tool new {{}}]] [[say ok]]")
    pid = client.pid
    client.returns("1", tools=[GET, PUT, function("new")])
    assert client.calls == [("new", "{}")]
    assert client.returns("2").text == "ok"
    assert client.pid == pid


def test_tool_choice(client: Client, name: str) -> None:
    assert offered(client, f"{name} none", tool_choice="none") == set()
    assert offered(client, f"{name} auto", tool_choice="auto") == {"get", "put"}
    named = {"type": "function", "function": {"name": "put"}}
    client.ask(f"{name} named [[tool put {{}}]] [[offered]]", tool_choice=named)
    assert client.calls == [("put", "{}")]
    client.returns("1", tool_choice="auto")
    client.ask(f"{name} required [[tool get {{}}]] [[say fin]]", tool_choice="required")
    assert client.calls == [("get", "{}")]
    assert client.returns("1").text == "fin"


def test_a_call_that_does_not_come_is_asked_for_once_more_and_then_missed(client: Client, name: str) -> None:
    answer = client.daemon.ask(f"{name} [[say no]]", tools=[GET], tool_choice="required")
    assert (answer.status, answer.code) == (502, "tool_call_missing")
    assert len(client.model.requests(name)) == 2
    # The worker is none the worse for it, and the conversation stands where it stood.
    client.ask(f"{name} zero [[say 0]]")
    asked = [*client.messages, user(f"{name} again [[say no]]")]
    assert client.daemon.ask(asked, tools=[GET], tool_choice="required").code == "tool_call_missing"
    client.ask(f"{name} after [[say 1]]")


def test_a_strict_tool_is_called_with_what_fits(client: Client, name: str) -> None:
    client.more = {"tools": [function("exact", EXACT, strict=True)]}
    answer = client.daemon.ask(
        f'{name} [[tool exact {{"a": "x"}}]] [[tool exact {{"a": 7}}]] [[say done]]', **client.more
    )
    (call,) = answer.message["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"a": 7}


@pytest.mark.parametrize("given", ["get.weather", "a" * 64, "x/y z", "mcp__client__get"])
def test_any_name_comes_back_as_the_client_gave_it(client: Client, name: str, given: str) -> None:
    client.more = {"tools": [function(given)]}
    (shown,) = offered(client, f"{name} one")
    client.ask(f"{name} two [[tool mcp__client__{shown} {{}}]] [[result]]")
    assert client.calls == [(given, "{}")]


def test_plan_mode_says_why_it_has_none(start: Start, name: str) -> None:
    answer = start(CLAUDE_CODED_PERMISSION_MODE="plan").ask(name, tools=[GET])
    assert (answer.status, answer.error["param"]) == (400, "tools")
    assert "plan" in answer.error["message"]


@pytest.mark.parametrize("mode", ["acceptEdits", "dontAsk"])
def test_other_modes_ask_nobody_about_the_clients_tools(
    start: Start, model: Model, name: str, mode: str
) -> None:
    client = Client(start(CLAUDE_CODED_PERMISSION_MODE=mode), model, more={"tools": [GET]})
    client.ask(f"{name} [[tool get {{}}]] [[result]]")
    assert client.returns("allowed").text == "allowed"


# Where the worker is gone ------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["[[say 0]]", f"{OWN} [[say 0]]"], ids=["words", "tools"])
@pytest.mark.parametrize("between", [evict, kill, restart])
def test_a_turn_that_waited_is_rebuilt_when_its_results_come(
    client: Client, name: str, before: str, between: Callable[[Client], None]
) -> None:
    client.ask(f"{name} zero {before}")
    client.ask(f"{name} one [[tool get {{}}]] [[result]]")
    between(client)
    assert client.returns("found").text == "found"
    assert client.used == (DONE if OWN in before else [])
    client.ask(f"{name} two [[say 2]]")
    assert client.used == (DONE if OWN in before else [])


@pytest.mark.parametrize("between", [evict, restart])
def test_a_first_turn_that_waited_is_rebuilt_too(
    client: Client, name: str, between: Callable[[Client], None]
) -> None:
    client.ask(f"{name} one [[tool get {{}}]] [[tool put {{}}]] [[result]]")
    between(client)
    client.returns("1", "2")
    client.ask(f"{name} two [[say 2]]")


def test_a_turn_may_be_rebuilt_again_and_again(client: Client, name: str) -> None:
    client.ask(f"{name} zero {OWN} [[say 0]]")
    client.ask(f"{name} one [[tool get {{}}]] then [[tool get {{}}]] then [[tool get {{}}]] then [[result]]")
    for number in range(3):
        evict(client)
        client.returns(f"result {number}")
        assert client.used == DONE
    assert client.messages[-1]["content"] == "result 2"


def test_a_worker_that_waits_too_long_is_released(start: Start, model: Model, name: str) -> None:
    daemon = start(CLAUDE_CODED_PARK_TIMEOUT_MS=200)
    client = Client(daemon, model, more={"tools": [GET]})
    client.ask(f"{name} [[tool get {{}}]] [[result]]")
    eventually(lambda: daemon.shown(client.conversation)["state"] == "cold")
    assert client.returns("late").text == "late"


def test_workers_that_wait_block_nobody(start: Start, model: Model, name: str) -> None:
    daemon = start(POOL_SIZE=1)
    clients = [Client(daemon, model, more={"tools": [GET]}) for _ in range(3)]
    for number, it in enumerate(clients):
        it.ask(f"{name} {number} [[tool get {{}}]] [[result]]")
    for number, it in enumerate(clients):
        assert it.returns(f"r{number}").text == f"r{number}"


def test_a_purge_does_not_wait_for_who_comes_meanwhile(start: Start, model: Model, name: str) -> None:
    daemon = start()
    client = Client(daemon, model, more={"tools": [GET]})
    client.ask(f"{name} [[tool get {{}}]] [[result]]")
    worker = daemon.worker_of(client.session)
    worker.suspend()
    sent = [*client.messages, *client.results("1")]
    with ThreadPoolExecutor(2) as threads, daemon.openai() as other:
        path = f"{daemon.base_url}/conversations/{client.conversation}?purge=true"
        purged = threads.submit(httpx.delete, path, timeout=20, trust_env=False)
        eventually(lambda: daemon.shown(client.conversation)["state"] == "cold")
        create: Any = other.chat.completions.with_raw_response.create
        answered = threads.submit(create, model="claude-code", messages=sent, tools=[GET])
        eventually(lambda: daemon.pool()["queued"])
        worker.resume()
        assert purged.result().status_code == 200
        with contextlib.suppress(openai.APIStatusError):  # it may have come too late, or too early
            answered.result()


# Other ways on -----------------------------------------------------------------------------------------


def test_the_same_results_twice_at_once_are_answered_alike(client: Client, name: str) -> None:
    client.ask(f"{name} zero [[say 0]]")
    client.ask(f"{name} [[tool get {{}}]] [[delay 5]] [[words 9]]")
    clients = [client, client.fork()]
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda it: it.returns("found"), clients))
    assert answers[0].text == answers[1].text
    for number, it in enumerate(clients):
        it.ask(f"{name} {number} goes on [[say ok]]")


def test_what_was_asked_can_be_asked_again_and_otherwise_while_it_waits(client: Client, name: str) -> None:
    client.ask(f"{name} zero {OWN} [[say 0]]")
    client.ask(f"{name} one [[tool get {{}}]] [[result]]")
    other = client.fork()
    client.again()
    assert client.calls == [("get", "{}")]
    client.returns("again")
    other.send([*other.messages[:2], user(f"{name} other [[say 1]]")])
    assert other.used == client.used == DONE
    client.send(client.messages[:-1])  # the results once more
    assert client.used == DONE
    client.ask(f"{name} two [[say 2]]")


def test_a_plain_message_to_a_named_conversation_ends_its_calls(client: Client, name: str) -> None:
    client.ask(f"{name} one [[tool get {{}}]] [[result]]", name)
    said = client.daemon.ask(f"{name} never mind [[history]]", name).said
    assert [entry.get("tool_use") for entry in said][1] == "mcp__client__get"
    assert "tool_result" in said[2]
    assert said[-1]["text"] == f"{name} never mind [[history]]"
    again = client.daemon.ask(f"{name} more [[recall]]", name).said
    assert again == [
        f"{name} one [[tool get {{}}]] [[result]]",
        f"{name} never mind [[history]]",
        f"{name} more [[recall]]",
    ]


def test_a_client_that_leaves_after_its_results_can_send_them_again(client: Client, name: str) -> None:
    client.ask(f"{name} zero [[say 0]]")
    client.ask(f"{name} one [[tool get {{}}]] [[delay 10]] [[words 100]]")
    (made,) = client.messages[-1]["tool_calls"]
    sent = [*client.messages, {"role": "tool", "tool_call_id": made["id"], "content": "r"}]
    with client.daemon.stream(sent, **client.more) as stream:
        stream.until("w3 ")
    pid = client.pid
    client.returns("r")
    assert client.messages[-1]["content"].split()[-1] == "w99"
    assert client.pid == pid


@pytest.mark.parametrize("between", [nothing, restart])
def test_what_went_before_stays_when_answers_behind_it_are_taken_back(
    client: Client, name: str, between: Callable[[Client], None]
) -> None:
    client.ask(f"{name} one [[say 1 STOP]]", stop=["STOP"])  # the next turn seeds this again
    client.ask(f"{name} two [[tool get {{}}]] [[delay 10]] [[words 100]]")
    sent = [*client.messages, *client.results("r")]
    with client.daemon.stream(sent, **client.more) as stream:
        stream.until("w3 ")
    between(client)
    client.returns("r")
    client.ask(f"{name} three [[say 3]]")


@pytest.mark.parametrize("between", [nothing, restart])
def test_answers_that_are_cut_one_after_the_other(
    client: Client, name: str, between: Callable[[Client], None]
) -> None:
    for number in range(3):
        client.ask(f"{name} {number} [[say {number} STOP]]", stop=["STOP"])
        between(client)
    client.ask(f"{name} last [[say 3]]")


@pytest.mark.parametrize("between", [nothing, evict])
def test_of_equal_histories_the_one_in_which_claudes_tools_were_used_goes_on(
    client: Client, name: str, between: Callable[[Client], None]
) -> None:
    client.ask(f"{name} one {OWN} [[say Look.]] [[tool get {{}}]] [[say 1]]")
    other = client.fork()
    client.returns("found")
    assert client.used == DONE
    between(client)
    other.returns("found")  # this one is rebuilt from what the client knows
    client.ask(f"{name} two [[say 2]]")
    assert client.used == DONE


def test_ids_may_be_the_clients_own(client: Client, name: str) -> None:
    client.ask(f"{name} [[tool get {{}}]] [[tool put {{}}]] [[result]]")
    pid = client.pid
    for number, made in enumerate(client.messages[-1]["tool_calls"]):
        made["id"] = f"own-{number}"
    assert client.returns("1", "2").text == "1\n2"
    assert client.pid == pid


def test_a_conversation_that_waits_tells_nothing_to_others(client: Client, name: str) -> None:
    client.ask(f"{name} [[tool get {{}}]] [[result]]")
    stranger = Client(
        client.daemon, client.model, [user(f"{name} else"), {"role": "assistant", "content": "x"}]
    )
    stranger.ask(f"{name} two [[say 2]]")
    assert stranger.conversation != client.conversation
    assert client.returns("1").text == "1"


@pytest.mark.parametrize("between", [nothing, evict])
def test_a_history_with_calls_from_elsewhere_goes_on_with_real_ones(
    client: Client, name: str, between: Callable[[Client], None]
) -> None:
    client.messages = [
        user(f"{name} before"),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "get", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "known"},
        {"role": "assistant", "content": "It is known."},
    ]
    client.ask(f"{name} now [[tool get {{}}]] [[result]]")
    between(client)
    assert client.returns("new").text == "new"
