"""The Responses API when others are at it, when a conversation is gone, and when it waits in the queue."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.daemon import Daemon, Json, Model
from tests.support.responses import PATH, calls_of, respond, said, streaming, text_of

GET = {"type": "function", "name": "get", "parameters": {"type": "object", "properties": {}}}
CHAT: Json = {"model": "claude-code-chat", "tools": [GET]}


@pytest.fixture(scope="module")
def pool(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with two tenants, whose streams begin soon, whether or not there is anything to tell."""
    settings = {
        "ANTHROPIC_BASE_URL": served_model.url,
        "CLAUDE_CODED_API_KEYS": "one:key-1,two:key-2",
        "CLAUDE_CODED_HEADER_HOLD_MS": "200",
    }
    daemon = Daemon(tmp_path_factory.mktemp("disturbed"), settings, key="key-1")
    try:
        yield daemon.start()
    finally:
        daemon.close()


def output(call: Json, text: str) -> Json:
    return {"type": "function_call_output", "call_id": call["call_id"], "output": text}


def test_requests_at_once_after_the_same_response_branch(pool: Daemon, name: str) -> None:
    first = respond(pool, f"{name} one").body
    asked = [f"{name} {number} [[delay 20]] [[recall]]" for number in range(3)]
    with ThreadPoolExecutor(len(asked)) as threads:
        answers = list(threads.map(lambda text: respond(pool, text, previous_response_id=first["id"]), asked))
    assert [said(answer) for answer in answers] == [[f"{name} one", text] for text in asked]
    assert len({answer.conversation for answer in answers}) == len(asked)
    with streaming(pool, f"{name} [[say begun]] [[hang]]", previous_response_id=first["id"]) as events:
        events.until("begun")
        beside = respond(pool, f"{name} beside [[recall]]", previous_response_id=first["id"])
        assert said(beside) == [f"{name} one", f"{name} beside [[recall]]"]


def test_a_response_that_is_gone_is_refused_and_those_after_it_are_not(pool: Daemon, name: str) -> None:
    first = respond(pool, f"{name} one").body
    second = respond(pool, f"{name} two", previous_response_id=first["id"]).body
    assert pool.delete(f"{PATH}/{first['id']}").ok
    refused = respond(pool, "x", previous_response_id=first["id"])
    assert (refused.status, refused.code) == (400, "previous_response_not_found")
    conversation = f"/conversations/{second['conversation']['id']}"
    assert pool.delete(conversation).ok  # evicted
    third = respond(pool, f"{name} three [[recall]]", previous_response_id=second["id"])
    assert said(third) == [f"{name} one", f"{name} two", f"{name} three [[recall]]"]
    assert pool.delete(f"/conversations/{third.conversation}?purge=true").ok
    assert pool.get(f"{PATH}/{third.body['id']}").status == 404
    assert respond(pool, "x", previous_response_id=third.body["id"]).code == "previous_response_not_found"


def test_another_model_or_name_takes_the_history_along(pool: Daemon, name: str) -> None:
    first = respond(pool, f"{name} one").body
    chat = respond(pool, f"{name} a [[recall]]", previous_response_id=first["id"], model="claude-code-chat")
    assert said(chat) == [f"{name} one", f"{name} a [[recall]]"]
    headers = {"X-Conversation-ID": name}
    renamed = respond(pool, f"{name} b [[recall]]", previous_response_id=first["id"], headers=headers)
    assert said(renamed) == [f"{name} one", f"{name} b [[recall]]"]
    after = respond(pool, f"{name} c [[recall]]", previous_response_id=renamed.body["id"])
    assert after.conversation == name
    assert len(said(after)) == 3
    assert len({first["conversation"]["id"], chat.conversation, name}) == 3


@pytest.mark.parametrize("cut", ["max_tokens", "refusal"])
def test_an_answer_that_was_cut_can_be_gone_on_after(pool: Daemon, name: str, cut: str) -> None:
    first = respond(pool, f"{name} [[say some]] [[stop {cut}]]", max_output_tokens=50).body
    assert first["status"] == "incomplete"
    second = respond(pool, f"{name} on [[recall]]", previous_response_id=first["id"])
    assert said(second) == [f"{name} [[say some]] [[stop {cut}]]", f"{name} on [[recall]]"]


@pytest.mark.parametrize("stored", [True, False])
def test_outputs_come_after_a_restart(pool: Daemon, name: str, stored: bool) -> None:
    question = {"role": "user", "content": f"{name} [[tool get {{}}]] [[result]] [[say then]]"}
    first = respond(pool, [question], store=stored, **CHAT).body
    (call,) = calls_of(first)
    pool.restart()
    if stored:
        second = respond(pool, [output(call, "seven")], previous_response_id=first["id"], **CHAT)
    else:
        second = respond(pool, [question, *first["output"], output(call, "seven")], store=False, **CHAT)
    assert "seven" in text_of(second.body)


def test_outputs_stand_anywhere_in_what_a_conversation_is_told(pool: Daemon, name: str) -> None:
    first = respond(pool, f"{name} [[tool get {{}}]] [[result]]", conversation=name, **CHAT).body
    items = [{"role": "user", "content": f"{name} and [[recall]]"}, output(calls_of(first)[0], "seven")]
    second = respond(pool, items, conversation=name, **CHAT)
    assert said(second)[-1] == f"{name} and [[recall]]"


def test_nobody_else_has_a_tenants_responses(pool: Daemon, name: str) -> None:
    made = respond(pool, f"{name} secret", conversation=name).body
    item = made["output"][0]["id"]
    other = {"headers": {"Authorization": "Bearer key-2"}}
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
        assert pool.request(method, f"{PATH}/{made['id']}{path}", **other).status == 404
    refused = respond(pool, "x", previous_response_id=made["id"], **other)
    assert refused.code == "previous_response_not_found"
    reference = [{"type": "item_reference", "id": item}, {"role": "user", "content": "x"}]
    assert respond(pool, reference, **other).error["param"] == "input[0].id"
    theirs = respond(pool, f"{name} [[recall]]", conversation=name, **other)
    assert said(theirs) == [f"{name} [[recall]]"]
    with streaming(pool, f"{name} [[say begun]] [[hang]]") as events:
        events.until("begun")
        live = f"{PATH}/{events.read[0]['response']['id']}"
        assert pool.request("GET", live, **other).status == 404
        assert pool.request("POST", f"{live}/cancel", **other).status == 404
        assert pool.get(live).body["status"] == "in_progress"


def test_a_response_that_waits_is_cancelled(pool: Daemon, model: Model, name: str) -> None:
    with streaming(pool, f"{name} one [[say begun]] [[hang]]", conversation=name) as running:
        running.until("begun")
        with streaming(pool, f"{name} two [[say 2]]", conversation=name) as waiting:
            id_ = next(iter(waiting))["response"]["id"]
            assert pool.get(f"{PATH}/{id_}").body["status"] == "in_progress"
            with ThreadPoolExecutor(3) as threads:  # more than once
                path = f"{PATH}/{id_}/cancel"
                cancelled = list(threads.map(lambda _: pool.request("POST", path), range(3)))
            assert [answer.body["status"] for answer in cancelled] == ["cancelled"] * 3
            assert waiting.last()["status"] == "cancelled"
    assert not model.requests(f"{name} two")


def test_all_readers_of_one_key_are_told_of_a_cancel(pool: Daemon, name: str) -> None:
    text, headers = f"{name} [[say begun]] [[hang]]", {"Idempotency-Key": name}
    with streaming(pool, text, headers=headers) as one:
        one.until("begun")
        id_ = one.read[0]["response"]["id"]
        with streaming(pool, text, headers=headers) as two:
            two.until("begun")
        assert pool.get(f"{PATH}/{id_}").body["status"] == "in_progress"  # one is left
        with streaming(pool, text, headers=headers) as two:
            two.until("begun")
            assert pool.request("POST", f"{PATH}/{id_}/cancel").body["status"] == "cancelled"
            assert [events.last()["status"] for events in (one, two)] == ["cancelled"] * 2


@pytest.mark.parametrize(
    "given",
    [b'"a\\ud800"', b'[{"role": "user", "content": "\\udc00b"}]', b'"a", "metadata": {"a": "\\ud800"}'],
)
def test_half_a_character_is_refused(pool: Daemon, given: bytes) -> None:
    headers = {"Content-Type": "application/json", **pool.headers}
    content = b'{"model": "claude-code", "input": %b}' % given
    assert pool.http.post(pool.base_url + PATH, content=content, headers=headers).status_code == 400


def test_zeros_are_kept(pool: Daemon, name: str) -> None:
    made = respond(pool, f"{name} a\0b [[recall]]", metadata={"a\0": "\0"}).body
    assert json.loads(text_of(made)) == [f"{name} a\0b [[recall]]"]
    assert pool.get(f"{PATH}/{made['id']}").body == made
