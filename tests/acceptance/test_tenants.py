"""What a client with a key of its own learns of another's conversations, and does to them: nothing."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.acceptance.conftest import Start
from tests.support.client import assistant, function, user
from tests.support.daemon import Answer, Daemon, Json, Model, eventually
from tests.support.responses import PATH as RESPONSES
from tests.support.responses import body, respond, said

KEYS = {"alice": "sk-alice-4b1d", "bob": "sk-bob-77e0"}
GET_X = function("get", {"type": "object", "properties": {"x": {"type": "string"}}})
PAGES = ("Access-Control-", "Cross-Origin-")


class Tenants:
    """A daemon, as each of two clients sees it."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.bob = {"Authorization": f"Bearer {KEYS['bob']}"}

    def as_bob(self, method: str, path: str, **options: Any) -> Answer:
        headers = {**options.pop("headers", {}), **self.bob}
        return self.daemon.request(method, path, headers=headers, **options)

    def same_as_nobodys(self, method: str, path: str, id_: str, **options: Any) -> Answer:
        """Return what the other client is answered, which is what it is for an id that nobody has."""
        nobodys = "".join(chr(ord("a") + (ord(c) + 1) % 6) if c in "0123456789abcdef" else c for c in id_)
        answers = [
            self.as_bob(method, path.replace("ID", it), **json.loads(json.dumps(options).replace("ID", it)))
            for it in (id_, nobodys)
        ]
        theirs, unknown = (
            (it.status, json.dumps(it.body).replace(other, "ID"), set(it.headers))
            for it, other in zip(answers, (id_, nobodys), strict=True)
        )
        assert theirs == unknown
        return answers[0]


def key_settings(model: Model) -> dict[str, str]:
    return {
        "ANTHROPIC_BASE_URL": model.url,
        "POOL_SIZE": "4",
        "CLAUDE_CODED_API_KEYS": ",".join(f"{name}:{key}" for name, key in KEYS.items()),
    }


@pytest.fixture(scope="module")
def tenants(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    daemon = Daemon(tmp_path_factory.mktemp("tenants"), key_settings(served_model), key=KEYS["alice"])
    try:
        yield Tenants(daemon.start())
    finally:
        daemon.close()


# What is another's is as if it were not --------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "DELETE", "DELETE ?purge=true"])
def test_anothers_conversation_is_one_that_nobody_has(tenants: Tenants, name: str, method: str) -> None:
    tenants.daemon.ask("alice's [[say 1]]", f"secret-{name}")
    method, _, query = method.partition(" ")
    answer = tenants.same_as_nobodys(method, f"/conversations/ID{query}", f"secret-{name}")
    assert (answer.status, answer.code) == (404, "not_found")
    assert tenants.daemon.shown(f"secret-{name}")["state"] == "idle"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")]
)
@pytest.mark.parametrize("live", [False, True], ids=["kept", "while it is made"])
def test_anothers_response_is_one_that_nobody_has(
    tenants: Tenants, name: str, method: str, path: str, live: bool
) -> None:
    daemon = tenants.daemon
    if not live:
        id_ = respond(daemon, f"{name} [[say 1]]").body["id"]
        assert tenants.same_as_nobodys(method, f"{RESPONSES}/ID{path}", id_).status == 404
    else:
        request = body(f"{name} [[delay 20]] [[words 30]]", stream=True)
        with daemon.http.stream(
            "POST", daemon.base_url + RESPONSES, json=request, headers=daemon.headers
        ) as it:
            lines = it.iter_lines()
            created = next(json.loads(line[6:]) for line in lines if line.startswith("data: "))
            id_ = created["response"]["id"]
            assert tenants.same_as_nobodys(method, f"{RESPONSES}/ID{path}", id_).status == 404
            assert any('"response.completed"' in line for line in lines)
    assert daemon.get(f"{RESPONSES}/{id_}").body["status"] == "completed"


def test_nothing_goes_on_after_anothers_response(tenants: Tenants, model: Model, name: str) -> None:
    first = respond(tenants.daemon, f"secret-{name} [[say 1]]").body
    request = body("tell [[recall]]", previous_response_id="ID")
    refused = tenants.same_as_nobodys("POST", RESPONSES, first["id"], json=request)
    assert (refused.status, refused.code) == (400, "previous_response_not_found")
    item = {"type": "item_reference", "id": first["output"][-1]["id"]}
    refused = tenants.as_bob("POST", RESPONSES, json=body([item, {"role": "user", "content": "tell"}]))
    assert refused.status == 400
    assert len(model.requests(f"secret-{name}")) == 1


def test_a_name_is_each_tenants_own(tenants: Tenants, name: str) -> None:
    tenants.daemon.ask("alice's [[say 1]]", name)
    for request in ({"conversation": name}, {"model": f"claude-code:{name}"}):
        answer = respond(tenants.daemon, "bob's [[recall]]", headers=tenants.bob, **request)
        assert answer.conversation == name
        assert "alice's [[say 1]]" not in said(answer)
    assert tenants.daemon.shown(name)["turns"] == 1


def test_the_same_history_is_not_anothers_conversation(tenants: Tenants, model: Model, name: str) -> None:
    first = tenants.daemon.ask(f"secret-{name} [[say 1]]")
    history = [user(f"secret-{name} [[say 1]]"), assistant("1"), user("more [[recall]]")]
    guessed = tenants.daemon.ask(history, headers=tenants.bob)
    assert guessed.said == [f"secret-{name} [[say 1]]", "more [[recall]]"]  # he told that himself
    assert guessed.conversation != first.conversation
    assert len({json.dumps(it["metadata"]) for it in model.requests(f"secret-{name}")}) == 2
    assert tenants.daemon.shown(first.conversation)["turns"] == 1
    # Alice's own history finds hers.
    assert tenants.daemon.ask(history).conversation == first.conversation


def test_results_for_anothers_call_reach_nobody(tenants: Tenants, name: str) -> None:
    daemon = tenants.daemon
    question = user(f"secret-{name} " + '[[tool get {"x": "a"}]] [[result]]')
    parked = daemon.ask([question], name, model="claude-code-chat", tools=[GET_X])
    result = {"role": "tool", "tool_call_id": parked.message["tool_calls"][0]["id"], "content": "from bob"}
    history: list[Json] = [question, parked.message, result]
    daemon.ask(history, name, model="claude-code-chat", tools=[GET_X], headers=tenants.bob)
    daemon.ask(history, model="claude-code-chat", tools=[GET_X], headers=tenants.bob)
    assert daemon.shown(name)["state"] == "parked"
    history[-1] = {**result, "content": "from alice"}
    answer = daemon.ask(history, name, model="claude-code-chat", tools=[GET_X])
    assert "from alice" in answer.text
    assert "from bob" not in answer.text


def test_nobody_stops_anothers_turn(tenants: Tenants, name: str) -> None:
    with tenants.daemon.stream("long [[delay 20]] [[words 30]]", name) as stream:
        stream.until("w2 ")
        assert tenants.as_bob("DELETE", f"/conversations/{name}?purge=true").status == 404
        with tenants.daemon.stream("mine [[say 1]]", name, headers=tenants.bob) as other:
            assert other.answer().text == "1"
        assert stream.answer().finish == "stop"


def test_an_idempotency_key_is_each_tenants_own(tenants: Tenants, name: str) -> None:
    mine = {"Idempotency-Key": name}
    first = tenants.daemon.ask("[[say 1]]", headers=mine)
    assert tenants.daemon.ask("[[say 2]]", headers={**mine, **tenants.bob}).text == "2"
    assert tenants.daemon.ask("[[say 1]]", headers=mine).body == first.body


def test_counts_and_lists_are_of_ones_own(tenants: Tenants, name: str) -> None:
    def seen() -> tuple[Json, list[Json]]:
        listed = tenants.as_bob("GET", "/conversations?all=true").body["data"]
        return tenants.as_bob("GET", "/health").body["conversations"], listed

    tenants.daemon.ask("[[say 1]]", headers=tenants.bob)
    before = seen()
    stored = tenants.daemon.health()["conversations"]["stored"]
    tenants.daemon.ask("alice's [[say 1]]", name)
    assert tenants.daemon.health()["conversations"]["stored"] == stored + 1
    after = seen()
    assert after[0]["stored"] == before[0]["stored"]
    assert [item["id"] for item in after[1]] == [item["id"] for item in before[1]]


# What one key may have -------------------------------------------------------------------------------------


def test_a_key_that_sends_too_much_is_told_so_as_by_openai(make: Start, served_model: Model) -> None:
    daemon = make(
        **key_settings(served_model), CLAUDE_CODED_KEY_RATE=3, CLAUDE_CODED_SPARE_WORKERS=0, key=KEYS["alice"]
    )
    tenants = Tenants(daemon.start())
    answers = [daemon.get("/v1/models") for _ in range(3)]
    assert [it.headers["x-ratelimit-remaining-requests"] for it in answers] == ["2", "1", "0"]
    with daemon.openai() as client, pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(
            model="claude-code", messages=[{"role": "user", "content": "[[say hi]]"}]
        )
    refused = caught.value
    assert (refused.code, refused.type) == ("rate_limit_exceeded", "requests")
    assert 1 <= int(refused.response.headers["retry-after"]) <= 20
    assert refused.response.headers["x-ratelimit-limit-requests"] == "3"
    assert daemon.get("/health").ok
    with daemon.stream("[[say hi]]", headers=tenants.bob) as stream:
        assert stream.response.headers["x-ratelimit-remaining-requests"] == "2"
        assert stream.answer().text == "hi"


def test_a_key_has_so_many_turns_at_once_and_the_next_when_one_has_ended(
    make: Start, served_model: Model, name: str
) -> None:
    daemon = make(**key_settings(served_model), CLAUDE_CODED_KEY_CONCURRENCY=1, key=KEYS["alice"])
    tenants = Tenants(daemon.start())
    with daemon.stream("long [[say begun]] [[hang]]", name) as stream:
        stream.until("begun")
        for refused in (daemon.ask("[[say hi]]"), respond(daemon, "[[say hi]]")):
            assert (refused.status, refused.code) == (429, "concurrency_limit_exceeded")
            assert refused.headers["retry-after"] == "1"
        assert daemon.ask("[[say hi]]", headers=tenants.bob).text == "hi"
    eventually(lambda: daemon.ask("[[say hi]]", name).ok)
    for number in range(10):  # who has read an answer to its end may ask at once
        with daemon.stream(f"[[say {number}]]", name) as stream:
            assert stream.answer().text == f"{number}"
        assert daemon.ask(f"[[say {number}]]", name).text == f"{number}"
        assert respond(daemon, "[[say hi]]").ok


# Web pages --------------------------------------------------------------------------------------------


def test_no_answer_says_to_a_browser_that_a_page_may_read_it(tenants: Tenants) -> None:
    answers = [
        tenants.daemon.get("/health"),
        tenants.daemon.get("/v1/nothing"),
        tenants.daemon.ask("[[say hi]]"),
        tenants.daemon.request("GET", "/v1/models", headers={"Origin": "https://a.example"}),
        tenants.daemon.request("GET", "/v1/models", headers={"Authorization": "", "Origin": "null"}),
    ]
    assert [it.status for it in answers] == [200, 404, 200, 403, 403]
    assert not [name for it in answers for name in it.headers if name.title().startswith(PAGES)]


# What is shared --------------------------------------------------------------------------------------------


def test_who_opens_many_conversations_or_parks_turns_evicts_nobody_else(
    make: Start, served_model: Model
) -> None:
    daemon = make(
        **key_settings(served_model),
        CLAUDE_CODED_SPARE_WORKERS=0,
        CLAUDE_CODED_QUEUE_SIZE=2,
        key=KEYS["alice"],
    )
    tenants = Tenants(daemon.start())
    daemon.ask("[[say 1]]", "bobs", headers=tenants.bob)
    for number in range(6):
        assert daemon.ask("[[say 1]]", f"opened{number}").ok
    for number in range(5):
        question = '[[tool get {"x": "a"}]] [[result]]'
        parked = daemon.ask(question, f"parked{number}", model="claude-code-chat", tools=[GET_X])
        assert parked.finish == "tool_calls"
    assert tenants.as_bob("GET", "/conversations").body["data"][0]["state"] == "idle"
    assert tenants.as_bob("GET", "/conversations").body["data"][0]["id"] == "bobs"


def test_who_fills_the_queue_leaves_room_in_it_and_a_turn_for_another(
    make: Start, served_model: Model
) -> None:
    daemon = make(
        **{**key_settings(served_model), "POOL_SIZE": "1"}, CLAUDE_CODED_QUEUE_SIZE=2, key=KEYS["alice"]
    )
    tenants = Tenants(daemon.start())
    with daemon.stream("[[say begun]] [[delay 20]] [[words 100]]", "running") as running:
        running.until("begun")
        with ThreadPoolExecutor(4) as others:
            waiting = [others.submit(daemon.ask, "[[say 1]]", f"waiting{number}") for number in range(2)]
            eventually(lambda: daemon.pool()["queued"] == 2)
            assert daemon.ask("[[say 1]]", "refused").code == "queue_full"
            mine = others.submit(daemon.ask, "[[say bobs]]", "mine", headers=tenants.bob)
            answers = [it.result() for it in waiting]
            assert sorted(it.status for it in answers) == [200, 429]
            assert mine.result().text == "bobs"
