"""What the client sent against what is known: matching, and what a turn has to write. Pure.

A history is known by chained digests, one a message: equal digests, equal histories up to there. A
conversation stands at its head, the last finished turn of its branch. What an unfinished turn left in the
session is taken back (a rewind) before anything else is asked, and so are finished turns that the client
has dropped.
"""

from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from claude_coded.turn import (
    ConversationKey,
    Document,
    Image,
    Message,
    Part,
    Profile,
    RemoteImage,
    Role,
    Text,
    ToolCall,
    ToolOutcome,
    TurnRequest,
    Usage,
)

# Digests -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)  # of the turn of a named conversation it is all that is digested before it is asked
def seed_digest(tenant: str, *, agent: bool) -> bytes:
    """Return where a tenant's chains begin: what another tenant or kind of model said never matches."""
    return sha256(f"{int(agent)}:{tenant}".encode()).digest()


def chain(start: bytes, messages: Collection[Message]) -> list[bytes]:
    """Return the digest after each message."""
    return _walk(start, messages)[0]


def _walk(start: bytes, messages: Collection[Message]) -> tuple[list[bytes], list[int]]:
    """Return the digest after each message, and after how many of them an answer is followed by a question.

    Both at once: a long history is in no cache, and every way through it counts.
    """
    digests: list[bytes] = []
    ends: list[int] = []
    digest, answer, answered = start, Role.ASSISTANT, False
    if not messages:
        return digests, ends
    new = sha256().copy  # costs less than the constructor, which looks for the algorithm
    for message in messages:
        parts = message.parts
        if len(parts) == 1 and type(part := parts[0]) is Text:  # as in nearly all: a call less
            said = part.text.strip().encode()
        else:
            said = _said(parts)
        hasher = new()
        if message.role is answer:
            hasher.update(digest + b"a" + said)
            answered = True
        else:
            hasher.update(digest + b"u" + said)
            if answered:
                ends.append(len(digests))
                answered = False
        digest = hasher.digest()
        digests.append(digest)
    return digests, ends


def _said(parts: Sequence[Part]) -> bytes:
    """Return what counts of a message's parts.

    Clients reshape what they send again: text as parts or a string, white space at the ends, the order of
    keys in arguments, ids. None of that makes another message.
    """
    if len(parts) == 1:
        part = parts[0]
        return part.text.strip().encode() if isinstance(part, Text) else _other(part)
    texts, others = [], []
    for part in parts:
        if isinstance(part, Text):
            texts.append(part.text)
        else:
            others.append(_other(part))
    return b"".join(("\n".join(texts).strip().encode(), *others))


def _other(part: ToolCall | ToolOutcome | Image | RemoteImage | Document) -> bytes:
    """Return what counts of a part that is no text, with what keeps it apart from what stands before it."""
    if isinstance(part, ToolCall):
        return b"\0%b%b" % (part.name.encode(), part.canonical)
    if isinstance(part, ToolOutcome):
        return b"\0outcome" + _said(part.parts)
    if isinstance(part, RemoteImage):
        return b"\0" + part.url.encode()
    return b"\0%b%b" % (part.media_type.encode(), part.data.encode())


# What is known -----------------------------------------------------------------------------------------


class Span(Struct, frozen=True, gc=False):
    """What a turn wrote into a session: the uuids of its first and its last message.

    `certain`: the session holds it, unless the CLI has compacted it, and then nothing can be taken back.
    """

    first: str
    last: str
    certain: bool = False


class Unfinished(Struct, frozen=True):
    """A turn that began and never finished.

    `spans` is what may have to be taken back from the session, the oldest first: a cut reaches the disk
    only with the next message, so it stands here until a turn finishes. `lead` was seeded because a client
    had seen it; `asked` is what the client asked, `seen` what it was sent.
    """

    spans: tuple[Span, ...]
    lead: tuple[Message, ...]
    asked: tuple[Message, ...]
    seen: str = ""


class Head(Struct, frozen=True):
    """A finished turn that a conversation stands at, or stood at.

    `digest` is of all that was said up to its end; `tools` counts the uses of Claude's own tools that its
    session knows of by then. `span` is what it wrote, and `answer` the uuid of its last message ("" where
    that is not known), in its `session` and under the same uuids in every later one of its `lineage`, a row
    of forks which is called by the first.

    A session can be gone on with after a `whole` one only. After the others it holds calls that wait for
    their outcomes, or nothing at all of an answer that was cut.
    """

    turn: int
    digest: bytes
    tools: int
    session: str
    lineage: str
    span: Span
    answer: str = ""
    whole: bool = True


class Conversation(Struct, frozen=True):
    """A conversation as it is stored. `turns` counts the finished ones; times are Unix seconds.

    `generation` counts the sessions that it has had: a process serves one of them. An `ephemeral` one is
    forgotten when its process goes.
    """

    key: ConversationKey
    session: str
    lineage: str
    profile: Profile
    workspace: Path
    system: str
    turns: int
    created_at: float
    last_used_at: float
    usage: Usage
    unfinished: Unfinished | None = None
    head: Head | None = None
    generation: int = 0
    hint: str = ""
    ephemeral: bool = False


CANCELLED: Final = "The user did not wait for this call."
"""What stands for the outcome of a call that was never answered."""

# What a request says -----------------------------------------------------------------------------------


class Told(Struct, frozen=True):
    """A request's messages: the past as the client tells it, and what it asks now.

    `digests` has one after each message of the past; `start` is where the chain begins. `ends` are the
    numbers of messages that may end a turn, the most first: an answer, and then a question. A `brief`
    request leaves out the past: there is one digest, of all of it.
    """

    past: tuple[Message, ...]
    asked: tuple[Message, ...]
    start: bytes
    digests: tuple[bytes, ...]
    ends: tuple[int, ...] = ()
    brief: bool = False

    @property
    def has_history(self) -> bool:
        """Return whether the client tells what was said: its history is then the truth."""
        return bool(self.digests)

    def lengths(self, turns: Iterable[Head]) -> dict[bytes, int]:
        """Return how many messages lead to the end of each turn that the history holds, by its digest."""
        wanted = {turn.digest for turn in turns}
        return {digest: n for n, digest in enumerate(self.digests, 1) if digest in wanted}


def read(request: TurnRequest) -> Told:
    """Return what a request says; the messages after the last one of the assistant are what it asks."""
    messages = request.messages
    if request.brief and request.after is not None:
        return Told((), messages, request.after.digest, (request.after.digest,), brief=True)
    start = len(messages)
    while start and messages[start - 1].role is Role.USER:
        start -= 1
    past, asked = messages[:start], messages[start:]
    begin = seed_digest(request.key.tenant, agent=request.profile.agent)
    digests, ends = _walk(begin, past)
    if past and asked:
        ends.append(len(past))
    return Told(past, asked, begin, tuple(digests), tuple(reversed(ends)))


# Plans -------------------------------------------------------------------------------------------------


MESSAGE_SIZE: Final = 250
"""Bytes for which a message counts where only their number is known."""


class Way(StrEnum):
    """How a turn gets at a session that holds the history."""

    ANSWER = "answer"  # the turn that waits for the client's tools goes on
    CONTINUE = "continue"  # the conversation's own session, hot or resumed
    FORK = "fork"  # a copy of a session
    FRESH = "fresh"  # a new one


class Plan(Struct, frozen=True):
    """How a request meets its conversation.

    `back` is taken back from a session that is resumed, `back_hot` from a hot one, in order: with that a
    fresh plan goes on in a hot one, which then holds nothing. A fork holds its session up to the message
    `at`, whatever comes after: that may be another client's by then.
    `seeds` go in before `asked`, of which only the last message starts the turn. The turn's record is
    `said` and the answer: it follows the turn `base`, and `digest` is of all that was said before it.
    `tools` counts the uses of Claude's own tools that the session knows of.
    """

    way: Way
    seeds: tuple[Message, ...]
    said: tuple[Message, ...]
    asked: tuple[Message, ...]
    digest: bytes
    base: Head | None = None
    back: tuple[Span, ...] = ()
    back_hot: tuple[Span, ...] = ()
    tools: int = 0
    session: str | None = None
    lineage: str | None = None
    at: str = ""

    @property
    def kind(self) -> str:
        """Return in a word how the history met what is known.

        To drop turns that had finished is to branch, to seed what nobody knows, or what is lost, to rebuild.
        """
        if self.way is Way.FORK or any(span.certain for span in self.back_hot):
            return "branch"
        return "rebuild" if self.way is Way.FRESH and self.seeds else self.way

    @property
    def written(self) -> tuple[Message, ...]:
        """Return all messages that the turn writes, in order."""
        return self.seeds + self.asked

    @property
    def size(self) -> int:
        """Return about how many bytes the turn writes, by the number of its messages."""
        return MESSAGE_SIZE * (len(self.seeds) + len(self.asked))

    @property
    def own(self) -> int:
        """Return how many of the messages written are not the turn's own: what went before, seeded again."""
        return max(0, len(self.written) - len(self.said))


def begin(told: Told, point: Head | None = None) -> Plan:
    """Return the plan for a conversation that is not known: it begins with what the client brings.

    With a `point` that is in a copy of that turn's session.
    """
    said = told.past + told.asked
    if point is None:
        return Plan(Way.FRESH, told.past, said, told.asked, told.start)
    return replace(_fork(point, told), said=said, digest=told.start, base=None)


def go_on(known: Conversation, told: Told, base: Head | None = None, since: tuple[Message, ...] = ()) -> Plan:
    """Return the plan for a request that tells no history: the conversation's own goes on.

    That stands after the turn `base`, by default the head; `since` was said after it, but cannot be gone on
    with in the session.
    """
    lead = close_calls(since) + seen_before(known.unfinished, told.asked)
    head = base or (known.head if not since else None)
    cut = (known.head.span,) if since and known.head is not None else ()
    if head is None:
        return Plan(Way.FRESH, lead, lead + told.asked, told.asked, told.start, back_hot=cut)
    return _behind(head, known, lead, told, cut)


def _behind(
    turn: Head, known: Conversation, lead: tuple[Message, ...], told: Told, cut: tuple[Span, ...]
) -> Plan:
    """Return the plan that goes on in the session after a turn; what came after it is cut off."""
    return Plan(
        Way.CONTINUE,
        lead,
        lead + told.asked,
        told.asked,
        turn.digest,
        turn,
        back=leftovers(known) + cut,
        back_hot=cut,
        tools=turn.tools,
        session=known.session,
        lineage=known.lineage,
    )


def cancel(known: Conversation, head: Head, since: tuple[Message, ...], told: Told) -> Plan:
    """Return the plan for a message to a turn that waits: its calls end, and the model is told."""
    closed = close_calls(since)[len(since) :]
    return replace(go_on(known, told, head), said=closed + told.asked)


def close_calls(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the messages, and outcomes for calls at their end that nobody has answered."""
    calls = [part.id for part in messages[-1].parts if isinstance(part, ToolCall)] if messages else []
    closed = tuple(ToolOutcome(call, (Text(CANCELLED),)) for call in calls)
    return (*messages, Message(Role.USER, closed)) if closed else messages


def answer(known: Conversation, head: Head, told: Told) -> Plan:
    """Return the plan for the outcomes that a turn waits for."""
    return replace(go_on(known, told, head), way=Way.ANSWER, seeds=(), said=told.asked, back=())


def outcomes(told: Told) -> tuple[ToolOutcome, ...]:
    """Return what a client's tools returned, in the order of the calls; () if there is more than that."""
    if len(told.asked) != 1 or not told.past:
        return ()
    given = {part.id: part for part in told.asked[0].parts if isinstance(part, ToolOutcome)}
    calls = [part.id for part in told.past[-1].parts if isinstance(part, ToolCall)]
    if len(given) != len(told.asked[0].parts) or given.keys() != set(calls):
        return ()
    return tuple(given[call] for call in calls)


def standing(path: Sequence[Head]) -> int:
    """Return how many turns of a branch lead to where its session can be gone on with."""
    return max((n for n, turn in enumerate(path, 1) if turn.whole), default=0)


def begin_again(points: Sequence[Head], told: Told) -> Plan:
    """Return the plan for a known conversation whose session is not to be used again, or could not be."""
    return _fork(points[0], told) if points else begin(told)


def follow(known: Conversation, path: Sequence[Head], points: Sequence[Head], told: Told) -> Plan:
    """Return the plan for a request whose history is the truth.

    `path` holds the turns of the conversation's branch, the oldest first; the last is its head. `points`
    are where it can be forked, the best first.
    """
    lengths = told.lengths(path)
    base = max((n for n, turn in enumerate(path) if turn.whole and turn.digest in lengths), default=None)
    if base is None:
        return begin_again(points, told) if points else _begin_in(path, told)
    turn, dropped = path[base], path[base + 1 :]
    rest = told.past[lengths[turn.digest] :]
    if points and _fork_keeps_more(known, turn, dropped, points[0]):
        return begin_again(points, told)
    # A cut is made at a user message that this session knows by its uuid, and loses nothing of the tools'.
    elsewhere = bool(dropped) and dropped[0].lineage != known.lineage
    if elsewhere or _loses_tools(turn, dropped) or (rest and rest[0].role is Role.ASSISTANT):
        return begin(told)
    whole = any(turn.whole for turn in dropped)
    cut = (Span(dropped[0].span.first, dropped[-1].span.last, certain=whole),) if dropped else ()
    return _behind(turn, known, rest, told, cut)


def follow_head(known: Conversation, head: Head, told: Told) -> Plan:
    """Return the plan for a request whose history ends where the conversation stands, at a whole turn."""
    return _behind(head, known, (), told, ())


def _begin_in(path: Sequence[Head], told: Told) -> Plan:
    """Return the plan that begins anew: in the session that is there, if no turn of it is whole."""
    cut = () if standing(path) else tuple(turn.span for turn in path[-1:])
    return replace(begin(told), back_hot=cut)


def _loses_tools(turn: Head, dropped: Sequence[Head]) -> bool:
    """Return whether a cut after a turn drops what Claude's own tools did: that cannot be seeded again."""
    return max((other.tools for other in dropped if other.whole), default=0) > turn.tools


def _fork_keeps_more(known: Conversation, turn: Head, dropped: Sequence[Head], point: Head) -> bool:
    """Return whether a copy of another session knows more of what tools did, or this one would lose it."""
    if point.digest == turn.digest and not dropped:
        return False
    held = turn.tools if turn.lineage == known.lineage else 0
    return point.tools > held or _loses_tools(turn, dropped)


def _fork(point: Head, told: Told) -> Plan:
    """Return the plan that goes on in a copy of the session in which a turn was."""
    rest = told.past[told.digests.index(point.digest) + 1 :]
    return Plan(
        Way.FORK,
        rest,
        rest + told.asked,
        told.asked,
        point.digest,
        point,
        tools=point.tools,
        session=point.session,
        lineage=point.lineage,
        at=point.answer,
    )


def fork_points(turns: Iterable[Head], told: Told) -> tuple[Head, ...]:
    """Return the turns where a copy of a session keeps all that Claude's own tools did, the best first.

    None where they did nothing: seeding is quicker. The best is the last of them, the next where the tools
    had done it: that one is never dropped from its session, which others may have gone on with meanwhile.
    """
    turns = list(turns)
    lengths = told.lengths(turns)
    kept = [turn for turn in turns if turn.whole and turn.answer and turn.session and turn.digest in lengths]
    most = max((turn.tools for turn in kept), default=0)
    if not most:
        return ()
    able = sorted((turn for turn in kept if turn.tools == most), key=lambda turn: lengths[turn.digest])
    return tuple(dict.fromkeys((able[-1], able[0])))


def can_drop(path: Sequence[Head], points: Sequence[Head], told: Told) -> bool:
    """Return whether a branch can drop what its client has dropped, with nothing lost of what tools did."""
    lengths = told.lengths(path)
    base = max((turn.tools for turn in path if turn.digest in lengths), default=0)
    return bool(path) and path[-1].tools == base and all(point.tools <= base for point in points)


def rebuild(past: tuple[Message, ...], planned: Plan) -> Plan:
    """Return the plan that seeds a new session with what was said before `planned`: its session is lost."""
    before = planned.said[: len(planned.said) - len(planned.asked)]
    return replace(
        planned, way=Way.FRESH, seeds=past + before, back=(), back_hot=(), tools=0, session=None, lineage=None
    )


def leftovers(known: Conversation) -> tuple[Span, ...]:
    """Return what an unfinished turn may have left in the session on disk."""
    return known.unfinished.spans if known.unfinished is not None else ()


def seen_before(unfinished: Unfinished | None, asked: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return what the client has seen beyond the last finished turn.

    The same question again replaces the unfinished turn. Another one follows it, if the client was sent
    any of its answer: that part then counts as the answer.
    """
    if unfinished is None:
        return ()
    if unfinished.asked == asked or not unfinished.seen:
        return unfinished.lead
    return (*unfinished.lead, *unfinished.asked, Message.of(Role.ASSISTANT, unfinished.seen))


def last_digest(start: bytes, messages: Collection[Message]) -> bytes:
    """Return the digest after all of the messages."""
    digest = start
    for after in chain(start, messages):
        digest = after
    return digest
