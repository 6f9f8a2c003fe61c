"""Full histories when things go wrong or happen at once: the model sees what its client has said and seen."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.acceptance.conftest import Start
from tests.support.client import Client, assistant, evict, function, kill, nothing, user
from tests.support.daemon import Daemon, Json, Model, eventually

BASH = '[[tool Bash {"command": "echo kept"}]] [[say ran it]]'
KEPT = ['Bash {"command": "echo kept"}', "-> kept"]


@pytest.fixture(scope="module")
def pool(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose turns end early and whose clients may be two tenants."""
    settings = {
        "ANTHROPIC_BASE_URL": served_model.url,
        "CLAUDE_CODED_UPSTREAM_RETRIES": "0",
        "CLAUDE_CODED_TURN_TIMEOUT_MS": "9000",
        "CLAUDE_CODED_LOG_LEVEL": "debug",
        "CLAUDE_CODED_API_KEYS": "alice:sk-alice,bob:sk-bob",
    }
    daemon = Daemon(tmp_path_factory.mktemp("disturbed"), settings, key="sk-alice")
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture
def client(pool: Daemon, model: Model) -> Client:
    return Client(pool, model)


# At once -----------------------------------------------------------------------------------------------


def at_once(*steps: Callable[[], object]) -> None:
    """Run the steps together, each in a thread."""
    gate = threading.Barrier(len(steps))

    def run(step: Callable[[], object]) -> object:
        gate.wait(30)
        return step()

    with ThreadPoolExecutor(len(steps)) as threads:
        list(threads.map(run, steps))


@pytest.mark.parametrize("first", ["[[say 1]]", BASH], ids=["words", "tools"])
def test_different_continuations_at_once_do_not_mix(client: Client, name: str, first: str) -> None:
    client.ask(f"{name} one {first}")
    clients = [client, client.fork(), client.fork()]
    for turn in range(2):
        texts = (f"{name} {which} {turn} [[delay 5]] [[words 9]]" for which in range(3))
        at_once(*(partial(it.ask, text) for it, text in zip(clients, texts, strict=True)))
    for it in clients:
        it.ask(f"{name} end {clients.index(it)} [[say ok]]")
        assert it.used == (KEPT if first == BASH else [])


@pytest.mark.parametrize("between", [nothing, evict])
def test_a_fork_that_waits_holds_nothing_of_what_was_said_meanwhile(
    start: Start, model: Model, name: str, between: Callable[[Client], None]
) -> None:
    client = Client(start(POOL_SIZE=1), model)
    client.ask(f"{name} one {BASH}")
    other = client.fork()
    between(client)
    at_once(
        lambda: client.ask(f"{name} mine [[delay 5]] [[words 9]]"),
        lambda: other.ask(f"{name} yours [[delay 5]] [[words 9]]"),
    )
    assert client.used == other.used == KEPT
    client.ask(f"{name} more of mine [[say ok]]")
    other.ask(f"{name} more of yours [[say ok]]")


def test_a_branch_right_behind_a_branch_keeps_what_claudes_tools_did(client: Client, name: str) -> None:
    client.ask(f"{name} one {BASH}")
    others = [client.fork() for _ in range(3)]
    evict(client)
    for number, other in enumerate(others):
        # Its turn waits, so that the CLI has had no reason yet to write what it is a branch of.
        other.ask(f"{name} {number} [[tool get {{}}]]", tools=[function("get")])
        assert other.used == KEPT
    for other in others:
        evict(other)  # who waits for results keeps a place of the pool from the tests after this one


def test_identical_requests_at_once_are_answered_alike(client: Client, name: str) -> None:
    client.ask(f"{name} one [[say 1]]")
    clients = [client, client.fork()]
    at_once(*(partial(it.ask, f"{name} two [[delay 5]] [[recall]]") for it in clients))
    assert clients[0].messages == clients[1].messages
    at_once(*(partial(it.ask, f"{name} three [[delay 5]] [[recall]]") for it in clients))
    for it in clients:
        it.ask(f"{name} {clients.index(it)} goes on [[say ok]]")


def test_the_same_history_begun_twice_goes_on_in_either(client: Client, name: str) -> None:
    """And with the one that is hot, where only one of them is."""
    other = client.fork()
    for it in (client, other):
        it.ask(f"{name} one [[say 1]]")
        it.ask(f"{name} two [[say 2]]")
    assert client.conversation != other.conversation
    evict(other)
    other.ask(f"{name} three [[say 3]]")
    assert (other.conversation, other.pid) == (client.conversation, client.pid)
    client.ask(f"{name} three, too [[say 3]]")
    at_once(
        lambda: client.ask(f"{name} mine [[delay 5]] [[words 9]]"),
        lambda: other.ask(f"{name} yours [[delay 5]] [[words 9]]"),
    )


def test_two_turns_at_once_within_an_id_branch_there(client: Client, name: str) -> None:
    client.ask(f"{name} one {BASH}", name)
    other = client.fork()
    at_once(
        lambda: client.ask(f"{name} mine [[delay 5]] [[words 9]]", name),
        lambda: other.ask(f"{name} yours [[delay 5]] [[words 9]]", name),
    )
    other.ask(f"{name} more [[say ok]]", name)
    assert other.used == KEPT
    client.ask(f"{name} more of mine [[say ok]]", name)


# Turns that do not end well ----------------------------------------------------------------------------


def disconnected(client: Client, question: str) -> str:
    return client.leave(f"{question} [[delay 20]] [[words 200]]", "w5 ")


def failed(client: Client, question: str) -> str:
    asked = user(f"{question} [[words 9]] [[error 529]]")
    seen = broken_off(client, asked, "overloaded")
    client.messages += [asked, assistant(seen)]
    return seen


def timed_out(client: Client, question: str) -> str:
    asked = user(f"{question} [[words 9]] [[hang]]")
    seen = broken_off(client, asked, "turn_timeout")
    client.messages += [asked, assistant(seen)]
    return seen


def broken_off(client: Client, asked: Json, code: str) -> str:
    with client.daemon.stream([*client.messages, asked]) as stream:
        last = stream.rest()[-1]
        assert last["error"]["code"] == code, last
        client.conversation = stream.conversation
    return stream.text


@pytest.mark.parametrize(
    ("broken", "first", "between"),
    [
        (disconnected, "", evict),
        (disconnected, "[[say 1]]", nothing),
        (disconnected, BASH, nothing),
        (failed, "", nothing),
        (failed, BASH, evict),
        (timed_out, "", nothing),
        (timed_out, BASH, evict),
    ],
)
def test_after_a_turn_that_broke_off_the_history_is_what_the_client_tells(
    client: Client,
    name: str,
    broken: Callable[[Client, str], str],
    first: str,
    between: Callable[[Client], None],
) -> None:
    if first:
        client.ask(f"{name} one {first}")
    before = client.fork()
    seen = broken(client, f"{name} two")
    between(client)
    assert seen.startswith("w0")
    with_it, without_it, same = client.fork(), before.fork(), before.fork()
    with_it.ask(f"{name} three [[say 3]]")
    without_it.ask(f"{name} four [[say 4]]")
    same.ask(f"{name} two, shorter [[say 2]]")
    with_it.ask(f"{name} five [[say 5]]")
    for it in (with_it, without_it, same):
        assert it.used == (KEPT if first == BASH else [])


@pytest.mark.parametrize("between", [nothing, evict])
@pytest.mark.parametrize("named", [True, False], ids=["named", "found"])
def test_a_branch_after_half_an_answer_keeps_what_claudes_tools_did(
    client: Client, name: str, named: bool, between: Callable[[Client], None]
) -> None:
    own = name if named else None
    client.ask(f"{name} one {BASH}", own)
    client.leave(f"{name} two [[delay 20]] [[words 200]]", "w5 ", own)
    client.ask(f"{name} three {BASH}", own)
    between(client)
    client.again(own)
    assert client.used == KEPT + KEPT
    client.send([*client.messages[:-2], user(f"{name} three edited [[say 3]]")], own)
    assert client.used == KEPT


@pytest.mark.parametrize("between", [nothing, evict])
def test_what_was_asked_in_vain_can_be_asked_again(
    client: Client, name: str, between: Callable[[Client], None]
) -> None:
    client.ask(f"{name} one {BASH}")
    first = client.conversation
    failed_one = client.daemon.ask([*client.messages, user(f"{name} two [[error 529 times 1]] [[say 2]]")])
    assert failed_one.code == "overloaded"
    between(client)
    client.ask(f"{name} two [[error 529 times 1]] [[say 2]]")
    assert client.used == KEPT
    assert client.conversation == first


def test_a_worker_killed_in_mid_turn_changes_no_history(client: Client, name: str) -> None:
    client.ask(f"{name} one {BASH}")
    asked = user(f"{name} two [[delay 20]] [[words 200]]")
    with client.daemon.stream([*client.messages, asked]) as stream:
        seen = stream.until("w5 ")
        client.daemon.worker_of(client.model.session(f"{name} two")).kill()
        assert stream.rest()[-1]["error"]["code"] == "worker_died"
    before = client.fork()
    client.messages += [asked, assistant(stream.text)]
    assert stream.text.startswith(seen)
    client.ask(f"{name} three [[say 3]]")
    before.ask(f"{name} other [[say 3]]")
    assert client.used == before.used == KEPT


# Whose history it is -----------------------------------------------------------------------------------


def transcripts(client: Client) -> list[Path]:
    """Return the files of a client's session; none before the CLI has begun one."""
    return list(client.daemon.home.glob(f".claude/projects/*/{client.session}.jsonl"))


def said(client: Client) -> list[int]:
    """Return which whole lines of a client's transcript say something."""
    lines = [line for file in transcripts(client) for line in file.read_text().splitlines(keepends=True)]
    types = [json.loads(line)["type"] for line in lines if line.endswith("\n")]
    return [number for number, kind in enumerate(types) if kind in {"user", "assistant"}]


@pytest.mark.parametrize("written", [0, 1, 2], ids=["nothing", "a question", "all that was seeded"])
def test_a_worker_killed_before_it_wrote_what_was_seeded_changes_no_history(
    client: Client, name: str, written: int
) -> None:
    client.messages = [user(f"{name} few"), assistant("shots")]
    tools = [function("get")]
    client.send([*client.messages, user(f"{name} [[tool get {{}}]]")], tools=tools)
    eventually(lambda: len(said(client)) >= 3)
    kill(client)
    eventually(lambda: client.pid not in {worker.pid for worker in client.daemon.workers()})
    transcript = client.transcript()
    lines = transcript.read_text().splitlines(keepends=True)
    transcript.write_text("".join(lines[: said(client)[written]]))
    client.returns("7", then=f"{name} more [[say ok]]", tools=tools)


def test_a_fork_killed_before_it_wrote_anything_keeps_what_claudes_tools_did(
    client: Client, name: str
) -> None:
    client.ask(f"{name} one {BASH}")
    client.ask(f"{name} two {BASH}")
    other, tools = client.fork(), [function("get")]
    other.send([*client.messages[:2], user(f"{name} [[tool get {{}}]]")], tools=tools)
    assert other.conversation != client.conversation
    kill(other)
    eventually(lambda: other.pid not in {worker.pid for worker in other.daemon.workers()})
    for transcript in transcripts(other):
        transcript.write_text("")
    other.returns("7", then=f"{name} more [[say ok]]", tools=tools)
    assert other.used == KEPT


def test_a_history_is_found_by_its_own_tenant_and_kind_of_model_alone(client: Client, name: str) -> None:
    client.ask(f"{name} one {BASH}")
    mine, stranger, plain = client.conversation, client.fork(), client.fork()
    plain.kind = "claude-code-chat"
    stranger.ask(f"{name} two [[say 2]]", headers={"Authorization": "Bearer sk-bob"})
    plain.ask(f"{name} two, plain [[say 2]]")
    assert stranger.used == plain.used == []
    assert len({mine, stranger.conversation, plain.conversation}) == 3
    stranger.ask(f"{name} three [[say 3]]", headers={"Authorization": "Bearer sk-bob"})
    plain.ask(f"{name} three, plain [[say 3]]")
    client.ask(f"{name} three, mine [[say 3]]")
    assert client.used == KEPT
    assert client.conversation == mine
