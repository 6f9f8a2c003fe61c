"""Pydantic AI: functions, streams, objects by schema and by function."""

import json

import pytest

from tests.clients.install import SOURCES, python_packages
from tests.clients.library import calls, document
from tests.clients.programs import Home, Library
from tests.clients.readme import statement
from tests.support.client import newest, reached
from tests.support.daemon import Model

pytestmark = pytest.mark.clients

WEATHER = {"city": "Oslo", "degrees": 7}


CHAT = "OpenAIChatModel("
RESPONSES = 'OpenAIResponsesModel(settings={"openai_send_reasoning_ids": True}, model_name='


@pytest.fixture(params=[CHAT, RESPONSES], ids=["chat completions", "responses"])
def library(home: Home, request: pytest.FixtureRequest) -> Library:
    python = python_packages("pydantic-ai-slim[openai]==2.66.0") / "bin" / "python"
    program = SOURCES / "python" / "pydantic_ai_chat.py"
    written = statement(CHAT, home.base_url).replace(CHAT, request.param)
    return Library(home, [python, program], written)


@pytest.mark.parametrize("mode", ["tools", "stream_tools"])
def test_functions_are_called_and_remembered(library: Library, model: Model, name: str, mode: str) -> None:
    first = (
        f"{name} [[think hm]] [[say I look.]] {calls('Oslo', 'Rome')} [[result]] [[say and]] {calls('Bern')}"
    )
    last = f"{name} [[recall]]"
    heard = library(mode, first, last, model="claude-code")
    assert heard["calls"] == ["Oslo", "Rome", "Bern"]
    assert json.loads(heard["text"]) == [first, last]
    said = [text for _, text in reached(newest(model, last))]
    assert [text for text in said if text.startswith("-> ")] == [
        f"-> 7 degrees in {city}" for city in heard["calls"]
    ]
    assert len({str(body["metadata"]) for body in model.requests(name)}) == 1


@pytest.mark.parametrize("mode", ["document", "stream_document"])
def test_the_answer_is_an_object_after_a_call(library: Library, mode: str) -> None:
    heard = library(mode, f"{calls('Oslo')} [[say so]] {document(WEATHER)}")
    assert heard == {"object": WEATHER, "calls": ["Oslo"]}


def test_the_answer_is_an_object_by_a_function_of_its_own(library: Library) -> None:
    script = f"{calls('Oslo')} [[say so]] [[tool final_result {json.dumps(WEATHER)}]]"
    assert library("document_by_function", script) == {"object": WEATHER, "calls": ["Oslo"]}
