"""Every command of claude-codectl against a daemon with real workers, and real terminals."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path
from typing import Any

import psutil
import pytest

from claude_coded import __version__
from tests.acceptance.conftest import Start
from tests.support.daemon import Daemon, Model, eventually
from tests.support.terminal import TMUX, Terminal

PROGRAM = Path(sys.executable).with_name("claude-codectl")
ANNA = {"Authorization": "Bearer annas"}
ASK = {"X-Claude-Permission-Mode": "ask"}

needs_tmux = pytest.mark.skipif(TMUX is None, reason="needs tmux")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def pool(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon of two tenants; the tests' own is `default`."""
    settings = {
        "ANTHROPIC_BASE_URL": served_model.url,
        "CLAUDE_CODED_API_KEYS": "default:mine,anna:annas",
        "CLAUDE_CODED_KEEP_ALIVE_MS": "100",
    }
    daemon = Daemon(tmp_path_factory.mktemp("ctl"), settings, key="mine")
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture
def ctl(pool: Daemon) -> Run:
    """Return a function that runs claude-codectl on that daemon."""

    def run(*arguments: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
        command = [str(PROGRAM), "--socket", str(pool.socket), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == status, done
        return done

    return run


def read(done: "subprocess.CompletedProcess[str]") -> Any:
    return json.loads(done.stdout)


def worker_of(ctl: Run, name: str) -> str:
    (worker,) = [it["id"] for it in read(ctl("workers", "--json")) if it["conversation"] == name]
    return str(worker)


@contextlib.contextmanager
def running(daemon: Daemon, name: str, script: str = "[[hang]]", **more: Any) -> Iterator[Future[Any]]:
    """Have a turn run while the context lasts; the answer comes after it."""
    with ThreadPoolExecutor() as threads:
        turn = threads.submit(daemon.ask, script, name, **more)
        try:
            eventually(lambda: daemon.pool()["busy"] or turn.done())
            yield turn
        except BaseException:
            daemon.delete(f"/conversations/{name}")
            raise


@contextlib.contextmanager
def waiting(daemon: Daemon, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Have a command run that waits."""
    command = [str(PROGRAM), "--socket", str(daemon.socket), *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process


# Looking -----------------------------------------------------------------------------------------------


def test_the_daemon_its_workers_and_conversations_are_shown(pool: Daemon, ctl: Run, name: str) -> None:
    pool.ask("one [[say 1]]", name)
    pool.ask("one [[say 1]]", name, headers=ANNA)
    pool.ask("two [[say 2]]", f"{name}-other", headers=ANNA)
    pool.settled()
    status = ctl("status").stdout
    assert f"version        {__version__}, Claude Code {pool.health()['claude']['version']}\n" in status
    assert f"process        {pool.pid}, up " in status
    (worker,) = [
        it for it in read(ctl("workers", "--json")) if (it["conversation"], it["tenant"]) == (name, "default")
    ]
    assert worker["pid"] in {process.pid for process in pool.workers()}
    assert worker["tree"]["memory"] > 50 * 2**20
    assert f"{worker['id']}  " in ctl("workers").stdout
    listed = ctl("conversations").stdout
    assert f"\nanna/{name}-other " in listed
    assert f"\ndefault/{name} " in listed
    ambiguous = ctl("show", name, status=1)
    assert f"anna/{name}" in ambiguous.stderr
    assert f"default/{name}" in ambiguous.stderr
    shown = ctl("show", f"default/{name}").stdout
    assert f"worker        {worker['id']}\n" in shown
    assert "  initializing  first turn\n" in shown
    assert read(ctl("show", worker["id"], "--json"))["worker"]["conversation"] == name
    assert ctl("show", "none-such", status=1).stderr == (
        "claude-codectl: there is no conversation 'none-such'\n"
    )


def test_settings_are_shown_and_the_log_level_set(ctl: Run) -> None:
    config = {it["name"]: it for it in read(ctl("config", "--json"))}
    assert config["CLAUDE_CODED_KEEP_ALIVE_MS"]["value"] == "100"
    assert "mine" not in ctl("config").stdout
    assert ctl("log-level").stdout == "info\n"
    assert ctl("log-level", "debug").stdout == "debug\n"
    assert ctl("log-level").stdout == "debug\n"
    assert ctl("log-level", "info").stdout == "info\n"


def test_events_are_told_and_followed(pool: Daemon, ctl: Run, name: str) -> None:
    pool.ask("one [[say 1]]", name)
    events = [json.loads(line) for line in ctl("events", "--json").stdout.splitlines()]
    mine = [it for it in events if it["fields"].get("conversation") == name and "turn" in it["fields"]]
    kinds = [it["kind"] for it in mine if it["kind"] != "turn.waiting"]
    assert kinds == ["turn.started", "turn.first_token", "turn.finished"]
    (turn,) = {it["fields"]["turn"] for it in mine}
    last = events[-1]["number"]
    told = ctl("events", "--since", str(last - 3)).stdout
    assert f"turn.finished  turn={turn}  conversation={name}  " in told
    with waiting(pool, "events", "--json", "--follow", "--since", str(last)) as following:
        assert following.stdout is not None
        pool.ask("two [[say 2]]", name)
        event = json.loads(following.stdout.readline())
        assert event["number"] == last + 1
        following.terminate()


def test_top_has_a_line_for_each_worker(pool: Daemon, ctl: Run, name: str) -> None:
    pool.ask("one [[say 1]]", name)
    with running(pool, name) as turn:
        lines = ctl("top", "--once").stdout.splitlines()
        assert lines[3].startswith("WORKER  STATE ")
        assert f" busy   {name} " in lines[4]
        assert lines[4].endswith("%      1  answering")
        ctl("interrupt", name)
        assert not turn.result().ok


# Doing -------------------------------------------------------------------------------------------------


def test_a_turn_is_interrupted(pool: Daemon, ctl: Run, name: str) -> None:
    pool.ask("one [[say 1]]", name)
    worker = worker_of(ctl, name)
    with running(pool, name) as turn:
        assert ctl("interrupt", name).stdout == f"{name}: interrupted\n"
        assert not turn.result().ok
    assert ctl("interrupt", name).stdout == f"{name}: no turn was running\n"
    assert pool.ask("two [[recall]]", name).said == ["one [[say 1]]", "two [[recall]]"]
    assert worker_of(ctl, name) == worker


def test_an_eviction_waits_for_the_turn_or_does_not(pool: Daemon, ctl: Run, name: str) -> None:
    pool.ask("one [[say 1]]", name)
    assert ctl("evict", name).stdout == f"evicted {name}\n"
    assert ctl("evict", name).stdout == "nothing to evict\n"
    before = len(pool.log)
    with running(pool, name) as turn, waiting(pool, "evict", name) as evicting:
        eventually(lambda: f'"DELETE","path":"/v1/conversations/{name}"' in pool.log[before:])
        assert not turn.done()
        ctl("interrupt", name)
        assert evicting.communicate()[0] == f"evicted {name}\n"
        assert turn.result().code != "conversation_evicted"
    with running(pool, name) as turn:
        worker = worker_of(ctl, name)
        assert ctl("evict", worker, "--now").stdout == f"evicted {worker}\n"
        assert turn.result().code == "conversation_evicted"
    pool.ask("three [[say 3]]", name)
    assert ctl("evict", "none-such", name, status=1).stdout == f"evicted {name}\n"


def test_the_idle_or_all_are_evicted(pool: Daemon, ctl: Run, name: str) -> None:
    pool.ask("one [[say 1]]", f"{name}-idle")
    with running(pool, name) as turn:
        evicted = read(ctl("evict", "--idle", "--json"))["evicted"]
        assert f"default/{name}-idle" in evicted
        assert f"default/{name}" not in evicted
        assert ctl("evict", "--all", "--now").stdout == f"evicted {name}\n"
        assert turn.result().code == "conversation_evicted"
    assert ctl("conversations").stdout == "no conversations\n"


def test_a_drain_waits_and_a_resume_ends_it(pool: Daemon, ctl: Run, name: str) -> None:
    with running(pool, name) as turn:
        assert ctl("drain", "--no-wait").stdout == "draining: 1 turn still running\n"
        assert ctl("ready", status=1).stdout == "not ready: draining\n"
        assert "1 turn still running" in ctl("drain", "--wait", "0.01", status=1).stdout
        with waiting(pool, "drain") as draining:
            assert draining.stderr is not None
            assert draining.stderr.readline() == "waiting for 1 turn\n"
            assert not turn.done()
            ctl("interrupt", name)
            assert draining.communicate()[0] == "drained: no turn runs, and no new one is taken\n"
        assert draining.returncode == 0
    assert pool.ask("two [[say 2]]", name).code == "draining"
    assert ctl("resume").stdout == "taking turns again\n"
    assert ctl("ready").stdout == "ready\n"
    assert pool.ask("two [[say 2]]", name).text == "2"


def test_a_reload_takes_what_is_good(pool: Daemon, ctl: Run) -> None:
    config = pool.directory / "config.toml"
    config.write_text("queue_size = 7\nport = 1\n")
    assert ctl("reload").stdout == "changed: CLAUDE_CODED_QUEUE_SIZE\n"
    config.write_text("queue_size = -7\n")
    assert "queue_size in the configuration file" in ctl("reload", status=1).stderr
    config.write_text("")
    assert ctl("reload").stdout == "changed: CLAUDE_CODED_QUEUE_SIZE\n"
    assert ctl("reload").stdout == "nothing has changed\n"


def test_requests_are_listed_approved_and_denied(pool: Daemon, ctl: Run, name: str) -> None:
    def asked() -> str:
        found = eventually(lambda: read(ctl("requests", "--json")))
        return str(found[0]["id"])

    script = '[[tool Bash {"command": "touch made"}]] [[result]]'
    with running(pool, name, script, headers=ASK) as turn:
        request = asked()
        listed = ctl("requests").stdout
        assert listed.startswith(f"{request}  Bash: ")
        assert f"\n  conversation  {name} (w" in listed
        assert "\n  command: touch made\n" in listed
        assert ctl("approve", request).stdout == f"{request}: allowed\n"
        assert turn.result().ok
    assert (pool.workspace / "made").exists()
    with running(pool, name, script.replace("made", "unmade"), headers=ASK) as turn:
        request = asked()
        assert ctl("deny", request, "--message", "not today").stdout == f"{request}: denied\n"
        assert "not today" in turn.result().text
    assert not (pool.workspace / "unmade").exists()
    assert ctl("approve", request, status=1).stdout == ""
    assert ctl("requests").stdout == "nothing waits for an answer\n"


def test_ready_waits_for_the_start(make: Start) -> None:
    daemon = make()
    with waiting(daemon, "ready", "--wait", "30") as starting:
        daemon.start()
        assert starting.communicate(timeout=30)[0] == "ready\n"
    assert starting.returncode == 0
    daemon.stop()
    with waiting(daemon, "ready") as alone:
        assert alone.communicate()[0] == ""
    assert alone.returncode == 3


# Terminals ---------------------------------------------------------------------------------------------

Open = Callable[..., Terminal]


@pytest.fixture
def terminal(tmp_path: Path, pool: Daemon) -> Iterator[Open]:
    """Return a function that runs claude-codectl in a terminal."""
    with contextlib.ExitStack() as stack:

        def run(*arguments: str, **environment: str) -> Terminal:
            command = [str(PROGRAM), "--socket", str(pool.socket), *arguments]
            opened = Terminal(tmp_path, command, environment)
            stack.callback(opened.close)
            return opened

        yield run


@needs_tmux
def test_top_is_a_live_view(pool: Daemon, terminal: Open, name: str) -> None:
    pool.ask("one [[say 1]]", name)
    view = terminal("top", "--interval", "0.2")
    view.shows(f"idle   {name} ")
    with running(pool, name) as turn:
        view.shows(f"busy   {name} ")
        view.resize(60, 10)
        narrow = eventually(lambda: screen if "…" in (screen := view.screen) else "")
        assert max(map(len, narrow.splitlines())) <= 60
        assert pool.delete(f"/conversations/{name}").ok
        assert not turn.result().ok
    view.press("q")
    left = view.shows("ended 0")
    assert "WORKER" not in left


def settle_in(daemon: Daemon) -> None:
    """Answer ahead what the CLI asks at the first start of its terminal: see the README."""
    settled: Mapping[str, Any] = {
        "hasCompletedOnboarding": True,
        "projects": {str(daemon.workspace): {"hasTrustDialogAccepted": True}},
        "customApiKeyResponses": {"approved": [daemon.environment["ANTHROPIC_API_KEY"][-20:]]},
    }
    file = daemon.home / ".claude.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**known, **settled}))


@needs_tmux
def test_a_person_goes_on_at_claudes_own_terminal_and_the_api_after_that(
    pool: Daemon, ctl: Run, terminal: Open, name: str
) -> None:
    settle_in(pool)
    pool.ask("one [[say the first answer]]", name)
    screen = terminal("attach", name)
    screen.shows("the first answer")
    assert [it["state"] for it in read(ctl("conversations", "--all", "--json")) if it["id"] == name] == [
        "attached"
    ]
    screen.press("C-c")  # it is for Claude, and does not end claude-codectl
    screen.type("two [[say typed and answered]]")
    screen.shows("two [[say typed and answered]]")
    screen.press("Enter")
    screen.shows("● typed and answered")
    screen.type("/exit")
    screen.shows("/exit")
    screen.press("Enter")
    assert f"{name}: it is the API's again" in screen.shows("ended 0")
    assert pool.ask("three [[recall]]", name).said == [
        "one [[say the first answer]]",
        "two [[say typed and answered]]",
        "three [[recall]]",
    ]


@needs_tmux
def test_who_ends_it_by_force_gives_the_conversation_back(
    pool: Daemon, ctl: Run, terminal: Open, name: str
) -> None:
    settle_in(pool)
    pool.ask("one [[say the first answer]]", name)
    screen = terminal("attach", name)
    screen.shows("the first answer")
    ends = [str(pool.socket), "attach", name]
    (process,) = [it for it in psutil.process_iter(["cmdline"]) if (it.info["cmdline"] or [])[-3:] == ends]
    process.terminate()
    screen.shows("ended ")
    assert pool.ask("two [[say 2]]", name).text == "2"


def test_a_program_holds_a_conversation_as_long_as_it_wants(pool: Daemon, ctl: Run, name: str) -> None:
    pool.ask("one [[say 1]]", name)
    with waiting(pool, "attach", name, "--json") as holding:
        assert holding.stdin is not None
        assert holding.stdout is not None
        attached = json.loads("".join(takewhile(lambda line: line != "}\n", holding.stdout)) + "}")
        assert attached["directory"] == str(pool.workspace)
        assert "--resume" in attached["command"]
        again = ctl("attach", name, "--json", status=1)
        assert again.stderr
        holding.stdin.close()
        assert holding.wait(10) == 0
    # The daemon learns of its end by the connection's, a moment later.
    eventually(lambda: pool.shown(name)["state"] == "cold")
    assert pool.ask("two [[say 2]]", name).text == "2"
