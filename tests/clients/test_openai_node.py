"""openai-node: chat, streams, runTools and zod; and the same by the Responses API."""

import pytest

from tests.clients.install import node_packages
from tests.clients.library import LibraryTests
from tests.clients.programs import Home, Library
from tests.clients.readme import statement

pytestmark = pytest.mark.clients


@pytest.fixture(params=["openai_chat.mjs", "openai_responses.mjs"])
def library(home: Home, request: pytest.FixtureRequest) -> Library:
    program = node_packages("node") / request.param
    return Library(home, ["node", program], statement("new OpenAI(", home.base_url))


class TestOpenAINode(LibraryTests):
    pass
