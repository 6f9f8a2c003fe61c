"""Instructor: objects by a function or a schema; it asks again where they do not fit."""

import json
from typing import Any

import pytest

from tests.clients.install import SOURCES, python_packages
from tests.clients.library import document
from tests.clients.programs import Home, Library
from tests.clients.readme import statement

pytestmark = pytest.mark.clients

WEATHER = {"city": "Oslo", "degrees": 7}


def function(name: str, value: Any) -> str:
    """Return the script of a call of the function that the client makes of the object's type."""
    return f"[[tool {name} {json.dumps(value)}]]"


@pytest.fixture
def library(home: Home, request: pytest.FixtureRequest) -> Library:
    python = python_packages("instructor==1.17.0") / "bin" / "python"
    # What is wrong with the object comes as the next message of the user's, and is thus its script.
    settings = {"COMPLAINT": document(WEATHER), **getattr(request, "param", {})}
    program = SOURCES / "python" / "instructor_chat.py"
    return Library(home, [python, program], statement("instructor.from_openai(", home.base_url), settings)


def test_an_object_is_asked_for_by_a_function(library: Library) -> None:
    assert library("document", function("Weather", WEATHER))["object"] == WEATHER
    assert library("stream_document", function("PartialWeather", WEATHER))["object"] == WEATHER
    script = function("IterableWeather", {"tasks": [WEATHER, WEATHER]})
    assert library("documents", script)["objects"] == [WEATHER, WEATHER]


def test_a_function_is_asked_again(library: Library) -> None:
    calls = [function("Weather", WEATHER | {"degrees": 70}), "[[say oh]]", function("Weather", WEATHER)]
    assert library("document", " ".join(calls)) == {"object": WEATHER, "tried": [70, 7]}


@pytest.mark.parametrize("library", [{"MODE": "JSON_SCHEMA"}, {"MODE": "JSON"}], indirect=True)
def test_an_object_is_asked_for_by_a_schema(library: Library) -> None:
    wrong = document(WEATHER | {"degrees": 70})
    assert library("document", wrong) == {"object": WEATHER, "tried": [70, 7]}
    assert library("stream_document", document(WEATHER))["object"] == WEATHER
