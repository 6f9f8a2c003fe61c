"""openai-node: chat, streams, runTools and zod."""

import pytest

from tests.clients.install import node_packages
from tests.clients.library import LibraryTests
from tests.clients.programs import Home, Library
from tests.clients.readme import statement

pytestmark = pytest.mark.clients


@pytest.fixture
def library(home: Home) -> Library:
    return Library(
        home, ["node", node_packages("node") / "openai_chat.mjs"], statement("new OpenAI(", home.base_url)
    )


class TestOpenAINode(LibraryTests):
    pass
