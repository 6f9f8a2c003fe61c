"""Clients that send the whole history: the model sees just that, once, in order, on a hot worker."""

import copy
import json
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.support.client import (
    Client,
    assistant,
    call,
    evict,
    newest,
    nothing,
    outcome,
    reached,
    restart,
    told,
    user,
)
from tests.support.daemon import Daemon, Json, Model


@pytest.fixture(scope="module")
def pool(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon of this module's own: it is restarted at times."""
    settings = {"ANTHROPIC_BASE_URL": served_model.url, "CLAUDE_CODED_LOG_LEVEL": "debug"}
    daemon = Daemon(tmp_path_factory.mktemp("histories"), settings)
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture
def client(pool: Daemon, model: Model) -> Client:
    return Client(pool, model)


def bash(command: str) -> str:
    return f'[[tool Bash {{"command": "{command}"}}]] [[say ran {command}]]'


def did(command: str) -> list[str]:
    """Return what the model knows of Claude's having run `echo` with a word."""
    return [f'Bash {{"command": "{command}"}}', f"-> {command.removeprefix('echo ')}"]


# Going on ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("between", [nothing, evict, restart])
def test_a_loop_with_no_id_stays_in_one_conversation(
    pool: Daemon, model: Model, name: str, between: Callable[[Client], None]
) -> None:
    """It is written as everybody writes it, with OpenAI's SDK."""
    messages: list[Json] = []
    questions: list[str] = []
    names, pids = set(), set()
    with pool.openai() as sdk:
        for turn in range(20):
            questions.append(f"{name} turn {turn} [[recall]]")
            messages.append(user(questions[-1]))
            model.forget()
            given = sdk.chat.completions.with_raw_response.create(
                model="claude-code",
                messages=messages,  # type: ignore[arg-type] # they are what it sends
            )
            message = given.parse().choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            assert json.loads(message.content or "") == questions
            assert reached(newest(model, questions[-1])) == told(messages[:-1])
            names.add(given.headers["X-Conversation-ID"])
            pids.add(pool.worker_of(model.session(questions[-1])).pid)
            if turn == 9:
                between(Client(pool, model, conversation=given.headers["X-Conversation-ID"], pid=max(pids)))
    assert len(names) == 1
    assert len(pids) == (1 if between is nothing else 2)


def parts(message: Json) -> Json:
    if not isinstance(message.get("content"), str):
        return message
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def spaces(message: Json) -> Json:
    content = message.get("content")
    return {**message, "content": f"\n {content} \n\n"} if isinstance(content, str) and content else message


def without_reasoning(message: Json) -> Json:
    return {key: message[key] for key in message if key != "reasoning_content"}


def with_reasoning(message: Json) -> Json:
    return {**message, "reasoning_content": "hm"} if message["role"] == "assistant" else message


def bare(message: Json) -> Json:
    known = {"role", "content", "tool_calls", "tool_call_id"}
    return {key: message[key] for key in message if key in known}


def marked(message: Json) -> Json:
    """Opencode puts this on the newest messages, and moves it each turn."""
    return {**parts(message), "cache_control": {"type": "ephemeral"}, "name": "someone"}


def null_beside_calls(message: Json) -> Json:
    return {**message, "content": None} if message.get("tool_calls") else message


def nothing_beside_calls(message: Json) -> Json:
    return {key: message[key] for key in message if key != "content" or not message.get("tool_calls")}


def rewritten_arguments(message: Json) -> Json:
    message = copy.deepcopy(message)
    for made in message.get("tool_calls", ()):
        arguments = json.loads(made["function"]["arguments"])
        made["function"]["arguments"] = json.dumps(dict(reversed(arguments.items())), indent=1)
    return message


RESHAPES = (
    parts,
    spaces,
    without_reasoning,
    with_reasoning,
    bare,
    marked,
    null_beside_calls,
    nothing_beside_calls,
    rewritten_arguments,
)


def test_a_history_that_a_client_reshapes_is_the_same(client: Client, name: str) -> None:
    client.messages = [
        user(f"look {name} up"),
        assistant("", tool_calls=[call(1, "lookup", '{"b": 1, "a": {"y": 2, "x": []}}')]),
        outcome(1, "found"),
        assistant("It is found."),
    ]
    client.ask(f"{name} one [[think hm]] [[say first answer]]")
    before = client.conversation, client.pid
    for reshape in RESHAPES:
        client.reshape = partial(reshaped, reshape)
        client.ask(f"{name} {reshape.__name__} [[think hm]] [[say 2]]")
        assert (client.conversation, client.pid) == before, reshape


def reshaped(reshape: Callable[[Json], Json], messages: list[Json]) -> list[Json]:
    return [reshape(message) for message in messages]


# Branches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("between", [nothing, evict])
def test_what_is_asked_again_edited_and_dropped_is_no_more_in_the_history(
    client: Client, name: str, between: Callable[[Client], None]
) -> None:
    for turn in range(6):
        client.ask(f"{name} {turn} [[say answer {turn}]]")
    first, whole = (client.conversation, client.pid), client.fork()
    between(client)
    client.again()
    assert ((client.conversation, client.pid) == first) is (between is nothing)
    before = client.conversation, client.pid
    client.again()
    assert (client.conversation, client.pid) == before

    def hot(step: Callable[[], object]) -> None:
        step()
        # One that was cold began anew where it was asked again: it cannot go further back.
        assert (client.conversation, client.pid) == first or between is not nothing

    hot(lambda: client.send([*client.messages[:4], user(f"{name} edited [[say answer 2]]")]))  # turns dropped
    hot(lambda: client.ask(f"{name} on [[say more]]"))
    hot(lambda: client.send([*whole.messages, user(f"{name} back on the old branch [[say 6]]")]))
    hot(lambda: client.ask(f"{name} 7 [[say 7]]"))


# What Claude's own tools did ---------------------------------------------------------------------------


@pytest.mark.parametrize("between", [nothing, restart])
def test_what_claudes_tools_did_before_a_branch_is_kept(
    client: Client, name: str, between: Callable[[Client], None]
) -> None:
    client.ask(f"{name} one {bash('echo one')}")
    client.ask(f"{name} two [[say 2]]")
    client.ask(f"{name} three [[say 3]]")
    old = client.fork()
    between(client)
    client.again()
    assert client.used == did("echo one")
    client.send([*client.messages[:2], user(f"{name} two edited [[say 2]]")])
    assert client.used == did("echo one")
    between(client)
    client.ask(f"{name} other [[say 4]]")
    assert client.used == did("echo one")
    old.ask(f"{name} four [[say 4]]")
    assert old.used == did("echo one")


@pytest.mark.parametrize("between", [nothing, evict])
def test_what_claudes_tools_did_is_kept_on_both_branches(
    client: Client, name: str, between: Callable[[Client], None]
) -> None:
    client.ask(f"{name} one {bash('echo one')}")
    client.ask(f"{name} two {bash('echo two')}")
    old = client.fork()
    between(client)
    client.again()
    client.ask(f"{name} three [[say 3]]")
    assert client.used == [*did("echo one"), *did("echo two")]
    between(client)
    client.send([*client.messages[:2], user(f"{name} two edited {bash('echo other')}")])
    client.ask(f"{name} four [[say 4]]")
    assert client.used == [*did("echo one"), *did("echo other")]
    between(client)
    old.ask(f"{name} five [[say 5]]")
    assert old.used == [*did("echo one"), *did("echo two")]
    client.ask(f"{name} six [[say 6]]")
    assert client.used == [*did("echo one"), *did("echo other")]


@pytest.mark.parametrize("named", [True, False], ids=["named", "found"])
def test_a_fork_begins_earlier_where_its_point_is_dropped_meanwhile(
    client: Client, name: str, named: bool
) -> None:
    own = name if named else None
    client.ask(f"{name} one {bash('echo one')}", own)
    client.ask(f"{name} two [[say 2]]", own)
    client.ask(f"{name} three {bash('echo three')}", own)
    evict(client)
    # Somebody who goes on in that session has dropped all but the first turn.
    transcript = client.transcript()
    lines = transcript.read_text().splitlines(keepends=True)
    cut = next(n for n, line in enumerate(lines) if f"{name} two" in line)
    transcript.write_text("".join(lines[:cut]))
    client.send([*client.messages[:4], user(f"{name} three edited [[say 3]]")], own)
    assert client.used == did("echo one")
    client.ask(f"{name} four [[say 4]]", own)
    assert client.used == did("echo one")


@pytest.mark.parametrize("named", [True, False], ids=["named", "found"])
def test_what_claudes_tools_did_before_a_branch_of_a_branch_is_kept(
    client: Client, name: str, named: bool
) -> None:
    own = name if named else None
    client.ask(f"{name} one {bash('echo one')}", own)
    client.ask(f"{name} two [[say 2]]", own)
    client.ask(f"{name} three {bash('echo three')}", own)
    client.again(own)
    client.send([*client.messages[:2], user(f"{name} two edited [[say 2]]")], own)
    assert client.used == did("echo one")
    client.send([*client.messages[:2], user(f"{name} two edited again [[say 2]]")], own)
    assert client.used == did("echo one")


# With an id --------------------------------------------------------------------------------------------


def test_with_an_id_the_history_of_the_request_is_the_truth(client: Client, name: str) -> None:
    client.ask(f"{name} one [[say 1]]", name)
    client.ask(f"{name} two [[say 2]]", name)
    pid, old = client.pid, client.fork()
    client.again(name)
    client.send([*client.messages[:2], user(f"{name} two edited [[say 2]]")], name)
    assert (client.conversation, client.pid) == (name, pid)
    old.ask(f"{name} three [[say 3]]", name)
    assert old.pid == pid
    foreign = Client(client.daemon, client.model, [user("from elsewhere"), assistant("indeed")])
    foreign.ask(f"{name} four [[say 4]]", name)
    foreign.ask(f"{name} five [[say 5]]", name)
    assert foreign.conversation == name
    # What none of them tells is what was said last.
    kept = client.daemon.ask(f"{name} six [[recall]]", name).said
    assert kept == [
        "from elsewhere",
        f"{name} four [[say 4]]",
        f"{name} five [[say 5]]",
        f"{name} six [[recall]]",
    ]
    assert [it["content"] for it in client.daemon.shown(name)["messages"]][:3] == [
        "from elsewhere",
        "indeed",
        f"{name} four [[say 4]]",
    ]


def test_a_branch_within_an_id_keeps_what_claudes_tools_did(client: Client, name: str) -> None:
    client.ask(f"{name} one {bash('echo one')}", name)
    client.ask(f"{name} two {bash('echo two')}", name)
    old = client.fork()
    client.again(name)
    client.send([*client.messages[:2], user(f"{name} two edited {bash('echo other')}")], name)
    assert client.used == [*did("echo one"), *did("echo other")]
    client.ask(f"{name} three [[say 3]]", name)
    assert client.used == [*did("echo one"), *did("echo other")]
    evict(client)
    client.ask(f"{name} four [[say 4]]", name)
    assert client.used == [*did("echo one"), *did("echo other")]
    old.ask(f"{name} five [[say 5]]", name)
    assert old.used == [*did("echo one"), *did("echo two")]
    client.ask(f"{name} six [[say 6]]", name)
    assert client.used == [*did("echo one"), *did("echo other")]


@pytest.mark.parametrize("between", [nothing, restart])
def test_with_an_id_and_no_history_the_servers_goes_on(
    pool: Daemon, model: Model, name: str, between: Callable[[Client], None]
) -> None:
    pool.ask(f"{name} one [[say 1]]", name)
    between(Client(pool, model, conversation=name))
    several = [user(f"{name} two"), user(f"{name} three"), user(f"{name} four [[say 4]]")]
    assert pool.ask(several, name).text == "4"
    assert reached(newest(model, f"{name} four [[say 4]]")) == told(
        [user(f"{name} one [[say 1]]"), assistant("1"), *several]
    )
    # And a client that tells all of that finds it.
    client = Client(pool, model, [user(f"{name} one [[say 1]]"), assistant("1"), *several, assistant("4")])
    client.ask(f"{name} five [[say 5]]")
    assert client.conversation == name


# Lost transcripts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("named", "again"), [(True, False), (False, True)], ids=["named-on", "found-again"])
def test_a_lost_transcript_is_seeded_anew_unnoticed(
    client: Client, name: str, named: bool, again: bool
) -> None:
    own = name if named else None
    client.ask(f"{name} one [[say 1]]", own)
    client.ask(f"{name} two {bash('echo two')}", own)
    client.ask(f"{name} three [[say 3]]", own)
    evict(client)
    client.transcript().unlink()
    if again:
        client.send([*client.messages[:2], user(f"{name} two edited [[say 2]]")], own)
    else:
        client.ask(f"{name} four [[say 4]]", own)
    pid = client.pid
    client.ask(f"{name} five [[say 5]]", own)
    assert client.pid == pid
    assert not client.used
