"""`Idempotency-Key`: who asks twice gets one turn's answer twice; the model counts."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.daemon import Answer, Daemon, Model, Stream, eventually

SLOW = "slow [[delay 100]] [[words 30]]"
WORDS = "".join(f"w{n} " for n in range(30))


@pytest.fixture(scope="module")
def tenants(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with two clients' keys."""
    settings = {
        "ANTHROPIC_BASE_URL": served_model.url,
        "POOL_SIZE": "2",
        "CLAUDE_CODED_API_KEYS": "ann:key-of-ann,joe:key-of-joe",
    }
    daemon = Daemon(tmp_path_factory.mktemp("tenants"), settings, key="key-of-ann")
    try:
        yield daemon.start()
    finally:
        daemon.close()


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def same(first: Answer, second: Answer) -> None:
    assert (first.status, second.status) == (200, 200)
    assert second.body == first.body
    assert second.conversation == first.conversation
    assert second.headers["X-Request-ID"] != first.headers["X-Request-ID"]


def whole(stream: Stream) -> list[str]:
    """Read to the end; return the lines but for the comments."""
    stream.rest()
    return [line for line in stream.raw if not line.startswith(":")]


def test_a_request_that_comes_again_gets_the_same_answer(daemon: Daemon, model: Model, name: str) -> None:
    first = daemon.ask("once [[say hi]]", headers=keyed(name))
    same(first, daemon.ask("once [[say hi]]", headers=keyed(name)))
    assert len(model.requests("once")) == 1
    assert daemon.shown(first.conversation)["turns"] == 1
    assert daemon.ask("once [[say hi]]", headers=keyed(f"{name}-other")).conversation != first.conversation


def test_a_stream_that_comes_again_has_the_same_chunks(daemon: Daemon, model: Model, name: str) -> None:
    streams = []
    for _ in range(2):
        with daemon.stream("once [[think hm]] [[words 5]]", headers=keyed(name)) as stream:
            streams.append((whole(stream), stream.conversation))
    assert streams[0] == streams[1]
    assert streams[0][0][-1] == "data: [DONE]"
    assert len(model.requests("once")) == 1


def test_requests_at_once_share_a_turn(daemon: Daemon, model: Model, name: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(daemon.ask, SLOW, headers=keyed(name)) for _ in range(4)]
        answers = [item.result() for item in asked]
    for answer in answers[1:]:
        same(answers[0], answer)
    assert answers[0].text == WORDS
    assert len(model.requests("slow")) == 1


def test_who_follows_a_running_turn_has_it_whole_when_the_first_client_goes_away(
    daemon: Daemon, model: Model, name: str
) -> None:
    with daemon.stream(SLOW, name, headers=keyed(name)) as first:
        first.until("w3 ")
        with daemon.stream(SLOW, name, headers=keyed(name)) as second:
            second.until("w3 ")
            assert "w29" not in second.text
            first.response.close()
            second.rest()
    assert second.text == WORDS
    assert second.raw[-1] == "data: [DONE]"
    assert len(model.requests("slow")) == 1
    assert daemon.shown(name)["turns"] == 1


def test_a_turn_whose_last_client_goes_away_is_stopped_and_runs_anew(
    daemon: Daemon, model: Model, name: str
) -> None:
    gone = model.stats()["disconnects"]
    with daemon.stream(SLOW, name, headers=keyed(name)) as first:
        first.until("w3 ")
    eventually(lambda: model.stats()["disconnects"] > gone)
    with daemon.stream(SLOW, name, headers=keyed(name)) as second:
        second.rest()
    assert second.text == WORDS
    assert len(model.requests("slow")) == 2
    assert daemon.shown(name)["turns"] == 1


def test_a_failure_is_not_kept(daemon: Daemon, name: str) -> None:
    text = "failing [[error 401 times 2]] [[say hi]]"
    assert daemon.ask(text, name, headers=keyed(name)).status == 502
    answer = eventually(lambda: (it := daemon.ask(text, name, headers=keyed(name))).ok and it)
    assert answer
    same(answer, daemon.ask(text, name, headers=keyed(name)))


def test_a_key_stands_for_one_request(daemon: Daemon, model: Model, name: str) -> None:
    assert daemon.ask("[[say one]]", name, headers=keyed(name)).text == "one"
    others = [
        daemon.ask("[[say two]]", name, headers=keyed(name)),
        daemon.ask("[[say one]]", f"{name}-other", headers=keyed(name)),
        daemon.ask("[[say one]]", name, headers=keyed(name), user="me"),
    ]
    for answer in others:
        assert (answer.status, answer.code) == (409, "idempotency_key_reused")
        assert (answer.error["type"], answer.error["param"]) == ("invalid_request_error", "Idempotency-Key")
        assert answer.headers["x-should-retry"] == "false"
    assert len(model.requests("say")) == 1


@pytest.mark.parametrize("key", ["", "two words", "x" * 256])
def test_a_key_that_is_none_is_refused(daemon: Daemon, model: Model, key: str) -> None:
    answer = daemon.ask("[[say hi]]", headers=keyed(key))
    assert (answer.status, answer.error["param"]) == (400, "Idempotency-Key")
    assert not model.requests()


def test_keys_are_the_tenants_own(tenants: Daemon, model: Model, name: str) -> None:
    assert tenants.ask("own [[say hi]]", name, headers=keyed(name)).ok
    joes = {**keyed(name), "Authorization": "Bearer key-of-joe"}
    assert tenants.ask("own [[say hi]]", name, headers=joes).ok
    assert len(model.requests("own")) == 2
