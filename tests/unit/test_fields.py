"""Every field of OpenAI's request stands in the table, and what the table says of it is done."""

from typing import Any

import pytest
from msgspec.structs import replace

from claude_coded.errors import InvalidRequest, UnsupportedParameter
from claude_coded.openai.chat import parse_chat
from claude_coded.openai.fields import FIELDS, Treatment
from tests.support.schemas import properties, validator
from tests.unit.test_chat import HELLO, body

TOOL = {"type": "function", "function": {"name": "f"}}

HONOURED: dict[str, dict[str, Any]] = {
    "model": {"model": "sonnet"},
    "messages": {"messages": [{"role": "user", "content": "something else"}]},
    "stream": {"stream": True},
    "stream_options": {"stream_options": {"include_usage": True}},
    "store": {"store": False},
    "tools": {"tools": [TOOL]},
    "tool_choice": {"tools": [TOOL], "tool_choice": "required"},
    "parallel_tool_calls": {"tools": [TOOL], "parallel_tool_calls": False},
    "functions": {"functions": [{"name": "f"}]},
    "function_call": {"functions": [{"name": "f"}], "function_call": {"name": "f"}},
    "response_format": {"response_format": {"type": "json_object"}},
    "stop": {"stop": ["END"]},
    "max_tokens": {"max_tokens": 7},
    "max_completion_tokens": {"max_completion_tokens": 7},
    "reasoning_effort": {"reasoning_effort": "high"},
}
"""Requests that ask something with the field."""

IGNORED: dict[str, list[Any]] = {
    "temperature": [0, 2, 0.7],
    "top_p": [0, 1, 0.1],
    "presence_penalty": [-2, 2],
    "frequency_penalty": [-2, 2],
    "seed": [0, -(2**63), 2**63 - 1],
    "logit_bias": [{}, {"50256": -100, "1": 100}],
    "user": ["me"],
    "metadata": [{}, {"a": "b"}],
    "service_tier": ["auto", "default", "flex", "scale", "priority", "fast"],
    "safety_identifier": ["x" * 64],
    "prompt_cache_key": ["key"],
    "prompt_cache_options": [{}],
    "prompt_cache_retention": ["in_memory", "24h"],
    "prediction": [
        {"type": "content", "content": "x"},
        {"type": "content", "content": [{"type": "text", "text": "x"}]},
    ],
    "verbosity": ["low", "medium", "high"],
    "web_search_options": [{}, {"search_context_size": "low"}],
}
"""Values that a field may have."""

REFUSED: dict[str, tuple[list[Any], list[Any]]] = {
    "n": ([2, 128], [1]),
    "logprobs": ([True], [False]),
    "top_logprobs": ([1, 20], [0]),
    "audio": ([{"voice": "alloy", "format": "wav"}], []),
    "modalities": ([["text", "audio"], ["audio"]], [["text"]]),
    "moderation": ([{"model": "omni-moderation-latest"}], []),
}
"""Values that are refused, and those that change nothing."""

WRONG: list[tuple[str, Any, str]] = [
    ("n", 0, "n"),
    ("n", 129, "n"),
    ("n", True, "n"),
    ("n", "1", "n"),
    ("logprobs", 1, "logprobs"),
    ("top_logprobs", 21, "top_logprobs"),
    ("top_logprobs", -1, "top_logprobs"),
    ("top_logprobs", False, "top_logprobs"),
    ("audio", "loud", "audio"),
    ("modalities", "text", "modalities"),
    ("modalities", ["smell"], "modalities[0]"),
    ("moderation", True, "moderation"),
    ("temperature", 2.1, "temperature"),
    ("temperature", -0.1, "temperature"),
    ("temperature", "hot", "temperature"),
    ("temperature", True, "temperature"),
    ("top_p", 1.1, "top_p"),
    ("top_p", False, "top_p"),
    ("presence_penalty", -2.1, "presence_penalty"),
    ("presence_penalty", True, "presence_penalty"),
    ("frequency_penalty", 2.1, "frequency_penalty"),
    ("frequency_penalty", [], "frequency_penalty"),
    ("seed", 1.5, "seed"),
    ("seed", True, "seed"),
    ("seed", "1", "seed"),
    ("seed", 2**64, "seed"),
    ("logit_bias", [1], "logit_bias"),
    ("logit_bias", {"1": "x"}, "logit_bias.1"),
    ("logit_bias", {"1": True}, "logit_bias.1"),
    ("logit_bias", {"1": 101}, "logit_bias.1"),
    ("user", 7, "user"),
    ("metadata", "x", "metadata"),
    ("metadata", {"a": "b", "c": 1}, "metadata.c"),
    ("metadata", {"a": None}, "metadata.a"),
    ("service_tier", "express", "service_tier"),
    ("service_tier", 1, "service_tier"),
    ("safety_identifier", "x" * 65, "safety_identifier"),
    ("prompt_cache_key", 7, "prompt_cache_key"),
    ("prompt_cache_options", "x", "prompt_cache_options"),
    ("prompt_cache_retention", "48h", "prompt_cache_retention"),
    ("prediction", "x", "prediction"),
    ("prediction", {"type": "image", "content": "x"}, "prediction.type"),
    ("prediction", {"type": "content", "content": 7}, "prediction.content"),
    ("verbosity", "chatty", "verbosity"),
    ("web_search_options", True, "web_search_options"),
    ("stream", 1, "stream"),
    ("store", "yes", "store"),
    ("stream_options", {"include_usage": 1}, "stream_options.include_usage"),
    ("stream_options", {"include_obfuscation": 1}, "stream_options.include_obfuscation"),
]


def test_the_table_has_openais_fields_and_no_others() -> None:
    assert set(FIELDS) == set(properties("CreateChatCompletionRequest"))


def test_every_row_has_its_test() -> None:
    for treatment, tested in ((Treatment.HONOURED, HONOURED), (Treatment.IGNORED, IGNORED)):
        assert set(tested) == {name for name, rule in FIELDS.items() if rule.treatment is treatment}
    assert set(REFUSED) == {name for name, rule in FIELDS.items() if rule.treatment is Treatment.REFUSED}


def valid(fields: dict[str, Any]) -> None:
    """Check that a request is one by OpenAI's schema: else its test says nothing."""
    request = {"model": "m", "messages": [HELLO], **fields}
    assert not list(validator("CreateChatCompletionRequest").iter_errors(request))


@pytest.mark.parametrize("name", HONOURED)
def test_what_is_honoured_makes_another_request(name: str) -> None:
    fields = HONOURED[name]
    valid(fields)
    with_it, without = (
        parse_chat(body(**{key: value for key, value in fields.items() if kept or key != name}))
        for kept in (True, False)
    )
    assert with_it != without
    assert not with_it.ignored


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in IGNORED for value in IGNORED[name]])
def test_what_is_ignored_is_named(name: str, value: object) -> None:
    if name != "seed":  # its limits are beyond what a float holds
        valid({name: value})
    chat = parse_chat(body(**{name: value}))
    assert chat.ignored == [name]
    hint = value if name in {"user", "prompt_cache_key"} else ""
    assert replace(chat, ignored=[]) == replace(parse_chat(body()), hint=hint)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in REFUSED for value in REFUSED[name][0]])
def test_what_is_refused_is_refused(name: str, value: object) -> None:
    valid({name: value})
    with pytest.raises(UnsupportedParameter) as caught:
        parse_chat(body(**{name: value}))
    assert (caught.value.param, caught.value.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in REFUSED for value in REFUSED[name][1]])
def test_what_changes_nothing_is_let_be(name: str, value: object) -> None:
    valid({name: value})
    assert parse_chat(body(**{name: value})) == parse_chat(body())


@pytest.mark.parametrize(("name", "value", "param"), WRONG)
def test_what_cannot_be_is_wrong(name: str, value: object, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body(**{name: value}))
    assert (caught.value.param, caught.value.code) == (param, None)
