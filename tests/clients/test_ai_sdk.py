"""Vercel's AI SDK: generateText, streamText, tools over several steps, generateObject."""

import pytest

from tests.clients.install import node_packages
from tests.clients.library import LibraryTests
from tests.clients.programs import Home, Library
from tests.clients.readme import statement

pytestmark = pytest.mark.clients


@pytest.fixture
def library(home: Home) -> Library:
    return Library(
        home,
        ["node", node_packages("node") / "ai_sdk_chat.mjs"],
        statement("createOpenAICompatible(", home.base_url),
    )


class TestAISDK(LibraryTests):
    pass
