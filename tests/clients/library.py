"""What every library must be able to do with the daemon."""

import json
from typing import Any

import pytest

from tests.clients.programs import Library
from tests.support.client import assistant, newest, reached, told, user
from tests.support.daemon import Model


def calls(*cities: str) -> str:
    """Return the script of calls that the model makes in one reply."""
    return " ".join(f"[[tool get_weather {json.dumps({'city': city})}]]" for city in cities)


def document(value: Any) -> str:
    """Return the script of an answer in a form that the request prescribes: the CLI makes a tool of it."""
    return f"[[tool StructuredOutput {json.dumps(value)}]]"


class LibraryTests:
    """A module's subclass has its tests with the module's fixture `library`."""

    @pytest.mark.parametrize("kind", ["claude-code", "claude-code-chat"])
    def test_a_chat_of_five_turns_stays_on_one_worker(
        self, library: Library, model: Model, name: str, kind: str
    ) -> None:
        questions = [f"{name} {turn} [[think hm]] [[recall]]" for turn in range(5)]
        answers = library("chat", *questions, model=kind)["answers"]
        assert [json.loads(answer) for answer in answers] == [questions[: n + 1] for n in range(5)]
        said = [it for pair in zip(map(user, questions), map(assistant, answers), strict=True) for it in pair]
        assert reached(newest(model, questions[-1])) == told(said[:-1])
        assert len({str(newest(model, question)["metadata"]) for question in questions}) == 1

    def test_an_answer_streams(self, library: Library) -> None:
        heard = library("stream", "[[think hm]] [[words 50]]")
        assert heard["text"].split() == [f"w{number}" for number in range(50)]
        assert heard["deltas"] >= 10

    @pytest.mark.parametrize("mode", ["tools", "stream_tools"])
    def test_a_tool_is_called_and_its_result_heard(self, library: Library, mode: str) -> None:
        heard = library(mode, f"[[think hm]] [[say Let me look.]] {calls('Oslo')} [[result]]")
        assert heard["calls"] == ["Oslo"]
        assert heard["text"].endswith("7 degrees in Oslo")

    @pytest.mark.parametrize("mode", ["tools", "stream_tools"])
    def test_two_tools_are_called_at_once(self, library: Library, mode: str) -> None:
        heard = library(mode, f"{calls('Oslo', 'Łódź')} [[result]]")
        assert heard["calls"] == ["Oslo", "Łódź"]
        assert heard["text"].splitlines() == ["7 degrees in Oslo", "7 degrees in Łódź"]

    @pytest.mark.parametrize("mode", ["tools", "stream_tools"])
    def test_tools_are_called_one_after_the_other(self, library: Library, mode: str) -> None:
        heard = library(mode, f"{calls('Oslo')} [[result]] [[say and]] {calls('Rome')} [[result]]")
        assert heard["calls"] == ["Oslo", "Rome"]
        assert heard["text"].endswith("7 degrees in Rome")

    def test_a_document_is_read_as_an_object(self, library: Library) -> None:
        heard = library("document", document({"city": "Oslo", "degrees": 7}))
        assert heard["object"] == {"city": "Oslo", "degrees": 7}
