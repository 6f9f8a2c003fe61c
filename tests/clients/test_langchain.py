"""LangChain: ChatOpenAI with invoke, stream, bind_tools and with_structured_output."""

import pytest

from tests.clients.install import SOURCES, python_packages
from tests.clients.library import LibraryTests
from tests.clients.programs import Home, Library
from tests.clients.readme import statement

pytestmark = pytest.mark.clients


@pytest.fixture
def library(home: Home) -> Library:
    python = python_packages("langchain-openai==1.7.3") / "bin" / "python"
    return Library(
        home, [python, SOURCES / "python" / "langchain_chat.py"], statement("ChatOpenAI(", home.base_url)
    )


class TestLangChain(LibraryTests):
    def test_a_document_is_read_from_a_function(self, library: Library) -> None:
        heard = library("document_by_function", '[[tool Weather {"city": "Oslo", "degrees": 7}]]')
        assert heard["object"] == {"city": "Oslo", "degrees": 7}
