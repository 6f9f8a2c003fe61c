"""Random walks of several clients over one daemon: each turn reaches the model as its client's history."""

import copy
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from tests.acceptance.conftest import Start
from tests.support.client import Client, assistant, function, told, user
from tests.support.daemon import Answer, Daemon, Json, Model, Stream


class Walk:
    """Clients that do what comes to their mind. `self.log` is how to get there again."""

    def __init__(self, daemon: Daemon, model: Model, seed: int) -> None:
        self.random, self.seed = Random(seed), seed
        self.daemon, self.model = daemon, model
        self.log: list[str] = []
        self.count = 0
        self.branches: list[Any] = [Client(daemon, model, reshape=self.reshaped) for _ in range(3)]
        self.names: list[str | None] = [None, None, f"walk-{seed}"]
        self.actions: list[tuple[int, Callable[[], None]]] = [
            (8, self.go_on),
            (4, self.ask_again),
            (4, self.edit),
            (3, self.split),
            (3, self.leave),
            (2, self.fail),
            (2, self.evict),
            (1, self.kill),
            (1, self.restart),
            (2, self.begin),
        ]

    def run(self, steps: int) -> None:
        weights = [weight for weight, _ in self.actions]
        for _ in range(steps):
            self.model.forget()
            (action,) = self.random.choices([action for _, action in self.actions], weights)
            self.log.append(action.__name__)
            action()

    def check_tools(self, client: Client) -> None:
        """Check that what Claude's own tools did in the answers that the client knows is not lost."""
        asked = " ".join(text for role, text in told(client.messages) if role == "user")
        assert client.used == [
            text
            for word in re.findall(r'\[\[tool Bash {"command": "echo (\d+)"}', asked)
            for text in (f'Bash {{"command": "echo {word}"}}', f"-> {word}")
        ]

    # What a client may do ------------------------------------------------------------------------------

    def go_on(self) -> None:
        self.send(self.pick(), None)

    def ask_again(self) -> None:
        place = self.pick()
        questions = self.places(place, "user")
        if questions:
            client = self.branches[place]
            self.named(place, client.messages[: questions[-1]])
            client.again(self.names[place])
            self.check_tools(client)

    def edit(self) -> None:
        """Put another question in the place of an earlier one."""
        place = self.pick()
        if questions := self.places(place, "user"):
            self.send(place, self.random.choice(questions))

    def split(self) -> None:
        """Let a second client go on with what one knows, from any of its answers, found by its history."""
        place = self.random.randrange(2)
        if answers := self.places(place, "assistant"):
            other = self.random.randrange(2)
            self.branches[other] = self.branches[place].fork()
            self.send(other, self.random.choice(answers) + 1)

    def leave(self) -> None:
        """Go away in mid-answer; then forget it, or keep what came."""
        place = self.pick()
        client = self.branches[place]
        before = client.messages
        self.named(place, before)
        client.leave(f"{self.text()} [[delay 20]] [[words 200]]", "w3 ", self.names[place])
        if self.random.random() < 0.5:
            client.messages = before

    def fail(self) -> None:
        place = self.pick()
        client = self.branches[place]
        self.named(place, client.messages)
        asked = user(f"{self.text()} [[words 3]] [[error 529]]")
        answer = self.daemon.ask([*client.messages, asked], self.names[place])
        assert answer.code == "overloaded"

    def evict(self) -> None:
        client = self.branches[self.pick()]
        if client.conversation:
            self.daemon.delete(f"/conversations/{client.conversation}")

    def kill(self) -> None:
        """End a process that a client was served by."""
        served = {client.pid for client in self.branches}
        for worker in self.daemon.workers():
            if worker.pid in served:
                worker.kill()

    def restart(self) -> None:
        self.daemon.restart()

    def begin(self) -> None:
        """Begin anew, with a history from elsewhere at times."""
        place = self.random.randrange(2)
        past = [user("few"), assistant("shots"), user(self.text())][: self.random.choice([0, 2, 3])]
        self.branches[place] = Client(self.daemon, self.model, past, reshape=self.reshaped)
        self.send(place, None)

    # What they say -------------------------------------------------------------------------------------

    def pick(self) -> int:
        place = self.random.randrange(len(self.branches))
        self.log[-1] += f" {place}"
        return place

    def places(self, place: int, role: str) -> list[int]:
        return [index for index, it in enumerate(self.branches[place].messages) if it["role"] == role]

    def send(self, place: int, length: int | None) -> None:
        """Ask something, after so many messages of the client's."""
        client = self.branches[place]
        kept = client.messages[:length]
        self.named(place, kept)
        client.send([*kept, user(self.question())], self.names[place])
        self.check_tools(client)

    def named(self, place: int, kept: list[Json]) -> None:
        """Take another name where no history is told: the server's would go on."""
        if self.names[place] and all(it["role"] == "user" for it in kept):
            self.count += 1
            self.names[place] = f"walk-{self.seed}-{self.count}"

    def text(self) -> str:
        self.count += 1
        return f"text {self.count}"

    def question(self) -> str:
        text = self.text()
        used = f'[[tool Bash {{"command": "echo {self.count}"}}]] ' if self.random.random() < 0.25 else ""
        return f"{text} {used}[[say answer {self.count}]]"

    def reshaped(self, messages: list[Json]) -> list[Json]:
        return [self.random.choice(RESHAPES)(it) for it in messages]


def _as_parts(message: Any) -> Json:
    content = message["content"]
    return {**message, "content": content and [{"type": "text", "text": content}]}


def _with_spaces(message: Any) -> Json:
    content = message["content"]
    if message["role"] == "tool":
        return dict(message)
    return {**message, "content": content and f"{content} \n", "name": "someone"}


def _respelled(message: Any) -> Json:
    """Return a message with other white space in its calls' arguments."""
    message = copy.deepcopy(message)
    for made in message.get("tool_calls", ()):
        made["function"]["arguments"] = json.dumps(json.loads(made["function"]["arguments"]), indent=1)
    return dict(message)


RESHAPES: tuple[Callable[[Json], Json], ...] = (copy.deepcopy, _as_parts, _with_spaces, _respelled)


# Clients with tools ------------------------------------------------------------------------------------

GET = function("get", {"type": "object", "properties": {"x": {"type": "integer"}}})
OFFERS = ([GET, function("put")], [GET, function("put"), function("new")], [function("put"), GET])
STOP = "STOP"
OWN_CALL = re.compile(r'Bash {"command": "echo (\d+)"}')
OWN_ASKED = re.compile(r'\[\[tool Bash {"command": "echo (\d+)"}')


@dataclass
class Caller(Client):
    """A client with tools. `done` is what Claude's own have done in finished turns: that has to stay."""

    done: set[str] = field(default_factory=set)

    @property
    def waits(self) -> bool:
        """Return whether its newest answer calls tools."""
        return bool(self.messages and self.messages[-1].get("tool_calls"))

    def check(self) -> None:
        """Check what came to the model, and that what Claude's tools did in the turns before it did too."""
        super().check()
        last = max(n for n, message in enumerate(self.messages) if message["role"] == "user")
        asked = OWN_ASKED.findall(" ".join(message["content"] for message in _users(self.messages[:last])))
        kept = [number for number in asked if number in self.done]
        calls, results = self.used[::2], self.used[1::2]
        known = [number for text in calls + results for number in OWN_CALL.findall(text)]
        assert [number for number in known if number in kept] == kept, f"{self.used}, not all of {kept}"
        if not self.waits:
            self.done = set(known)

    def fork(self) -> "Caller":
        """Return a second client that knows the same."""
        other = Caller(self.daemon, self.model, copy.deepcopy(self.messages), reshape=self.reshape)
        other.done = set(self.done)
        return other


def _users(messages: list[Json]) -> list[Json]:
    return [message for message in messages if message["role"] == "user"]


class ToolWalk(Walk):
    """Clients with tools, who call and are called, return results, and change their minds."""

    def __init__(self, daemon: Daemon, model: Model, seed: int) -> None:
        super().__init__(daemon, model, seed)
        self.branches = [Caller(daemon, model, reshape=self.reshaped) for _ in range(3)]
        self.actions = [
            (12, self.go_on),
            (4, self.send_again),
            (3, self.edit),
            (3, self.say_more),
            (3, self.split),
            (3, self.leave),
            (2, self.leave_after_results),
            (2, self.fail),
            (2, self.fail_after_results),
            (2, self.stop),
            (2, self.limit),
            (3, self.evict),
            (1, self.kill),
            (1, self.restart),
            (2, self.begin),
        ]

    # What a client may do ------------------------------------------------------------------------------

    def go_on(self) -> None:
        """Return results where they are waited for, else ask."""
        place = self.pick()
        if self.branches[place].waits:
            self.say(place, [*self.branches[place].messages, *self.results(place)])
        else:
            self.send(place, None)

    def send_again(self) -> None:
        """Send again what was answered before: a question, or results."""
        place = self.pick()
        messages = self.branches[place].messages
        answered = [n for n in self.places(place, "assistant") if n]
        if answered:
            self.say(place, messages[: self.random.choice(answered[-3:])])

    def say_more(self) -> None:
        """Ask something else right behind the results."""
        place = self.pick()
        if self.branches[place].waits:
            messages = [*self.branches[place].messages, *self.results(place), user(self.question())]
            self.say(place, messages)

    def split(self) -> None:
        place, other = self.random.randrange(2), self.random.randrange(2)
        messages = self.branches[place].messages
        answers = [n + 1 for n in self.places(place, "assistant") if not messages[n].get("tool_calls")]
        if answers:
            self.branches[other] = self.branches[place].fork()
            self.send(other, self.random.choice(answers))

    def leave(self) -> None:
        if not self.branches[place := self.pick()].waits:
            self.left(place, [user(f"{self.text()} [[delay 20]] [[words 200]] [[tool get {{}}]]")])

    def leave_after_results(self) -> None:
        place = self.pick()
        if not self.branches[place].waits:
            self.send(place, None, f"{self.text()} [[tool get {{}}]] [[delay 20]] [[words 200]]")
            self.left(place, self.results(place))

    def left(self, place: int, new: list[Json]) -> None:
        """Send some messages, and leave in mid-answer; then forget it, or keep what came."""
        client = self.branches[place]
        before = client.messages
        sent = [*before, *new]
        self.named(place, before)
        with self.daemon.stream(self.reshaped(sent), self.names[place], tools=self.offer()) as stream:
            seen = stream.until("w3 ")
            client.conversation = stream.conversation
        if self.random.random() < 0.5:
            client.messages = [*sent, assistant(seen)]

    def fail(self) -> None:
        if not self.branches[place := self.pick()].waits:
            self.failed(place, [user(f"{self.text()} [[words 3]] [[error 529]]")])

    def fail_after_results(self) -> None:
        place = self.pick()
        if not self.branches[place].waits:
            before = self.branches[place].messages
            self.send(place, None, f"{self.text()} [[tool get {{}}]] [[words 3]] [[error 529]]")
            self.failed(place, self.results(place))
            self.branches[place].messages = before

    def failed(self, place: int, new: list[Json]) -> None:
        client = self.branches[place]
        self.named(place, client.messages)
        sent = self.reshaped([*client.messages, *new])
        assert self.daemon.ask(sent, self.names[place], tools=self.offer()).code == "overloaded"

    def stop(self) -> None:
        """Have an answer end at a text, before calls that would come or behind some."""
        if not self.branches[place := self.pick()].waits:
            text = self.text()
            called = self.random.choice(["", "[[tool get {}]] "])
            question = f"{text} {called}[[say answer {text} {STOP} more]] [[tool put {{}}]]"
            self.send(place, None, question, stop=[STOP])

    def limit(self) -> None:
        """Have an answer end after some tokens, in its text or in a call's arguments."""
        if not self.branches[place := self.pick()].waits:
            client = self.branches[place]
            called = self.random.choice(["", "[[tool get {}]] "])
            sent = [*client.messages, user(f"{self.text()} {called}[[words 20]]")]
            self.named(place, client.messages)
            # Unchecked: the CLI may have begun to ask for more before it was cut short.
            answer = self.daemon.ask(self.reshaped(sent), self.names[place], tools=self.offer(), max_tokens=5)
            client.messages, client.conversation = [*sent, answer.message], answer.conversation

    def begin(self) -> None:
        place = self.random.randrange(2)
        past = [user("few"), assistant("shots"), user(self.text())][: self.random.choice([0, 2, 3])]
        self.branches[place] = Caller(self.daemon, self.model, past, reshape=self.reshaped)
        self.send(place, None)

    # What they say -------------------------------------------------------------------------------------

    def send(self, place: int, length: int | None, question: str = "", **more: Any) -> None:
        """Ask something, after so many messages of the client's."""
        kept = self.branches[place].messages[:length]
        if kept and kept[-1].get("tool_calls"):
            kept = [*kept, *self.results(place)]
        self.say(place, [*kept, user(question or self.question())], **more)

    def say(self, place: int, messages: list[Json], **more: Any) -> None:
        self.named(place, messages[:-1])
        self.branches[place].send(messages, self.names[place], tools=self.offer(), **more)

    def results(self, place: int) -> list[Json]:
        client: Caller = self.branches[place]
        return client.results(*[f"result {self.text()}" for _ in client.calls])

    def offer(self) -> list[Json]:
        return self.random.choice(OFFERS)

    def question(self) -> str:
        text = self.text()
        own = f'[[tool Bash {{"command": "echo {self.count}"}}]]' if self.random.random() < 0.3 else ""
        calls = self.random.choice(SCRIPTS).format(f'[[tool get {{"x": {self.count}}}]]', own)
        return f"{text} {calls} [[say answer {self.count}]]"


SCRIPTS = (
    "{1}",
    "{0} {1}",
    "{1} [[say Look.]] {0}",
    "[[say Look.]] {0} [[tool put {{}}]] {1}",
    "{0} [[say And.]] [[tool put {{}}]] {1}",
    "{1} {0} [[say And.]] {0} {0}",
)
"""What a question has called: {0} is a call of a client's tool, {1} one of Claude's own, or nothing."""


class Account:
    """How the requests to a daemon have ended, by the clients' count and by the daemon's."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.ends: Counter[str] = Counter()
        self._ask, self._stream = daemon.ask, daemon.stream
        daemon.ask, daemon.stream = self.ask, self.stream  # type: ignore[method-assign]

    def ask(self, *given: Any, **more: Any) -> Answer:
        answer = self._ask(*given, **more)
        self.ends["finished" if answer.ok else answer.code] += 1
        return answer

    @contextmanager
    def stream(self, *given: Any, **more: Any) -> Iterator[Stream]:
        """Ask for a stream that is left before its end."""
        with self._stream(*given, **more) as stream:
            yield stream
        self.ends["left"] += 1

    def check(self) -> None:
        """Check that each request has ended in one of the ways that are documented, and was recorded so."""
        self.daemon.settled()
        assert set(self.ends) <= {"finished", "left", "overloaded"}
        log = [json.loads(line)["message"] for line in self.daemon.log.splitlines() if line.startswith("{")]
        assert log.count("turn finished") == self.ends["finished"]
        assert log.count("turn given up") == self.ends["left"] + self.ends["overloaded"]


def walk(start: Start, model: Model, kind: type[Walk], seed: int, steps: int) -> None:
    daemon = start(POOL_SIZE=3, CLAUDE_CODED_UPSTREAM_RETRIES=0, CLAUDE_CODED_LOG_LEVEL="debug")
    walk, account = kind(daemon, model, seed), Account(daemon)
    try:
        walk.run(steps)
        account.check()
    except BaseException as error:
        error.add_note(f"seed {seed}, after {walk.log}")
        raise
    print(f"seed {seed}: {dict(account.ends)} after {dict(Counter(it.split()[0] for it in walk.log))}")


@pytest.mark.parametrize("kind", [Walk, ToolWalk])
def test_random_clients_find_their_histories_at_the_model(
    start: Start, model: Model, kind: type[Walk]
) -> None:
    walk(start, model, kind, seed=1, steps=20)


@pytest.mark.soak
@pytest.mark.parametrize("kind", [Walk, ToolWalk])
@pytest.mark.parametrize(("seed", "steps"), [*((seed, 150) for seed in range(2, 22)), (22, 2000)])
def test_random_clients_find_their_histories_at_the_model_for_long(
    start: Start, model: Model, kind: type[Walk], seed: int, steps: int
) -> None:
    walk(start, model, kind, seed, steps)
