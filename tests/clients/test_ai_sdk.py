"""Vercel's AI SDK: generateText, streamText, tools over several steps, generateObject; by both APIs."""

import json

import pytest

from tests.clients.install import node_packages
from tests.clients.library import LibraryTests
from tests.clients.programs import Home, Library
from tests.clients.readme import statement

pytestmark = pytest.mark.clients

RESPONSES = "createOpenAI("


@pytest.fixture(
    params=[
        ("createOpenAICompatible(", {}),
        (RESPONSES, {}),  # what was said before stands for itself by its id
        (RESPONSES, {"store": False}),
        (RESPONSES, {"store": False, "include": ["reasoning.encrypted_content"]}),
    ],
    ids=["chat completions", "responses", "responses not stored", "responses encrypted"],
)
def library(home: Home, request: pytest.FixtureRequest) -> Library:
    start, options = request.param
    settings = {"OPTIONS": json.dumps(options)}
    program = node_packages("node") / "ai_sdk_chat.mjs"
    return Library(home, ["node", program], statement(start, home.base_url), settings)


class TestAISDK(LibraryTests):
    pass
