"""Event streams as bytes: framing, keep-alive, and errors before and after the first event."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import openai
import pytest

from tests.support.daemon import Daemon, Model, chat

HOLD_MS = 400


@pytest.fixture(scope="module")
def quick(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that soon says something when the model does not."""
    settings = {
        "ANTHROPIC_BASE_URL": served_model.url,
        "POOL_SIZE": "2",
        "CLAUDE_CODED_HEADER_HOLD_MS": str(HOLD_MS),
        "CLAUDE_CODED_KEEP_ALIVE_MS": "100",
        "CLAUDE_CODED_UPSTREAM_RETRIES": "1",
    }
    daemon = Daemon(tmp_path_factory.mktemp("quick"), settings)
    try:
        yield daemon.start()
    finally:
        daemon.close()


def raw(daemon: Daemon, text: str, name: str, **more: object) -> httpx.Response:
    return daemon.http.post(
        f"{daemon.base_url}/v1/chat/completions",
        json=chat(text, stream=True, **more),
        headers={"X-Conversation-ID": name},
    )


def blocks(response: httpx.Response) -> list[str]:
    assert response.text.endswith("\n\n")
    return response.text.removesuffix("\n\n").split("\n\n")


def test_a_stream_is_one_line_an_event_and_ends_with_done(daemon: Daemon, name: str) -> None:
    response = raw(daemon, "[[words 3]]", name, stream_options={"include_usage": True})
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert response.headers["Cache-Control"] == "no-cache"
    assert "Content-Length" not in response.headers
    events = blocks(response)
    assert events[-1] == "data: [DONE]"
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-2]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert chunks[-1]["choices"] == []
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_without_include_usage_no_chunk_speaks_of_it(daemon: Daemon, name: str) -> None:
    chunks = [
        json.loads(event.removeprefix("data: ")) for event in blocks(raw(daemon, "[[words 3]]", name))[:-1]
    ]
    assert all(chunk["choices"] and "usage" not in chunk for chunk in chunks)


def test_text_of_any_kind_comes_through_whole(daemon: Daemon, name: str) -> None:
    text = 'Zeile\n\ndata: x "quoted" \\ \u2028 \u0001 😀 é ' + "long " * 5000
    with daemon.stream(f"[[say {text}]]", name, model="claude-code-chat") as stream:
        stream.rest()
    assert stream.text.strip() == text.strip()


def test_a_quiet_stream_is_kept_alive_with_comments(quick: Daemon, name: str) -> None:
    begun = time.monotonic()
    with quick.stream("[[say one]] [[pause 1000]] [[say two]]", name) as stream:
        stream.rest()
    taken = time.monotonic() - begun
    assert stream.text.replace(" ", "") == "onetwo"
    comments = [line for line in stream.raw if line.startswith(":")]
    assert 5 <= len(comments) <= taken / 0.1
    assert stream.raw[-1] == "data: [DONE]"


def test_a_model_that_says_nothing_for_long_does_not_hold_the_headers_for_ever(
    quick: Daemon, name: str
) -> None:
    with quick.stream("[[pause 1200]] [[say late]]", name) as stream:
        assert stream.response.status_code == 200
        assert json.loads(next(stream.lines()).removeprefix("data: "))["choices"][0]["delta"]["role"]
        assert next(stream.lines()).startswith(":")
        stream.rest()
    assert stream.text == "late"


def test_a_status_line_that_is_not_held_comes_before_the_model_begins(
    served_model: Model, tmp_path: Path, name: str
) -> None:
    settings = {
        "ANTHROPIC_BASE_URL": served_model.url,
        "CLAUDE_CODED_HEADER_HOLD_MS": "0",
        "CLAUDE_CODED_KEEP_ALIVE_MS": "60000",
    }
    with closing(Daemon(tmp_path, settings)) as daemon:
        daemon.start()
        daemon.ask("[[say warm]]", name)
        begun = time.monotonic()
        with daemon.stream("[[error 529 times 1]] [[say late]]", name) as stream:  # it is tried again
            held = time.monotonic() - begun
            assert stream.response.status_code == 200
            stream.rest()
        assert stream.text == "late"
        assert held < (time.monotonic() - begun) / 2


def test_a_stream_begins_when_the_model_does_before_its_first_word(daemon: Daemon, name: str) -> None:
    with daemon.stream("[[pause 1500]] [[say late]]", name) as stream:
        assert json.loads(next(stream.lines()).removeprefix("data: "))["choices"][0]["delta"]["role"]
        begun = time.monotonic()
        stream.until("late")
        assert time.monotonic() - begun > 1
        assert not any(line.startswith(":") for line in stream.raw)


def test_an_early_error_of_a_stream_has_a_real_status(quick: Daemon, name: str) -> None:
    quick.ask("[[say warm]]", name)
    response = raw(quick, "[[error 400 saying no such thing]]", name)
    assert response.status_code == 400
    assert response.headers["Content-Type"].startswith("application/json")
    assert "no such thing" in response.json()["error"]["message"]
    assert raw(quick, "[[error 401]]", name).status_code == 502
    assert raw(quick, "hi", name, model="unknown").status_code == 404


def test_an_error_after_the_headers_is_an_event_in_openais_shape(quick: Daemon, name: str) -> None:
    quick.ask("[[say warm]]", name)
    response = raw(quick, "[[error 500]]", name)  # told after a retry, when the headers could wait no longer
    assert response.status_code == 200
    last = json.loads(blocks(response)[-1].removeprefix("data: "))
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert last["error"]["code"] == "upstream_error"
    assert 'finish_reason":"stop' not in response.text


def test_an_error_in_mid_answer_is_an_event_and_the_conversation_goes_on(quick: Daemon, name: str) -> None:
    quick.ask("one [[say 1]]", name)
    with quick.stream("two [[say some words]] [[error 400 saying enough]]", name) as stream:
        events = stream.rest()
    assert stream.text.startswith("some words")
    assert "error" in events[-1]
    assert not any(choice["finish_reason"] for event in events for choice in event.get("choices", ()))
    said = quick.ask("three [[recall]]", name).said
    assert (said[0], said[-1], len(said)) == ("one [[say 1]]", "three [[recall]]", 3)


def test_the_sdk_raises_on_an_error_in_mid_stream(quick: Daemon, name: str) -> None:
    with quick.openai() as client:
        stream = client.chat.completions.create(
            model="claude-code",
            messages=[{"role": "user", "content": "[[say some]] [[error 400 saying enough]]"}],
            stream=True,
            extra_headers={"X-Conversation-ID": name},
        )
        with stream, pytest.raises(openai.APIError):
            list(stream)
