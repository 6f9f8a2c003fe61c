"""Clients that go away: the turn ends, the worker stays hot, and the history holds what the client knows."""

import contextlib
import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.daemon import Daemon, Model, Stream, chat, dialogue, eventually, texts

LONG = "long [[delay 100]] [[words 200]]"
HANGING = "hanging [[hang]]"


@pytest.fixture(scope="module")
def one(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with a single worker."""
    settings = {"ANTHROPIC_BASE_URL": served_model.url, "POOL_SIZE": "1"}
    daemon = Daemon(tmp_path_factory.mktemp("one"), settings)
    try:
        yield daemon.start()
    finally:
        daemon.close()


def leave_unstreamed(daemon: Daemon, model: Model, text: str, name: str) -> None:
    """Ask, and close the connection when the question has reached the model."""
    before = len(model.requests(text))
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port)
    headers = {"Content-Type": "application/json", "X-Conversation-ID": name}
    connection.request("POST", "/v1/chat/completions", json.dumps(chat(text)), headers)
    eventually(lambda: len(model.requests(text)) > before)
    connection.close()


def leave_in_mid_stream(daemon: Daemon, text: str, name: str) -> str:
    """Ask, and close the connection after some words; return what came."""
    with daemon.stream(text, name) as stream:
        return stream.until("w3 ")


@contextlib.contextmanager
def interrupted_within_a_second(daemon: Daemon, model: Model) -> Iterator[None]:
    """Check that what the block abandons is interrupted at the model, and that the worker stays hot."""
    gone = model.stats()["disconnects"]
    yield
    left = time.monotonic()
    eventually(lambda: model.stats()["disconnects"] > gone and daemon.pool()["idle"] == 1, 5)
    assert time.monotonic() - left < 1.0
    assert daemon.pool()["busy"] == 0
    assert daemon.health()["conversations"]["hot"] == 1


def test_a_streaming_client_that_goes_away_ends_the_turn_and_leaves_the_worker_hot(
    one: Daemon, model: Model, name: str
) -> None:
    one.ask("first [[say 1]]", name)
    before = one.workers()
    with interrupted_within_a_second(one, model):
        leave_in_mid_stream(one, LONG, name)
    assert one.ask("next [[recall]]", name).ok
    assert one.workers() == before


def test_a_waiting_client_that_goes_away_ends_the_turn_and_leaves_the_worker_hot(
    one: Daemon, model: Model, name: str
) -> None:
    one.ask("first [[say 1]]", name)
    before = one.workers()
    with interrupted_within_a_second(one, model):
        leave_unstreamed(one, model, HANGING, name)
    assert one.ask("next [[recall]]", name).said == ["first [[say 1]]", "next [[recall]]"]
    assert one.workers() == before


def test_a_stream_that_has_not_begun_is_ended_too(one: Daemon, model: Model, name: str) -> None:
    one.ask("first [[say 1]]", name)
    before = one.workers()
    body = json.dumps(chat(HANGING, stream=True))
    with interrupted_within_a_second(one, model):
        connection = http.client.HTTPConnection("127.0.0.1", one.port)
        headers = {"Content-Type": "application/json", "X-Conversation-ID": name}
        connection.request("POST", "/v1/chat/completions", body, headers)
        eventually(lambda: model.requests(HANGING))
        connection.close()
    assert one.ask("next [[recall]]", name).said == ["first [[say 1]]", "next [[recall]]"]
    assert one.workers() == before


def test_a_command_that_runs_is_ended_when_the_client_goes_away(one: Daemon, model: Model, name: str) -> None:
    one.ask("first [[say 1]]", name)
    before = one.workers()
    text = 'busy [[tool Bash {"command": "true; sleep 61"}]] [[say done]]'
    with one.stream(text, name) as stream:
        eventually(lambda: one.runs("sleep 61"))
        assert stream.response.status_code == 200
    eventually(lambda: not one.runs("sleep 61"), 5)
    eventually(lambda: one.pool()["idle"] == 1, 5)
    assert one.ask("next [[say ok]]", name).text == "ok"
    assert one.workers() == before


# What the model sees afterwards ------------------------------------------------------------------------


def nothing(_: Daemon, __: str) -> None:
    """Let the worker be."""


def evict(daemon: Daemon, name: str) -> None:
    daemon.settled()
    assert daemon.delete(f"/conversations/{name}").ok
    eventually(lambda: not daemon.workers())


def restart(daemon: Daemon, _: str) -> None:
    daemon.settled()
    daemon.restart()


BETWEEN = pytest.mark.parametrize("between", [nothing, evict, restart])


@BETWEEN
@pytest.mark.parametrize("earlier", [True, False], ids=["later", "first"])
def test_the_same_question_again_is_known_to_the_model_once(
    one: Daemon, model: Model, name: str, between: object, earlier: bool
) -> None:
    assert callable(between)
    past = ["first [[say 1]]"] if earlier else []
    for text in past:
        one.ask(text, name)
    question = "again [[delay 30]] [[words 30]] [[recall]]"
    leave_in_mid_stream(one, question, name)
    between(one, name)
    leave_unstreamed(one, model, question, name)
    between(one, name)
    answer = one.ask(question, name)
    words, recalled = answer.text.split("[", maxsplit=1)
    assert words.split() == [f"w{index}" for index in range(30)]
    assert json.loads(f"[{recalled}") == [*past, question]
    assert [turn["role"] for turn in one.shown(name)["messages"]] == ["user", "assistant"] * (len(past) + 1)


@BETWEEN
@pytest.mark.parametrize("earlier", [True, False], ids=["later", "first"])
def test_another_question_follows_what_the_client_has_seen(
    one: Daemon, model: Model, name: str, between: object, earlier: bool
) -> None:
    assert callable(between)
    past = ["first [[say 1]]"] if earlier else []
    for text in past:
        one.ask(text, name)
    seen = leave_in_mid_stream(one, LONG, name)
    between(one, name)
    assert one.ask("other [[recall]]", name).said == [*past, LONG, "other [[recall]]"]
    said = [entry for entry in dialogue(model.requests("other")[-1]) if entry[0] != "system"]
    expected = [("user", "first [[say 1]]"), ("assistant", "1")] if earlier else []
    (partial,) = [text for role, text in said if role == "assistant" and text.startswith("w0")]
    # What was still on its way to the client when it left may count as seen.
    assert partial.startswith(seen.strip())
    assert len(partial.split()) < 60
    assert said == [*expected, ("user", LONG), ("assistant", partial), ("user", "other [[recall]]")]
    # And so it stays.
    assert one.ask("more [[recall]]", name).said == [*past, LONG, "other [[recall]]", "more [[recall]]"]
    assert partial == one.shown(name)["messages"][-5]["content"].strip()


@BETWEEN
def test_another_question_replaces_one_of_whose_answer_nothing_was_seen(
    one: Daemon, model: Model, name: str, between: object
) -> None:
    assert callable(between)
    one.ask("first [[say 1]]", name)
    leave_unstreamed(one, model, HANGING, name)
    between(one, name)
    assert one.ask("other [[recall]]", name).said == ["first [[say 1]]", "other [[recall]]"]
    assert HANGING not in str(model.requests("other")[-1]["messages"])


def test_many_interruptions_in_a_row_leave_the_history_right(one: Daemon, model: Model, name: str) -> None:
    one.ask("first [[say 1]]", name)
    for _ in range(3):
        leave_in_mid_stream(one, LONG, name)
        leave_unstreamed(one, model, LONG, name)
    assert one.ask("last [[recall]]", name).said[0] == "first [[say 1]]"
    newest = texts(model.requests("last")[-1])
    assert newest.count("first [[say 1]]") == 1
    assert newest.count(LONG) <= 1
    assert newest[-1] == "last [[recall]]"


def test_a_client_that_leaves_the_queue_leaves_no_trace(one: Daemon, model: Model, name: str) -> None:
    with ThreadPoolExecutor() as threads:
        running = threads.submit(one.ask, "running [[pause 700]] [[say done]]", name)
        eventually(lambda: model.requests("running"))
        connection = http.client.HTTPConnection("127.0.0.1", one.port)
        headers = {"Content-Type": "application/json", "X-Conversation-ID": name}
        connection.request("POST", "/v1/chat/completions", json.dumps(chat("queued [[say no]]")), headers)
        eventually(lambda: one.pool()["queued"] == 1)
        connection.close()
        eventually(lambda: one.pool()["queued"] == 0)
        assert running.result().text == "done"
    assert one.ask("next [[recall]]", name).said == ["running [[pause 700]] [[say done]]", "next [[recall]]"]
    assert not model.requests("queued")


def test_a_client_that_leaves_as_it_gets_the_end_keeps_the_turn(one: Daemon, name: str) -> None:
    def to_the_finish(stream: Stream) -> None:
        for event in stream.events():
            if event["choices"][0]["finish_reason"]:
                return

    with one.stream("one [[say 1]]", name) as stream:
        to_the_finish(stream)
    assert one.ask("two [[recall]]", name).said == ["one [[say 1]]", "two [[recall]]"]
