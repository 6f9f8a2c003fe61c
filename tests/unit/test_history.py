"""Matching, and what a turn writes."""

import json
from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from claude_coded.history import (
    Conversation,
    Head,
    Span,
    Told,
    Unfinished,
    Way,
    begin,
    can_drop,
    chain,
    follow,
    follow_head,
    fork_points,
    go_on,
    last_digest,
    read,
    rebuild,
    seed_digest,
)
from claude_coded.turn import (
    ConversationKey,
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

KEY = ConversationKey("default", "c")
PROFILE = Profile("claude-code", agent=True)
START = seed_digest("default", agent=True)


def user(text: str) -> Message:
    return Message.of(Role.USER, text)


def answer(text: str) -> Message:
    return Message.of(Role.ASSISTANT, text)


A, B, C = user("a"), user("b"), user("c")


def tell(*messages: Message) -> Told:
    return read(TurnRequest(KEY, PROFILE, messages))


def heads(*turns: tuple[Message, ...], tools: tuple[int, ...] = (), lineage: str = "l") -> list[Head]:
    """Return the turns of a branch, each made of these messages."""
    made: list[Head] = []
    said: tuple[Message, ...] = ()
    for n, messages in enumerate(turns, 1):
        said = (*said, *messages)
        digest = last_digest(START, said)
        used = tools[n - 1] if tools else 0
        made.append(Head(n, digest, used, "s", lineage, Span(f"first{n}", f"last{n}"), f"answer{n}"))
    return made


def known(head: Head | None = None, unfinished: Unfinished | None = None) -> Conversation:
    return Conversation(
        KEY, "s", "l", PROFILE, Path("/w"), "", int(head is not None), 0.0, 0.0, Usage(), unfinished, head
    )


TURNS = [(user(f"q{n}"), answer(f"a{n}")) for n in range(1, 4)]
PATH = heads(*TURNS)
SAID = tuple(message for turn in TURNS for message in turn)
LEFT = Unfinished((Span("u1", "u2"),), (), (B,), "half")


# Digests -----------------------------------------------------------------------------------------------


def digest(*messages: Message) -> bytes:
    return last_digest(START, messages)


def test_what_clients_change_on_the_way_makes_no_other_message() -> None:
    call = ToolCall("id1", "f", '{"a": 1, "b": [2]}')
    again = ToolCall("id2", "f", '{"b":[2],"a":1}')
    assert digest(Message(Role.ASSISTANT, (call,))) == digest(Message(Role.ASSISTANT, (again,)))
    assert digest(answer("text \n")) == digest(answer("text"))
    assert digest(user("a\nb")) == digest(Message(Role.USER, (Text("a"), Text("b"))))
    outcome = Message(Role.USER, (ToolOutcome("id1", (Text("42\n"),)),))
    assert digest(outcome) == digest(Message(Role.USER, (ToolOutcome("id2", (Text("42"),)),)))


def test_what_differs_makes_another_one() -> None:
    different = [
        user("a"),
        answer("a"),
        user("A"),
        user("a b"),
        Message(Role.USER, (ToolOutcome("i", (Text("a"),)),)),
        Message(Role.USER, (Text("a"), Image("image/png", "AA=="))),
        Message(Role.USER, (Text("a"), Image("image/gif", "AA=="))),
        Message(Role.ASSISTANT, (ToolCall("i", "a", "{}"),)),
        Message(Role.ASSISTANT, (Text("a"), ToolCall("i", "f", "{}"))),
    ]
    assert len({digest(message) for message in different}) == len(different)
    assert digest(user("a"), user("b")) != digest(user("ab"))
    assert (
        len({seed_digest("a", agent=True), seed_digest("a", agent=False), seed_digest("b", agent=True)}) == 3
    )


MESSAGES = st.lists(st.builds(Message.of, st.sampled_from(Role), st.text(min_size=1)), max_size=8)


@given(MESSAGES, MESSAGES)
def test_a_chain_is_that_of_its_beginning_and_then_its_own(one: list[Message], two: list[Message]) -> None:
    both = chain(START, [*one, *two])
    assert both[: len(one)] == chain(START, one)
    assert both[len(one) :] == chain(last_digest(START, one), two)


CONTENT = st.one_of(
    st.builds(Text, st.text()),
    st.builds(Image, st.just("image/png"), st.just("AA==")),
    st.builds(RemoteImage, st.just("https://example.com/é")),
)
ARGUMENTS = st.dictionaries(st.text(), st.none() | st.integers(-5, 5) | st.text()).map(json.dumps)
PARTS = st.one_of(
    CONTENT,
    st.builds(ToolCall, st.just("id"), st.text(min_size=1), ARGUMENTS),
    st.builds(ToolOutcome, st.just("id"), st.lists(CONTENT, max_size=3).map(tuple)),
)


def said(parts: Sequence[Part]) -> bytes:
    """Return what a digest is made of, as it is in the databases that there are."""
    text = "\n".join(part.text for part in parts if isinstance(part, Text)).strip().encode()
    return text + b"".join(b"\0" + other(part) for part in parts if not isinstance(part, Text))


def other(part: Part) -> bytes:
    match part:
        case ToolCall(_, name, arguments):
            return name.encode() + orjson.dumps(json.loads(arguments), option=orjson.OPT_SORT_KEYS)
        case ToolOutcome(_, parts):
            return b"outcome" + said(parts)
        case Image(media_type, data):
            return f"{media_type}{data}".encode()
    assert isinstance(part, RemoteImage)
    return part.url.encode()


@given(
    st.lists(st.builds(Message, st.sampled_from(Role), st.lists(PARTS, max_size=4).map(tuple)), max_size=6)
)
def test_a_digest_stays_what_databases_have(messages: list[Message]) -> None:
    expected = [START]
    for message in messages:
        role = b"u" if message.role is Role.USER else b"a"
        expected.append(sha256(expected[-1] + role + said(message.parts)).digest())
    assert chain(START, messages) == expected[1:]


# Requests ----------------------------------------------------------------------------------------------


@given(MESSAGES)
def test_a_request_asks_the_users_last_messages_and_loses_none(messages: list[Message]) -> None:
    told = tell(*messages, A)
    assert (*told.past, *told.asked) == (*messages, A)
    assert all(message.role is Role.USER for message in told.asked)
    assert not told.past or told.past[-1].role is Role.ASSISTANT
    assert len(told.digests) == len(told.past)


def test_a_turn_may_end_where_an_answer_is_followed_by_a_question() -> None:
    assert tell(A, answer("1"), B, answer("2"), C).ends == (4, 2)
    assert tell(A, answer("1"), answer("2"), C).ends == (3,)
    assert tell(answer("0"), A).ends == (1,)
    assert tell(A, B).ends == ()


@given(st.lists(st.sampled_from([A, answer("1")]), min_size=1, max_size=8))
def test_every_answer_before_a_question_may_end_a_turn(messages: list[Message]) -> None:
    pairs = enumerate(pairwise(messages), 1)
    wanted = [n for n, (one, two) in pairs if (one.role, two.role) == (Role.ASSISTANT, Role.USER)]
    assert tell(*messages).ends == tuple(reversed(wanted))


# Plans -------------------------------------------------------------------------------------------------


def test_an_unknown_conversation_begins_with_what_the_client_brings() -> None:
    made = begin(tell(A, answer("1"), B), None)
    assert made.way is Way.FRESH
    assert made.seeds == (A, answer("1"))
    assert made.said == made.written == (A, answer("1"), B)
    assert made.own == 0


def test_a_known_one_goes_on_with_the_newest_messages_alone() -> None:
    made = go_on(known(PATH[-1]), tell(B, C))
    assert (made.way, made.written, made.back) == (Way.CONTINUE, (B, C), ())
    assert (made.base, made.digest) == (PATH[-1], PATH[-1].digest)


@pytest.mark.parametrize("left", [(), (LEFT,)], ids=["finished", "left-something"])
def test_a_history_that_ends_at_the_head_goes_on_there(left: tuple[Unfinished, ...]) -> None:
    now, told = known(PATH[-1], *left), tell(*SAID, C)
    made = follow(now, PATH[-1:], (), told)
    assert (made.way, made.written, made.back_hot) == (Way.CONTINUE, (C,), ())
    assert follow_head(now, PATH[-1], told) == made


def test_what_the_client_has_beyond_the_head_is_seeded() -> None:
    made = follow(known(PATH[-1], LEFT), PATH[-1:], (), tell(*SAID, B, answer("half"), C))
    assert (made.way, made.written) == (Way.CONTINUE, (B, answer("half"), C))
    assert (made.back, made.back_hot) == (LEFT.spans, ())


def test_dropped_turns_are_taken_back_in_place() -> None:
    made = follow(known(PATH[-1], LEFT), PATH, (), tell(*SAID[:2], C))
    assert (made.way, made.written, made.base) == (Way.CONTINUE, (C,), PATH[0])
    cut = Span("first2", "last3", certain=True)
    assert (made.back, made.back_hot) == ((*LEFT.spans, cut), (cut,))


def test_a_session_in_which_claudes_tools_did_something_is_kept_and_forked() -> None:
    path = heads(*TURNS, tools=(1, 2, 2))
    told = tell(*SAID[:2], C)
    points = fork_points(path, told)
    made = follow(known(path[-1], LEFT), path, points, told)
    assert (made.way, made.session, made.at, made.back) == (Way.FORK, "s", "answer1", ())
    assert not can_drop(path, points, told)
    told = tell(*SAID[:4], C)
    points = fork_points(path, told)
    assert can_drop(path, points, told)
    assert follow(known(path[-1]), path, points, told).way is Way.CONTINUE


def test_a_branch_that_was_left_by_a_fork_is_forked_again_where_its_tools_did_more() -> None:
    left = heads(*TURNS, tools=(1, 2, 2))
    other = replace(heads(TURNS[0], (B, answer("other")), tools=(1, 1))[1], turn=4, session="s2")
    path, told = [left[0], other], tell(*SAID, C)
    points = fork_points([*left, other], told)
    assert points == (left[2], left[1])
    assert not can_drop(path, points, told)
    made = follow(replace(known(other), session="s2"), path, points, told)
    assert (made.way, made.base, made.session, made.at) == (Way.FORK, left[2], "s", "answer3")
    assert (made.written, made.digest) == ((C,), left[2].digest)


def test_a_lost_session_is_not_gone_back_to_for_the_newest_turn() -> None:
    rebuilt = [heads(*TURNS, tools=(1, 1, 1))[0], replace(PATH[1], lineage="l2", session="s2", tools=0)]
    told = tell(*SAID[:4], C)
    points = fork_points(rebuilt, told)
    now = replace(known(rebuilt[1]), session="s2", lineage="l2")
    assert follow(now, rebuilt[-1:], (), told).way is Way.CONTINUE
    assert follow(now, rebuilt, points, tell(*SAID[:2], C)).session == "s"


def test_it_is_kept_and_a_fresh_one_seeded_where_they_did_nothing_before() -> None:
    path = heads(*TURNS, tools=(0, 1, 1))
    made = follow(known(path[-1]), path, (), tell(*SAID[:2], C))
    assert (made.way, made.written) == (Way.FRESH, (*SAID[:2], C))


def test_turns_that_were_seeded_into_this_session_cannot_be_cut_there() -> None:
    path = [replace(PATH[0], lineage="old"), replace(PATH[1], lineage="old"), PATH[2]]
    made = follow(known(path[-1]), path, (), tell(*SAID[:2], C))
    assert (made.way, made.written) == (Way.FRESH, (*SAID[:2], C))
    assert follow(known(path[-1]), path, (), tell(*SAID[:4], C)).way is Way.CONTINUE


def test_a_history_that_nobody_knows_is_seeded_whole() -> None:
    made = follow(known(PATH[-1]), PATH, (), tell(user("other"), answer("x"), C))
    assert (made.way, made.base) == (Way.FRESH, None)
    assert made.written == (user("other"), answer("x"), C)


def test_an_answer_right_after_a_known_one_is_seeded_with_all() -> None:
    made = follow(known(PATH[-1]), PATH, (), tell(*SAID, answer("more"), C))
    assert made.way is Way.FRESH


def test_a_branch_keeps_what_claudes_tools_did_by_a_fork_and_else_is_seeded() -> None:
    told = tell(*SAID[:4], B, answer("own"), C)
    assert fork_points(PATH, told) == ()
    path = heads(*TURNS, tools=(1, 1, 1))
    points = fork_points(path, told)
    assert points == (path[1], path[0])  # the first of them is never dropped
    made = begin(told, points[0])
    assert (made.way, made.written, made.tools) == (Way.FORK, (B, answer("own"), C), 1)
    assert (made.said, made.base, made.digest) == ((*told.past, C), None, told.start)
    assert made.own == 0
    again = begin(told, points[1])
    assert (again.way, again.at, again.written) == (Way.FORK, "answer1", (*SAID[2:4], B, answer("own"), C))


def test_a_copy_cannot_begin_where_a_turn_was_only_seeded() -> None:
    seeded = replace(heads(TURNS[0], tools=(1,))[0], answer="")
    assert fork_points([seeded], tell(*SAID[:2], C)) == ()


def test_the_same_question_again_replaces_the_unfinished_turn() -> None:
    made = go_on(known(PATH[-1], LEFT), tell(B))
    assert (made.written, made.back) == ((B,), LEFT.spans)


def test_another_question_follows_what_the_client_saw() -> None:
    made = go_on(known(PATH[-1], LEFT), tell(C))
    assert made.written == made.said == (B, answer("half"), C)


def test_a_question_whose_answer_nobody_saw_never_was() -> None:
    assert go_on(known(PATH[-1], replace(LEFT, seen="")), tell(C)).written == (C,)


def test_two_unfinished_turns_in_a_row_keep_all_that_was_seen() -> None:
    lead = go_on(known(PATH[-1], Unfinished(LEFT.spans, (), (A,), "one")), tell(B)).seeds
    second = Unfinished(LEFT.spans, lead, (B,), "two")
    assert go_on(known(PATH[-1], second), tell(B)).seeds == lead
    assert go_on(known(PATH[-1], second), tell(C)).seeds == (*lead, B, answer("two"))


def test_a_plan_says_in_a_word_how_the_history_met_what_is_known() -> None:
    head, past = PATH[-1], SAID[:2]
    forked = follow(known(head), heads(*TURNS, tools=(0, 1, 1)), (PATH[0],), tell(*past, A))
    plans = {
        "fresh": begin(tell(A)),
        "continue": follow(known(head), PATH, (), tell(*SAID, A)),
        "branch": follow(known(head), PATH, (), tell(*past, A)),
        "rebuild": begin(tell(*past, A)),
        "answer": replace(begin(tell(A)), way=Way.ANSWER),
    }
    assert {kind: plan.kind for kind, plan in plans.items()} == {kind: kind for kind in plans}
    assert (forked.way, forked.kind) == (Way.FORK, "branch")


def test_a_first_turn_that_never_finished_begins_anew() -> None:
    made = go_on(known(None, replace(LEFT, asked=(A,), seen="")), tell(A))
    assert (made.way, made.written, made.back) == (Way.FRESH, (A,), ())


def test_a_lost_session_is_seeded_with_all_that_was_said() -> None:
    made = go_on(known(PATH[-1], LEFT), tell(C))
    again = rebuild(SAID, made)
    assert (again.way, again.back, again.session) == (Way.FRESH, (), None)
    assert again.written == (*SAID, B, answer("half"), C)
    assert again.said == made.said
    assert again.own == len(SAID)
