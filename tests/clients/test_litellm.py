"""LiteLLM: completion, streams and tools."""

import pytest

from tests.clients.install import SOURCES, python_packages
from tests.clients.library import LibraryTests
from tests.clients.programs import Home, Library
from tests.clients.readme import statement

pytestmark = pytest.mark.clients


@pytest.fixture
def library(home: Home) -> Library:
    # For tools, its 1.106 needs the extra, whether or not they have to do with MCP.
    python = python_packages("litellm[mcp]==1.106.2") / "bin" / "python"
    settings = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # else it asks GitHub for the prices
    return Library(
        home,
        [python, SOURCES / "python" / "litellm_chat.py"],
        statement("litellm.completion(", home.base_url),
        settings,
    )


class TestLiteLLM(LibraryTests):
    pass
