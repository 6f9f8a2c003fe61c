"""Random walks of several clients over one daemon: each turn reaches the model as its client's history."""

import copy
import re
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from tests.acceptance.conftest import Start
from tests.support.client import Client, assistant, told, user
from tests.support.daemon import Daemon, Json, Model


class Walk:
    """Clients that do what comes to their mind. `self.log` is how to get there again."""

    def __init__(self, daemon: Daemon, model: Model, seed: int) -> None:
        self.random, self.seed = Random(seed), seed
        self.daemon, self.model = daemon, model
        self.log: list[str] = []
        self.count = 0
        self.branches = [Client(daemon, model, reshape=self.reshaped) for _ in range(3)]
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
    return {"role": message["role"], "content": [{"type": "text", "text": message["content"]}]}


def _with_spaces(message: Any) -> Json:
    return {**message, "content": f"{message['content']} \n", "name": "someone"}


RESHAPES: tuple[Callable[[Json], Json], ...] = (copy.deepcopy, _as_parts, _with_spaces)


def walk(start: Start, model: Model, seed: int, steps: int) -> None:
    daemon = start(POOL_SIZE=3, CLAUDE_CODED_UPSTREAM_RETRIES=0, CLAUDE_CODED_LOG_LEVEL="debug")
    walk = Walk(daemon, model, seed)
    try:
        walk.run(steps)
    except BaseException as error:
        error.add_note(f"seed {seed}, after {walk.log}")
        raise


def test_random_clients_find_their_histories_at_the_model(start: Start, model: Model) -> None:
    walk(start, model, seed=1, steps=40)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 22))
def test_random_clients_find_their_histories_at_the_model_for_long(
    start: Start, model: Model, seed: int
) -> None:
    walk(start, model, seed, steps=150)
