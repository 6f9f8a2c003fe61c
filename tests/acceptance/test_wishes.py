"""Where an answer is to end, and how hard the model is to think: on a hot worker, for one request each."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.client import Client, assistant, evict, function, kill, nothing, restart, user
from tests.support.daemon import Answer, Daemon, Model, eventually

GET = function("get", {"type": "object", "properties": {"x": {"type": "string"}}})
OWN = '[[tool Bash {"command": "echo own"}]]'
DONE = ['Bash {"command": "echo own"}', "-> own"]
LONG = f'[[tool get {{"x": "{"y" * 200}"}}]]'


@pytest.fixture(params=[False, True], ids=["plain", "streamed"])
def client(pool: Daemon, model: Model, request: pytest.FixtureRequest) -> Client:
    return Client(pool, model, streamed=request.param)


@contextlib.contextmanager
def stopped_at_the_model(model: Model) -> Iterator[None]:
    """Check that a reply of the model is broken off."""
    before = model.stats()["disconnects"]
    yield
    eventually(lambda: model.stats()["disconnects"] > before and not model.stats()["active"])


def stop(client: Client, text: str, conversation: str | None = None, **more: Any) -> Answer:
    """Ask for an answer that is stopped at `END`, and for ever goes on behind it."""
    with stopped_at_the_model(client.model):
        answer = client.ask(f"{text} [[say some END more]] [[hang]]", conversation, stop="END", **more)
    assert (answer.text, answer.finish) == ("some ", "stop")
    return answer


# Stop sequences ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "stops", "shown"),
    [
        ("one END two", "END", "one "),
        ("one END two", ["w", "x", "y", "END"], "one "),
        ("one two three", ["three", "two"], "one "),
        ("one two three", "e two th", "on"),
        ("one two", "one", ""),
        ("a\nb ```c", ["\n", "```"], "a"),
        ("caf\u00e9 \u20ac9", "\u20ac", "caf\u00e9 "),
    ],
)
def test_an_answer_ends_before_the_first_stop_text(
    client: Client, name: str, said: str, stops: str | list[str], shown: str
) -> None:
    client.ask(f"{name} zero [[say 0]]")
    before = client.conversation, client.pid
    with stopped_at_the_model(client.model):
        answer = client.ask(f"{name} [[say {said}]] [[hang]]", stop=stops)
    assert (answer.text, answer.finish) == (shown, "stop")
    client.ask(f"{name} next [[say 2]]")
    assert (client.conversation, client.pid) == before


def test_nothing_of_what_follows_a_stop_text_leaks(client: Client, name: str) -> None:
    answer = client.ask(f"{name} [[say one END two]] [[think secret]] {OWN} [[say three]]", stop="END")
    assert answer.text == "one "
    assert "reasoning_content" not in answer.message
    client.ask(f"{name} next [[say 2]]")
    assert not client.used


def test_what_is_no_stop_text_is_shown_whole(client: Client, name: str) -> None:
    answer = client.ask(f"{name} [[think END]] [[say EN EN ENd E]]", stop=["END", "never"])
    assert (answer.text, answer.finish) == ("EN EN ENd E", "stop")
    assert answer.message["reasoning_content"].strip() == "END"
    pid = client.pid
    assert client.ask(f"{name} next [[say END]]").text == "END"
    assert client.pid == pid


def test_a_stop_after_tool_activity(client: Client, name: str) -> None:
    client.ask(f"{name} zero {OWN} [[say 0]]")
    pid = client.pid
    answer = client.ask(f"{name} {OWN} [[say a END b]] [[hang]]", stop="END")
    assert answer.text == "a "
    assert "Bash" in answer.message["reasoning_content"]
    client.ask(f"{name} next [[say 2]]")
    assert (client.used, client.pid) == (DONE, pid)


def test_a_stop_with_tool_calls(client: Client, name: str) -> None:
    client.more = {"tools": [GET]}
    answer = client.ask(f"{name} [[say a END]] [[tool get {{}}]]", stop="END")
    assert (answer.text, answer.finish, client.calls) == ("a ", "stop", [])
    pid = client.pid
    client.ask(f"{name} two [[say b]] [[tool get {{}}]] [[say c END d]] [[hang]]", stop="END")
    assert client.calls == [("get", "{}")]
    assert client.returns("found", stop="END").text == "c "
    client.ask(f"{name} three [[say 3]]")
    assert client.pid == pid


@pytest.mark.parametrize("between", [nothing, evict, kill, restart])
def test_after_stopped_turns_the_model_knows_what_the_client_saw(
    client: Client, name: str, between: Callable[[Client], None]
) -> None:
    client.ask(f"{name} zero {OWN} [[say 0]]")
    before = client.conversation
    for number in range(3):
        stop(client, f"{name} {number}")
    between(client)
    client.ask(f"{name} next [[say 1]]")
    assert (client.conversation, client.used) == (before, DONE)
    between(client)
    client.ask(f"{name} last [[say 2]]")
    assert (client.conversation, client.used) == (before, DONE)


@pytest.mark.parametrize("named", [False, True], ids=["found", "named"])
@pytest.mark.parametrize("between", [nothing, evict, restart])
def test_a_conversation_whose_first_turns_are_stopped_goes_on(
    client: Client, name: str, between: Callable[[Client], None], named: bool
) -> None:
    conversation = name if named else None
    stop(client, f"{name} zero", conversation)
    before = client.conversation, client.pid
    between(client)
    stop(client, f"{name} one", conversation)
    client.ask(f"{name} two [[say 2]]", conversation)
    assert client.conversation == before[0]
    assert (client.pid == before[1]) == (between is nothing)


def test_a_history_from_elsewhere_outlives_a_stopped_turn(client: Client, name: str) -> None:
    client.messages = [user(f"{name} before"), assistant("known")]
    stop(client, f"{name} one")
    before = client.conversation, client.pid
    stop(client, f"{name} two")
    client.ask(f"{name} three [[say 3]]")
    assert (client.conversation, client.pid) == before


def test_the_servers_own_history_holds_what_was_shown(client: Client, name: str) -> None:
    asked = [f"{name} {number}" for number in range(3)]
    for text in asked:
        client.messages = []
        with contextlib.suppress(AssertionError):  # it holds only what is new
            stop(client, text, name)
    said = client.daemon.ask(f"{name} all [[history]]", name).said
    assert [entry["text"].split(" [[")[0].strip() for entry in said] == [
        *(text for question in asked for text in (question, "some")),
        f"{name} all",
    ]


def test_the_same_question_again_replaces_what_was_stopped(client: Client, name: str) -> None:
    client.ask(f"{name} zero [[say 0]]")
    stop(client, f"{name} one")
    pid = client.pid
    client.messages[-2] = user(f"{name} one [[say other]]")
    assert client.again().text == "other"
    assert client.pid == pid


@pytest.mark.parametrize("between", [nothing, evict])
def test_a_stop_behind_results_of_a_turn_that_was_rebuilt(
    client: Client, name: str, between: Callable[[Client], None]
) -> None:
    client.more = {"tools": [GET]}
    client.ask(f"{name} zero {OWN} [[say 0]]")
    client.ask(f"{name} one [[tool get {{}}]] then [[say a END b]] [[hang]]")
    between(client)
    with stopped_at_the_model(client.model):
        assert client.returns("found", stop="END").text == "a "
    before = client.pid
    client.ask(f"{name} two [[say 2]]")
    assert (client.pid, client.used) == (before, DONE)
    evict(client)
    client.ask(f"{name} three [[say 3]]")
    assert client.used == DONE


# Limits of tokens --------------------------------------------------------------------------------------


def limit(client: Client, text: str) -> str:
    """Return the limit that the model's request has."""
    return client.ask(f"{text} [[max_tokens]]").text


def test_a_limit_reaches_the_model_and_is_gone_with_its_request(client: Client, name: str) -> None:
    default = limit(client, f"{name} zero")
    before = client.pid
    ask = f"{name} limited [[max_tokens]]"
    assert client.ask(ask, max_tokens=77).text == "77"
    assert client.ask(f"{ask} 2", max_completion_tokens=78).text == "78"
    answer = client.ask(f"{ask} 3", max_tokens=77, max_completion_tokens=79)
    assert (answer.text, answer.finish) == ("79", "stop")
    assert limit(client, f"{name} again") == default
    assert client.pid == before


@pytest.mark.parametrize("between", [nothing, evict, kill, restart])
@pytest.mark.parametrize("before", ["", f"zero {OWN} [[say 0]]"], ids=["first", "later"])
def test_an_answer_that_reaches_its_limit_is_cut_there(
    client: Client, name: str, before: str, between: Callable[[Client], None]
) -> None:
    if before:
        client.ask(f"{name} {before}")
    answer = client.ask(f"{name} one [[words 50]]", max_completion_tokens=7)
    assert (answer.text.split()[-1], answer.finish) == ("w6", "length")
    if not client.streamed:
        assert answer.body["usage"]["completion_tokens"] == 7
    known = client.conversation, client.pid
    between(client)
    assert client.ask(f"{name} two [[words 9]]").text.split()[-1] == "w8"
    assert client.conversation == known[0]
    assert (client.pid == known[1]) == (between is nothing)
    assert client.used == (DONE if before else [])


def test_a_limit_beside_tools_that_are_not_called(client: Client, name: str) -> None:
    client.more = {"tools": [GET]}
    assert client.ask(f"{name} one [[words 50]]", max_tokens=3).finish == "length"
    pid = client.pid
    client.ask(f"{name} two [[tool get {{}}]] then [[words 50]]", max_tokens=4)
    answer = client.returns("found", max_tokens=4)
    assert (answer.text, answer.finish) == ("w0 w1 w2 w3 ", "length")
    client.ask(f"{name} three [[say 3]]")
    assert client.pid == pid


@pytest.mark.parametrize("before", ["[[say 0]]", f"{OWN} [[say 0]]"], ids=["words", "tools"])
def test_results_may_come_with_other_wishes(client: Client, name: str, before: str) -> None:
    client.more = {"tools": [GET]}
    client.ask(f"{name} zero {before}")
    pid = client.pid
    client.ask(f"{name} one [[tool get {{}}]] then [[tool get {{}}]] then [[max_tokens]]")
    default = client.body["output_config"]["effort"], client.body["max_tokens"]
    client.returns("1", reasoning_effort="max", max_tokens=4321)
    assert (client.body["output_config"]["effort"], client.body["max_tokens"]) == ("max", 4321)
    assert client.returns("2").text == str(default[1])
    assert client.body["output_config"]["effort"] == default[0]
    assert (client.pid, client.used) == (pid, DONE if OWN in before else [])


def test_a_limit_within_a_call(client: Client, name: str) -> None:
    client.more = {"tools": [GET]}
    client.ask(f"{name} zero {OWN} [[say 0]]")
    pid = client.pid
    asked = [*client.messages, user(f"{name} one [[say So.]] {LONG} [[say 2]]")]
    answer = client.daemon.ask(asked, max_tokens=3, **client.more)
    assert (answer.text, answer.finish) == ("So.", "length")
    (call,) = answer.message["tool_calls"]
    assert call["function"]["arguments"].startswith('{"x": "y')
    client.messages = [*asked, assistant("So.")]
    client.ask(f"{name} two [[tool get {{}}]] [[result]]")
    assert client.returns("found").text == "found"
    assert (client.pid, client.used) == (pid, DONE)


def test_a_limit_behind_a_whole_call(pool: Daemon, model: Model, name: str) -> None:
    client = Client(pool, model, more={"tools": [GET]})
    asked = [user(f"{name} [[tool get {{}}]] {LONG} [[result]]")]
    answer = client.daemon.ask(asked, max_tokens=2, **client.more)
    assert answer.finish == "length"
    first, _ = answer.message["tool_calls"]
    client.messages = [*asked, assistant(None, tool_calls=[first])]
    assert client.returns("found").text == "found"


def test_a_limit_within_a_call_of_claudes_own(pool: Daemon, model: Model, name: str) -> None:
    client = Client(pool, model)
    client.ask(f"{name} zero [[say 0]]")
    begun, pid = time.monotonic(), client.pid
    asked = [*client.messages, user(f'{name} one [[say So.]] [[tool Bash {{"command": "echo {"y" * 99}"}}]]')]
    answer = client.daemon.ask(asked, max_tokens=2)
    assert time.monotonic() - begun < 4  # it is not waited for what does not come
    assert (answer.text, answer.finish) == ("So.", "length")
    client.messages = [*asked, answer.message]
    client.ask(f"{name} two [[say 2]]")
    assert client.pid == pid


# Effort ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["claude-code", "claude-code-chat"])
def test_effort_reaches_the_model_and_is_gone_with_its_request(client: Client, name: str, kind: str) -> None:
    client.kind = kind

    def effort(text: str, **more: Any) -> str:
        client.ask(f"{name} {text} [[say ok]]", **more)
        return str(client.body["output_config"]["effort"])

    default = effort("zero")
    pid = client.pid
    for given in ("low", "medium", "high", "xhigh", "max"):
        assert effort(f"field {given}", reasoning_effort=given) == given
    assert effort("none", reasoning_effort="none") == effort("minimal", reasoning_effort="minimal") == "low"
    assert effort("after") == default
    header = {"X-Claude-Effort": "xhigh"}
    assert effort("header", headers=header) == "xhigh"
    assert effort("both", headers=header, reasoning_effort="low") == "xhigh"
    assert effort("last") == default
    assert client.pid == pid
