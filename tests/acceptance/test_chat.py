"""Chat completions through OpenAI's own SDK: the shapes, the timing, and what shows of Claude's work."""

import itertools
import time
from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from tests.acceptance.conftest import Start
from tests.support.daemon import Daemon, Model

FAILING = '[[tool Bash {"command": "echo oops >&2; exit 3"}]] [[say after]]'
WORKING = '[[say before]] [[tool Bash {"command": "true"}]] [[say after]]'


@pytest.fixture
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    with daemon.openai() as client:
        yield client


def named(name: str) -> dict[str, str]:
    return {"X-Conversation-ID": name}


def test_a_completion_has_openais_shape(client: openai.OpenAI, name: str) -> None:
    before = int(time.time())
    got = client.chat.completions.create(
        model="claude-code",
        messages=[{"role": "user", "content": "[[say hello there]]"}],
        extra_headers=named(name),
    )
    assert got.id.startswith("chatcmpl-")
    assert (got.object, got.model) == ("chat.completion", "claude-code")
    assert before - 1 <= got.created <= time.time() + 1
    (choice,) = got.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.content, choice.message.refusal) == (
        "assistant",
        "hello there",
        None,
    )
    assert choice.message.tool_calls is None


def test_the_usage_counts_what_was_read_from_the_cache(client: openai.OpenAI, name: str) -> None:
    first, second = (
        client.chat.completions.create(
            model="claude-code",
            messages=[{"role": "user", "content": f"{number} [[words 10]]"}],
            extra_headers=named(name),
        ).usage
        for number in ("one", "two")
    )
    assert first is not None
    assert second is not None
    for usage in (first, second):
        assert usage.completion_tokens == 10
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        assert usage.completion_tokens_details is not None
        assert usage.completion_tokens_details.reasoning_tokens == 0
    assert second.prompt_tokens_details is not None
    assert 0 < (second.prompt_tokens_details.cached_tokens or 0) < second.prompt_tokens


def collect(client: openai.OpenAI, name: str, text: str, *, usage: bool = False) -> list[ChatCompletionChunk]:
    with client.chat.completions.create(
        model="claude-code",
        messages=[{"role": "user", "content": text}],
        stream=True,
        stream_options={"include_usage": usage},
        extra_headers=named(name),
    ) as stream:
        return list(stream)


def content(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def reasoning(chunks: list[ChatCompletionChunk]) -> str:
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    return "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)


def test_a_stream_has_openais_shape(client: openai.OpenAI, name: str) -> None:
    chunks = collect(client, name, "[[words 5]]")
    assert content(chunks) == "w0 w1 w2 w3 w4 "
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    roles = [chunk.choices[0].delta.role for chunk in chunks]
    assert (roles[0], set(roles[1:])) == ("assistant", {None})
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert (reasons[-1], set(reasons[:-1])) == ("stop", {None})
    assert chunks[-1].choices[0].delta.content is None
    assert all(chunk.usage is None for chunk in chunks)


def test_the_usage_of_a_stream_comes_in_a_last_chunk_of_its_own(client: openai.OpenAI, name: str) -> None:
    chunks = collect(client, name, "[[words 5]]", usage=True)
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    assert all(chunk.choices and chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason == "stop"


def test_deltas_come_as_the_model_says_them(client: openai.OpenAI, name: str) -> None:
    came: list[float] = []
    with client.chat.completions.create(
        model="claude-code",
        messages=[{"role": "user", "content": "[[delay 20]] [[words 50]]"}],
        stream=True,
        extra_headers=named(name),
    ) as stream:
        came = [time.monotonic() for chunk in stream if chunk.choices[0].delta.content]
    assert len(came) >= 40
    assert came[-1] - came[0] > 0.7
    gaps = [later - earlier for earlier, later in itertools.pairwise(came)]
    assert sorted(gaps)[len(gaps) // 2] > 0.01


def test_the_same_is_said_streamed_and_not(daemon: Daemon, name: str) -> None:
    text = f"[[think Well.]] {WORKING}"
    whole = daemon.ask(text, f"{name}-whole").message
    with daemon.stream(text, f"{name}-streamed") as stream:
        stream.rest()
    assert (stream.text, stream.reasoning) == (whole["content"], whole["reasoning_content"])
    assert stream.text == "before\n\nafter"


def test_thinking_comes_as_reasoning_before_the_answer(client: openai.OpenAI, name: str) -> None:
    chunks = collect(client, name, "[[think Let me see.]] [[say hello]]")
    assert (reasoning(chunks), content(chunks)) == ("Let me see.", "hello")
    kinds = ["content" if chunk.choices[0].delta.content else "other" for chunk in chunks[1:]]
    assert kinds.index("content") > 0


def test_tool_activity_shows_in_the_reasoning(daemon: Daemon, name: str) -> None:
    message = daemon.ask(WORKING, name).message
    assert message["content"] == "before\n\nafter"
    assert message["reasoning_content"] == "[Bash] true\n"
    assert "tool_calls" not in message


def test_a_tools_failure_shows_in_the_reasoning(daemon: Daemon, name: str) -> None:
    message = daemon.ask(FAILING, name).message
    assert message["content"] == "after"
    call, failure = message["reasoning_content"].splitlines()
    assert call == "[Bash] echo oops >&2; exit 3"
    assert failure.startswith("[Bash failed: ")
    assert "oops" in failure


def test_tool_activity_can_show_in_the_content(start: Start, name: str) -> None:
    daemon = start(POOL_SIZE=1, CLAUDE_CODED_TOOL_ACTIVITY="content")
    message = daemon.ask(WORKING, name).message
    assert message["content"].startswith("before\n[Bash] true\n")
    assert message["content"].endswith("after")
    assert "reasoning_content" not in message
    with daemon.stream(WORKING, name) as stream:
        stream.rest()
    assert stream.text == message["content"]
    assert "[Bash failed: " in daemon.ask(FAILING, name).text


def test_tool_activity_can_be_left_out(start: Start, name: str) -> None:
    daemon = start(POOL_SIZE=1, CLAUDE_CODED_TOOL_ACTIVITY="off")
    message = daemon.ask(FAILING, name).message
    assert message["content"] == "after"
    assert "reasoning_content" not in message


def test_what_a_subagent_says_stays_out_of_the_answer(daemon: Daemon, model: Model, name: str) -> None:
    task = (
        '{"description": "a task", "prompt": "sub [[say subtle words]]", '
        '"subagent_type": "general-purpose", "run_in_background": false}'
    )
    message = daemon.ask(f"main [[tool Agent {task}]] [[say after]]", name).message
    assert any("sub [[say subtle words]]" in text for text in subtasks(model))
    assert message["content"] == "after"
    assert "subtle words" not in message["reasoning_content"].replace("[[say subtle words]]", "")
    assert message["reasoning_content"].startswith("[Agent] ")


def subtasks(model: Model) -> list[str]:
    """Return the first user text of every request that is not the main thread's."""
    firsts = [str(body["messages"]) for body in model.requests("sub [[say subtle words]]")]
    return [text for text in firsts if "main [[tool" not in text]


def test_every_response_names_its_conversation_and_its_request(daemon: Daemon, name: str) -> None:
    answers = [
        daemon.ask("[[say hi]]", name),
        daemon.ask("hi", name, model="unknown"),
        daemon.ask("[[error 400 saying no]]", name),
        daemon.ask("hi", name, n=2),
    ]
    with daemon.stream("[[say hi]]", name) as stream:
        stream.rest()
    assert [answer.status for answer in answers] == [200, 404, 400, 400]
    for headers in (*(answer.headers for answer in answers), stream.response.headers):
        assert headers["X-Request-ID"]
        assert headers["X-Conversation-ID"] == name


def test_the_clients_request_id_is_kept(daemon: Daemon) -> None:
    assert (
        daemon.request("GET", "/health", headers={"X-Request-ID": "mine.1"}).headers["X-Request-ID"]
        == "mine.1"
    )
