"""What Claude may do in permission mode `ask` is what an operator allows, request by request."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Start
from tests.support.client import Client, evict, function, restart
from tests.support.daemon import Answer, Daemon, Json, Model, eventually
from tests.support.desk import Operator

MODE = "X-Claude-Permission-Mode"
ASK = {MODE: "ask"}
BYPASS = "bypassPermissions"


def bash(command: str) -> str:
    return f'[[tool Bash {{"command": "{command}"}}]]'


@pytest.fixture(scope="module")
def asking(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that asks where the client wants it to."""
    directory = tmp_path_factory.mktemp("asking")
    settings = {
        "ANTHROPIC_BASE_URL": served_model.url,
        "CLAUDE_CODED_SOCKET": str(directory / "control.sock"),
        "CLAUDE_CODED_HEADER_HOLD_MS": "100",
        "CLAUDE_CODED_KEEP_ALIVE_MS": "100",
        "CLAUDE_CODED_DRAIN_TIMEOUT_MS": "300",
    }
    daemon = Daemon(directory, settings)
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture
def operator(asking: Daemon) -> Iterator[Operator]:
    operator = Operator(Path(asking.settings["CLAUDE_CODED_SOCKET"]))
    yield operator
    assert not operator.open()
    operator.close()


@pytest.fixture
def later() -> Iterator[Callable[..., Future[Answer]]]:
    """Return a function that lets another one run meanwhile."""
    with ThreadPoolExecutor(8) as threads:
        yield threads.submit


def test_what_an_operator_allows_is_done_and_the_stream_lives_meanwhile(
    asking: Daemon, operator: Operator, name: str
) -> None:
    made = asking.workspace / name
    with asking.stream(f"{bash(f'touch {name}')} then [[say done]]", name, headers=ASK) as stream:
        (request,) = operator.asked(name)
        assert (request["tool"], request["summary"]) == ("Bash", f"touch {name}")
        assert request["input"] == {"command": f"touch {name}"}
        assert request["tenant"] == "default"
        assert request["expires_at"] - request["asked_at"] == pytest.approx(300)
        comments = (line for line in stream.lines() if line.startswith(":"))
        assert next(comments)
        assert next(comments)
        assert not made.exists()
        assert operator.answer(request, "allow") == 200
        assert stream.answer().text == "done"
    assert made.exists()
    assert operator.answer(request, "deny") == 404
    assert f'"request":"{request["id"]}"' in asking.log
    assert f"touch {name}" not in asking.log


def test_claude_is_told_of_a_denial_and_goes_on(
    asking: Daemon, operator: Operator, later: Callable[..., Future[Answer]], name: str
) -> None:
    turn = later(asking.ask, f"{bash(f'touch {name}')} then [[result]] and [[say on]]", name, headers=ASK)
    operator.deny(name, message="not on a Friday")
    assert turn.result().text == "error: not on a Fridayon"
    assert not (asking.workspace / name).exists()


def test_what_was_allowed_for_always_is_not_asked_again_in_its_conversation(
    asking: Daemon, model: Model, operator: Operator, later: Callable[..., Future[Answer]], name: str
) -> None:
    client = Client(asking, model)

    def do(what: str, number: int) -> Any:
        return client.ask(f"{name} {number} {what} then [[result]]", name, headers=ASK)

    write = f'[[tool Write {{"file_path": "{asking.workspace}/{name}.txt", "content": "1"}}]]'
    for number, what in enumerate((bash(f"echo a >> {name}"), write)):
        turn = later(do, what, number)
        request = operator.allow(name, always=True)
        assert len(request["always"]) == 1
        turn.result()
    for number, change in enumerate((lambda _: None, evict, restart), 2):
        change(client)
        do(bash(f"echo a >> {name}"), number)
        assert (asking.workspace / name).read_text() == "a\n" * number
    do(write.replace('"1"', '"2"'), 5)
    assert (asking.workspace / f"{name}.txt").read_text() == "2"

    other = f"{name}-other"
    for conversation, command in ((name, f"echo b >> {name}"), (other, f"echo a >> {name}")):
        turn = later(asking.ask, bash(command), conversation, headers=ASK)
        operator.deny(conversation)
        assert turn.result().ok
    asking.delete(f"/conversations/{name}?purge=true")
    turn = later(asking.ask, bash(f"echo a >> {name}"), name, headers=ASK)
    operator.deny(name)
    assert turn.result().ok
    assert (asking.workspace / name).read_text() == "a\n" * 4


def test_several_requests_are_answered_each_by_itself(
    asking: Daemon, operator: Operator, later: Callable[..., Future[Answer]], name: str
) -> None:
    names = [f"{name}-{number}" for number in range(3)]
    turns = [later(asking.ask, f"{bash(f'touch {it}')} [[result]]", it, headers=ASK) for it in names]
    requests = [operator.asked(it)[0] for it in names]
    assert len({it["id"] for it in requests}) == 3
    assert operator.answer(requests[1], "deny", message="no") == 200
    assert turns[1].result().text == "error: no"
    assert operator.open(names[0]) == requests[:1]
    operator.allow(names[2])
    operator.allow(names[0])
    assert [turn.result().ok for turn in turns] == [True] * 3
    assert [(asking.workspace / it).exists() for it in names] == [True, False, True]


def test_a_subagent_asks_beside_its_turn_and_after_it(asking: Daemon, operator: Operator, name: str) -> None:
    script = bash(f"touch {name}").replace('"', '\\"')
    agent = f'{{"description": "d", "prompt": "{script} [[result]]", "subagent_type": "general-purpose"}}'
    assert asking.ask(f"[[tool Agent {agent}]] then [[say over]]", name, headers=ASK).text == "over"
    (request,) = operator.asked(name)
    assert operator.answer(request, "allow") == 200
    eventually((asking.workspace / name).exists)
    asking.settled()


@pytest.mark.parametrize("tools", [None, [function("get")]], ids=["alone", "beside a client's"])
def test_a_request_of_a_client_that_leaves_is_withdrawn(
    asking: Daemon, operator: Operator, name: str, tools: list[Json] | None
) -> None:
    more: Json = {"tools": tools} if tools else {}
    with asking.stream(f"one {bash(f'touch {name}')} [[say 1]]", name, headers=ASK, **more) as stream:
        next(stream.events())
        (request,) = operator.asked(name)
    operator.gone(name)
    assert operator.answer(request, "allow") == 404
    asking.settled()
    assert asking.ask("two [[recall]]", name, headers=ASK, **more).said == ["two [[recall]]"]
    assert not (asking.workspace / name).exists()


def test_a_request_goes_with_its_turn_and_its_worker(
    asking: Daemon, model: Model, operator: Operator, later: Callable[..., Future[Answer]], name: str
) -> None:
    text = f"{name} {bash(f'touch {name}')} [[say 1]]"
    turn = later(asking.ask, text, name, headers=ASK)
    operator.asked(name)
    asking.worker_of(model.session(text)).kill()
    assert turn.result().code == "worker_died"
    operator.gone(name)
    turn = later(asking.ask, text, name, headers=ASK)
    operator.asked(name)
    asking.delete(f"/conversations/{name}")
    assert turn.result().code == "conversation_evicted"
    operator.gone(name)
    turn = later(asking.ask, text, name, headers=ASK)
    operator.asked(name)
    assert operator.interrupt(name)
    assert not turn.result().ok
    operator.gone(name)
    turn = later(asking.ask, text, name, headers=ASK)
    operator.allow(name)
    assert turn.result().text == "1"


@pytest.mark.parametrize("when", ["before", "after", "never"])
def test_a_request_beside_calls_of_the_clients_tools(
    asking: Daemon,
    model: Model,
    operator: Operator,
    later: Callable[..., Future[Answer]],
    name: str,
    when: str,
) -> None:
    """The turn is parked; the answer comes before the client's result, after it, or not any more."""
    client, made = Client(asking, model, more={"tools": [function("get")]}), asking.workspace / name
    client.ask(f"{bash(f'touch {made}')} [[tool get {{}}]] then [[result]]", name, headers=ASK)
    assert client.calls == [("get", "{}")]
    operator.asked(name)
    if when == "never":
        assert asking.ask("something else [[say ok]]", name, headers=ASK).text == "ok"
        operator.gone(name)
        assert not made.exists()
        return
    if when == "before":
        operator.allow(name)
        eventually(made.exists)
    turn = later(client.returns, "found", headers=ASK)
    if when == "after":
        operator.allow(name)
    assert turn.result().text.endswith("found")
    assert made.exists()


def test_a_question_of_claudes_is_answered_by_the_message(
    asking: Daemon, operator: Operator, later: Callable[..., Future[Answer]], name: str
) -> None:
    options = '"options": [{"label": "a", "description": "A"}, {"label": "b", "description": "B"}]'
    question = f'{{"question": "Which?", "header": "W", "multiSelect": false, {options}}}'
    text = f'[[tool AskUserQuestion {{"questions": [{question}]}}]] then [[result]]'
    turn = later(asking.ask, text, name, headers=ASK)
    (request,) = operator.asked(name)
    assert request["always"] == []
    assert operator.answer(request, "allow", always=True) == 400
    operator.allow(name, message="b")
    assert '"Which?"="b"' in turn.result().text


def test_a_stop_of_the_daemon_ends_what_waits(
    asking: Daemon, operator: Operator, later: Callable[..., Future[Answer]], name: str
) -> None:
    turn = later(asking.ask, bash(f"touch {name}"), name, headers=ASK)
    operator.asked(name)
    asking.restart()
    assert turn.result().code == "worker_died"
    assert not (asking.workspace / name).exists()
    assert not operator.open()


def test_the_other_modes_never_ask(asking: Daemon, operator: Operator, name: str) -> None:
    for mode in ("plan", "dontAsk", BYPASS):
        made = f"{name}{mode}"
        asking.ask(f"{mode} {bash(f'touch {made}')} [[result]]", name, headers={MODE: mode})
        assert (asking.workspace / made).exists() is (mode == BYPASS)


def test_a_request_that_nobody_answers_is_denied(start: Start, tmp_path: Path, name: str) -> None:
    daemon = start(CLAUDE_CODED_PERMISSION_MODE="ask", CLAUDE_CODED_PERMISSION_TIMEOUT_MS=500)
    answer = daemon.ask(f"{bash(f'touch {name}')} then [[result]]", name)
    assert answer.text == "error: Nobody answered the request to allow this within 0.5 seconds."
    assert not (daemon.workspace / name).exists()
    assert daemon.ask("[[say allowed]]", headers={MODE: BYPASS}).code == "forbidden"
    assert daemon.ask(f"{bash('ls')} [[say unasked]]", name).text == "unasked"
