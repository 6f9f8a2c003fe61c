"""A client that holds the whole history, and what the Messages API was sent of it."""

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.daemon import NOISE, SESSION, Answer, Daemon, Json, Model, eventually, texts

Entry = tuple[str, str]
"""Who said it, and the text; calls and results of tools, and images, are put into text."""

OWN_TOOLS = {"Bash", "Read", "Edit", "Write"}
STRUCTURED = "StructuredOutput"
"""The CLI's own tool: its call is the answer that fits a schema."""

CLI_TEXTS = ("[Image: source: ", "No response requested.")
"""How texts of the CLI's own begin: where it has put an image, and what follows a call on a resume."""


def function(name: str, parameters: Json | None = None, **more: Any) -> Json:
    """Return a tool of the client's."""
    described = {"name": name, "description": f"does {name}", **more}
    return {"type": "function", "function": described | ({"parameters": parameters} if parameters else {})}


def user(content: str | list[Json]) -> Json:
    return {"role": "user", "content": content}


def assistant(content: str | None, **more: Any) -> Json:
    return {"role": "assistant", "content": content, **more}


def call(number: int, name: str = "lookup", arguments: str = "{}") -> Json:
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def outcome(number: int, text: str) -> Json:
    return {"role": "tool", "tool_call_id": f"call_{number}", "content": text}


# What was said, as a client and as the model know it ----------------------------------------------------


def told(messages: list[Json]) -> list[Entry]:
    """Return what a client's messages say."""
    return [entry for message in messages for entry in _told(message) if entry[1]]


def _told(message: Json) -> Iterator[Entry]:
    role, content = message["role"], message.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    if role in {"system", "developer"}:
        return
    if role == "tool":
        yield "user", "-> " + "".join(part["text"] for part in parts)
        return
    for part in parts:
        yield role, part["text"].strip() if part["type"] == "text" else "<image>"
    for made in message.get("tool_calls") or ():
        arguments = json.loads(made["function"]["arguments"] or "{}")
        yield role, _called(made["function"]["name"], arguments)


def reached(body: Json) -> list[Entry]:
    """Return what a request of the CLI says, without the CLI's own lines and Claude's own tools."""
    return [(role, text) for role, text, own in _blocks(body) if not own]


def used(body: Json) -> list[str]:
    """Return the calls of Claude's own tools, and what they returned."""
    return [text for _, text, own in _blocks(body) if own]


def _blocks(body: Json) -> Iterator[tuple[str, str, bool]]:
    own_calls = set()
    for message in body["messages"]:
        content, role = message["content"], message["role"]
        blocks: list[Json] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for block in blocks:
            kind = "" if role == "system" else block["type"]
            if kind == "tool_use" and block["name"] == STRUCTURED:
                own_calls.add(block["id"])
                yield role, json.dumps(block["input"], separators=(",", ":")), False
            elif kind == "tool_use":
                own = block["name"] in OWN_TOOLS
                own_calls |= {block["id"]} if own else set()
                yield role, _called(block["name"].removeprefix("mcp__client__"), block["input"]), own
            elif kind == "tool_result":
                yield role, f"-> {_result(block)}", block["tool_use_id"] in own_calls
            elif kind == "image":
                yield role, "<image>", False
            elif kind == "text":
                kept = NOISE.sub("", block["text"]).strip()
                if kept and not kept.startswith(CLI_TEXTS):
                    yield role, kept, False


def _called(name: str, arguments: Json) -> str:
    return f"{name} {json.dumps(arguments, sort_keys=True)}"


def _result(block: Json) -> str:
    content = block.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def newest(model: Model, text: str) -> Json:
    """Return the newest request whose question is this text, and that is not the CLI's going on by itself."""
    asked = (body for body in reversed(model.requests(text)) if texts(body)[-1].strip() == text.strip())
    return next(body for body in asked if not goes_on(body))


def goes_on(body: Json) -> bool:
    """Return whether the CLI asks for the rest of an answer that a limit has cut."""
    content = [message["content"] for message in body["messages"] if message["role"] == "user"][-1]
    last = content if isinstance(content, str) else content[-1].get("text", "")
    return str(last).removeprefix("<system-reminder>\n").startswith("Output token limit hit")


def differs(body: Json, messages: list[Json]) -> str:
    """Return where what reached the model begins to be another history."""
    known, meant = reached(body), told(messages[:-1])
    same = next(
        (n for n, pair in enumerate(zip(known, meant, strict=False)) if pair[0] != pair[1]), len(known)
    )
    return f"after {same}: the model was sent {known[same:]}, the client has {meant[same:]}"


# The client --------------------------------------------------------------------------------------------


@dataclass
class Client:
    """A client with no state but its messages: it checks that the model is sent just these.

    `reshape` is what it does to them on their way; `more` are fields of all its requests. With `streamed`
    it asks for streams.
    """

    daemon: Daemon
    model: Model
    messages: list[Json] = field(default_factory=list)
    kind: str = "claude-code"
    reshape: Callable[[list[Json]], list[Json]] = copy.deepcopy
    more: Json = field(default_factory=dict)
    streamed: bool = False
    conversation: str = ""
    pid: int = 0
    body: Json = field(default_factory=dict, repr=False)

    def ask(self, text: str, name: str | None = None, **more: Any) -> Answer:
        """Ask for one thing more."""
        return self.send([*self.messages, user(text)], name, **more)

    def again(self, name: str | None = None, **more: Any) -> Answer:
        """Ask the last question again."""
        last = max(index for index, it in enumerate(self.messages) if it["role"] == "user")
        return self.send(self.messages[: last + 1], name, **more)

    def send(self, messages: list[Json], name: str | None = None, **more: Any) -> Answer:
        """Send a history that ends with a question; the answer follows it."""
        answer = self._asked(self.reshape(messages), name, model=self.kind, **{**self.more, **more})
        assert answer.ok, answer.body
        self.messages = [*messages, answer.message]
        self.conversation = answer.conversation
        self.check()
        return answer

    def _asked(self, messages: list[Json], name: str | None, **more: Any) -> Answer:
        if not self.streamed:
            return self.daemon.ask(messages, name, **more)
        with self.daemon.stream(messages, name, **more) as stream:
            return stream.answer()

    def returns(self, *results: str | list[Json], then: str = "", **more: Any) -> Answer:
        """Send what the calls of the newest answer return, and maybe a text after them."""
        after = [user(then)] if then else []
        return self.send([*self.messages, *self.results(*results), *after], **more)

    def results(self, *results: str | list[Json]) -> list[Json]:
        """Return the messages that bring the results of the newest answer's calls."""
        made = self.messages[-1]["tool_calls"]
        return [
            {"role": "tool", "tool_call_id": it["id"], "content": result}
            for it, result in zip(made, results, strict=True)
        ]

    @property
    def calls(self) -> list[Entry]:
        """Return name and arguments of the newest answer's calls."""
        made = self.messages[-1].get("tool_calls", [])
        return [(it["function"]["name"], it["function"]["arguments"]) for it in made]

    def leave(self, text: str, until: str, name: str | None = None) -> str:
        """Ask, leave in the middle of the answer, and keep what has come of it."""
        with self.daemon.stream(self.reshape([*self.messages, user(text)]), name, model=self.kind) as stream:
            seen = stream.until(until)
            self.conversation = stream.conversation
        self.messages = [*self.messages, user(text), assistant(seen)]
        return seen

    def check(self) -> None:
        """Check what the newest question came with."""
        asked = [text for role, text in told(self.messages) if role == "user" and not text.startswith("-> ")]
        text = asked[-1]
        self.body = newest(self.model, text)
        assert reached(self.body) == told(self.messages[:-1]), differs(self.body, self.messages)
        self.pid = self._process()

    @property
    def session(self) -> str:
        """Return the session that the newest question was asked in."""
        return str(SESSION.findall(json.dumps(self.body["metadata"]))[-1])

    def transcript(self) -> Path:
        """Return the file of that session."""
        (file,) = self.daemon.home.glob(f".claude/projects/*/{self.session}.jsonl")
        return file

    def _process(self) -> int:
        with contextlib.suppress(ValueError):  # it may have been ended already
            return self.daemon.worker_of(self.session).pid
        return 0

    @property
    def used(self) -> list[str]:
        """Return what Claude's own tools did, as the newest request told it."""
        return used(self.body)

    def fork(self) -> "Client":
        """Return a second client that knows the same."""
        return Client(
            self.daemon,
            self.model,
            copy.deepcopy(self.messages),
            kind=self.kind,
            reshape=self.reshape,
            more=self.more,
            streamed=self.streamed,
        )


def nothing(_: Client) -> None:
    """Let the worker be."""


def evict(client: Client) -> None:
    """End the conversation's process."""
    client.daemon.settled()
    assert client.daemon.delete(f"/conversations/{client.conversation}").ok
    eventually(lambda: client.pid not in {worker.pid for worker in client.daemon.workers()})


def kill(client: Client) -> None:
    """Kill the conversation's process."""
    client.daemon.worker_of(client.session).kill()


def restart(client: Client) -> None:
    """Stop the daemon and start it again."""
    client.daemon.settled()
    client.daemon.restart()
