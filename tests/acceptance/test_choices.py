"""What a request may choose of how Claude works, and fields that shape what a conversation is."""

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Start
from tests.support.client import Client, assistant, evict, function, user
from tests.support.daemon import Daemon, Json, Model, command_line, eventually

MODE, PLACE = "X-Claude-Permission-Mode", "X-Claude-Workspace"
PWD = '[[tool Bash {"command": "pwd"}]] then [[result]]'
GET = {"name": "get", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture(params=[False, True], ids=["plain", "streamed"])
def client(pool: Daemon, model: Model, request: pytest.FixtureRequest) -> Client:
    for name in ("one", "two"):
        (pool.workspace / name).mkdir(exist_ok=True)
    return Client(pool, model, streamed=request.param)


# Permission modes --------------------------------------------------------------------------------------


def test_a_stricter_mode_holds_for_its_request(client: Client, name: str) -> None:
    made = client.daemon.workspace / name
    client.ask(f"{name} zero [[say 0]]")
    conversation = client.conversation
    touch = f'[[tool Bash {{"command": "touch {made}"}}]] then [[result]]'
    for mode in ("plan", "dontAsk"):
        assert client.ask(f"{name} {mode} {touch}", headers={MODE: mode}).text.startswith("error: ")
        assert not made.exists()
    assert client.ask(f"{name} as set {touch}").ok
    assert made.exists()
    assert client.conversation == conversation


def test_what_keeps_to_the_workspace_does_not_read_outside_of_it(
    pool: Daemon, name: str, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("secret")
    read = f'[[tool Read {{"file_path": "{outside}"}}]] [[result]]'
    read += f' [[tool Bash {{"command": "cat {outside}"}}]] [[result]]'
    for mode in ("acceptEdits", "dontAsk"):
        answer = pool.ask(f"{name} {mode} {read}", headers={MODE: mode})
        assert answer.text.count("error: ") == 2, answer.text
        assert "secret" not in answer.text


def test_a_request_to_plan_takes_no_tools(client: Client, name: str) -> None:
    tools = [function("get")]
    answer = client.daemon.ask(name, tools=tools, headers={MODE: "plan"})
    assert (answer.status, answer.error["param"]) == (400, "tools")


def test_a_mode_of_its_own_takes_no_spare_of_another(start: Start, model: Model, name: str) -> None:
    daemon = start(CLAUDE_CODED_SPARE_WORKERS=1)
    eventually(lambda: daemon.pool()["spare"] == 1)
    for number, mode in enumerate(("plan", "bypassPermissions", "dontAsk")):
        text = f"{name} {number} [[say ok]]"
        assert daemon.ask(text, headers={MODE: mode}).text == "ok"
        assert f"--permission-mode {mode}" in command_line(daemon.worker_of(model.session(text)))


# Workspaces --------------------------------------------------------------------------------------------


def test_claude_works_where_it_is_told(client: Client, name: str) -> None:
    root = client.daemon.workspace
    assert client.ask(f"{name} {PWD}", headers={PLACE: "one"}).text == str(root / "one")
    before = client.conversation, client.pid
    assert client.ask(f"{name} again {PWD}", headers={PLACE: "./one"}).text == str(root / "one")
    assert client.ask(f"{name} without {PWD}").text == str(root / "one")
    assert (client.conversation, client.pid) == before
    evict(client)
    assert client.ask(f"{name} later {PWD}").text == str(root / "one")
    assert client.conversation == before[0]
    assert client.daemon.shown(client.conversation)["workspace"] == str(root / "one")
    assert client.daemon.ask(f"{name} else {PWD}").text == str(root)


def test_a_named_conversation_stays_where_it_is(client: Client, name: str) -> None:
    client.ask(f"{name} [[say 1]]", name, headers={PLACE: "one"})
    answer = client.daemon.ask(f"{name} two", name, headers={PLACE: "two"})
    assert (answer.status, answer.error["param"]) == (400, PLACE)
    client.ask(f"{name} three [[say 3]]", name, headers={PLACE: "one"})


def test_the_same_history_in_another_workspace_is_another_conversation(client: Client, name: str) -> None:
    client.ask(f"{name} [[say 1]]", headers={PLACE: "one"})
    other = client.fork()
    assert other.ask(f"{name} two {PWD}", headers={PLACE: "two"}).text == str(client.daemon.workspace / "two")
    assert other.conversation != client.conversation
    known = other.conversation
    client.ask(f"{name} three [[say 3]]", headers={PLACE: "one"})
    other.ask(f"{name} four [[say 4]]", headers={PLACE: "two"})
    assert other.conversation == known != client.conversation


# Functions, roles and parts ----------------------------------------------------------------------------


@pytest.mark.parametrize("between", [False, True], ids=["hot", "cold"])
def test_deprecated_functions_are_called_in_their_own_way(
    client: Client, name: str, *, between: bool
) -> None:
    def ask(messages: list[Json], **more: Any) -> Any:
        if client.streamed:
            with client.daemon.stream(messages, functions=[GET], **more) as stream:
                return stream.answer()
        return client.daemon.ask(messages, functions=[GET], **more)

    messages = [user(f"{name} [[tool get {{}}]] then [[tool get {{}}]] then [[result]]")]
    for result in ("first", "second"):
        answer = ask(messages)
        assert answer.finish == "function_call"
        assert answer.message["function_call"] == {"name": "get", "arguments": "{}"}
        messages += [answer.message, {"role": "function", "name": "get", "content": result}]
        if between:
            client.daemon.delete(f"/conversations/{answer.conversation}")
    answer = ask(messages)
    assert (answer.text, answer.finish) == ("second", "stop")
    messages += [answer.message, user(f"{name} none [[offered]]")]
    assert "mcp__client__get" not in ask(messages, function_call="none").said
    messages[-1] = user(f"{name} named [[tool get {{}}]]")
    assert ask(messages, function_call={"name": "get"}).finish == "function_call"


def test_roles_names_and_refusal_parts(client: Client, name: str) -> None:
    client.messages = [
        {"role": "developer", "content": [{"type": "text", "text": f"be brief, {name}"}]},
        {**user(f"{name} one"), "name": "ann"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot."}], "name": "bob"},
        user(f"{name} two"),
        {"role": "assistant", "content": None, "refusal": "Nor that."},
        {"role": "system", "content": "and kind"},
    ]
    asked = [*client.messages, {**user(f"{name} three [[history]]"), "name": "ann"}]
    said = client.daemon.ask(asked).said
    assert [(entry["role"], entry["text"]) for entry in said] == [
        ("user", f"{name} one"),
        ("assistant", "I cannot."),
        ("user", f"{name} two"),
        ("assistant", "Nor that."),
        ("user", f"{name} three [[history]]"),
    ]
    system = client.daemon.ask([*client.messages, user(f"{name} three [[system]]")]).text
    assert f"be brief, {name}\n\nand kind" in system


# What is left, and whose it is -------------------------------------------------------------------------


def test_what_is_not_to_be_stored_calls_tools_too_and_is_forgotten(client: Client, name: str) -> None:
    client.more = {"tools": [function("get")], "store": False}
    client.ask(f"{name} [[tool get {{}}]] then [[result]]")
    assert client.returns("found").text == "found"
    conversation, transcript = client.conversation, client.transcript()
    client.ask(f"{name} more [[say 2]]")
    assert client.conversation == conversation
    client.daemon.delete(f"/conversations/{conversation}")
    eventually(lambda: client.daemon.get(f"/conversations/{conversation}").status == 404)
    assert not transcript.exists()
    client.ask(f"{name} again [[say 3]]")  # its history is enough


@pytest.mark.parametrize("field", ["user", "prompt_cache_key"])
def test_whose_it_is_tells_equal_histories_apart(client: Client, name: str, field: str) -> None:
    client.messages = [user(f"{name} one"), assistant("known")]
    clients = {who: client.fork() for who in ("ann", "bob")}
    for who, it in clients.items():
        it.more = {field: f"{name} {who}"}
        it.ask(f"{name} two [[say same]]", f"{name}-{who}")
        evict(it)
    for who, it in clients.items():
        it.ask(f"{name} three of {who} [[say 3]]")
        assert it.conversation == f"{name}-{who}"


def test_one_answer_without_probabilities(client: Client, name: str) -> None:
    refused: Json = {"n": 2, "logprobs": True, "top_logprobs": 3}
    for field in refused:
        answer = client.daemon.ask(name, **{field: refused[field]})
        assert (answer.status, answer.code, answer.error["param"]) == (400, "unsupported_parameter", field)
    client.ask(f"{name} [[say ok]]", n=1, logprobs=False, top_logprobs=0)
