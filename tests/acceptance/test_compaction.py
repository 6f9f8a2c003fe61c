"""Agent conversations that Claude Code compacts on its own: their clients need not know of it."""

from tests.acceptance.conftest import Start
from tests.support.client import Client, evict, reached, user
from tests.support.daemon import Model

LONG = "lorem ipsum " * 20_000
"""Some 60,000 tokens to the scripted model."""
OWN = '[[tool Bash {"command": "echo own"}]]'


def test_a_compacted_conversation_goes_on_and_can_be_branched_from(
    start: Start, model: Model, name: str
) -> None:
    client = Client(start(CLAUDE_AUTOCOMPACT_PCT_OVERRIDE=20), model)
    client.ask(f"{name} zero {OWN} [[say 0]]")
    before = client.conversation, client.pid
    for number in range(4):
        client.messages.append(user(f"{name} turn {number} [[say {number}]] {LONG}"))
        answer = client.daemon.ask(client.messages)
        assert answer.text == str(number)
        client.messages.append(answer.message)
        assert (answer.conversation, client.daemon.worker_of(model.session(f"{name} turn")).pid) == before
    compacted = reached(model.requests(f"{name} turn 3")[-1])
    assert not any("zero" in text for _, text in compacted if text.startswith(name))
    # What the summary stands for cannot be taken out of it: the history is told anew, all of it.
    other = client.fork()
    other.send([*client.messages[:4], user(f"{name} edited [[say 5]]")])
    other.ask(f"{name} more [[say 6]]")
    evict(other)
    other.ask(f"{name} and more [[say 7]]")
