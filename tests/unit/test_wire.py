"""Lines and messages of the CLI."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.claude.wire import (
    Assistant,
    ControlCancel,
    ControlRequest,
    ControlResponse,
    LineSplitter,
    LineTooLong,
    Result,
    StreamEvent,
    System,
    Unknown,
    User,
    parse,
)
from tests.support.record import DATA


@given(lines=st.lists(st.binary().map(lambda b: b.replace(b"\n", b""))), cuts=st.lists(st.integers(0, 40)))
def test_lines_are_the_same_for_any_chunks(lines: list[bytes], cuts: list[int]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    splitter, got, start = LineSplitter(), [], 0
    for size in (*cuts, len(data)):
        got += splitter.feed(data[start : start + size])
        start += size
    assert got == lines


def test_a_line_without_end_is_given_up_at_the_limit() -> None:
    splitter = LineSplitter(limit=10)
    splitter.feed(b"12345")
    splitter.feed(b"\n1234567890")
    with pytest.raises(LineTooLong):
        splitter.feed(b"1")
    assert splitter.feed(b"2\n") == [b"2"]  # nothing of it is held any more


@given(st.binary())
def test_no_line_is_fatal(line: bytes) -> None:
    parse(line)


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none() | st.lists(st.integers())))
def test_no_object_is_fatal(value: dict[str, object]) -> None:
    for kind in ("system", "stream_event", "assistant", "user", "result", "control_response", "new_kind"):
        parse(json.dumps({**value, "type": kind}).encode())


def test_a_kind_or_a_shape_that_is_not_known_is_kept() -> None:
    assert parse(b'{"type":"tomorrow","x":1}') == Unknown("tomorrow", b'{"type":"tomorrow","x":1}')
    assert parse(b'{"type":"result","num_turns":"many"}') == Unknown(
        "result", b'{"type":"result","num_turns":"many"}'
    )
    assert parse(b'{"no":"type"}') == Unknown("", b'{"no":"type"}')
    assert parse(b"{}\0") == Unknown("", b"{}\0")


@pytest.mark.parametrize("line", [b"", b"a stray print", b"{half", b"[1]", b'\xff\xfe{"type":"system"}'])
def test_what_is_no_message_is_passed_over(line: bytes) -> None:
    assert parse(line) is None


@pytest.mark.parametrize(
    "kind", [b'"system","subtype":', b'"control_request","request_id":"1","request":{"x":']
)
@pytest.mark.parametrize("end", [b"", b"]" * 100_000 + b"}"])
def test_a_line_nested_as_deep_as_no_message_is_not_fatal(kind: bytes, end: bytes) -> None:
    assert not isinstance(parse(b'{"type":' + kind + b"[" * 100_000 + end), System | ControlRequest)


def test_half_a_surrogate_pair_costs_one_character_and_not_the_line() -> None:
    line = rb'{"type":"result","result":"a\ud83d b","num_turns":2}'
    message = parse(line)
    assert isinstance(message, Result)
    assert (message.result, message.num_turns) == ("a? b", 2)


def test_every_kind_that_matters_is_known_in_real_transcripts() -> None:
    seen = set()
    for file in DATA.glob("*.jsonl"):
        for line in file.read_bytes().splitlines():
            message = parse(line)
            if isinstance(message, Unknown):
                assert message.type not in {"system", "stream_event", "assistant", "user", "result"}, line
            seen.add(type(message))
    assert {System, StreamEvent, Assistant, User, Result, ControlResponse} <= seen


def test_a_question_of_the_cli() -> None:
    line = b'{"type":"control_request","request_id":"r","request":{"subtype":"can_use_tool"}}'
    assert parse(line) == ControlRequest("r", {"subtype": "can_use_tool"})
    assert parse(b'{"type":"control_cancel_request","request_id":"r"}') == ControlCancel("r")
