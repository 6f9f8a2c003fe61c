"""OpenAI's Agents SDK by both APIs: functions, hand-offs, streams, objects."""

import json

import pytest

from tests.clients.install import SOURCES, python_packages
from tests.clients.library import calls, document
from tests.clients.programs import Home, Library
from tests.clients.readme import statement
from tests.support.client import newest, reached
from tests.support.daemon import Model

pytestmark = pytest.mark.clients


@pytest.fixture(
    params=[{}, {"BY_ID": "1"}, {"API": "chat_completions"}],
    ids=["responses", "after responses", "chat completions"],
)
def library(home: Home, request: pytest.FixtureRequest) -> Library:
    python = python_packages("openai-agents==0.24.0") / "bin" / "python"
    program = SOURCES / "python" / "openai_agents_chat.py"
    written = statement("set_default_openai_client(", home.base_url)
    return Library(home, [python, program], written, {"API": "", "BY_ID": "", **request.param})


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


@pytest.mark.parametrize("mode", ["tools", "stream_tools"])
def test_another_agent_takes_over(library: Library, model: Model, name: str, mode: str) -> None:
    heard = library(mode, f"{name} [[tool transfer_to_other]] [[system]]")
    assert heard["agent"] == "Other"
    assert "You are the other." in json.dumps(model.requests(name)[-1]["system"])


@pytest.mark.parametrize("mode", ["document", "stream_document"])
def test_the_answer_is_an_object_after_a_call(library: Library, mode: str) -> None:
    heard = library(mode, f"{calls('Oslo')} [[say so]] {document({'city': 'Oslo', 'degrees': 7})}")
    assert heard == {"object": {"city": "Oslo", "degrees": 7}, "calls": ["Oslo"]}
