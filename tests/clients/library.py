"""What every library must be able to do with the daemon."""

import base64
import json
from typing import Any

import pytest

from tests.clients.programs import Library
from tests.support.client import assistant, newest, reached, told, used, user
from tests.support.daemon import Daemon, Model

DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
"""A PNG file of one pixel."""

PDF = base64.b64encode(b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF\n").decode()
"""What is known for a PDF file by how it begins."""


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

    def test_images_and_files_are_seen(self, library: Library, model: Model, name: str) -> None:
        assert library("look", f"{name} [[images]]", DOT, PDF)["text"] == "1"
        blocks = model.requests(name)[-1]["messages"][0]["content"]
        (file,) = [block for block in blocks if block["type"] == "document"]
        assert file["source"] == {"type": "base64", "media_type": "application/pdf", "data": PDF}

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

    @pytest.mark.parametrize("mode", ["tools", "stream_tools"])
    @pytest.mark.parametrize("kind", ["claude-code", "claude-code-chat"])
    def test_calls_and_results_make_no_other_history(
        self, library: Library, model: Model, name: str, mode: str, kind: str
    ) -> None:
        first = f"{name} one [[say Let me look.]] {calls('Oslo', 'Łódź')} [[result]]"
        last = f"{name} three [[recall]]"
        heard = library(mode, first, f"{name} two {calls('Rome')}", last, model=kind)
        assert heard["calls"] == ["Oslo", "Łódź", "Rome"]
        assert len(json.loads(heard["text"])) == 3
        said = [text for _, text in reached(newest(model, last))]
        assert [text for text in said if text.startswith("-> ")] == [
            f"-> 7 degrees in {city}" for city in heard["calls"]
        ]
        sessions = {str(body["metadata"]) for body in model.requests(name)}
        assert len(sessions) == 1, sessions

    @pytest.mark.parametrize("mode", ["tools", "stream_tools"])
    @pytest.mark.parametrize("between", ["[[say and]]", ""], ids=["one after the other", "at once"])
    def test_claudes_own_tools_run_beside_the_clients(
        self, library: Library, daemon: Daemon, model: Model, name: str, between: str, mode: str
    ) -> None:
        own = f'[[tool Bash {{"command": "echo 7 > {name}"}}]]'
        script = f"{name} {own} {between} {calls('Oslo')} [[result]]"
        heard = library(mode, script, f"{name} [[recall]]", model="claude-code")
        assert heard["calls"] == ["Oslo"]
        assert json.loads(heard["text"]) == [script, f"{name} [[recall]]"]
        assert (daemon.workspace / name).read_text() == "7\n"
        body = newest(model, f"{name} [[recall]]")
        assert "-> 7 degrees in Oslo" in [text for _, text in reached(body)]
        assert len(used(body)) == 2
        assert len({str(it["metadata"]) for it in model.requests(name)}) == 1

    @pytest.mark.parametrize("mode", ["document", "stream_document"])
    def test_a_document_is_read_as_an_object(
        self, library: Library, model: Model, name: str, mode: str
    ) -> None:
        scripts = [f"{name} {document({'city': 'Oslo', 'degrees': degrees})}" for degrees in (6, 7)]
        assert library(mode, *scripts)["object"] == {"city": "Oslo", "degrees": 7}
        sessions = {str(body["metadata"]) for body in model.requests(name)}
        assert len(sessions) == 1, sessions

    def test_a_document_is_read_after_a_tool_is_called(self, library: Library) -> None:
        heard = library("document_by_tools", f"{calls('Oslo')} {document({'city': 'Oslo', 'degrees': 7})}")
        assert heard["calls"] == ["Oslo"]
        assert heard["object"] == {"city": "Oslo", "degrees": 7}
