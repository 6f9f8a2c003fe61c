"""Kills: of a worker in mid-turn, of an idle one, of the daemon itself."""

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.acceptance.conftest import Start
from tests.support.daemon import Daemon, Model, dialogue, eventually, texts

SLOW = "[[delay 50]] [[words 40]]"
LONG = "[[delay 50]] [[words 1000]]"


def expected_words(count: int) -> list[str]:
    return [f"w{index}" for index in range(count)]


def test_a_worker_killed_in_mid_stream_harms_only_its_own_turn(
    daemon: Daemon, model: Model, name: str
) -> None:
    victim, other = f"{name}-victim", f"{name}-other"
    daemon.ask("first [[say 1]]", victim)
    with ThreadPoolExecutor() as threads, daemon.stream(f"mine {LONG}", victim) as stream:
        undisturbed = threads.submit(daemon.ask, f"yours {SLOW}", other)
        seen = stream.until("w3 ")
        eventually(lambda: model.requests("yours"))
        daemon.worker_of(model.session("mine")).kill()
        last = stream.rest()[-1]
        assert last["error"]["code"] == "worker_died"
        assert set(last["error"]) == {"message", "type", "param", "code"}
        assert undisturbed.result().text.split() == expected_words(40)
    asked = daemon.ask("next [[recall]]", victim)
    assert asked.said == ["first [[say 1]]", f"mine {LONG}", "next [[recall]]"]
    said = [text for role, text in dialogue(model.requests("next")[-1]) if role == "assistant"]
    assert said[0] == "1"
    assert said[1].startswith(seen.strip())
    assert len(said) == 2


def test_a_worker_killed_in_mid_turn_is_a_502_and_a_retry_reaches_the_model_once(
    daemon: Daemon, model: Model, name: str
) -> None:
    daemon.ask("first [[say 1]]", name)
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(daemon.ask, "second [[pause 1500]] [[recall]]", name)
        daemon.worker_of(model.session("second")).kill()
        failed = asked.result()
    assert (failed.status, failed.code, failed.conversation) == (502, "worker_died", name)
    retried = daemon.ask("second [[pause 1500]] [[recall]]", name)
    assert retried.said == ["first [[say 1]]", "second [[pause 1500]] [[recall]]"]


BACKGROUND = "env -i setsid sleep 64 & sleep 65"
"""What neither belongs to the CLI's process group nor has its environment, below what has."""


def test_a_worker_killed_in_mid_command_leaves_no_process(daemon: Daemon, model: Model, name: str) -> None:
    question = f"mine [[tool Bash {json.dumps({'command': BACKGROUND})}]] [[recall]]"
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(daemon.ask, question, name)
        left = eventually(lambda: running("sleep 64", "sleep 65"))
        daemon.worker_of(model.session("mine")).kill()
        assert asked.result().status == 502
    eventually(lambda: not any(process.is_running() for process in left))
    assert daemon.ask("next [[say on]]", name).text == "on"


def running(*commands: str) -> list[psutil.Process]:
    """Return the processes of these command lines once there is one of each."""
    found = [it for it in psutil.process_iter(["cmdline"]) if " ".join(it.info["cmdline"] or ()) in commands]
    return found if len(found) == len(commands) else []


def test_a_worker_killed_in_the_first_turn_leaves_a_conversation_that_goes_on(
    daemon: Daemon, model: Model, name: str
) -> None:
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(daemon.ask, "first [[pause 1500]] [[recall]]", name)
        daemon.worker_of(model.session("first")).kill()
        assert asked.result().status == 502
    assert daemon.ask("first [[pause 0]] [[recall]]", name).said == ["first [[pause 0]] [[recall]]"]


def test_an_idle_worker_that_is_killed_is_replaced_unnoticed(daemon: Daemon, model: Model, name: str) -> None:
    daemon.ask("first [[say 1]]", name)
    worker = daemon.worker_of(model.session("first"))
    worker.kill()
    eventually(lambda: daemon.shown(name)["state"] == "cold")
    assert daemon.ask("second [[recall]]", name).said == ["first [[say 1]]", "second [[recall]]"]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_request_at_the_moment_of_an_idle_workers_death_is_answered(
    daemon: Daemon, model: Model, name: str, streamed: bool
) -> None:
    daemon.ask("first [[say 1]]", name)
    daemon.worker_of(model.session("first")).kill()
    if streamed:
        with daemon.stream("second [[recall]]", name) as stream:
            stream.rest()
            assert json.loads(stream.text) == ["first [[say 1]]", "second [[recall]]"]
    else:
        assert daemon.ask("second [[recall]]", name).said == ["first [[say 1]]", "second [[recall]]"]
    assert len(model.requests("second")) == 1


def test_a_spare_that_is_killed_is_replaced(start: Start) -> None:
    daemon = start(POOL_SIZE=2)
    eventually(lambda: daemon.pool()["spare"] == 1)
    (spare,) = eventually(daemon.workers)
    spare.kill()
    eventually(lambda: any(worker.pid != spare.pid for worker in daemon.workers()))
    assert daemon.ask("hello [[say hi]]").text == "hi"


def test_a_daemon_killed_in_mid_turn_leaves_no_process_and_keeps_what_was_finished(
    start: Start, model: Model, name: str
) -> None:
    daemon = start(POOL_SIZE=4)
    streamed, waiting, idle = (f"{name}-{what}" for what in ("streamed", "waiting", "idle"))
    for conversation in (streamed, waiting, idle):
        assert daemon.ask(f"first of {conversation} [[say 1]]", conversation).ok
    question = 'waiting [[tool Bash {"command": "true; sleep 62"}]] [[recall]]'
    with ThreadPoolExecutor() as threads, daemon.stream(f"mine {SLOW}", streamed) as stream:
        threads.submit(lost, daemon, question, waiting)
        eventually(lambda: daemon.runs("sleep 62"))
        stream.until("w3 ")
        daemon.kill()
    eventually(lambda: not daemon.processes(), 15)
    daemon.start()
    kept = {
        item["id"]: (item["turns"], item["state"])
        for item in daemon.get("/conversations?all=true").body["data"]
    }
    assert kept == dict.fromkeys((streamed, waiting, idle), (1, "cold"))
    again = daemon.ask(f"mine {SLOW}", streamed)
    assert again.text.split() == expected_words(40)
    assert texts(model.requests("mine")[-1]) == [f"first of {streamed} [[say 1]]", f"mine {SLOW}"]
    other = daemon.ask("other [[recall]]", waiting)
    assert other.said == [f"first of {waiting} [[say 1]]", "other [[recall]]"]
    assert daemon.ask("more [[recall]]", idle).said == [f"first of {idle} [[say 1]]", "more [[recall]]"]
    # And the history stays right in the turns to come.
    assert daemon.ask("last [[recall]]", streamed).said == [
        f"first of {streamed} [[say 1]]",
        f"mine {SLOW}",
        "last [[recall]]",
    ]


def lost(daemon: Daemon, text: str, conversation: str) -> None:
    """Ask for what is never answered."""
    with contextlib.suppress(Exception):
        daemon.ask(text, conversation)


def test_a_daemon_killed_right_after_an_answer_has_kept_it(start: Start, name: str) -> None:
    daemon = start(POOL_SIZE=1)
    assert daemon.ask("first [[say 1]]", name).text == "1"
    daemon.kill()
    daemon.start()
    assert daemon.ask("second [[recall]]", name).said == ["first [[say 1]]", "second [[recall]]"]


def test_a_lost_transcript_is_made_up_for_by_the_daemons_own_record(
    daemon: Daemon, model: Model, name: str
) -> None:
    daemon.ask("first [[say 1]]", name)
    session = model.session("first")
    assert daemon.delete(f"/conversations/{name}").ok
    eventually(lambda: not daemon.runs_session(session))
    (transcript,) = daemon.home.glob(f".claude/projects/*/{session}.jsonl")
    transcript.unlink()
    assert daemon.ask("second [[recall]]", name).said == ["first [[say 1]]", "second [[recall]]"]
    said = [entry for entry in dialogue(model.requests("second")[-1]) if entry[0] != "system"]
    assert said == [("user", "first [[say 1]]"), ("assistant", "1"), ("user", "second [[recall]]")]
