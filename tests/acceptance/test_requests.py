"""Requests are checked: what is wrong is refused in OpenAI's shape, with the parameter's name."""

from typing import Any

import pytest

from tests.acceptance.conftest import Start
from tests.support.daemon import Answer, Daemon, Model, chat

HI = [{"role": "user", "content": "[[say hi]]"}]


def refused(answer: Answer, status: int, param: str | None, code: str | None = None) -> None:
    assert (answer.status, answer.error["param"], answer.error["code"]) == (status, param, code), answer.body
    assert answer.error["type"] == "invalid_request_error"
    assert answer.error["message"]
    assert answer.headers["X-Request-ID"]


def post(daemon: Daemon, body: Any) -> Answer:
    return daemon.request("POST", "/v1/chat/completions", json=body)


def test_an_unknown_model_is_a_404(daemon: Daemon) -> None:
    refused(daemon.ask("hi", model="gpt-4o"), 404, "model", "model_not_found")


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"nonsense", b'{"model": "claude-code", "messages": [}', b"\xff\xfe"]
)
def test_malformed_json_is_a_400(daemon: Daemon, raw: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = daemon.request("POST", "/v1/chat/completions", content=raw, headers=headers)
    refused(answer, 400, None)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": 7, "messages": HI}, "model"),
        ({"model": "claude-code", "messages": "hi"}, "messages"),
        ({"model": "claude-code", "messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"model": "claude-code", "messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role"),
        ({"model": "claude-code", "messages": HI, "stream": "yes"}, "stream"),
        ({"model": "claude-code", "messages": HI, "stream_options": 1}, "stream_options"),
        (
            {"model": "claude-code", "messages": HI, "stream": True, "stream_options": {"include_usage": 1}},
            "stream_options.include_usage",
        ),
        ({"model": "", "messages": HI}, "model"),
        ({"model": "claude-code", "messages": []}, "messages"),
        ({"model": "claude-code", "messages": [{"role": "user", "content": " "}]}, "messages[0].content"),
        ({"model": "claude-code", "messages": [{"role": "system", "content": "x"}]}, "messages[0].role"),
        (
            {"model": "claude-code", "messages": [*HI, {"role": "assistant", "content": "x"}]},
            "messages[1].role",
        ),
    ],
)
def test_what_is_wrong_is_named(daemon: Daemon, body: Any, param: str) -> None:
    refused(post(daemon, body), 400, param)


def test_missing_fields_are_named_in_words(daemon: Daemon) -> None:
    for field in ("model", "messages"):
        body = chat("hi")
        del body[field]
        answer = post(daemon, body)
        assert answer.status == 400
        assert field in answer.error["message"]


@pytest.mark.parametrize("body", ["[]", "7", '"text"', "null"])
def test_a_body_that_is_no_object_is_a_400(daemon: Daemon, body: str) -> None:
    headers = {"Content-Type": "application/json"}
    refused(daemon.request("POST", "/v1/chat/completions", content=body, headers=headers), 400, None)


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("n", 2, "n"),
        ("tools", [{"type": "custom", "custom": {"name": "f"}}], "tools[0].type"),
        ("response_format", {"type": "grammar"}, "response_format.type"),
        ("logprobs", True, "logprobs"),
        ("audio", {"voice": "alloy", "format": "wav"}, "audio"),
        ("modalities", ["text", "audio"], "modalities"),
        ("moderation", {"model": "omni-moderation-latest"}, "moderation"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    daemon: Daemon, model: Model, field: str, value: Any, param: str
) -> None:
    refused(daemon.ask("hi", **{field: value}), 400, param, "unsupported_parameter")
    assert not model.requests()


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("tools", [{"type": "function", "function": {"name": ""}}], "tools[0].function.name"),
        ("tool_choice", "required", "tool_choice"),
        (
            "response_format",
            {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}},
            "response_format.json_schema.schema",
        ),
        ("stop", ["a", ""], "stop[1]"),
        ("max_tokens", 0, "max_tokens"),
        ("reasoning_effort", "hard", "reasoning_effort"),
    ],
)
def test_what_is_wrong_of_what_is_honoured_is_named(
    daemon: Daemon, model: Model, field: str, value: Any, param: str
) -> None:
    refused(daemon.ask("hi", **{field: value}), 400, param)
    assert not model.requests()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 2.1),
        ("temperature", -0.1),
        ("temperature", "warm"),
        ("top_p", 1.1),
        ("presence_penalty", 3),
        ("frequency_penalty", -3),
        ("seed", 1.5),
        ("verbosity", "chatty"),
    ],
)
def test_a_value_out_of_range_is_refused(daemon: Daemon, field: str, value: Any) -> None:
    refused(daemon.ask("hi", **{field: value}), 400, field)


@pytest.mark.parametrize(
    ("header", "text", "status", "code"),
    [
        ("X-Claude-Permission-Mode", "god", 400, None),
        ("X-Claude-Workspace", "nothing/here", 400, None),
        ("X-Claude-Workspace", "../state", 403, "forbidden"),
        ("X-Claude-Workspace", "/etc", 403, "forbidden"),
        ("X-Claude-Effort", "some", 400, None),
    ],
)
def test_a_choice_that_is_none_is_refused_by_its_header(
    daemon: Daemon, model: Model, header: str, text: str, status: int, code: str | None
) -> None:
    refused(daemon.ask("hi", headers={header: text}), status, header, code)
    assert not model.requests()


def test_a_mode_beyond_the_operators_is_refused(start: Start) -> None:
    daemon = start(POOL_SIZE=1, CLAUDE_CODED_PERMISSION_MODE="acceptEdits")
    header = "X-Claude-Permission-Mode"
    refused(daemon.ask("hi", headers={header: "bypassPermissions"}), 403, header, "forbidden")
    assert daemon.ask("[[say hi]]", headers={header: "acceptEdits"}).text == "hi"


def test_what_changes_nothing_is_ignored_and_named(daemon: Daemon, name: str) -> None:
    answer = daemon.ask(
        "[[say hi]]",
        name,
        temperature=0.5,
        seed=7,
        user="me",
        stop=None,
        n=1,
        tools=[],
        some_novelty={"a": 1},
    )
    assert answer.text == "hi"
    assert answer.headers["X-Claude-Coded-Ignored"] == "seed, some_novelty, temperature, user"
    assert "X-Claude-Coded-Ignored" not in daemon.ask("[[say hi]]", name).headers


PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
    "awAAAABJRU5ErkJggg=="
)


def test_text_and_image_parts_are_taken_and_others_refused(daemon: Daemon, name: str) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two [[recall]]"}]
    assert daemon.ask([{"role": "user", "content": parts}], name).said == ["one", "two [[recall]]"]
    image = [{"type": "image_url", "image_url": {"url": PIXEL}}, {"type": "text", "text": "[[images]]"}]
    assert daemon.ask([{"role": "user", "content": image}], name).text == "1"
    sound = [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]
    answer = daemon.ask([{"role": "user", "content": sound}], name)
    refused(answer, 400, "messages[0].content[0].type", "unsupported_parameter")


def test_a_tools_result_without_a_call_is_refused(daemon: Daemon, name: str) -> None:
    answer = daemon.ask([*HI, {"role": "tool", "tool_call_id": "x", "content": "y"}], name)
    refused(answer, 400, "messages[1].tool_call_id", None)


def test_a_body_that_is_too_large_is_a_413(start: Start) -> None:
    daemon = start(POOL_SIZE=1, CLAUDE_CODED_MAX_BODY_BYTES=20000)
    answer = daemon.ask("x" * 30000)
    assert (answer.status, answer.error["type"]) == (413, "invalid_request_error")
    assert answer.headers["X-Request-ID"]
    chunks = (b"x" * 1000 for _ in range(30))
    headers = {"Content-Type": "application/json"}
    assert daemon.request("POST", "/v1/chat/completions", content=chunks, headers=headers).status == 413
    assert daemon.ask("[[say hi]]" + " " * 15000).text == "hi"


def test_a_large_prompt_goes_through(daemon: Daemon, name: str) -> None:
    text = "[[say got it]] " + "x" * 500_000
    assert daemon.ask(text, name, model="claude-code-chat").text == "got it"


def test_a_body_that_is_not_json_by_its_type_is_refused(daemon: Daemon) -> None:
    answer = daemon.request(
        "POST", "/v1/chat/completions", content="{}", headers={"Content-Type": "text/plain"}
    )
    assert answer.status == 415
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v1/chat/completions/x", "/conversations/a/b"])
def test_an_unknown_path_is_a_404(daemon: Daemon, path: str) -> None:
    answer = daemon.get(path)
    assert (answer.status, answer.error["type"]) == (404, "invalid_request_error")
    assert answer.headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", {"POST"}),
        ("PUT", "/v1/chat/completions", {"POST"}),
        ("POST", "/v1/models", {"GET"}),
        ("DELETE", "/health", {"GET"}),
        ("POST", "/conversations/x", {"GET", "DELETE"}),
    ],
)
def test_a_wrong_method_is_a_405_that_names_the_right_ones(
    daemon: Daemon, method: str, path: str, allowed: set[str]
) -> None:
    answer = daemon.request(method, path)
    assert (answer.status, answer.error["type"]) == (405, "invalid_request_error")
    assert {name.strip() for name in answer.headers["Allow"].split(",")} - {"OPTIONS", "HEAD"} == allowed


@pytest.mark.parametrize(
    "text", ["--version", "-p", "/clear", "/cost", "/compact", "@/etc/passwd", "!ls", "#remember"]
)
def test_prompts_reach_the_model_as_they_are(daemon: Daemon, model: Model, text: str) -> None:
    answer = daemon.ask(text, "prompts")
    assert answer.text.endswith(f"You said: {text}")
    assert not any("root:" in str(body["messages"]) for body in model.requests(text))
    assert daemon.ask("[[recall]]", "prompts").said[-2:] == [text, "[[recall]]"]
