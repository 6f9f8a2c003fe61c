"""What a person added at a terminal, read from lines as the CLI writes them."""

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from claude_coded.claude.transcript import follows, read_added
from claude_coded.turn import Message, Role

Line = dict[str, Any]


def line(uuid: str, parent: str | None, kind: str, content: Any, **more: Any) -> Line:
    message = {"role": kind, "content": content}
    return {
        "type": kind,
        "uuid": uuid,
        "parentUuid": parent,
        "isSidechain": False,
        "message": message,
        **more,
    }


def block(kind: str, **fields: Any) -> list[Line]:
    return [{"type": kind, **fields}]


def written(*lines: Line) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in lines)


def said(*texts: str) -> tuple[Message, ...]:
    return tuple(Message.of((Role.USER, Role.ASSISTANT)[n % 2], text) for n, text in enumerate(texts))


def test_question_tools_and_answer() -> None:
    added = read_added(
        written(
            {"type": "mode", "mode": "normal"},
            line("u1", "before", "user", "list it"),
            {"type": "attachment", "uuid": "t1", "parentUuid": "u1"},
            line("a1", "t1", "assistant", block("text", text="I look.")),
            line("a2", "a1", "assistant", block("tool_use", id="x", name="Bash", input={})),
            line("u2", "a2", "user", block("tool_result", tool_use_id="x", content="a b")),
            line("a3", "u2", "assistant", block("text", text="Two files.")),
            {"type": "last-prompt", "leafUuid": "a3"},
        )
    )
    assert added is not None
    assert added.said == said("list it", "I look.\n\nTwo files.")
    assert (added.first, added.last, added.answer, added.tools) == ("u1", "u1", "a3", 1)


def test_a_compaction_takes_nothing_of_what_was_said_and_adds_nothing() -> None:
    boundary = {"type": "system", "subtype": "compact_boundary", "uuid": "b1", "parentUuid": None}
    added = read_added(
        written(
            line("u1", "before", "user", "one"),
            line("a1", "u1", "assistant", block("text", text="1")),
            {**boundary, "logicalParentUuid": "a1", "isMeta": False},
            line("u2", "b1", "user", "This session is being continued …", isCompactSummary=True),
            line("u3", "u2", "user", "<command-name>/compact</command-name>"),
            line("u4", "u3", "user", "two"),
            line("a2", "u4", "assistant", block("text", text="2")),
        )
    )
    assert added is not None
    assert added.said == said("one", "1", "two", "2")
    assert (added.first, added.last, added.answer) == ("u1", "u4", "a2")


def test_several_questions() -> None:
    lines = [
        line(f"{kind[0]}{n}", f"p{n}", kind, f"{kind} {n}")
        for n in range(2)
        for kind in ("user", "assistant")
    ]
    for before, after in pairwise(lines):
        after["parentUuid"] = before["uuid"]
    added = read_added(written(*lines))
    assert added is not None
    assert added.said == said("user 0", "assistant 0", "user 1", "assistant 1")
    assert (added.first, added.last, added.answer) == ("u0", "u1", "a1")


def test_of_two_branches_the_last_one_counts() -> None:
    added = read_added(
        written(
            line("u1", "before", "user", "wrong"),
            line("a1", "u1", "assistant", "no"),
            line("u2", "before", "user", "right"),
            line("a2", "u2", "assistant", "yes"),
        )
    )
    assert added is not None
    assert added.said == said("right", "yes")


def test_what_nobody_said_is_left_out() -> None:
    added = read_added(
        written(
            line("u0", "before", "user", "<command-name>/cost</command-name>"),
            line("m1", "u0", "user", "a caveat of the CLI's", isMeta=True),
            line("u1", "m1", "user", "hello"),
            line("s1", "u1", "assistant", "a subagent's", isSidechain=True),
            line("a1", "u1", "assistant", "hi"),
        )
    )
    assert added is not None
    assert added.said == said("hello", "hi")
    assert added.first == "u1"


def test_nothing_is_nothing() -> None:
    assert read_added(b"") is None
    assert read_added(written(line("u1", "before", "user", "no answer yet"))) is None
    assert read_added(written({"type": "mode", "mode": "normal"})) is None


def test_the_end_of_a_line_that_was_there_before_and_a_cut_one_are_passed_over() -> None:
    whole = written(line("u1", "b", "user", "q"), line("a1", "u1", "assistant", "a"))
    added = read_added(b'rest of a line"}\n' + whole + b'{"type":"user","uuid":"x"')
    assert added is not None
    assert added.said == said("q", "a")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ENTRIES = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["user", "assistant", "attachment", "system"]) | JSON,
        "uuid": st.sampled_from("abcd"),
        "parentUuid": st.sampled_from([*"abcd", None]) | JSON,
        "message": st.fixed_dictionaries({"content": st.text(max_size=4) | st.lists(JSON, max_size=2)})
        | JSON,
    }
)


@given(st.lists(ENTRIES, max_size=8), st.binary(max_size=20))
def test_whatever_is_written_is_read_without_a_fault(entries: list[Line], junk: bytes) -> None:
    added = read_added(junk + b"\n" + written(*entries) + junk)
    if added is not None:
        roles = [message.role for message in added.said]
        assert all(one is not other for one, other in pairwise(roles))


# Whether it is whole -----------------------------------------------------------------------------------


def chain(count: int) -> list[bytes]:
    """Return lines that each follow the one before, the first none; their uuids are their numbers."""
    return [
        json.dumps({"type": "user", "uuid": str(n), "parentUuid": str(n - 1) if n else None}).encode() + b"\n"
        for n in range(count)
    ]


def test_a_message_is_there_with_all_that_it_follows() -> None:
    beside = b'{"type":"queue-operation","operation":"enqueue"}\nno JSON\n[1]\n{"uuid":7}\n'
    assert follows(beside.join(chain(5)) + beside, "4")
    assert not follows(beside.join(chain(5)), "5")
    assert not follows(b"", "0")


def test_what_comes_after_the_message_does_not_count() -> None:
    assert follows(b"".join(chain(3)) + b'{"uuid":"9","parentUuid":"8"}\n{"uuid":"10","par', "2")


def test_a_circle_is_not_whole() -> None:
    assert not follows(b'{"uuid":"1","parentUuid":"2"}\n{"uuid":"2","parentUuid":"1"}\n', "1")


@given(count=st.integers(1, 8), data=st.data())
def test_one_byte_that_is_missing_is_noticed(count: int, data: st.DataObject) -> None:
    text = b"".join(chain(count))
    place = data.draw(st.integers(0, len(text) - 1))
    kept = len(b"".join(chain(count))[:place].splitlines())
    cut = text[:place]  # the disk was full from here on
    assert follows(cut, str(count - 1)) == (place >= len(text) - 1)
    assert all(follows(cut, str(n)) for n in range(kept - 1))
