"""The scripted Messages API: what a script says, what a history says, and where a script goes on."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.offline import OfflineModel, parse_script, read_conversation
from claude_coded.offline.script import (
    Ask,
    Call,
    Cut,
    Delay,
    Fail,
    Pause,
    Say,
    Step,
    Stop,
    Think,
    Tools,
    Words,
)
from tests.support.offline import REMINDER, ask, assistant, fold, result, text_of, user

LIMIT_LINE = "Output token limit hit. Resume directly."
WRAPPED = "<system-reminder>\n{}\n</system-reminder>"  # 2.1.331 wraps its lines so, 2.1.330 did not


@pytest.fixture
def app() -> OfflineModel:
    return OfflineModel()


# --- The script


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("no directive, [[1, 2]] and [x]", ()),
        ("[[never closed", ()),
        ("a [[say  hi there]] b", (Say(" hi there"),)),
        ("[[say]][[say ]]", (Say(""), Say(""))),
        ("[[think hm]][[words 3]]", (Think("hm"), Words(3))),
        ("[[delay 20]] [[pause 1500]]", (Delay(0.02), Pause(1.5))),
        ("[[result]][[max_tokens]]", (Ask("result"), Ask("max_tokens"))),
        ("[[error 529]]", (Fail(529),)),
        ("[[error 429 times 2]]", (Fail(429, 2),)),
        ("[[error 400 saying too long: 2 > 1]]", (Fail(400, None, "too long: 2 > 1"),)),
        ("[[cut]][[cut times 1]]", (Cut(), Cut(1))),
        ("[[stop refusal]][[stop max_tokens]]", (Stop("refusal"), Stop("max_tokens"))),
        ("[[hang]]", (Pause(float("inf")),)),
        ("[[tool Bash]]", (Tools((Call("Bash", "{}"),)),)),
        ('[[tool f {"a": [[1]]}]]', (Tools((Call("f", '{"a": [[1]]}'),)),)),
        ("[[tool f {}]]\n [[tool g {} ]]", (Tools((Call("f", "{}"), Call("g", "{}"))),)),
        ("[[tool f]] then [[tool g]]", (Tools((Call("f", "{}"),)), Tools((Call("g", "{}"),)))),
    ],
)
def test_script(text: str, steps: tuple[Step, ...]) -> None:
    assert parse_script(text) == steps


@pytest.mark.parametrize(
    "text",
    [
        *("bogus", "bogus 1", "words", "words x", "error 200", "error", "stop end_turn", "say:x", "hang on"),
        *(
            "cut 1",
            "tool",
            "tool f {",
            "tool f 1",
            "tool f {} x",
            'tool f {"a": NaN}',
            "tool f " + "[" * 100_000,
        ),
    ],
)
def test_what_is_no_directive_is_said(text: str) -> None:
    assert parse_script(f"[[{text}]]") == (Say(f"unknown directive: {text}"),)


FRAGMENTS = st.sampled_from(
    ["[[", "]]", "tool ", "say ", "error ", "500 ", "times ", "saying ", "words ", "9", "{", "}"]
)


@given(st.lists(FRAGMENTS | st.text(max_size=5)).map("".join) | st.text())
def test_any_text_parses(text: str) -> None:
    for step in parse_script(text):
        assert not isinstance(step, Tools) or step.calls


@given(st.text().filter(lambda text: "]" not in text))
def test_what_is_said_arrives_as_written(text: str) -> None:
    if parse_script(f"[[say x{text}]]"):
        assert text_of(OfflineModel(), f"[[say x{text}]]", max_tokens=10**6) == f"x{text}"


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_tool_input_arrives_as_written(value: Any) -> None:
    script = f"[[tool Bash {json.dumps({'value': value})}]]"
    for stream in (False, True):
        exchange = ask(OfflineModel(), script, max_tokens=10**6, stream=stream)
        message = fold(exchange.events) if stream else exchange.json
        assert message["content"][0]["input"] == {"value": value}
        assert message["stop_reason"] == "tool_use"


# --- What a history says


def test_recall_lists_only_what_the_user_wrote(app: OfflineModel) -> None:
    history = (
        user(REMINDER, "one"),
        {"role": "system", "content": "# Environment\nyou are here"},
        assistant(),
        {"role": "user", "content": "two\n"},
        assistant(),
        user("three\n", "four\n", {"type": "image"}, "five\n", "[Image: source: /tmp/1.png]"),
        assistant(),
        user("[Request interrupted by user]\n", "six"),
        assistant(),
        user("<local-command-caveat>…\n", "<command-name>/usage…\n", "[[recall]]", REMINDER),
    )
    assert json.loads(text_of(app, *history)) == [
        "one",
        "two\n",
        "three",
        "four\n",
        "five",
        "six",
        "[[recall]]",
    ]


def test_a_message_sent_in_mid_turn_counts_as_the_newest(app: OfflineModel) -> None:
    start = "The user sent a new message while you were working:\n"
    line = f"{start}[[recall]]\n\nThis is how Claude Code surfaces messages."
    history = (
        "[[tool Bash]][[say late]]",
        assistant(),
        user(result("ok")),
        {"role": "system", "content": line},
    )
    assert json.loads(text_of(app, *history)) == ["[[tool Bash]][[say late]]", "[[recall]]"]


def test_questions_about_the_request(app: OfflineModel) -> None:
    image = {"type": "image", "source": {}}
    shot = {**result(""), "content": [image, {"type": "text", "text": "shot"}]}
    system = [
        {"type": "text", "text": text} for text in ("x-anthropic-billing-header: v", "Be brief.", "Be kind.")
    ]
    script = "[[model]]|[[max_tokens]]|[[images]]|[[offered]]|[[system]]".replace("|", "[[say |]]")
    said = text_of(app, user("x", image), assistant(), user(shot), assistant(), script, system=system)
    assert said == 'claude-test|1000|2|["Bash"]|Be brief.\nBe kind.'


def test_history_is_given_normalised(app: OfflineModel) -> None:
    call = {"type": "tool_use", "id": "t", "name": "Bash", "input": {"a": 1}}
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    history = (
        user(REMINDER, "go", {"type": "image"}),
        {"role": "assistant", "content": [thought, call]},
        user(result("bad", is_error=True)),
        "[[history]]",
    )
    assert json.loads(text_of(app, *history)) == [
        {"role": "user", "text": "go"},
        {"role": "user", "type": "image"},
        {"role": "assistant", "thinking": "hm"},
        {"role": "assistant", "tool_use": "Bash", "input": {"a": 1}},
        {"role": "user", "tool_result": "error: bad"},
        {"role": "user", "text": "[[history]]"},
    ]


BLOCKS = st.dictionaries(
    st.sampled_from(["type", "text", "content", "is_error"]),
    st.sampled_from(["text", "tool_result", "image"])
    | st.text()
    | st.none()
    | st.lists(st.just({"type": "text"})),
)


@given(
    st.lists(st.fixed_dictionaries({"role": st.text(), "content": st.text() | st.lists(BLOCKS) | st.none()}))
)
def test_any_history_is_read(messages: list[Any]) -> None:
    assert read_conversation({"messages": messages}).body["messages"] is messages


# --- Where a script goes on


def test_steps_after_a_call_run_when_its_results_came(app: OfflineModel) -> None:
    script = "[[say a]][[tool Bash]] [[tool Bash]][[result]][[tool Bash]][[say b]]"
    results = user(result("one"), result("two", is_error=True))
    assert text_of(app, script) == "a<tool_use><tool_use>"
    assert text_of(app, script, assistant(), results) == "one\nerror: two<tool_use>"
    assert text_of(app, script, assistant(), results, assistant(), user(result("three"), REMINDER)) == "b"
    assert text_of(app, script, *(assistant(), results) * 3) == "done"


def test_a_new_message_starts_its_own_script(app: OfflineModel) -> None:
    assert text_of(app, "[[tool Bash]][[say old]]", assistant(), user(result("x"), "[[say new]]")) == "new"


def test_results_in_two_messages_are_one_round(app: OfflineModel) -> None:
    history = ("[[tool Bash]][[tool Bash]][[result]]", assistant(), user(result("1")), user(result("2")))
    assert text_of(app, *history) == "1\n2"


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("reason", ["max_tokens", "refusal"])
def test_a_stopped_reply_goes_on(app: OfflineModel, reason: str, wrapped: bool) -> None:
    line = LIMIT_LINE if reason == "max_tokens" else "Your response above was stopped by a safety classifier."
    line = WRAPPED.format(line) if wrapped else line
    script = f"[[say a]][[stop {reason}]][[say b]]"
    assert ask(app, script).json["stop_reason"] == reason
    assert text_of(app, script, assistant(), line) == "b"
    assert text_of(app, user(f"{script}\n", line)) == "b"


def test_a_cut_reply_goes_on(app: OfflineModel) -> None:
    line = "Your response above was cut off mid-stream. Resume directly."
    script = "[[think a]][[say b]][[cut times 1]][[say c]]"
    assert text_of(app, script, assistant(), line) == "c"
    assert text_of(app, "[[say b]][[error 529]]", assistant(), line) == "continued"
    assert (
        text_of(app, "[[tool Bash]][[cut]][[say d]]", assistant(), user(result("x")), assistant(), line)
        == "d"
    )


def test_a_reply_cut_by_the_limit_goes_on_at_the_next_call(app: OfflineModel) -> None:
    assert text_of(app, "[[words 50]]", assistant(), LIMIT_LINE) == "continued"
    assert text_of(app, "[[words 50]][[tool Bash]][[say x]]", assistant(), LIMIT_LINE) == "<tool_use>"


@pytest.mark.parametrize(
    "notice",
    [
        "<system-reminder>\n[SYSTEM NOTIFICATION - NOT USER INPUT]\nended\n</system-reminder>",
        "[structured-output-enforce] You MUST call the StructuredOutput tool",
    ],
)
def test_news_of_the_cli_repeats_nothing(app: OfflineModel, notice: str) -> None:
    assert text_of(app, "[[say once]]", assistant(), notice) == "noted"
    assert text_of(app, "[[tool Bash]][[say x]]", assistant(), user(result("ok"), notice)) == "x"


def test_tools_are_found_by_their_short_name(app: OfflineModel) -> None:
    tools = [{"name": "mcp__client__get"}, {"name": "mcp__a__two"}, {"name": "mcp__b__two"}]
    content = ask(app, "[[tool get]] [[tool two]] [[tool none]][[say x]]", tools=tools).json["content"]
    assert content[0]["text"] == "no such tool on offer: twono such tool on offer: none"
    assert [block["name"] for block in content[1:]] == ["mcp__client__get"]
    assert text_of(app, "[[tool none]][[say  x]]") == "no such tool on offer: none x"
