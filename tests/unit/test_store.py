"""Conversations on disk."""

import asyncio
import resource
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from claude_coded.accounts import Account
from claude_coded.errors import ConfigurationError, NotRecorded
from claude_coded.history import Conversation, Head, Span, Unfinished
from claude_coded.kept import KeptResponse, Stand
from claude_coded.marks import Mark, Marks
from claude_coded.migrations import MIGRATIONS
from claude_coded.profiles import McpFile
from claude_coded.remembered import SHARE
from claude_coded.rows import PIECE, Record
from claude_coded.store import ROOM, Store, size_of
from claude_coded.turn import (
    After,
    ConversationKey,
    Message,
    Profile,
    Prompting,
    Role,
    Text,
    ToolOutcome,
    Usage,
)

KEY = ConversationKey("default", "c")
SAID = (Message.of(Role.USER, "hello \N{SNOWMAN}"), Message.of(Role.ASSISTANT, "hi"))
CONVERSATION = Conversation(
    key=KEY,
    session="s1",
    lineage="s1",
    profile=Profile("haiku", agent=True, model="haiku"),
    workspace=Path("/w"),
    system="be brief",
    turns=0,
    created_at=1.5,
    last_used_at=1.5,
    usage=Usage(),
    unfinished=Unfinished((Span("a", "b"),), (), SAID[:1], ""),
)


def record(
    said: tuple[Message, ...] = SAID,
    usage: Usage | None = None,
    digest: bytes = b"d",
) -> Record:
    return Record(said, usage or Usage(), Span("a", "b"), "z", digest, tools=2)


def with_store(directory: Path, use: Callable[[Store], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        store = Store(directory)
        await store.open()
        try:
            await use(store)
        finally:
            await store.close()

    asyncio.run(run())


def test_a_profile_is_stored_with_all_that_it_says_and_an_old_one_is_read(tmp_path: Path) -> None:
    profile = Profile(
        "reviewer",
        agent=False,
        prompt=Prompting.APPENDED,
        system="ours",
        tools=("Read",),
        permission_mode="plan",
        effort="high",
        mcp=McpFile(Path("/c/mcp.json"), ("notes",), "d"),
        workspace=Path("/srv"),
    )
    stored = replace(CONVERSATION, profile=profile)

    async def begin(store: Store) -> None:
        await store.begin(stored)

    async def see(store: Store) -> None:
        assert await store.load(KEY) == stored

    async def see_old(store: Store) -> None:
        assert await store.load(KEY) == CONVERSATION

    with_store(tmp_path, begin)
    with_store(tmp_path, see)
    with sqlite3.connect(tmp_path / "claude-coded.db") as database:
        database.execute(
            "UPDATE conversations SET profile = ?", ('{"name":"haiku","agent":true,"model":"haiku"}',)
        )
    database.close()
    with_store(tmp_path, see_old)


def test_a_turn_from_its_beginning_to_its_end_over_restarts(tmp_path: Path) -> None:
    async def begin(store: Store) -> None:
        assert await store.load(KEY) is None
        await store.begin(CONVERSATION)

    async def see(store: Store) -> None:
        assert await store.load(KEY) == CONVERSATION
        await store.give_up(KEY, "half")

    async def finish(store: Store) -> None:
        known = await store.load(KEY)
        assert known is not None
        assert known.unfinished is not None
        assert known.unfinished.seen == "half"
        await store.finish(KEY, [record(usage=Usage(input=5, output=2, cost_usd=0.5))], 9.0)

    async def end(store: Store) -> None:
        done = replace(
            CONVERSATION,
            turns=1,
            last_used_at=9.0,
            usage=Usage(5, 2, cost_usd=0.5),
            unfinished=None,
            head=Head(1, b"d", 2, "s1", "s1", Span("a", "b"), "z"),
        )
        assert await store.load(KEY) == done
        assert await store.messages(KEY) == SAID

    for step in (begin, see, finish, end):
        with_store(tmp_path, step)


async def say(store: Store, text: str, base: Head | None = None, key: ConversationKey = KEY) -> Head:
    """Record a turn after another one; its digest is its text."""
    known = await store.load(key) or replace(CONVERSATION, key=key)
    await store.begin(replace(known, unfinished=CONVERSATION.unfinished, head=base))
    said = (Message.of(Role.USER, text),)
    await store.finish(key, [record(said, Usage(output=1), text.encode())], 3.0)
    after = await store.load(key)
    assert after is not None
    assert after.head is not None
    return after.head


def test_messages_are_text_in_the_database_however_many_they_are(tmp_path: Path) -> None:
    lead = tuple(Message.of(Role.USER, f"\N{SNOWMAN} {number}") for number in range(2 * PIECE + 1))

    async def use(store: Store) -> None:
        await store.begin(replace(CONVERSATION, unfinished=Unfinished((Span("a", "b"),), lead, ())))
        begun = sqlite3.connect(tmp_path / "claude-coded.db")
        with closing(begun):
            assert begun.execute("SELECT typeof(lead), asked FROM unfinished").fetchone() == ("text", "[]")
        await store.finish(KEY, [record(lead)], 2.0)
        assert await store.messages(KEY) == lead

    with_store(tmp_path, use)
    with closing(sqlite3.connect(tmp_path / "claude-coded.db")) as database:
        assert database.execute("SELECT typeof(messages) FROM turns").fetchone() == ("text",)


def test_messages_are_those_of_the_branch_in_the_order_of_the_turns(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        one = await say(store, "1")
        two = await say(store, "2", one)
        await say(store, "3", two)
        other = await say(store, "2b", one)
        assert [message.text for message in await store.messages(KEY)] == ["1", "2b"]
        assert await store.path(KEY) == [one, other]
        known = await store.load(KEY)
        assert known is not None
        assert (known.turns, known.usage.output) == (4, 4)

    with_store(tmp_path, use)


def test_what_was_seeded_before_a_turn_is_one_of_its_own(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        await store.begin(CONVERSATION)
        await store.finish(KEY, [record(SAID, digest=b"lead"), record(SAID[:1], digest=b"own")], 3.0)
        known = await store.load(KEY)
        assert known is not None
        assert known.turns == 1
        assert await store.messages(KEY) == (*SAID, SAID[0])
        assert [head.digest for head in await store.path(KEY)] == [b"lead", b"own"]

    with_store(tmp_path, use)


def test_a_turn_that_branches_moves_the_head_before_it_ends(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        one = await say(store, "1")
        await say(store, "2", one)
        known = await store.load(KEY)
        assert known is not None
        await store.begin(replace(known, unfinished=CONVERSATION.unfinished, head=one))
        assert [message.text for message in await store.messages(KEY)] == ["1"]

    with_store(tmp_path, use)


def test_the_heads_in_memory_are_found_as_those_on_disk(tmp_path: Path) -> None:
    other = KEY._replace(id="other")

    async def use(store: Store) -> None:
        one = await say(store, "1")
        await say(store, "2", one)
        await say(store, "1", key=other)
        assert store.standing(b"1", [KEY, other]) == [
            found for found in await store.find([b"1"]) if found.key == other
        ]
        assert store.standing(b"2", [KEY]) == await store.find([b"2"])
        assert store.standing(b"2", [other, KEY._replace(id="nobody")]) == store.standing(b"x", [KEY]) == []

    with_store(tmp_path, use)


def test_the_longest_history_that_is_known_is_found_with_all_who_have_it(tmp_path: Path) -> None:
    other = KEY._replace(id="other")

    async def use(store: Store) -> None:
        one = await say(store, "1")
        two = await say(store, "2", one)
        twin = await say(store, "1", key=other)
        assert await store.find([b"x", b"y"]) == await store.find([]) == []
        (found,) = await store.find([b"x", b"2", b"1"])
        assert (found.turn, found.key, found.is_head) == (two.turn, KEY, True)
        both = {(f.turn, f.key, f.is_head) for f in await store.find([b"x", b"1"])}
        assert both == {(one.turn, KEY, False), (twin.turn, other, True)}
        many = [str(n).encode() for n in range(5000, 0, -1)]
        assert [f.turn for f in await store.find(many)] == [two.turn]

    with_store(tmp_path, use)


def test_all_sessions_of_a_conversation_are_known(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        await say(store, "1")
        known = await store.load(KEY)
        assert known is not None
        await store.begin(replace(known, session="s2", unfinished=CONVERSATION.unfinished))
        assert sorted(await store.sessions(KEY)) == ["s1", "s2"]

    with_store(tmp_path, use)


def test_a_turn_knows_its_session_whatever_its_branch(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        one = await say(store, "1")
        two = await say(store, "2", one)
        known = await store.load(KEY)
        assert known is not None
        forked = replace(known, session="s2", head=one, unfinished=CONVERSATION.unfinished)
        await store.begin(forked)
        await store.finish(KEY, [record(digest=b"3")], 3.0)
        three = (await store.path(KEY))[-1]
        assert [head.session for head in (one, two, three)] == ["s1", "s1", "s2"]
        assert await store.turns(KEY, [b"1", b"2", b"x"]) == [one, two]
        assert await store.turns(KEY._replace(id="other"), [b"1"]) == []

    with_store(tmp_path, use)


def test_turns_of_the_first_schema_get_the_session_that_holds_them(tmp_path: Path) -> None:
    file = tmp_path / "claude-coded.db"
    with sqlite3.connect(file) as database:
        database.executescript(f"{MIGRATIONS[0]}; PRAGMA user_version = 1;")
        database.execute(
            """INSERT INTO conversations VALUES
            (1, 'default', 'c', 's2', 'l2', '{"name":"claude-code","agent":true}', '/w', '', 2, 1.0, 2.0,
            '{}', 0, '', 0, 8)"""
        )
        said = '[{"role":"user","parts":[{"type":"text","text":"hi"}]}]'
        for number, parent, lineage in ((7, None, "l1"), (8, 7, "l2")):
            database.execute(
                "INSERT INTO turns VALUES (?, 1, ?, ?, ?, 0, 'a', 'b', 'z', ?, '{}', 1.0)",
                (number, parent, lineage, b"%d" % number, said),
            )
    database.close()

    async def use(store: Store) -> None:
        assert [(head.turn, head.session) for head in await store.path(KEY)] == [(7, ""), (8, "s2")]
        assert [message.text for message in await store.messages(KEY)] == ["hi", "hi"]

    with_store(tmp_path, use)


def test_rules_stay_with_their_conversation(tmp_path: Path) -> None:
    other = ConversationKey("other", "c")

    async def allow(store: Store) -> None:
        assert await store.rules(KEY) == frozenset()
        await store.add_rule(KEY, "Bash 1")  # nobody to keep it for: it was forgotten meanwhile
        for key in (KEY, other):
            await store.begin(replace(CONVERSATION, key=key))
        for rule in ("Bash 1", "Bash 2", "Bash 1"):
            await store.add_rule(KEY, rule)

    async def see(store: Store) -> None:
        assert await store.rules(KEY) == {"Bash 1", "Bash 2"}
        assert await store.rules(other) == frozenset()
        await store.begin(replace(CONVERSATION, session="s2"))
        assert await store.rules(KEY) == {"Bash 1", "Bash 2"}
        await store.purge(KEY)
        await store.begin(CONVERSATION)
        assert await store.rules(KEY) == frozenset()

    with_store(tmp_path, allow)
    with_store(tmp_path, see)


def test_tenants_do_not_see_each_other(tmp_path: Path) -> None:
    other = ConversationKey("other", "c")

    async def use(store: Store) -> None:
        await store.begin(CONVERSATION)
        assert await store.load(other) is None
        assert await store.all("other") == []
        await store.purge(other)
        assert [c.key for c in await store.all("default")] == [KEY]

    with_store(tmp_path, use)


def test_purge_forgets_everything_and_a_turn_that_runs_leaves_no_trace(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        await store.begin(CONVERSATION)
        assert await store.purge(KEY) is not None
        await store.finish(KEY, [record()], 2.0)
        assert await store.load(KEY) is None
        assert await store.messages(KEY) == ()
        assert await store.count() == 0
        await store.begin(CONVERSATION)
        assert [await store.count(tenant) for tenant in (None, KEY.tenant, "other")] == [1, 1, 0]
        await store.purge(KEY)

    with_store(tmp_path, use)
    with sqlite3.connect(tmp_path / "claude-coded.db") as database:
        for table in ("conversations", "turns", "unfinished", "sessions"):
            assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    database.close()


def test_the_last_used_come_first(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        for n, name in enumerate("bca"):
            key = ConversationKey("default", name)
            await store.begin(replace(CONVERSATION, key=key, last_used_at=float(n)))
        assert [c.key.id for c in await store.all("default")] == ["a", "c", "b"]

    with_store(tmp_path, use)


def test_what_is_outdated_by_age_by_count_or_by_its_nature(tmp_path: Path) -> None:
    def named(name: str) -> ConversationKey:
        return ConversationKey("default", name)

    async def use(store: Store) -> None:
        for n, name in enumerate("abcd"):
            conversation = replace(
                CONVERSATION, key=named(name), last_used_at=float(n), ephemeral=name == "d"
            )
            await store.begin(conversation)
        assert set(await store.outdated(2.0, 0)) == {named("a"), named("b"), named("d")}
        assert set(await store.outdated(0.0, 2)) == {named("a"), named("b"), named("d")}
        assert set(await store.outdated(0.0, 0)) == {named("d")}
        # Another tenant's push out none of these.
        for n in range(3):
            other = ConversationKey("other", f"{n}")
            await store.begin(replace(CONVERSATION, key=other, last_used_at=10.0 + n))
        found = await store.outdated(0.0, 3)
        assert set(found) == {named("a"), named("d")}

    with_store(tmp_path, use)


def test_facts(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        assert await store.fact("x") is None
        await store.remember("x", {"a": [1]})
        await store.remember("x", {"a": [2]})
        assert await store.fact("x") == {"a": [2]}

    with_store(tmp_path, use)


def test_a_second_daemon_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    async def use(_: Store) -> None:
        with pytest.raises(ConfigurationError, match="another claude-coded"):
            await Store(tmp_path).open()

    with_store(tmp_path, use)


def test_a_database_of_the_future_is_left_alone(tmp_path: Path) -> None:
    async def nothing(_: Store) -> None: ...

    with_store(tmp_path, nothing)
    with sqlite3.connect(tmp_path / "claude-coded.db") as database:
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    database.close()
    with pytest.raises(ConfigurationError, match="newer version"):
        with_store(tmp_path, nothing)


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        await store.begin(CONVERSATION)

    with_store(tmp_path / "state", use)
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0
    assert (tmp_path / "state" / "claude-coded.db").stat().st_mode & 0o077 == 0


def left_mark(directory: Path, last: str, key: ConversationKey = KEY) -> None:
    """Leave what a daemon leaves that is killed after it has noted a turn, and before the database has."""
    assert Marks(directory / "marks").add(Mark(key.tenant, key.id, f"first of {last}", last))


def test_a_turn_that_began_when_the_daemon_was_killed_may_be_in_the_session(tmp_path: Path) -> None:
    async def before(store: Store) -> None:
        await say(store, "one")

    async def after(store: Store) -> None:
        known = await store.load(KEY)
        assert known is not None
        assert known.head is not None
        assert known.unfinished == Unfinished((Span("first of b2", "b2"),), (), ())
        await store.begin(replace(known, unfinished=Unfinished((Span("c", "d"),), (), ())))

    async def again(store: Store) -> None:
        known = await store.load(KEY)
        assert known is not None
        assert known.unfinished == Unfinished((Span("c", "d"), Span("first of b3", "b3")), (), ())

    with_store(tmp_path, before)
    left_mark(tmp_path, "b2")
    left_mark(tmp_path, "x", ConversationKey("default", "never begun"))
    with_store(tmp_path, after)
    left_mark(tmp_path, "b3")
    with_store(tmp_path, again)
    assert Marks(tmp_path / "marks").left == ()


@pytest.mark.parametrize("finished", [True, False])
def test_a_mark_of_what_the_database_knows_says_nothing(tmp_path: Path, *, finished: bool) -> None:
    async def before(store: Store) -> None:
        await store.begin(CONVERSATION)
        if finished:
            await store.finish(KEY, [record()], 3.0)

    async def after(store: Store) -> None:
        known = await store.load(KEY)
        assert known is not None
        assert known.unfinished == (None if finished else CONVERSATION.unfinished)

    with_store(tmp_path, before)
    left_mark(tmp_path, "b")
    with_store(tmp_path, after)


def test_a_noted_turn_needs_no_mark_once_the_database_has_it(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        assert store.mark(KEY, Span("a", "b"))
        assert Marks(tmp_path / "marks").left == (Mark("default", "c", "a", "b"),)
        await store.begin(CONVERSATION)
        assert Marks(tmp_path / "marks").left == ()
        assert await store.load(KEY) == CONVERSATION

    with_store(tmp_path, use)


def test_a_response_says_where_it_stands(tmp_path: Path) -> None:
    async def keep(store: Store) -> None:
        for text in ("one", "two"):
            head = await say(store, text)
            kept = KeptResponse(f"resp_{text}", KEY, head.turn, "be kind", b"{}", b"[]", 1.0)
            await store.keep_response(kept)
            assert await store.stand("default", kept.id) == stand(head)
        await store.keep_response(KeptResponse("resp_none", KEY, None, "", b"{}", b"[]", 1.0))
        await see(store)

    async def see(store: Store) -> None:
        first = await store.stand("default", "resp_one")
        assert first is not None
        assert first.after.digest == b"one"
        for tenant, name in (("other", "resp_one"), ("default", "resp_none"), ("default", "resp_x")):
            assert await store.stand(tenant, name) is None

    async def forget(store: Store) -> None:
        assert await store.stand("default", "resp_two") is not None
        assert await store.forget_response("default", "resp_two")
        assert await store.stand("default", "resp_two") is None
        await store.purge(KEY)
        assert await store.stand("default", "resp_one") is None

    def stand(head: Head) -> Stand:
        return Stand(After(KEY, head.turn, head.digest), "be kind", whole=True, agent=True)

    async def forget_at_once(store: Store) -> None:
        await keep(store)
        await forget(store)

    with_store(tmp_path / "a", forget_at_once)
    for step in (keep, see, forget):
        with_store(tmp_path / "b", step)


# Usage -------------------------------------------------------------------------------------------------

DAY = 86400.0
USED = Usage(input=100, output=7, cache_read=60, cost_usd=0.5)


async def use_up(store: Store, key: ConversationKey, model: str, at: float, usage: Usage = USED) -> None:
    """Have a turn of a conversation and a model finish, with something seeded before it."""
    profile = Profile(model, agent=True)
    await store.begin(replace(CONVERSATION, key=key, profile=profile))
    await store.finish(key, [record(), record(usage=usage, digest=b"e")], at)


def test_usage_is_summed_up_by_day_tenant_and_model_and_stays_when_it_is_forgotten(tmp_path: Path) -> None:
    other = ConversationKey("other", "c")

    async def test(store: Store) -> None:
        await use_up(store, KEY, "haiku", DAY - 1)
        await use_up(store, KEY, "haiku", DAY)
        await use_up(store, KEY, "opus", DAY + 5)
        await use_up(store, other, "haiku", DAY + 6)
        await use_up(store, other, "haiku", DAY + 7)
        for key in (KEY, other):
            await store.purge(key)
        assert await store.used({"day", "tenant", "model"}, "") == [
            Account("1970-01-01", "default", "haiku", 1, 100, 7, 60, 0.5),
            Account("1970-01-02", "default", "haiku", 1, 100, 7, 60, 0.5),
            Account("1970-01-02", "default", "opus", 1, 100, 7, 60, 0.5),
            Account("1970-01-02", "other", "haiku", 2, 200, 14, 120, 1.0),
        ]
        assert await store.used({"model"}, "1970-01-02") == [
            Account(None, None, "haiku", 3, 300, 21, 180, 1.5),
            Account(None, None, "opus", 1, 100, 7, 60, 0.5),
        ]
        assert await store.used((), "") == [Account(None, None, None, 5, 500, 35, 300, 2.5)]
        assert await store.used((), "1970-01-03") == []

    with_store(tmp_path, test)


def test_a_turn_that_does_not_finish_and_one_from_elsewhere_are_on_no_account(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        await store.begin(CONVERSATION)
        await store.give_up(KEY, "half")
        await store.add(KEY, record(), 2.0)
        assert await store.used((), "") == []

    with_store(tmp_path, test)


def test_what_was_used_before_there_were_accounts_is_on_them(tmp_path: Path) -> None:
    async def before(store: Store) -> None:
        await use_up(store, KEY, "haiku", DAY - 1)
        await use_up(store, KEY, "opus", DAY)
        await use_up(store, KEY, "opus", DAY + 1)

    async def after(store: Store) -> None:
        assert await store.used({"day", "model"}, "") == [
            Account("1970-01-01", None, "opus", 1, 100, 7, 60, 0.5),  # the conversation's model is the last
            Account("1970-01-02", None, "opus", 2, 200, 14, 120, 1.0),
        ]

    with_store(tmp_path, before)
    (number,) = (n for n, script in enumerate(MIGRATIONS) if "CREATE TABLE accounts" in script)
    with sqlite3.connect(tmp_path / "claude-coded.db") as database:
        database.executescript(f"DROP TABLE accounts; PRAGMA user_version = {number};")
    database.close()
    with_store(tmp_path, after)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file of this process become longer, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("length", [1000, 10_000_000], ids=["at-the-end", "in-the-middle"])
def test_what_a_full_disk_refuses_leaves_all_as_it_was_and_can_be_had_later(
    tmp_path: Path, length: int
) -> None:
    """What is long is written before the transaction's end."""

    async def use(store: Store) -> None:
        await store.begin(CONVERSATION)
        said = (Message.of(Role.USER, "x" * length),)
        for _ in range(2):
            with files_of_at_most((tmp_path / "claude-coded.db-wal").stat().st_size):
                with pytest.raises(NotRecorded, match="database failed"):
                    await store.finish(KEY, [record(said)], 2.0)
                with pytest.raises(NotRecorded):
                    await store.remember("fact", "x" * length)
            known = await store.load(KEY)
            assert known is not None
            assert known.unfinished is not None
            assert await store.fact("fact") is None
        assert await store.finish(KEY, [record(said)], 2.0) is not None
        assert await store.messages(KEY) == said

    with_store(tmp_path, use)


def test_long_turns_that_nobody_finished_are_not_kept_in_memory(tmp_path: Path) -> None:
    lead = (Message(Role.USER, (ToolOutcome("c", (Text("x" * 1_000_000),)),)),) * 5
    long = [replace(CONVERSATION, unfinished=Unfinished((Span("a", "b"),), lead, SAID[:1]))]
    long.append(replace(CONVERSATION, system="x" * 5_000_000))
    long.append(replace(CONVERSATION, unfinished=Unfinished((Span("a", "b"),), SAID[:1] * 100_000, ())))
    for conversation in long:
        assert size_of(conversation) > ROOM // SHARE
    assert size_of(CONVERSATION) < 1000

    async def use(store: Store) -> None:
        await store.begin(long[0])
        listed = (await store.all("default"))[0]
        assert (listed.unfinished, listed.system) == (None, "")
        first, second = await store.load(KEY), await store.load(KEY)
        assert first == second == long[0]
        assert first is not second
        await store.finish(KEY, [record()], 2.0)
        assert await store.load(KEY) is await store.load(KEY)

    with_store(tmp_path, use)
