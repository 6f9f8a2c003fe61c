"""Histories that the daemon has not seen grow: another server's, few-shot examples, real clients' own."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_requests import PIXEL, refused
from tests.support.client import Client, assistant, call, outcome, reached, told, user
from tests.support.daemon import SESSION, Daemon, Json, Model

CLIENTS = Path(__file__).parent.parent / "data" / "clients"


@pytest.fixture
def client(daemon: Daemon, model: Model) -> Client:
    return Client(daemon, model)


def image(text: str) -> list[Json]:
    return [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": PIXEL}}]


def long_history(name: str) -> list[Json]:
    """Return 200 messages of all kinds."""
    messages: list[Json] = []
    for number in range(29):
        messages += [
            user(image(f"{name} look at {number}") if number % 8 == 0 else f"{name} look up {number}"),
            assistant(
                f"I look {number} up" if number % 2 else None,
                tool_calls=[call(number, "lookup", f'{{"b": {number}, "a": [1]}}'), call(number + 1000)],
            ),
            outcome(number, f"found {number}"),
            outcome(number + 1000, f"found more of {number}"),
            assistant(f"It is {number}."),
            user(f"{name} thanks {number}"),
        ]
        messages += [assistant(f"Welcome {number}.")] * (number % 4 != 1)
    for number in range(2):
        messages += [user(f"{name} again {number}"), assistant("Right.")]
    return messages


def test_a_long_history_from_elsewhere_is_seeded_as_it_was_and_goes_on_hot(client: Client, name: str) -> None:
    client.messages = long_history(name)
    assert len(client.messages) == 200
    assert client.ask(f"{name} how many [[images]]").text == "4"
    first = client.conversation, client.pid
    client.ask(f"{name} and on [[say 2]]")
    client.again()
    client.ask(f"{name} and on and on [[say 3]]")
    assert (client.conversation, client.pid) == first


def test_few_shot_examples_are_true_messages(client: Client, name: str) -> None:
    shots = [
        {"role": "system", "content": "Translate."},
        *(user("house"), assistant("Haus")),
        *(user("tree"), assistant("Baum")),
    ]
    for word in ("mouse", "cat"):
        client.messages = shots
        client.ask(f"{name} {word} [[say {word}]]")
        assert "Translate." in str(client.body["system"])


@pytest.mark.parametrize(
    "past",
    [
        [user("one"), user("two"), assistant("to both")],
        [user("one"), user("two")],
        [user("one"), assistant("half"), assistant("the other half")],
        [assistant("I begin."), user("one"), assistant("two")],
        [user("one"), assistant(""), user("two"), assistant(None), assistant("three")],
        [user(image("see")), assistant("seen"), user(image("and")), user("this")],
    ],
    ids=["users", "users-only", "assistants", "assistant-first", "empty", "images"],
)
def test_histories_of_any_shape_are_known_in_order(client: Client, name: str, past: list[Json]) -> None:
    client.messages = [user(f"{name} begins"), *past]
    client.ask(f"{name} two [[say 2]]")
    first = client.conversation, client.pid
    client.ask(f"{name} three [[say 3]]")
    assert (client.conversation, client.pid) == first


@pytest.mark.parametrize("role", ["system", "developer"])
def test_system_text_in_the_middle_is_no_message(client: Client, name: str, role: str) -> None:
    client.messages = [user(f"{name} one"), {"role": role, "content": "Mind the gap."}, assistant("1")]
    assert "Mind the gap." in client.ask(f"{name} two [[system]]").text
    client.messages[-1]["content"] = client.messages[-1]["content"].strip()
    first = client.conversation
    client.messages.append({"role": role, "content": "Mind the step."})
    client.ask(f"{name} three [[say 3]]")
    assert client.conversation == first
    prompt = str(client.body["system"])
    assert "Mind the gap." in prompt
    assert "Mind the step." in prompt


def test_a_system_text_that_changes_keeps_the_history(client: Client, name: str) -> None:
    conversations = set()
    for turn in range(4):
        rest = [it for it in client.messages if it["role"] != "system"]
        client.messages = [{"role": "system", "content": f"Version {turn // 2}."}, *rest]
        client.ask(f"{name} {turn} [[say {turn}]]")
        assert f"Version {turn // 2}." in str(client.body["system"])
        assert f"Version {turn // 2 - 1}." not in str(client.body["system"])
        conversations.add(client.conversation)
    assert len(conversations) == 1


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([user("a"), outcome(1, "x"), user("b")], "messages[1].tool_call_id"),
        ([user("a"), assistant("b"), outcome(1, "x")], "messages[2].tool_call_id"),
        ([user("a"), assistant(None, tool_calls=[call(1)]), outcome(2, "x")], "messages[2].tool_call_id"),
        ([user("a"), assistant(None, tool_calls=[call(1)]), user("b")], "messages[1].tool_calls"),
        (
            [user("a"), assistant(None, tool_calls=[call(1), call(2)]), outcome(1, "x"), user("b")],
            "messages[1].tool_calls",
        ),
        ([user("a"), assistant("b")], "messages[1].role"),
        ([assistant("b")], "messages[0].role"),
    ],
)
def test_histories_that_make_no_sense_are_refused(
    daemon: Daemon, model: Model, messages: list[Json], param: str
) -> None:
    answer = daemon.ask(messages)
    refused(answer, 400, param)
    if "tool_call_id" in param:
        assert str(messages[int(param[9])]["tool_call_id"]) in answer.error["message"]
    assert not model.requests()


# Recorded from real clients ----------------------------------------------------------------------------


def recorded(which: str, name: str) -> Json:
    """Return a recorded request; `name` makes its history one of its own."""
    request: Json = json.loads((CLIENTS / f"{which}.json").read_text())
    first = next(it for it in request["body"]["messages"] if it["role"] == "user")
    first["content"] += f" {name}"
    return request


def replay(daemon: Daemon, request: Json) -> str:
    """Send a recorded request; return the answer, or what its chunks come to, and its conversation."""
    headers = {**daemon.headers, **request["headers"]}
    url = f"{daemon.base_url}/v1/chat/completions"
    response = daemon.http.post(url, json=request["body"], headers=headers)
    assert response.status_code == 200, response.text
    return response.headers["X-Conversation-ID"]


def knows(model: Model, request: Json) -> Any:
    """Check that the newest request with this history is just that; return its session."""
    asked = told(request["body"]["messages"])
    (*_, body) = [it for it in model.requests() if reached(it) == asked]
    return SESSION.findall(json.dumps(body["metadata"]))[-1]


def test_opencodes_requests_stay_in_one_conversation(daemon: Daemon, model: Model, name: str) -> None:
    with ThreadPoolExecutor() as threads:
        title = recorded("opencode_title_request", name)
        titled = threads.submit(replay, daemon, title)
        first = recorded("opencode_main_first_turn", name)
        conversation = replay(daemon, first)
        second, third = recorded("opencode_second_turn", name), recorded("opencode_after_tool_call", name)
        assert replay(daemon, second) == conversation
        assert titled.result() != conversation
        pid = daemon.worker_of(model.session("USETOOL")).pid
    assert replay(daemon, third) == conversation
    assert knows(model, first) == knows(model, second) == knows(model, third) != knows(model, title)
    assert daemon.worker_of(model.session("USETOOL")).pid == pid
    assert "echo hi" in model.requests("USETOOL")[-1]["messages"][-2]["content"][0]["input"]["command"]


def test_aiders_requests_stay_in_one_conversation(daemon: Daemon, model: Model, name: str) -> None:
    """Its first has turns that never were; later ones rewrite those where a file has changed."""
    request = recorded("aider", name)
    conversation = replay(daemon, request)
    session = knows(model, request)
    messages = request["body"]["messages"]
    messages += [assistant("done so"), user(f"{name} once more [[say again]]")]
    assert replay(daemon, request) == conversation
    assert knows(model, request) == session
    messages[-4]["content"] += " It has changed."
    messages += [assistant("again"), user(f"{name} after a change [[say ok]]")]
    replay(daemon, request)
    knows(model, request)


def test_llms_requests_stay_in_one_conversation(daemon: Daemon, model: Model, name: str) -> None:
    first, second = recorded("llm_stream", name), recorded("llm_continue", name)
    assert replay(daemon, first) == replay(daemon, second)
    assert knows(model, first) == knows(model, second)
