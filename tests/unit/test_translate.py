"""The CLI's messages -> events, from recordings of the real CLI (tests/data) and by hand."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claude_coded.claude.protocol import Protocol
from claude_coded.claude.translate import Terms, Translator, summarize, upstream_error
from claude_coded.claude.wire import (
    ApiEvent,
    ApiMessage,
    ApiUsage,
    Assistant,
    Block,
    Delta,
    Line,
    Result,
    StreamEvent,
    System,
    User,
)
from claude_coded.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    ModelNotFound,
    SchemaNotMet,
    UpstreamAuthentication,
    UpstreamError,
    UpstreamOverloaded,
    UpstreamRateLimited,
    WorkerDied,
)
from claude_coded.turn import (
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolActivity,
    ToolCallDelta,
    ToolCallStarted,
    ToolSpec,
    TurnEvent,
    TurnFailed,
    TurnFinished,
    Usage,
)
from tests.support.record import DATA, TURN, TURNS


def events_of(name: str, sizes: Iterable[int] = (), retries: int = 3) -> list[TurnEvent]:
    """Translate a recording, cut into chunks of these sizes (the rest in one)."""
    data = (DATA / f"{name}.jsonl").read_bytes()
    protocol, translator = Protocol(), Translator(TURN, retries=retries)
    events: list[TurnEvent] = []
    start = 0
    for size in (*sizes, len(data)):
        for message in protocol.receive(data[start : start + size]):
            events += translator.feed(message)
        start += size
    return events


def text_of(events: Iterable[TurnEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def translate(*messages: Line, retries: int = 3) -> list[TurnEvent]:
    translator = Translator("u", retries=retries)
    begin = System(subtype="init", user_message_uuids=["u"])
    return [event for message in (begin, *messages) for event in translator.feed(message)]


def test_a_turn_that_ends_without_its_result_has_failed() -> None:
    idle = System(subtype="session_state_changed", state="idle")
    *events, end = translate(start("m"), delta("half an answer"), idle)
    assert events == [TextDelta("half an answer")]
    assert isinstance(end, TurnFailed)
    assert isinstance(end.error, WorkerDied)


def test_the_end_of_the_turn_before_is_none_of_this_one() -> None:
    translator = Translator("u", retries=0)
    assert translator.feed(System(subtype="session_state_changed", state="idle")) == []
    assert not translator.ended


def start(message_id: str) -> StreamEvent:
    return StreamEvent(ApiEvent("message_start", message=ApiMessage(id=message_id)))


def delta(text: str) -> StreamEvent:
    return StreamEvent(ApiEvent("content_block_delta", delta=Delta("text_delta", text=text)))


def stop(reason: str) -> StreamEvent:
    return StreamEvent(ApiEvent("message_delta", delta=Delta(stop_reason=reason)))


def whole(message_id: str, text: str) -> Assistant:
    return Assistant(ApiMessage([Block("text", text=text)], id=message_id))


def test_a_turn_with_thinking_tools_and_text() -> None:
    events = events_of("text_thinking_tools")
    assert text_of(events) == "Looking.\n\nTwo commands later."
    thought = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    assert thought == "let me see"
    assert [event for event in events if isinstance(event, ToolActivity)] == [
        ToolActivity("Bash", "echo one"),
        ToolActivity("Bash", "exit 3"),
        ToolActivity("Bash", "", failure="Exit code 3"),
    ]
    end = events[-1]
    assert isinstance(end, TurnFinished)
    assert end.reason is FinishReason.STOP
    assert end.usage.input > end.usage.cache_read > 0
    assert end.usage.output > 0
    assert end.usage.cost_usd > 0


def test_deltas_are_the_models_own() -> None:
    texts = [event.text for event in events_of("token_limit") if isinstance(event, TextDelta)]
    assert texts[:4] == ["w0 ", "w1 ", "w2 ", "w3 "]


def test_an_answer_cut_off_by_a_token_limit_goes_on_with_no_gap() -> None:
    assert text_of(events_of("token_limit")) == "w0 w1 w2 w3 w0 w1 w2 w3 "


@pytest.mark.parametrize("name", ["broken_stream", "stream_error"])
def test_a_stream_that_broke_off_and_came_again_is_sent_once(name: str) -> None:
    events = events_of(name)
    assert text_of(events) == "w0 w1 w2 w3 w4 w5 w0 w1 w2 "
    assert isinstance(events[-1], TurnFinished)


def test_a_subagents_text_stays_out() -> None:
    events = events_of("subagent")
    assert text_of(events) == "The agent is back."
    assert ToolActivity("Agent", "look") in events


def test_a_refusal_is_told_by_the_finish_reason() -> None:
    end = events_of("refusal")[-1]
    assert isinstance(end, TurnFinished)
    assert end.reason is FinishReason.REFUSAL


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("overloaded", UpstreamOverloaded),
        ("refused_key", UpstreamAuthentication),
        ("too_long", ContextLengthExceeded),
    ],
)
def test_an_api_error_is_an_error_and_never_text(name: str, error: type[Exception]) -> None:
    (end,) = events_of(name)
    assert isinstance(end, TurnFailed)
    assert type(end.error) is error


def test_a_refused_key_is_told_at_the_first_try() -> None:
    (end,) = translate(System(subtype="api_retry", attempt=1, error_status=401))
    assert isinstance(end, TurnFailed)
    assert end.error.status == 502
    assert end.error.headers()["x-should-retry"] == "false"


def test_other_api_errors_are_given_up_after_the_tries_that_are_allowed() -> None:
    def tries(attempts: int) -> list[TurnEvent]:
        retry = [System(subtype="api_retry", attempt=n + 1, error_status=529) for n in range(attempts)]
        return translate(*retry, retries=2)

    assert tries(2) == []
    assert isinstance(tries(3)[0], TurnFailed)


def test_an_answer_that_comes_again_differently_is_an_error() -> None:
    retry = System(subtype="api_retry", attempt=1)
    events = translate(start("a"), delta("one two"), retry, start("b"), delta("one 2"))
    assert events[0] == TextDelta("one two")
    assert isinstance(events[-1], TurnFailed)


def test_a_second_break_earlier_than_the_first_repeats_nothing() -> None:
    retry = System(subtype="api_retry", attempt=1)
    events = translate(
        start("a"),
        delta("one two "),
        retry,
        start("b"),
        delta("one "),
        retry,
        start("c"),
        delta("one two three"),
    )
    assert text_of(events) == "one two three"


def test_a_reply_without_a_stream_is_told_block_by_block() -> None:
    events = translate(start("a"), delta("x"), whole("b", "xy"), whole("b", "z"))
    assert text_of(events) == "xyz"


def test_replies_are_joined_by_a_blank_line() -> None:
    events = translate(start("a"), delta("x"), stop("tool_use"), start("b"), delta("y"))
    assert text_of(events) == "x\n\ny"


def test_a_turn_that_nobody_asked_for_is_not_ours() -> None:
    translator = Translator("ours", retries=3)
    others: list[Line] = [System(subtype="init"), start("a"), delta("background news")]
    assert [event for message in others for event in translator.feed(message)] == []


def test_messages_of_the_cli_itself_are_no_text() -> None:
    said = Assistant(ApiMessage([Block("text", text="No response requested.")], id="x", model="<synthetic>"))
    assert translate(said) == []


@given(name=st.sampled_from(sorted(TURNS)), sizes=st.lists(st.integers(1, 3000), max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_chunking_gives_the_same_events(name: str, sizes: list[int]) -> None:
    cut, uncut = events_of(name, sizes), events_of(name)
    assert repr(cut) == repr(uncut)


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (401, UpstreamAuthentication, "upstream_authentication"),
        (403, UpstreamAuthentication, "upstream_authentication"),
        (429, UpstreamRateLimited, "rate_limit_exceeded"),
        (529, UpstreamOverloaded, "overloaded"),
        (500, UpstreamError, "upstream_error"),
        (None, UpstreamError, "upstream_error"),
        (404, ModelNotFound, "model_not_found"),
        (400, InvalidRequest, None),
    ],
)
def test_errors_by_status(status: int | None, error: type[Exception], code: str | None) -> None:
    made = upstream_error(status, "what it said")
    assert type(made) is error
    assert made.code == code


def test_an_overflow_has_its_own_code() -> None:
    made = upstream_error(400, "prompt is too long: 3 tokens > 2 maximum")
    assert made.code == "context_length_exceeded"
    assert made.param == "messages"


def test_a_tools_summary_is_one_short_line() -> None:
    assert summarize({"command": "ls\n  -la", "timeout": 3}) == "ls -la"
    assert summarize({"file_path": "/a/b", "content": "x" * 999}) == "/a/b"
    assert summarize({"odd": 3}) == ""
    assert summarize("text") == ""
    assert len(summarize({"command": "y" * 9999})) == 160


# The client's tools ------------------------------------------------------------------------------------

GET = Terms(tools={"mcp__client__get": ToolSpec("get", "", "{}")})


def begun(terms: Terms) -> Translator:
    translator = Translator("u", retries=3, terms=terms)
    translator.feed(System(subtype="init", user_message_uuids=["u"]))
    return translator


def feed(translator: Translator, *messages: Line) -> list[TurnEvent]:
    return [event for message in messages for event in translator.feed(message)]


def call_of(call: str, name: str = "mcp__client__get") -> list[Line]:
    it = Block("tool_use", id=call, name=name)
    return [
        StreamEvent(ApiEvent("content_block_start", content_block=it)),
        StreamEvent(ApiEvent("content_block_delta", delta=Delta("input_json_delta", partial_json="{}"))),
        Assistant(ApiMessage([it], id="m")),
        StreamEvent(ApiEvent("content_block_stop")),
    ]


def end(*uuids: str, **fields: Any) -> Result:
    return Result(subtype="success", user_message_uuids=list(uuids or ("u",)), **fields)


def opened(read: int) -> StreamEvent:
    usage = ApiUsage(input_tokens=read)
    return StreamEvent(ApiEvent("message_start", message=ApiMessage(id="m", usage=usage)))


def closed(reason: str, output: int) -> StreamEvent:
    usage = ApiUsage(output_tokens=output)
    return StreamEvent(ApiEvent("message_delta", delta=Delta(stop_reason=reason), usage=usage))


def test_a_reply_with_calls_ends_the_response_and_what_follows_is_another() -> None:
    translator = begun(GET)
    told = feed(translator, opened(10), delta("so"), *call_of("t1"), *call_of("t2"), closed("tool_use", 4))
    assert told == [
        TextDelta("so"),
        ToolCallStarted(0, "t1", "get"),
        ToolCallDelta(0, "{}"),
        ToolCallStarted(1, "t2", "get"),
        ToolCallDelta(1, "{}"),
        TurnFinished(FinishReason.TOOL_CALLS, Usage(input=10, output=4)),
    ]
    assert translator.parked
    assert not translator.ended
    assert translator.go_on(GET) == []
    usage = ApiUsage(input_tokens=30, output_tokens=7)
    told = feed(translator, opened(20), delta("done"), closed("end_turn", 3), end(usage=usage))
    assert told == [TextDelta("done"), TurnFinished(FinishReason.STOP, Usage(input=20, output=3))]


def test_a_call_does_not_end_a_reply_that_goes_on() -> None:
    translator = begun(GET)
    feed(translator, opened(1), *call_of("t1"))
    assert translator.called() == []
    assert not translator.parked


def test_a_reply_without_a_stream_ends_when_the_cli_asks_for_its_call() -> None:
    translator = begun(GET)
    call = Block("tool_use", id="t1", name="mcp__client__get", input={"a": 1})
    told = feed(translator, Assistant(ApiMessage([call], id="w", usage=ApiUsage(input_tokens=5))))
    assert told == [ToolCallStarted(0, "t1", "get"), ToolCallDelta(0, '{"a":1}')]
    assert translator.called() == [TurnFinished(FinishReason.TOOL_CALLS, Usage(input=5))]
    assert translator.called() == []


def test_what_claudes_tools_do_meanwhile_is_told_in_the_next_response() -> None:
    translator = begun(GET)
    own = Block("tool_use", id="b1", name="Bash", input={"command": "false"})
    feed(translator, opened(1), Assistant(ApiMessage([own], id="m")), *call_of("t1"), closed("tool_use", 1))
    failed = Block("tool_result", tool_use_id="b1", is_error=True, content="Exit code 1")
    assert feed(translator, User(ApiMessage([failed]))) == []
    assert translator.go_on(GET) == [ToolActivity("Bash", "", failure="Exit code 1")]


def test_a_turn_that_goes_on_by_itself_waits_for_nothing_any_more() -> None:
    for message in (opened(1), end()):
        translator = begun(GET)
        feed(translator, opened(1), *call_of("t1"), closed("tool_use", 1))
        assert not translator.astray
        assert feed(translator, message) == []
        assert translator.astray


def test_a_broken_reply_whose_call_was_told_already_fails() -> None:
    retry = System(subtype="api_retry", attempt=1, error_status=529)
    (*_, last) = feed(begun(GET), opened(1), *call_of("t1"), retry)
    assert isinstance(last, TurnFailed)


def test_a_limit_of_the_clients_ends_the_answer_and_the_clis_own_does_not() -> None:
    cut = (opened(9), delta("w0"), closed("max_tokens", 2))
    limited = feed(begun(Terms(limited=True)), *cut, start("m2"), delta("w1"))
    assert limited == [TextDelta("w0"), TurnFinished(FinishReason.LENGTH, Usage(input=9, output=2))]
    assert text_of(feed(begun(Terms()), *cut, start("m2"), delta("w1"))) == "w0w1"


def test_a_structured_answer_is_the_json_alone() -> None:
    schema = Terms(structured=True)
    call = Block("tool_use", id="s", name="StructuredOutput", input={"a": 1})
    begin = (opened(1), delta("hm"), Assistant(ApiMessage([call], id="m")), closed("tool_use", 1))
    told = feed(begun(schema), *begin, end(structured_output={"b": 1, "a": [2]}, result="x"))
    assert told[:2] == [ReasoningDelta("hm"), TextDelta('{"b":1,"a":[2]}')]
    assert isinstance(told[-1], TurnFinished)
    (failed,) = feed(begun(schema), end(result="I would rather not"))
    assert isinstance(failed, TurnFailed)
    assert isinstance(failed.error, SchemaNotMet)
    assert "I would rather not" in failed.error.message


def test_what_a_streaming_reply_has_read_is_known_before_its_end() -> None:
    translator = begun(Terms())
    feed(translator, opened(12), delta("w0"))
    assert translator.usage == Usage(input=12)


def test_a_tool_of_the_clients_that_is_no_more_is_no_activity_of_claudes() -> None:
    gone = Block("tool_use", id="g1", name="mcp__client__gone", input={})
    failed = Block("tool_result", tool_use_id="g1", is_error=True, content="No such tool available")
    assert feed(begun(GET), Assistant(ApiMessage([gone], id="m")), User(ApiMessage([failed]))) == []
