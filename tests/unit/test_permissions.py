"""The desk where permission requests wait."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.claude.permits import Permit
from claude_coded.errors import CodedError, InvalidRequest, NotFound, NotRecorded
from claude_coded.permissions import REFUSED, Decision, Desk, Request
from claude_coded.turn import ConversationKey

KEY, OTHER = ConversationKey("default", "a"), ConversationKey("default", "b")
ALLOW, ALWAYS, DENY = Decision(allow=True), Decision(allow=True, always=True), Decision(allow=False)


def permit(asked: str = "r1", rule: str = "Bash 1") -> Permit:
    return Permit(asked, "Bash", {"command": "secret"}, "secret", rule)


class Book:
    """Rules in memory. `locked` says what is in the way of reading and writing."""

    def __init__(self) -> None:
        self.kept: dict[ConversationKey, set[str]] = {}
        self.locked: CodedError | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def rules(self, key: ConversationKey) -> frozenset[str]:
        await self.gate.wait()
        if self.locked is not None:
            raise self.locked
        return frozenset(self.kept.get(key, ()))

    async def add_rule(self, key: ConversationKey, rule: str) -> None:
        await self.gate.wait()
        if self.locked is not None:
            raise self.locked
        self.kept.setdefault(key, set()).add(rule)


class Room:
    """A desk, what was answered by it and what it told."""

    def __init__(self) -> None:
        self.book = Book()
        self.seconds = 60.0
        self.answers: dict[str, Mapping[str, Any]] = {}
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.heard = asyncio.Event()
        self.desk = Desk(self.book, timeout=lambda: self.seconds, wall=lambda: 1000.0, tell=self.tell)

    def tell(self, kind: str, fields: Mapping[str, Any]) -> None:
        self.told.append((kind.removeprefix("permission."), dict(fields)))
        self.heard.set()

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.told]

    def put(
        self, asked: str = "r1", key: ConversationKey = KEY, worker: int = 1, rule: str = "Bash 1"
    ) -> None:
        def reply(answer: Mapping[str, Any]) -> None:
            assert asked not in self.answers
            self.answers[asked] = answer

        self.desk.ask(permit(asked, rule), key, worker, reply)

    async def open(self, *args: Any, **more: Any) -> Request:
        self.put(*args, **more)
        await self.desk.settle()
        return self.desk.open[-1]


def in_room(use: Callable[[Room], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(10):
            await use(Room())

    asyncio.run(run())


def test_a_request_shows_what_is_asked_and_until_when(caplog: pytest.LogCaptureFixture) -> None:
    async def use(room: Room) -> None:
        request = await room.open(worker=7)
        assert (request.conversation, request.worker, request.tool) == (KEY, 7, "Bash")
        assert (request.summary, request.input) == ("secret", {"command": "secret"})
        assert (request.asked_at, request.expires_at) == (1000.0, 1060.0)
        assert request.always == ("Bash 1",)
        shared = {
            "tenant": "default",
            "conversation": "a",
            "worker": "w7",
            "request": request.id,
            "tool": "Bash",
        }
        more = {"summary": "secret", "expires_at": 1060.0}
        assert room.told == [("requested", {**shared, **more})]
        assert await room.desk.decide(request.id, ALLOW) == request
        assert room.told[1:] == [("allowed", {**shared, "by": "operator", "always": False})]
        assert room.desk.open == []

    with caplog.at_level(logging.INFO):
        in_room(use)
    assert [record.getMessage() for record in caplog.records] == [
        "permission requested",
        "permission allowed",
    ]
    assert [vars(record)["conversation"] for record in caplog.records] == ["a", "a"]
    assert not any("secret" in str(vars(record)) for record in caplog.records)


def test_answers_reach_who_asked() -> None:
    async def use(room: Room) -> None:
        for number in range(3):
            await room.open(f"r{number}")
        first, second, third = room.desk.open
        await room.desk.decide(second.id, Decision(allow=False, message="not now"))
        await room.desk.decide(first.id, DENY)
        await room.desk.decide(third.id, ALLOW)
        assert room.answers == {
            "r0": {"behavior": "deny", "message": REFUSED},
            "r1": {"behavior": "deny", "message": "not now"},
            "r2": {"behavior": "allow", "updatedInput": {"command": "secret"}},
        }
        for request in (first, second, third):
            with pytest.raises(NotFound):
                await room.desk.decide(request.id, ALLOW)

    in_room(use)


def test_ids_are_of_one_daemon() -> None:
    async def use(room: Room) -> None:
        ids = {(await room.open(f"r{number}")).id for number in range(5)}
        assert len(ids) == 5
        assert len({name.split("-")[1] for name in ids}) == 1

    in_room(use)


def test_always_holds_for_its_rule_and_conversation() -> None:
    async def use(room: Room) -> None:
        await room.desk.decide((await room.open()).id, ALWAYS)
        assert room.book.kept == {KEY: {"Bash 1"}}
        room.put("r2")
        await room.desk.settle()
        assert room.answers["r2"] == room.answers["r1"]
        assert room.desk.open == []
        assert room.told[-1][1] | {"by": "rule", "always": True} == room.told[-1][1]
        for asked, key, rule in (("r3", KEY, "Bash 2"), ("r4", OTHER, "Bash 1"), ("r5", KEY, "")):
            await room.open(asked, key, rule=rule)
        assert len(room.desk.open) == 3

    in_room(use)


def test_always_answers_equal_requests_that_are_open() -> None:
    async def use(room: Room) -> None:
        first = await room.open("r1")
        await room.open("r2", worker=2)
        others = [await room.open("r3", rule="Bash 2"), await room.open("r4", OTHER)]
        await room.desk.decide(first.id, ALWAYS)
        assert set(room.answers) == {"r1", "r2"}
        assert room.desk.open == others

    in_room(use)


def test_what_cannot_be_for_always_stays_open() -> None:
    async def use(room: Room) -> None:
        request = await room.open(rule="")
        assert request.always == ()
        other = await room.open("r2")
        for asked, decision in ((request, ALWAYS), (other, Decision(allow=False, always=True))):
            with pytest.raises(InvalidRequest):
                await room.desk.decide(asked.id, decision)
        assert room.desk.open == [request, other]
        assert room.answers == {}

    in_room(use)


def test_a_rule_that_cannot_be_kept_leaves_the_request_open() -> None:
    async def use(room: Room) -> None:
        request = await room.open()
        room.book.locked = NotRecorded("disk full")
        with pytest.raises(NotRecorded):
            await room.desk.decide(request.id, ALWAYS)
        assert room.desk.open == [request]
        await room.desk.decide(request.id, ALLOW)
        assert room.answers["r1"]["behavior"] == "allow"

    in_room(use)


def test_rules_that_cannot_be_read_allow_nothing() -> None:
    async def use(room: Room) -> None:
        room.book.kept[KEY] = {"Bash 1"}
        room.book.locked = NotRecorded("broken")
        assert await room.open() in room.desk.open

    in_room(use)


def test_while_a_rule_is_kept_nobody_else_answers() -> None:
    async def use(room: Room) -> None:
        request = await room.open()
        room.book.gate.clear()
        deciding = asyncio.ensure_future(room.desk.decide(request.id, ALWAYS))
        await asyncio.sleep(0)
        assert room.desk.open == []
        with pytest.raises(NotFound):
            await room.desk.decide(request.id, DENY)
        room.desk.withdraw(1)
        room.book.gate.set()
        with pytest.raises(NotFound):
            await deciding
        assert room.answers == {}
        assert room.kinds == ["requested", "withdrawn"]

    in_room(use)


def test_who_leaves_while_a_rule_is_kept_has_not_answered() -> None:
    async def use(room: Room) -> None:
        request = await room.open()
        room.book.gate.clear()
        deciding = asyncio.ensure_future(room.desk.decide(request.id, ALWAYS))
        await asyncio.sleep(0)
        deciding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deciding
        assert room.desk.open == [request]

    in_room(use)


def test_what_nobody_answers_is_denied_in_the_end() -> None:
    async def use(room: Room) -> None:
        room.seconds = 0.001  # asked for each request: a reload may change it
        request = await room.open()
        room.heard.clear()
        await room.heard.wait()
        assert room.kinds == ["requested", "expired"]
        assert room.answers["r1"]["behavior"] == "deny"
        assert "0.001 seconds" in room.answers["r1"]["message"]
        with pytest.raises(NotFound):
            await room.desk.decide(request.id, ALLOW)

    in_room(use)


def test_what_is_withdrawn_gets_no_answer() -> None:
    async def use(room: Room) -> None:
        for number in range(4):
            await room.open(f"r{number}", worker=number // 2)
        kept = room.desk.open
        room.desk.withdraw(0, "r1")
        room.desk.withdraw(0, "r2")  # another worker's
        assert room.desk.open == [kept[0], *kept[2:]]
        room.desk.withdraw(1)
        assert room.desk.open == [kept[0]]
        assert room.answers == {}
        assert room.kinds[4:] == ["withdrawn"] * 3

    in_room(use)


STEPS = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from([KEY, OTHER]), st.integers(1, 2), st.sampled_from("12")),
    st.tuples(st.sampled_from(["allow", "always", "deny"]), st.integers(0, 9)),
    st.tuples(st.just("withdraw"), st.integers(1, 2)),
)


@given(steps=st.lists(STEPS, max_size=30))
def test_every_question_is_answered_once_or_withdrawn_and_allowed_only_by_an_operator(
    steps: list[tuple[Any, ...]],
) -> None:
    async def use(room: Room) -> None:
        granted: set[tuple[ConversationKey, str]] = set()
        asked = 0
        for step in steps:
            match step:
                case "ask", key, worker, rule:
                    asked += 1
                    room.put(f"r{asked}", key, worker, rule)
                    await room.desk.settle()
                    assert (f"r{asked}" in room.answers) == ((key, rule) in granted)
                case "withdraw", worker:
                    room.desk.withdraw(worker)
                case how, number if room.desk.open:
                    request = room.desk.open[number % len(room.desk.open)]
                    await room.desk.decide(request.id, Decision(how != "deny", always=how == "always"))
                    if how == "always":
                        granted.add((request.conversation, request.always[0]))
            assert not any((it.conversation, it.always[0]) in granted for it in room.desk.open)
        ended = sum(kind in {"allowed", "denied"} for kind in room.kinds)
        assert ended == len(room.answers)
        assert ended + room.kinds.count("withdrawn") + len(room.desk.open) == asked

    in_room(use)


def test_what_is_withdrawn_before_it_opens_never_does() -> None:
    async def use(room: Room) -> None:
        room.book.gate.clear()
        room.put()
        await asyncio.sleep(0)
        assert room.desk.open == []
        room.desk.withdraw(1)
        room.book.gate.set()
        await room.desk.settle()
        assert (room.desk.open, room.answers, room.told) == ([], {}, [])

    in_room(use)
