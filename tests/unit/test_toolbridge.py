"""The client's tools as the CLI sees them."""

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from claude_coded.claude.toolbridge import PREFIX, RESULT_LIMIT, Bridge, Reply, fits, qualified
from claude_coded.turn import Document, Image, Part, Text, ToolOutcome, ToolSpec

GET = ToolSpec("get", "gets it", '{"properties":{"x":{"type":"integer"}},"type":"object"}')
PUT = ToolSpec("put", "", '{"type":"object"}')


def message(method: str, number: int | None = 1, **params: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    return fields | ({"id": number} if number is not None else {}) | ({"params": params} if params else {})


def call(tool_use: str, number: int = 1) -> dict[str, Any]:
    meta = {"claudecode/toolUseId": tool_use}
    return message("tools/call", number, name="get", arguments={}, _meta=meta)


def outcome(tool_use: str, *parts: Part) -> ToolOutcome:
    return ToolOutcome(tool_use, parts or (Text("42"),))  # type: ignore[arg-type] # as tests give them


def result(reply: Reply | None) -> Any:
    assert reply is not None
    return reply[1]["result"]


def test_it_introduces_itself_in_the_version_that_is_spoken() -> None:
    bridge = Bridge()
    reply = result(bridge.receive("r1", message("initialize", protocolVersion="2025-11-25")))
    assert reply["protocolVersion"] == "2025-11-25"
    assert reply["capabilities"] == {"tools": {"listChanged": True}}
    assert bridge.receive("r2", message("notifications/initialized", None)) == (
        "r2",
        {"jsonrpc": "2.0", "result": {}},
    )
    assert result(bridge.receive("r3", message("ping"))) == {}
    unknown = bridge.receive("r4", message("resources/list", 7))
    assert unknown is not None
    assert (unknown[1]["id"], unknown[1]["error"]["code"]) == (7, -32601)


def test_it_lists_the_tools_so_that_none_is_hidden_asked_about_or_cut() -> None:
    bridge = Bridge()
    assert bridge.offer((GET, PUT))
    before = bridge.listed
    get, put = result(bridge.receive("r", message("tools/list")))["tools"]
    assert (before, bridge.listed) == (False, True)
    assert (get["name"], get["description"], put["name"]) == ("get", "gets it", "put")
    assert get["inputSchema"]["properties"] == {"x": {"type": "integer"}}
    assert get["annotations"] == {"readOnlyHint": True}
    assert get["_meta"] == {"anthropic/alwaysLoad": True, "anthropic/maxResultSizeChars": RESULT_LIMIT}


def test_only_a_change_of_the_tools_is_one() -> None:
    bridge = Bridge()
    assert not bridge.offer(())
    assert bridge.offer((GET,))
    assert not bridge.offer((GET,))
    assert bridge.offer((GET, PUT))


def test_a_call_is_answered_when_its_outcome_comes() -> None:
    bridge = Bridge()
    bridge.begin({"t1", "t2"}, {})
    assert bridge.receive("r1", call("t1", 5)) is None
    (reply,) = bridge.supply([outcome("t1", Text("so"), Image("image/png", "AA=="))])
    assert reply[0] == "r1"
    assert reply[1]["id"] == 5
    assert result(reply)["content"] == [
        {"type": "text", "text": "so"},
        {"type": "image", "data": "AA==", "mimeType": "image/png"},
    ]


def test_an_outcome_that_is_there_first_waits_for_the_call() -> None:
    bridge = Bridge()
    bridge.begin({"t1"}, {})
    assert bridge.supply([outcome("t1")]) == []
    assert result(bridge.receive("r1", call("t1")))["content"] == [{"type": "text", "text": "42"}]


def test_a_call_that_the_client_was_not_told_of_is_refused() -> None:
    """A subagent's, for one."""
    bridge = Bridge()
    bridge.begin(set(), {"t2": "The arguments do not fit."})
    assert result(bridge.receive("r1", call("t1")))["isError"]
    refused = result(bridge.receive("r2", call("t2")))
    assert (refused["isError"], refused["content"][0]["text"]) == (True, "The arguments do not fit.")


def test_a_call_that_is_found_at_fault_while_it_waits_is_refused_then() -> None:
    bridge, refused = Bridge(), dict[str, str]()
    bridge.begin({"t1"}, refused)
    assert bridge.receive("r1", call("t1")) is None
    assert bridge.refuse() == []
    refused["t1"] = "No."
    (reply,) = bridge.refuse()
    assert (reply[0], result(reply)["content"][0]["text"]) == ("r1", "No.")
    assert refused == {}


def test_a_new_turn_knows_nothing_of_the_calls_before() -> None:
    bridge = Bridge()
    bridge.begin({"t1"}, {})
    bridge.receive("r1", call("t1"))
    bridge.supply([outcome("t0")])
    bridge.begin({"t0"}, {})
    assert bridge.receive("r2", call("t0")) is None
    assert bridge.supply([outcome("t1")]) == []


def test_what_cannot_be_the_answer_to_a_call_goes_another_way() -> None:
    assert fits(outcome("t", Text("x" * RESULT_LIMIT), Image("image/png", "AA==")))
    assert not fits(outcome("t", Text("x" * RESULT_LIMIT), Text("y")))
    assert not fits(outcome("t", Document("application/pdf", "AA==")))


def test_plain_names_stay_as_they_are() -> None:
    assert qualified("get_weather-2") == "mcp__client__get_weather-2"
    assert qualified("x" * 64) == PREFIX + "x" * 64


@given(st.lists(st.text(min_size=1, max_size=80), unique=True, max_size=20))
def test_all_names_become_ones_that_the_api_takes_and_stay_different(names: list[str]) -> None:
    shown = [qualified(name) for name in names]
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", name) for name in shown)
    assert len(set(shown)) == len(names)
