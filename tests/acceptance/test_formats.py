"""Answers in a form that the client asked for, and refusals."""

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from tests.support.client import Client, assistant, evict, function, nothing, restart, user
from tests.support.daemon import Daemon, Json, Model

GET = function("get")
OWN = '[[tool Bash {"command": "echo own"}]]'
DONE = ['Bash {"command": "echo own"}', "-> own"]


class Place(BaseModel):
    street: str
    number: int | None


class Person(BaseModel):
    name: str
    lives: list[Place]
    friend: "Person | None"


BOB = {"name": "Bob", "lives": [{"street": "End", "number": None}], "friend": None}
ANN = {"name": "Ann", "lives": [{"street": "Main", "number": 7}], "friend": BOB}


def schema(**properties: str) -> Json:
    return {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in properties.items()},
        "required": list(properties),
        "additionalProperties": False,
    }


def form(given: Json) -> Json:
    return {"type": "json_schema", "json_schema": {"name": "form", "schema": given, "strict": True}}


def gives(value: Json) -> str:
    return f"then [[tool StructuredOutput {json.dumps(value)}]]"


NUMBER, WORD = schema(a="integer"), schema(b="string")
OBJECT = {"type": "json_object"}


@pytest.fixture(params=[False, True], ids=["plain", "streamed"])
def client(pool: Daemon, model: Model, request: pytest.FixtureRequest) -> Client:
    return Client(pool, model, streamed=request.param)


@pytest.mark.parametrize("kind", ["claude-code", "claude-code-chat"])
@pytest.mark.parametrize(
    ("asked", "value"),
    [(form(NUMBER), {"a": 1}), (OBJECT, {"any": [1, {"x": None}]}), (form(Person.model_json_schema()), ANN)],
    ids=["schema", "object", "nested"],
)
def test_the_answer_is_json_that_fits(client: Client, name: str, kind: str, asked: Json, value: Json) -> None:
    client.kind = kind
    answer = client.ask(f"{name} {gives(value)}", response_format=asked)
    assert (answer.said, answer.finish) == (value, "stop")
    Draft202012Validator(asked.get("json_schema", {}).get("schema", {})).validate(answer.said)
    pid = client.pid
    assert client.ask(f"{name} again {gives(value)}", response_format=asked).said == value
    assert client.pid == pid


@pytest.mark.parametrize("between", [nothing, evict, restart])
def test_the_form_may_change_from_request_to_request(
    client: Client, name: str, between: Callable[[Client], None]
) -> None:
    client.ask(f"{name} zero {OWN} [[say text]]")
    conversation = client.conversation
    forms: list[tuple[Json, Json]] = [(form(NUMBER), {"a": 1}), (form(WORD), {"b": "x"}), (OBJECT, {"c": 2})]
    for number, (asked, value) in enumerate(forms):
        assert client.ask(f"{name} {number} {gives(value)}", response_format=asked).said == value
        between(client)
    assert client.ask(f"{name} text [[say as text]]", response_format={"type": "text"}).text == "as text"
    between(client)
    assert client.ask(f"{name} last [[say it is]]").text == "it is"
    assert client.conversation == conversation
    assert client.used[:2] == DONE


def test_what_is_said_beside_the_form_is_thinking_aloud(pool: Daemon, name: str) -> None:
    answer = pool.ask(f"{name} [[say Let me see.]] {gives({'a': 1})}", response_format=form(NUMBER))
    assert (answer.said, answer.message["reasoning_content"]) == ({"a": 1}, "Let me see.")


def test_the_sdk_parses_answers(pool: Daemon, name: str) -> None:
    with pool.openai() as sdk:
        text = f"{name} {gives(ANN)}"
        asked: Any = {"model": "claude-code-chat", "messages": [user(text)], "response_format": Person}
        assert sdk.chat.completions.parse(**asked).choices[0].message.parsed == Person.model_validate(ANN)
        with sdk.chat.completions.stream(**asked) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].message.parsed == Person.model_validate(ANN)
        asked["messages"] = [user(f"{name} [[say no]] [[stop refusal]] [[say no]]")]
        with pytest.raises(openai.ContentFilterFinishReasonError):
            sdk.chat.completions.parse(**asked)
        asked["messages"] = [user(f"{name} [[words 9]]")]
        with pytest.raises(openai.LengthFinishReasonError):
            sdk.chat.completions.parse(**asked, max_tokens=3)


@pytest.mark.parametrize("between", [nothing, evict])
def test_tools_in_the_same_request(client: Client, name: str, between: Callable[[Client], None]) -> None:
    client.more = {"tools": [GET], "response_format": form(NUMBER)}
    client.ask(f"{name} zero {gives({'a': 0})}")
    answer = client.ask(f"{name} [[tool get {{}}]] {gives({'a': 1})}")
    assert (answer.finish, client.calls) == ("tool_calls", [("get", "{}")])
    between(client)
    assert client.returns("found").said == {"a": 1}
    assert client.ask(f"{name} two {gives({'a': 2})}").said == {"a": 2}


def test_results_may_come_with_another_form(client: Client, name: str) -> None:
    client.more = {"tools": [GET]}
    client.ask(f"{name} zero {OWN} [[say 0]]")
    client.ask(f"{name} one [[tool get {{}}]] {gives({'a': 1})}")
    assert client.returns("found", response_format=form(NUMBER)).said == {"a": 1}
    assert client.used == DONE
    client.ask(f"{name} two [[tool get {{}}]] then [[say text]]", response_format=form(NUMBER))
    assert client.returns("found").text == "text"
    assert client.used == [*DONE, "-> Structured output provided successfully"]


def test_a_first_try_that_does_not_fit_is_not_shown(client: Client, name: str) -> None:
    text = f"{name} {gives({'a': 'x'})} {gives({'a': 2})}"
    answer = client.daemon.ask(text, response_format=form(NUMBER))
    assert answer.said == {"a": 2}
    client.messages = [user(text), answer.message]
    assert client.daemon.ask([*client.messages, user(f"{name} next [[say 2]]")]).text == "2"


@pytest.mark.parametrize("said", ["[[say prose]]", gives({"a": "x"})], ids=["prose", "misfit"])
def test_without_an_answer_that_fits_there_is_an_error(client: Client, name: str, said: str) -> None:
    client.ask(f"{name} zero [[say 0]]")
    before = client.conversation
    asked = [*client.messages, user(f"{name} one {said}")]
    with client.daemon.stream(asked, response_format=form(NUMBER)) as stream:
        streamed = stream.answer()
    assert stream.text == ""
    for answer in (streamed, client.daemon.ask(asked, response_format=form(NUMBER))):
        assert not answer.ok
        assert answer.code == "schema_not_met"
    client.ask(f"{name} two [[say 2]]")
    assert client.conversation == before


# Refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["claude-code", "claude-code-chat"])
@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("[[say That is]] [[stop refusal]] [[say I cannot.]]", "That is\n\nI cannot."),
        ("[[say That is]] [[stop refusal]] [[say I]] [[stop refusal]]", "That is\n\nI"),
        ("[[stop refusal]]", ""),
    ],
    ids=["explained", "twice", "at once"],
)
def test_a_refusal_is_told_as_one(client: Client, name: str, kind: str, said: str, text: str) -> None:
    client.kind = kind
    client.ask(f"{name} zero [[say 0]]")
    before = client.conversation, client.pid
    asked = user(f"{name} one {said}")
    with client.daemon.stream([*client.messages, asked], model=kind) as stream:
        answers = [stream.answer()]
    answers.append(client.daemon.ask([*client.messages, asked], model=kind))
    assert {(answer.text, answer.finish) for answer in answers} == {(text, "content_filter")}
    client.messages += [asked, assistant(text)]
    client.ask(f"{name} two [[say 2]]")
    assert (client.conversation, client.pid) == before


def test_a_refusal_to_answer_in_a_form_is_no_prose(client: Client, name: str) -> None:
    text = f"{name} [[say I would]] [[stop refusal]] [[say rather not]]"
    answer = client.daemon.ask(text, response_format=form(NUMBER))
    assert (answer.text, answer.finish) == ("", "content_filter")
    retried = f"{name} [[say I]] [[stop refusal]] {gives({'a': 1})}"
    assert client.daemon.ask(retried, response_format=form(NUMBER)).said == {"a": 1}
