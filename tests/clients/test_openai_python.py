"""openai-python: chat, streams, helpers for streams, functions and documents, errors; by both APIs."""

import pytest

from tests.clients.install import SOURCES, python_packages
from tests.clients.library import LibraryTests
from tests.clients.programs import Home, Library
from tests.clients.readme import statement

pytestmark = pytest.mark.clients


@pytest.fixture(params=["openai_chat.py", "openai_responses.py"])
def library(home: Home, request: pytest.FixtureRequest) -> Library:
    python = python_packages("openai==3.54.0") / "bin" / "python"
    return Library(home, [python, SOURCES / "python" / request.param], statement("OpenAI(", home.base_url))


class TestOpenAIPython(LibraryTests):
    @pytest.mark.parametrize(
        ("kind", "text", "error", "status", "code"),
        [
            ("gpt-99", "Hello", "NotFoundError", 404, "model_not_found"),
            ("claude-code", "[[error 400 saying no]]", "BadRequestError", 400, None),
        ],
    )
    def test_an_error_is_the_one_that_openai_would_have(
        self, library: Library, kind: str, text: str, error: str, status: int, code: str | None
    ) -> None:
        heard = library("failure", text, model=kind)
        assert heard == {"error": error, "status": status, "code": code}
