"""Trouble at the model's API: what the client is told, how soon, and that the conversation goes on."""

import time
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import Start
from tests.support.daemon import Answer, Daemon, Model

RETRIES = 1


@pytest.fixture(scope="module")
def impatient(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that retries once."""
    settings = {
        "ANTHROPIC_BASE_URL": served_model.url,
        "POOL_SIZE": "2",
        "CLAUDE_CODED_UPSTREAM_RETRIES": str(RETRIES),
        "CLAUDE_CODED_HEADER_HOLD_MS": "60000",
    }
    daemon = Daemon(tmp_path_factory.mktemp("impatient"), settings)
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture
def talk(impatient: Daemon, model: Model, name: str) -> str:
    """A conversation that has had a turn."""
    assert impatient.ask("first [[say 1]]", name).ok
    return name


def goes_on(daemon: Daemon, model: Model, name: str) -> None:
    """Check that the worker stayed, and that the failed question is no part of the conversation."""
    worker = daemon.worker_of(model.session("first"))
    assert daemon.ask("other [[recall]]", name).said == ["first [[say 1]]", "other [[recall]]"]
    assert daemon.worker_of(model.session("other")) == worker


def said_to_the_client(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.code) == (status, code)
    assert answer.error["message"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_told_at_once_and_never_retried(
    impatient: Daemon, model: Model, talk: str, status: int
) -> None:
    begun = time.monotonic()
    answer = impatient.ask(f"bad [[error {status}]]", talk)
    assert time.monotonic() - begun < 3
    said_to_the_client(answer, 502, "upstream_authentication")
    assert answer.headers["x-should-retry"] == "false"
    assert "sk-ant" not in str(answer.body)
    assert len(model.requests("bad")) <= 2
    goes_on(impatient, model, talk)


@pytest.mark.parametrize(
    ("upstream", "status", "code"),
    [
        (429, 429, "rate_limit_exceeded"),
        (529, 503, "overloaded"),
        (500, 502, "upstream_error"),
        (503, 502, "upstream_error"),
    ],
)
def test_passing_trouble_is_retried_some_times_and_then_told(
    impatient: Daemon, model: Model, talk: str, upstream: int, status: int, code: str
) -> None:
    answer = impatient.ask(f"bad [[error {upstream}]]", talk)
    said_to_the_client(answer, status, code)
    assert len(model.requests("bad")) == 1 + RETRIES
    if upstream in {429, 529}:
        assert int(answer.headers["Retry-After"]) >= 1
    goes_on(impatient, model, talk)


def test_trouble_that_passes_in_time_is_not_told(impatient: Daemon, model: Model, talk: str) -> None:
    text = "bad [[error 529 times 1]] [[recall]]"
    assert impatient.ask(text, talk).said == ["first [[say 1]]", text]
    assert len(model.requests("bad")) == 2


def test_a_failed_question_that_is_asked_again_reaches_the_model_once(
    impatient: Daemon, model: Model, talk: str
) -> None:
    text = "bad [[error 500 times 2]] [[recall]]"
    assert impatient.ask(text, talk).status == 502
    assert impatient.ask(text, talk).said == ["first [[say 1]]", text]


def test_a_first_question_that_fails_is_no_part_of_the_conversation(impatient: Daemon, name: str) -> None:
    assert impatient.ask("bad [[error 401]]", name).status == 502
    assert impatient.ask("good [[recall]]", name).said == ["good [[recall]]"]
    assert impatient.ask("better [[recall]]", name).said == ["good [[recall]]", "better [[recall]]"]


TOO_LONG = "bad [[error 400 saying prompt is too long: 250000 tokens > 200000 maximum]]"


def test_a_prompt_that_is_too_long_is_openais_error_for_it(impatient: Daemon, talk: str) -> None:
    said_to_the_client(impatient.ask(TOO_LONG, talk), 400, "context_length_exceeded")
    assert impatient.ask("other [[say on we go]]", talk).text == "on we go"


def test_a_chat_that_is_too_long_is_told_so_and_never_compacted(
    impatient: Daemon, model: Model, name: str
) -> None:
    assert impatient.ask("first [[say 1]]", name, model="claude-code-chat").ok
    answer = impatient.ask(TOO_LONG, name, model="claude-code-chat")
    said_to_the_client(answer, 400, "context_length_exceeded")
    assert len(model.requests()) == 2
    said = impatient.ask("other [[recall]]", name, model="claude-code-chat").said
    assert said == ["first [[say 1]]", "other [[recall]]"]


def test_an_agent_is_not_compacted_either_when_that_is_switched_off(
    start: Start, model: Model, name: str
) -> None:
    daemon = start(POOL_SIZE=1, CLAUDE_CODED_AUTO_COMPACT="false")
    assert daemon.ask("first [[say 1]]", name).ok
    said_to_the_client(daemon.ask(TOO_LONG, name), 400, "context_length_exceeded")
    assert len(model.requests()) == 2
    assert daemon.ask("other [[recall]]", name).said == ["first [[say 1]]", "other [[recall]]"]


def test_a_request_that_the_model_refuses_is_a_400(impatient: Daemon, model: Model, talk: str) -> None:
    answer = impatient.ask("bad [[error 400 saying messages.3 is odd]]", talk)
    assert answer.status == 400
    assert "messages.3 is odd" in answer.error["message"]
    goes_on(impatient, model, talk)


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
def test_a_connection_that_breaks_in_mid_answer_yields_the_answer_once(
    impatient: Daemon, talk: str, streamed: bool
) -> None:
    text = "[[delay 5]] [[words 20]] [[cut times 1]] [[say the end]]"
    if streamed:
        with impatient.stream(text, talk) as stream:
            events = stream.rest()
        assert stream.raw[-1] == "data: [DONE]", events[-1]
        answer = stream.text
    else:
        answer = impatient.ask(text, talk).text
    assert answer.split() == [*(f"w{index}" for index in range(20)), "the", "end"]
    said = impatient.ask("other [[recall]]", talk).said
    assert said == ["first [[say 1]]", text, "other [[recall]]"]


def test_a_connection_that_always_breaks_ends_with_an_error(
    impatient: Daemon, model: Model, talk: str
) -> None:
    answer = impatient.ask("[[words 3]] [[cut]]", talk)
    assert answer.status == 502
    goes_on(impatient, model, talk)
