"""What claude-codectl prints: tables, ages and sizes, and the golden text of each answer."""

import re
import string
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from claude_coded.codectl import display
from claude_coded.codectl.render import (
    Column,
    ago,
    cost,
    counted,
    cut,
    duration,
    lines,
    number,
    pairs,
    printable,
    size,
    table,
    width,
)
from claude_coded.codectl.top import Frames, Sample, shares
from claude_coded.control import api

NOW = 1_800_000_000.0
CELLS = st.text(alphabet=string.ascii_letters + "é漢字한\x1b\n\u202e …", max_size=12)


def golden(text: str) -> list[str]:
    return dedent(text).strip("\n").splitlines()


# The parts ---------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=6), st.lists(st.booleans(), min_size=3, max_size=3))
def test_columns_of_a_table_stand_under_each_other(
    rows: list[tuple[str, str, str]], right: list[bool]
) -> None:
    text = table([Column(title, side) for title, side in zip("ABC", right, strict=True)], rows)
    assert len(text) == len(rows) + 1
    for line, row in zip(text[1:], rows, strict=True):
        rest = line
        for n in [n for n in range(3) if any(other[n] for other in rows)]:
            cell = printable(row[n])
            blank = " " * (max(1, *(width(printable(other[n])) for other in rows)) - width(cell))
            expected = (blank + cell if right[n] else cell + blank) + "  "
            assert rest.startswith(expected) or rest == expected.rstrip()
            rest = rest[len(expected) :]
        assert rest == ""


@given(st.text(), st.integers(0, 20))
def test_a_text_is_cut_to_a_width(text: str, cells: int) -> None:
    shown = printable(text)
    short = cut(shown, cells)
    assert width(short) <= cells
    assert short in {shown, ""} or (short[-1] == "…" and shown.startswith(short[:-1]))


@given(st.text())
def test_nothing_that_rules_a_terminal_is_printed(text: str) -> None:
    assert printable(text).isprintable()
    assert all(line.isprintable() for line in lines(text))


def test_what_hides_is_written_out() -> None:
    assert printable("a\x1b[2Kb\u202ec\n\r\0") == "a\\x1b[2Kb\\u202ec\\x0a\\x0d\\x00"
    assert lines("one\ttwo\nthree\x07\n") == ["one     two", "three\\x07"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(-3, "0s"), (0.4, "0s"), (59.9, "59s"), (60, "1m 00s"), (605, "10m"), (3599, "59m")],
        *[(3600, "1h 00m"), (86399, "23h 59m"), (86400, "1d 0h"), (9e6, "104d 4h")],
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        *[(0, "0"), (999, "999"), (1000, "1.0k"), (99_949, "99.9k"), (99_950, "100k"), (999_499, "999k")],
        *[(999_500, "1.0M"), (12_345_678, "12.3M"), (2_000_000_000, "2.0G")],
    ],
)
def test_numbers(count: int, text: str) -> None:
    assert number(count) == text


@given(st.integers(0, 10**9))
def test_numbers_are_short_and_near(count: int) -> None:
    text = number(count)
    assert len(text) <= 5
    value = float(text.rstrip("kMG")) * {"k": 1e3, "M": 1e6, "G": 1e9}.get(text[-1], 1)
    assert abs(value - count) <= 0.051 * count


def test_amounts() -> None:
    assert [cost(it) for it in (0, 0.001, 0.005, 1.234)] == ["$0.00", "<$0.01", "$0.01", "$1.23"]
    assert [size(it) for it in (0, 2**20, 212 * 2**20, 3 * 2**30)] == ["", "1 MiB", "212 MiB", "3.0 GiB"]
    assert [ago(it) for it in (-1, 0.5, 3, 200)] == ["now", "now", "3s ago", "3m 20s ago"]
    assert [counted(1, "turn"), counted(0, "turn")] == ["1 turn", "0 turns"]
    assert pairs([("a", "1"), ("bcd", "2"), ("empty", "")]) == ["a    1", "bcd  2"]


# The answers -------------------------------------------------------------------------------------------

POOL = api.PoolCounts(size=5, workers=3, busy=1, idle=1, spare=1, parked=0, starting=0, queued=2)
STATUS = api.Status(
    state="ok",
    version="0.1.0",
    claude="2.1.331",
    pid=4321,
    address="http://127.0.0.1:3000",
    socket="/run/claude-coded/control.sock",
    uptime_s=7384,
    started_at=NOW - 7384,
    pool=POOL,
    hot=2,
    stored=14,
    requests=1,
    log_level="info",
    workspace="/srv/work",
)
BUSY = api.Worker(
    id="w3",
    state="busy",
    pid=4400,
    since=NOW - 41,
    turns=7,
    session="5f0c",
    workspace="/srv/work",
    tenant="default",
    conversation="fix-the-parser",
    model="claude-code",
    turn=api.Turn(NOW - 41, "claude-code", 300, "Bash"),
    usage=api.Tokens(182_345, 4211, 170_000, 0.4213),
    tree=api.Tree(412 * 2**20, 31.5, 4),
)
IDLE = api.Worker(
    id="w2",
    state="idle",
    pid=4390,
    since=NOW - 200,
    turns=1,
    session="77aa",
    workspace="/srv/work",
    tenant="anna",
    conversation="notes",
    model="claude-code-chat",
    pending=True,
    usage=api.Tokens(800, 20, 0, 0.002),
    tree=api.Tree(205 * 2**20, 2.0, 1),
)
SPARE = api.Worker("w10", "spare", 4410, NOW - 5, 0, "99", "/srv/work", tree=api.Tree(190 * 2**20, 0.4, 1))


def test_status() -> None:
    assert display.status(STATUS) == golden("""
        state          ok
        version        0.1.0, Claude Code 2.1.331
        address        http://127.0.0.1:3000
        socket         /run/claude-coded/control.sock
        process        4321, up 2h 03m
        workspace      /srv/work
        workers        3 of 5: 1 busy, 1 idle, 1 spare
        queue          2 waiting
        conversations  2 hot, 14 stored
        waiting        1 request for permission: claude-codectl requests
        log level      info
    """)


def test_workers() -> None:
    assert display.workers([IDLE, BUSY, SPARE], NOW) == golden("""
        WORKER  STATE  CONVERSATION       FOR  TURNS    IN   OUT    COST   MEMORY   PID  DOING
        w2      idle+  anna/notes      3m 20s      1   800    20  <$0.01  205 MiB  4390
        w3      busy   fix-the-parser     41s      7  182k  4.2k   $0.42  412 MiB  4400  Bash, 41s
        w10     spare                      5s                             190 MiB  4410
    """)
    assert display.workers([], NOW) == ["no workers"]


CONVERSATION = api.Conversation(
    "fix-the-parser",
    "default",
    "busy",
    "claude-code",
    NOW - 90_000,
    NOW - 41,
    7,
    "/srv/work",
    "5f0c",
    BUSY.usage,
    "w3",
)


def test_conversations() -> None:
    cold = api.Conversation(
        "notes", "anna", "cold", "claude-code-chat", 0, NOW - 90_000, 1, "/srv/work", "77aa", IDLE.usage
    )
    assert display.conversations([CONVERSATION, cold], NOW) == golden("""
        CONVERSATION    STATE  WORKER  MODEL             TURNS    IN   OUT    COST       USED
        fix-the-parser  busy   w3      claude-code           7  182k  4.2k   $0.42    41s ago
        anna/notes      cold           claude-code-chat      1   800    20  <$0.01  1d 1h ago
    """)
    other = replace(CONVERSATION, tenant="anna")
    assert display.full_names([CONVERSATION, other, cold]) == [
        "default/fix-the-parser",
        "anna/fix-the-parser",
        "anna/notes",
    ]


def test_a_conversation_with_its_workers_story() -> None:
    steps = [api.Step(NOW - 300, "spawning", ""), api.Step(NOW - 41, "busy", "turn of fix-the-parser")]
    story = api.WorkerStory(BUSY, steps, "Warning: \x1b[31mred\nsecond line")
    assert display.shown(api.Shown(CONVERSATION, 15, story), NOW) == golden(r"""
        conversation  fix-the-parser
        state         busy
        model         claude-code
        turns         7, 15 messages
        tokens        182k in (170k cached), 4.2k out
        cost          $0.42
        created       1d 1h ago
        last used     41s ago
        workspace     /srv/work
        session       5f0c

        worker        w3
        state         busy, for 41s
        conversation  fix-the-parser
        doing         Bash, 41s
        process       4400
        memory        412 MiB in 4 processes, 31.5 s of CPU
        turns         7
        session       5f0c
        workspace     /srv/work

        story
          5m 00s ago  spawning
             41s ago  busy      turn of fix-the-parser

        stderr
          Warning: \x1b[31mred
          second line
    """)


def test_requests_show_all_of_what_is_asked_and_nothing_that_hides_it() -> None:
    request = api.Permission(
        id="p1",
        tenant="anna",
        conversation="notes",
        worker="w2",
        tool="Bash",
        summary="rm -rf build\x1b[1A\x1b[2K",
        input={"command": "rm -rf build \\\n  dist\x1b[8m", "timeout": 5},
        asked_at=NOW - 12,
        expires_at=NOW + 288,
        always=["Bash(rm:*)"],
    )
    assert display.requests([request], NOW) == golden(r"""
        p1  Bash: rm -rf build\x1b[1A\x1b[2K
          conversation  anna/notes (w2)
          asked         12s ago, denied by itself in 4m 48s
          --always      Bash(rm:*)
          command: rm -rf build \
              dist\x1b[8m
          timeout: 5
    """)
    assert display.requests([], NOW) == ["nothing waits for an answer"]


def test_config() -> None:
    settings = [
        api.Setting("POOL_SIZE", "5", "default", restart=False),
        api.Setting("PORT", "3000", "PORT", restart=True),
    ]
    assert display.config(settings) == golden("""
        SETTING    VALUE  FROM     CHANGE
        POOL_SIZE  5      default
        PORT       3000   PORT     needs a restart
    """)


def test_events() -> None:
    fields = {
        "tenant": "anna",
        "conversation": "notes",
        "why": "two\nwords",
        "n": 3,
        "cost": 0.1 + 0.2,
        "nothing": None,
    }
    first, second = display.event(api.Event(7, NOW, "turn.ended", fields, missed=2))
    assert first == "(2 events missed)"
    told = 'turn.ended  conversation=anna/notes  why="two\\nwords"  n=3  cost=0.3'
    assert re.fullmatch(rf"     7  \d\d:\d\d:\d\d  {re.escape(told)}", second)
    (other,) = display.event(api.Event(8, NOW, "x", {"tenant": "default", "list": [1, 2]}))
    assert other.endswith("x  list=[1,2]  tenant=default")
    (ahead,) = display.event(api.Event(9, NOW, "x", {"expires_at": NOW}))
    assert re.fullmatch(r"     9  (\d\d:\d\d:\d\d)  x  expires_at=\1", ahead)


def test_what_was_done() -> None:
    assert display.evicted(api.Evicted(["default/a", "anna/b", "w3"])) == [
        "evicted a",
        "evicted anna/b",
        "evicted w3",
    ]
    assert display.evicted(api.Evicted([])) == ["nothing to evict"]
    assert display.drained(api.Drain(True, 2, 0)) == "draining: 2 turns still running"
    assert display.drained(api.Drain(True, 0, 0)) == "drained: no turn runs, and no new one is taken"
    assert display.reloaded(api.Reloaded([], [])) == ["nothing has changed"]
    assert display.reloaded(api.Reloaded(["A", "B"], ["PORT"])) == [
        "changed: A, B",
        "needs a restart: PORT",
    ]


# top ---------------------------------------------------------------------------------------------------


def test_a_frame_has_the_busy_first_and_the_cpu_since_the_one_before() -> None:
    before = replace(BUSY, tree=api.Tree(1, 30.0, 4))
    frames = Frames(Sample(NOW - 2, STATUS, [before]))
    assert frames.frame(Sample(NOW, STATUS, [SPARE, IDLE, BUSY])) == golden("""
        claude_coded 0.1.0  http://127.0.0.1:3000  up 2h 03m  ok
        workers 3 of 5: 1 busy, 1 idle, 1 spare  queue 2  hot 2, stored 14, 1 waiting for permission

        WORKER  STATE  CONVERSATION    TURN  TURNS    IN   OUT    COST   MEMORY  CPU  PROCS  DOING
        w3      busy   fix-the-parser   41s      7  182k  4.2k   $0.42  412 MiB  75%      4  Bash
        w2      idle+  anna/notes                1   800    20  <$0.01  205 MiB           1
        w10     spare                                                   190 MiB           1
    """)


def test_an_empty_pool_has_a_frame() -> None:
    assert Frames().frame(Sample(NOW, STATUS, []))[3:] == [""]


def test_shares_of_a_tree_that_lost_a_process_are_none() -> None:
    less = replace(BUSY, tree=api.Tree(1, 3.0, 1))
    assert shares(Sample(0, STATUS, [BUSY]), Sample(1, STATUS, [less, SPARE])) == {"w3": 0.0}


def test_usage_is_a_table_with_a_sum_of_the_sides_that_are_told_apart() -> None:
    one = api.Usage("2026-11-01", None, "opus", 2, api.Tokens(1500, 20, 1000, 0.25))
    other = api.Usage("2026-11-02", None, "haiku", 1, api.Tokens(10, 1, 0, 0.5))
    assert display.used([]) == ["no turns"]
    assert display.used([one]) == [
        "DAY         MODEL  TURNS    IN  CACHED  OUT   COST",
        "2026-11-01  opus       2  1.5k    1.0k   20  $0.25",
    ]
    assert display.used([one, other])[-2:] == [
        "2026-11-02  haiku      1    10       0    1  $0.50",
        "                       3  1.5k    1.0k   21  $0.75",
    ]
