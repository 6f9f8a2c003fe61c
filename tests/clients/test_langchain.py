"""LangChain: ChatOpenAI with invoke, stream, bind_tools and with_structured_output, by both APIs."""

import pytest

from tests.clients.install import SOURCES, python_packages
from tests.clients.library import LibraryTests
from tests.clients.programs import Home, Library
from tests.clients.readme import statement

pytestmark = pytest.mark.clients


@pytest.fixture(
    params=["", "use_responses_api=True", "use_responses_api=True, use_previous_response_id=True"],
    ids=["chat completions", "responses", "after responses"],
)
def library(home: Home, request: pytest.FixtureRequest) -> Library:
    python = python_packages("langchain-openai==1.7.3") / "bin" / "python"
    start = "ChatOpenAI("
    written = statement(start, home.base_url).replace(start, f"{start}{request.param or 'name=None'}, ")
    return Library(home, [python, SOURCES / "python" / "langchain_chat.py"], written)


class TestLangChain(LibraryTests):
    def test_a_document_is_read_from_a_function(self, library: Library) -> None:
        heard = library("document_by_function", '[[tool Weather {"city": "Oslo", "degrees": 7}]]')
        assert heard["object"] == {"city": "Oslo", "degrees": 7}
