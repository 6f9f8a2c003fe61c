"""What a turn writes."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from claude_coded.history import Conversation, Span, Unfinished, newest, plan, rebuild, seen_before
from claude_coded.turn import ConversationKey, Message, Profile, Role, TurnRequest, Usage

KEY = ConversationKey("default", "c")
PROFILE = Profile("claude-code", agent=True)
A, B, C = (Message(Role.USER, text) for text in "abc")
ANSWER = Message(Role.ASSISTANT, "answer")
SPAN = Span("first", "last")


def request(*messages: Message) -> TurnRequest:
    return TurnRequest(KEY, PROFILE, messages)


def known(turns: int = 1, unfinished: Unfinished | None = None) -> Conversation:
    return Conversation(KEY, "s", PROFILE, Path("/w"), "", turns, 0.0, 0.0, Usage(), unfinished)


def test_an_unknown_conversation_begins_with_what_the_client_brings() -> None:
    made = plan(None, request(A, ANSWER, B))
    assert made.fresh
    assert made.seeds == made.lead == (A, ANSWER)
    assert made.asked == (B,)


def test_a_known_one_goes_on_with_the_newest_messages_alone() -> None:
    made = plan(known(), request(A, ANSWER, B, C))
    assert not made.fresh
    assert made.written == (B, C)


def test_the_same_question_again_replaces_the_unfinished_turn() -> None:
    unfinished = Unfinished((SPAN,), (), (B,), "half an ans")
    made = plan(known(unfinished=unfinished), request(B))
    assert made.back == unfinished
    assert made.written == (B,)


def test_another_question_follows_what_the_client_saw() -> None:
    unfinished = Unfinished((SPAN,), (), (B,), "half an ans")
    made = plan(known(unfinished=unfinished), request(C))
    assert made.written == (B, Message(Role.ASSISTANT, "half an ans"), C)
    assert made.lead == made.written[:2]


def test_a_question_whose_answer_nobody_saw_never_was() -> None:
    made = plan(known(unfinished=Unfinished((SPAN,), (), (B,), "")), request(C))
    assert made.written == (C,)


def test_two_unfinished_turns_in_a_row_keep_all_that_was_seen() -> None:
    first = Unfinished((SPAN,), (), (A,), "one")
    lead = seen_before(first, (B,))
    second = Unfinished((SPAN, SPAN), lead, (B,), "two")
    assert seen_before(second, (B,)) == lead
    assert seen_before(second, (C,)) == (*lead, B, Message(Role.ASSISTANT, "two"))


def test_a_first_turn_that_never_finished_begins_anew() -> None:
    assert plan(known(turns=0, unfinished=Unfinished((SPAN,), (), (A,), "")), request(A)).fresh


def test_a_lost_session_is_seeded_with_all_that_was_said() -> None:
    made = plan(known(unfinished=Unfinished((SPAN,), (), (B,), "half")), request(C))
    again = rebuild((A, ANSWER), made)
    assert again.fresh
    assert again.back is None
    assert again.written == (A, ANSWER, B, Message(Role.ASSISTANT, "half"), C)
    assert again.lead == made.lead


MESSAGES = st.lists(st.builds(Message, st.sampled_from(Role), st.text()))


@given(MESSAGES)
def test_the_newest_are_the_users_last_and_nothing_is_lost(messages: list[Message]) -> None:
    history = (*messages, A)
    asked = newest(history)
    assert asked
    assert all(message.role is Role.USER for message in asked)
    rest = history[: len(history) - len(asked)]
    assert rest + asked == history
    assert not rest or rest[-1].role is Role.ASSISTANT
    assert plan(None, request(*history)).written == history
