"""openai-python: chat, streams, the helpers for streams, functions and documents, and its errors."""

import pytest

from tests.clients.install import SOURCES, python_packages
from tests.clients.library import LibraryTests
from tests.clients.programs import Home, Library
from tests.clients.readme import statement

pytestmark = pytest.mark.clients


@pytest.fixture
def library(home: Home) -> Library:
    python = python_packages("openai==3.54.0") / "bin" / "python"
    return Library(home, [python, SOURCES / "python" / "openai_chat.py"], statement("OpenAI(", home.base_url))


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
