"""Commands to the CLI, and the life of a worker."""

from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.claude.protocol import (
    LONGEST_RUN,
    TRANSITIONS,
    IllegalTransition,
    Life,
    Protocol,
    Setup,
    WorkerState,
    message_line,
    split_batches,
)
from claude_coded.claude.wire import ControlRequest
from claude_coded.turn import Image, Message, Prompting, Role, Text, ToolCall, ToolOutcome


def test_a_request_carries_the_id_that_its_answer_will_have() -> None:
    protocol = Protocol()
    line, first = protocol.set_model("haiku")
    _, second = protocol.set_model("haiku")
    sent = orjson.loads(line)
    assert sent["type"] == "control_request"
    assert sent["request_id"] == first != second
    assert line.endswith(b"\n")


@pytest.mark.parametrize(
    ("setup", "fields"),
    [
        (Setup(), {"hooks": None}),
        (Setup("be brief"), {"hooks": None, "appendSystemPrompt": "be brief"}),
        (Setup("you are X", Prompting.REPLACING), {"hooks": None, "systemPrompt": ["you are X"]}),
        (Setup("", Prompting.REPLACING), {"hooks": None, "systemPrompt": []}),
        (Setup(resumed=True), {"hooks": None, "systemPromptSnapshot": False}),
    ],
)
def test_setup(setup: Setup, fields: dict[str, object]) -> None:
    assert setup.request() == fields


def test_a_rewind_names_the_first_message_to_go_and_the_last_that_was_sent() -> None:
    request = orjson.loads(Protocol().rewind("u1", "u3")[0])["request"]
    assert request == {
        "subtype": "rewind_conversation",
        "target_message_uuid": "u1",
        "last_seen_user_message_uuid": "u3",
        "interrupt_if_running": True,
    }


def test_text_goes_in_as_written() -> None:
    line = orjson.loads(message_line(Message.of(Role.USER, "/clear @/etc/passwd"), "u", query=True))
    assert line["client_composed"] is True
    assert line["message"]["content"] == [{"type": "text", "text": "/clear @/etc/passwd"}]
    assert "shouldQuery" not in line
    assert orjson.loads(message_line(Message.of(Role.USER, "x"), "u", query=False))["shouldQuery"] is False


def test_parts_become_the_blocks_of_the_messages_api() -> None:
    call = ToolCall("c1", "f", '{"x": 1}')
    said = Message(Role.ASSISTANT, (Text("so"), call))
    outcome = Message(Role.USER, (ToolOutcome("c1", (Text("42"), Image("image/png", "AA=="))),))
    line = orjson.loads(message_line(said, "u", query=False))
    assert line["type"] == "assistant"
    assert line["message"]["content"][1] == {
        "type": "tool_use",
        "id": "c1",
        "name": "mcp__client__f",
        "input": {"x": 1},
    }
    (block,) = orjson.loads(message_line(outcome, "u", query=True))["message"]["content"]
    assert (block["type"], block["tool_use_id"]) == ("tool_result", "c1")
    assert block["content"] == [
        {"type": "text", "text": "42"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
    ]


def test_a_question_of_the_cli_is_refused_so_that_it_goes_on() -> None:
    answer = orjson.loads(Protocol().refuse(ControlRequest("q1", {"subtype": "hook_callback"}), "no"))
    assert answer["response"] == {"subtype": "error", "request_id": "q1", "error": "no"}


@given(st.lists(st.sampled_from(Role)))
def test_seeds_are_cut_after_each_user_message_and_none_is_lost(roles: list[Role]) -> None:
    seeds = [(Message.of(role, str(n)), f"u{n}") for n, role in enumerate(roles)]
    runs = list(split_batches(seeds))
    assert [seed for run in runs for seed in run] == seeds
    assert all(run for run in runs)
    for run in runs[:-1]:
        assert [message.role for message, _ in run].count(Role.USER) == 1
        assert run[-1][0].role is Role.USER


def test_a_long_row_of_answers_is_cut() -> None:
    seeds = [(Message.of(Role.ASSISTANT, str(n)), f"u{n}") for n in range(2 * LONGEST_RUN + 1)]
    runs = list(split_batches(seeds))
    assert [len(run) for run in runs] == [LONGEST_RUN, LONGEST_RUN, 1]
    assert [seed for run in runs for seed in run] == seeds


@given(st.lists(st.sampled_from(WorkerState), max_size=30))
def test_a_life_follows_the_table_and_tells_its_story(wishes: list[WorkerState]) -> None:
    life = Life(0.0)
    for at, wish in enumerate(wishes):
        allowed = wish in TRANSITIONS[life.state]
        if allowed:
            life.transition(wish, "wished", float(at))
        else:
            with pytest.raises(IllegalTransition, match=wish.value):
                life.transition(wish, "wished", float(at))
    for before, after in pairwise(step.state for step in life.story):
        assert after in TRANSITIONS[before]
    assert life.story[-1].state is life.state


def test_every_state_can_end_and_death_is_final() -> None:
    assert TRANSITIONS[WorkerState.DEAD] == frozenset()
    for state in set(WorkerState) - {WorkerState.DEAD}:
        assert WorkerState.DEAD in TRANSITIONS[state]
