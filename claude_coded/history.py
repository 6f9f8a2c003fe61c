"""What a turn has to write, given what the session holds and what the client sent. Pure.

A conversation stands at its last finished turn. What an unfinished turn left in the session is taken back
(a rewind) before anything else is asked; what its client saw of it is put in its place, as history.
"""

from dataclasses import dataclass
from pathlib import Path

from claude_coded.turn import ConversationKey, Message, Profile, Role, TurnRequest, Usage


@dataclass(frozen=True, slots=True)
class Span:
    """What a turn wrote into a session: the uuids of its first and its last message."""

    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A turn that began and never finished.

    `spans` is what may have to be taken back from the session, the oldest first: a cut reaches the disk
    only with the next message, so it stands here until a turn finishes. `lead` was seeded because a client
    had seen it; `asked` is what the client asked, `seen` what it was sent.
    """

    spans: tuple[Span, ...]
    lead: tuple[Message, ...]
    asked: tuple[Message, ...]
    seen: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation as it is stored. `turns` counts the finished ones; times are Unix seconds."""

    key: ConversationKey
    session: str
    profile: Profile
    workspace: Path
    system: str
    turns: int
    created_at: float
    last_used_at: float
    usage: Usage
    unfinished: Unfinished | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How a request meets its conversation.

    `fresh`: a new session, else the conversation's own. `back` is the unfinished turn to take back.
    `seeds` go in before `asked`, of which only the last message starts the turn. `lead` is the part of the
    seeds that belongs to this turn's record: seen by the client, and not yet in any finished turn.
    """

    fresh: bool
    seeds: tuple[Message, ...]
    lead: tuple[Message, ...]
    asked: tuple[Message, ...]
    back: Unfinished | None = None

    @property
    def written(self) -> tuple[Message, ...]:
        """Return all messages that the turn writes, in order."""
        return self.seeds + self.asked


def plan(known: Conversation | None, request: TurnRequest) -> Plan:
    """Return the plan for a request, whose messages end with a user message.

    A conversation that is known goes on with the client's newest messages, those after the last answer;
    its own history is the truth. An unknown one begins with the history that the client brings along.
    """
    asked = newest(request.messages)
    if known is None:
        seeds = request.messages[: len(request.messages) - len(asked)]
        return Plan(fresh=True, seeds=seeds, lead=seeds, asked=asked)
    lead = seen_before(known.unfinished, asked)
    return Plan(fresh=known.turns == 0, seeds=lead, lead=lead, asked=asked, back=known.unfinished)


def rebuild(past: tuple[Message, ...], planned: Plan) -> Plan:
    """Return the plan that seeds a new session with a conversation's past: its own session is lost."""
    return Plan(fresh=True, seeds=past + planned.lead, lead=planned.lead, asked=planned.asked)


def newest(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the messages after the last one of the assistant."""
    start = len(messages)
    while start and messages[start - 1].role is Role.USER:
        start -= 1
    return messages[start:]


def seen_before(unfinished: Unfinished | None, asked: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return what the client has seen beyond the last finished turn.

    The same question again replaces the unfinished turn. Another one follows it, if the client was sent
    any of its answer: that part then counts as the answer.
    """
    if unfinished is None:
        return ()
    if unfinished.asked == asked or not unfinished.seen:
        return unfinished.lead
    return (*unfinished.lead, *unfinished.asked, Message(Role.ASSISTANT, unfinished.seen))
