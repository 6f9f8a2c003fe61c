"""What Claude asks to be allowed, and what an "always" covers of it."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.claude.permits import RULE_LIMIT, Permit, allowed, denied, read
from claude_coded.claude.protocol import Protocol
from claude_coded.claude.wire import ControlRequest, parse

Json = dict[str, Any]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
INPUTS = st.dictionaries(st.sampled_from(["command", "file_path", "url", "timeout", "x"]), JSON, max_size=3)
TOOLS = st.sampled_from(["Bash", "Edit", "Write", "WebFetch", "WebSearch", "mcp__a__b"])
PATHS = st.none() | st.sampled_from(["/w/a", '/w/b" at "/w/a'])


def ask(tool: str, given: Json, **more: Any) -> Permit:
    request = {"subtype": "can_use_tool", "tool_name": tool, "input": given, **more}
    permit = read(ControlRequest("r", request))
    assert permit is not None
    return permit


def rule(tool: str, given: Json, **more: Any) -> str:
    return ask(tool, given, **more).rule


def suggest(*rules: Json, **more: Any) -> list[Json]:
    return [{"type": "addRules", "rules": list(rules), "behavior": "allow", **more}]


def test_a_question_as_the_cli_asks_it() -> None:
    line = b"""{"type":"control_request","request_id":"r7","request":{"subtype":"can_use_tool",
    "tool_name":"Bash","display_name":"Bash","input":{"command":"mkdir foo","description":"Make it"},
    "description":"mkdir foo",
    "permission_suggestions":[{"type":"addRules","rules":[{"toolName":"Bash","ruleContent":"mkdir foo *"}],
    "behavior":"allow","destination":"localSettings"},{"type":"setMode","mode":"acceptEdits",
    "destination":"session"}],"blocked_path":"/w/foo","tool_use_id":"toolu_1"}}""".replace(b"\n", b"")
    message = parse(line)
    assert isinstance(message, ControlRequest)
    assert read(message) == Permit(
        "r7",
        "Bash",
        {"command": "mkdir foo", "description": "Make it"},
        "mkdir foo",
        'Bash {"command":"mkdir foo"} at "/w/foo"',
    )


@pytest.mark.parametrize(
    "request_",
    [
        {"subtype": "mcp_message", "tool_name": "Bash", "input": {}},
        {"subtype": "can_use_tool", "input": {}},
        {"subtype": "can_use_tool", "tool_name": "Bash"},
        {"subtype": "can_use_tool", "tool_name": ["Bash"], "input": {}},
        {"subtype": "can_use_tool", "tool_name": "Bash", "input": "ls"},
        {},
    ],
)
def test_what_is_no_such_question(request_: Json) -> None:
    assert read(ControlRequest("r", request_)) is None


@given(request=st.dictionaries(st.text(max_size=8), JSON), tool=TOOLS, given_=INPUTS, suggestions=JSON)
def test_nothing_that_comes_with_a_question_breaks_it(
    request: Json, tool: str, given_: Json, suggestions: Any
) -> None:
    request |= {"subtype": "can_use_tool", "tool_name": tool, "input": given_}
    permit = read(ControlRequest("r", {**request, "permission_suggestions": suggestions}))
    assert permit is not None
    line = Protocol().answer_permit("r", allowed(permit, "m"))
    answer = parse(line.removesuffix(b"\n"))
    assert answer is not None


@given(tool=TOOLS, one=INPUTS, two=INPUTS, path=PATHS, other=PATHS)
def test_equal_rules_are_of_one_tool_one_path_and_what_counts_of_the_input(
    tool: str, one: Json, two: Json, path: str | None, other: str | None
) -> None:
    same = rule(tool, one, blocked_path=path) == rule(tool, two, blocked_path=other)
    if same:
        assert path == other
        for name in ("command", "file_path") if tool in {"Bash", "Edit", "Write"} else ():
            ignored = name == "command" and tool in {"Edit", "Write"}
            assert ignored or as_json(one.get(name)) == as_json(two.get(name))
    assert rule(tool, one) == rule(tool, dict(reversed(one.items())))
    assert rule("Bash", one) != rule("Edit", one)


def as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize(
    ("tool", "one", "two"),
    [
        ("Bash", {"command": "npm test", "timeout": 5}, {"command": "npm test", "description": "again"}),
        ("Monitor", {"command": "make", "description": "1"}, {"command": "make", "description": "2"}),
        ("Edit", {"file_path": "/w/a", "new_string": "1"}, {"file_path": "/w/a", "new_string": "2"}),
        ("Write", {"file_path": "/w/a", "content": "1"}, {"file_path": "/w/a", "content": "2"}),
        ("Read", {"file_path": "/w/a", "offset": 1}, {"file_path": "/w/a"}),
        ("NotebookEdit", {"notebook_path": "/w/n", "new_source": ""}, {"notebook_path": "/w/n"}),
        ("WebFetch", {"url": "https://a.org/x", "prompt": "p"}, {"url": "https://a.org?y=1", "prompt": "q"}),
    ],
)
def test_what_does_not_matter_makes_no_other_rule(tool: str, one: Json, two: Json) -> None:
    assert rule(tool, one) == rule(tool, two) != ""


@pytest.mark.parametrize(
    ("tool", "one", "two"),
    [
        ("Bash", {"command": "npm test"}, {"command": "npm test; rm -rf /"}),
        ("Bash", {"command": "ls"}, {"command": "ls", "dangerouslyDisableSandbox": True}),
        ("Bash", {"command": "touch *"}, {"command": "touch a"}),
        ("Edit", {"file_path": "/w/*"}, {"file_path": "/w/a"}),
        ("WebFetch", {"url": "https://a.org/"}, {"url": "http://a.org/"}),
        ("WebFetch", {"url": "https://a.org/"}, {"url": "https://a.org.b.org/"}),
        ("WebFetch", {"url": "https://a.org/"}, {"url": "https://a.org:8443/"}),
        ("WebFetch", {"url": "https://a.org/"}, {"url": "https://a.org@b.org/"}),
        ("WebFetch", {"url": "https://a.org"}, {"url": "https://a.org\\@b.org/"}),
        ("WebFetch", {"url": "https:/\\b.org/"}, {"url": "https:/\\c.org/"}),
        ("mcp__a__b", {"x": 1}, {"x": 2}),
    ],
)
def test_what_matters_makes_another_rule(tool: str, one: Json, two: Json) -> None:
    assert rule(tool, one) != rule(tool, two)


def test_a_link_that_leads_elsewhere_makes_another_rule() -> None:
    given = {"file_path": "/w/link"}
    assert rule("Read", given, blocked_path="/etc/a") != rule("Read", given, blocked_path="/etc/b")


def test_a_tool_is_allowed_as_a_whole_where_the_cli_would_do_so() -> None:
    for tool in ("WebSearch", "mcp__a__b"):
        assert rule(tool, {"x": 1}, permission_suggestions=suggest({"toolName": tool})) == tool
        for wrong in (
            suggest({"toolName": tool, "ruleContent": "x"}),
            suggest({"toolName": "other"}),
            suggest({"toolName": tool}, behavior="deny"),
            suggest({"toolName": tool}, {"toolName": "Bash"}),
            [{"type": "setMode", "mode": "bypassPermissions"}],
        ):
            assert rule(tool, {"x": 1}, permission_suggestions=wrong) == f'{tool} {{"x":1}}'
    for tool in ("Bash", "Edit", "Write", "Read"):
        assert rule(tool, {}, permission_suggestions=suggest({"toolName": tool})) == f"{tool} {{}}"


def test_what_has_to_be_answered_each_time() -> None:
    assert rule("AskUserQuestion", {"questions": []}, requires_user_interaction=True) == ""
    assert rule("Bash", {"command": "x" * RULE_LIMIT}) == ""


def test_answers() -> None:
    assert denied("no") == {"behavior": "deny", "message": "no"}
    plain = ask("Bash", {"command": "ls"})
    assert allowed(plain, "fine") == {"behavior": "allow", "updatedInput": {"command": "ls"}}
    question = ask("AskUserQuestion", {"questions": [{"question": "Which?"}, {"question": "Why?"}]})
    answers = allowed(question, "b")["updatedInput"]["answers"]
    assert answers == {"Which?": "b", "Why?": "b"}
    assert "answers" not in allowed(question)["updatedInput"]


def test_an_answer_gives_back_numbers_as_they_came() -> None:
    given = {"small": 1, "large": 10**20, "part": 0.5}
    line = Protocol().answer_permit("r7", allowed(ask("mcp__a__b", given)))
    assert line.endswith(b"\n")
    assert b"100000000000000000000" in line
    sent = orjson.loads(line)
    assert sent["type"] == "control_response"
    assert (sent["response"]["request_id"], sent["response"]["subtype"]) == ("r7", "success")
