"""What the daemon logs: of requests, of what is said in them, and by which ids."""

import json
from typing import Any

import pytest

from tests.acceptance.conftest import Start
from tests.support.daemon import Daemon, Model, eventually


def records(daemon: Daemon, message: str) -> list[dict[str, Any]]:
    """Return the records of a message."""
    lines = [json.loads(line) for line in daemon.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["message"] == message]


def test_prompts_and_answers_are_in_no_log_unless_a_setting_says_so(daemon: Daemon, name: str) -> None:
    assert daemon.ask("the secret of this [[say mystery-answered]]", name).ok
    eventually(lambda: [it for it in records(daemon, "turn finished") if it["conversation"] == name])
    assert "the secret of this" not in daemon.log
    assert "mystery-answered" not in daemon.log
    assert not records(daemon, "request")


def test_requests_prompts_and_answers_are_logged_where_that_is_wanted(start: Start, name: str) -> None:
    daemon = start(CLAUDE_CODED_LOG_PROMPTS="true", CLAUDE_CODED_LOG_REQUESTS="true")
    assert daemon.ask("what is this? [[say mystery-answered]]", name, headers={"X-Request-ID": "one"}).ok
    with daemon.stream("[[words 3]]", name) as stream:
        stream.rest()
    assert daemon.get("/nothing").status == 404
    first, second = eventually(lambda: (it := records(daemon, "turn finished"))[1:] and it)
    assert first["prompt"] == "what is this? [[say mystery-answered]]"
    assert (first["answer"], second["answer"]) == ("mystery-answered", "w0 w1 w2 ")
    assert {it["conversation"] for it in (first, second)} == {name}
    assert first["request"] == "one"
    assert first["worker"].startswith("w")
    asked, streamed, unknown = eventually(lambda: (it := records(daemon, "request"))[2:] and it)
    assert (asked["method"], asked["path"], asked["status"]) == ("POST", "/v1/chat/completions", 200)
    assert (asked["request"], asked["conversation"]) == ("one", name)
    assert asked["seconds"] > 0
    assert asked["client"] == "127.0.0.1"
    assert (streamed["status"], streamed["conversation"]) == (200, name)
    assert (unknown["status"], unknown["path"]) == (404, "/nothing")


@pytest.mark.parametrize("busy", [False, True])
def test_a_worker_that_dies_unasked_is_logged(daemon: Daemon, model: Model, name: str, busy: bool) -> None:
    assert daemon.ask("first [[say 1]]", name).ok
    session = model.session("first")
    before = len(records(daemon, "a worker has died"))
    if busy:
        with daemon.stream("second [[delay 20]] [[words 200]]", name) as stream:
            stream.until("w3 ")
            daemon.worker_of(session).kill()
            stream.rest()
    else:
        daemon.worker_of(session).kill()
    *_, died = eventually(lambda: records(daemon, "a worker has died")[before:])
    assert (died["status"], died["phase"]) == ("exit status -9", "busy" if busy else "idle")
    assert died["conversation"] == name
    assert "request" not in died  # it has served several
    assert daemon.ask("third [[say on]]", name).text == "on"


def test_workers_that_end_with_the_daemon_have_not_died(start: Start, name: str) -> None:
    daemon = start()
    assert daemon.ask("[[say 1]]", name).ok
    daemon.stop()
    assert records(daemon, "stopped")
    assert not records(daemon, "a worker has died")


def test_a_request_that_fails_names_itself_and_its_conversation(daemon: Daemon, name: str) -> None:
    assert daemon.ask("[[error 529]]", name, headers={"X-Request-ID": f"failing-{name}"}).code == "overloaded"
    (failed,) = [it for it in records(daemon, "request failed") if it.get("request") == f"failing-{name}"]
    assert failed["conversation"] == name
