"""The commands of claude-codectl: what they ask, what they print, how they end."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from claude_coded import __version__
from claude_coded.codectl import attach
from claude_coded.codectl.attach import Manner
from claude_coded.codectl.commands import main
from claude_coded.codectl.console import Console
from claude_coded.control import api
from tests.support.control import Control, fault, serving
from tests.support.terminal import TMUX, Terminal
from tests.unit.test_codectl_display import BUSY, CONVERSATION, IDLE, NOW, STATUS

Run = Callable[..., Result]

PROGRAM = Path(sys.executable).with_name("claude-codectl")
SYSTEMS = Path("/run/claude-coded/control.sock")


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    with serving(tmp_path / "control.sock") as control:
        yield control


@pytest.fixture
def ctl(tmp_path: Path) -> Run:
    """Return a function that runs claude-codectl with that socket."""

    def run(*arguments: str, patience: float = 5.0) -> Result:
        console = Console(patience, lambda: NOW)
        environment = {"CLAUDE_CODED_SOCKET": str(tmp_path / "control.sock")}
        return CliRunner().invoke(main, arguments, obj=console, env=environment)

    return run


def plain(value: object) -> Any:
    return msgspec.to_builtins(value)


def story(worker: api.Worker) -> Any:
    return plain(api.WorkerStory(worker, [], ""))


# All of them -------------------------------------------------------------------------------------------

EACH = [
    ("status",),
    ("workers",),
    ("conversations",),
    ("show", "c"),
    ("evict", "c"),
    ("evict", "--all"),
    ("interrupt", "c"),
    ("drain", "--no-wait"),
    ("resume",),
    ("reload",),
    ("ready",),
    ("events",),
    ("top", "--once"),
    ("attach", "c", "--json"),
    ("requests",),
    ("approve", "p1"),
    ("deny", "p1"),
    ("config",),
    ("usage",),
    ("log-level",),
    ("web", "--no-browser"),
]


def test_every_command_is_among_them() -> None:
    assert {words[0] for words in EACH} | {"completion"} == set(main.commands)


@pytest.mark.parametrize("words", EACH, ids=" ".join)
def test_without_a_daemon_it_is_3(ctl: Run, words: tuple[str, ...]) -> None:
    ended = ctl(*words)
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert ended.stderr.startswith("claude-codectl: cannot connect to /")
    assert ended.stderr.endswith("/control.sock: not there\n")


@pytest.mark.parametrize("words", EACH, ids=" ".join)
def test_a_refusal_is_1(ctl: Run, control: Control, words: tuple[str, ...]) -> None:
    ended = ctl(*words)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.startswith("claude-codectl: nothing at /v1/")


@pytest.mark.parametrize(
    "words",
    [
        *["frob", "show", "evict", "evict c --all", "log-level loud", "status more"],
        *["usage --by hour", "usage --since yesterday", "usage --csv --json"],
        *["drain --wait 1 --no-wait", "drain --wait -1", "completion csh"],
    ],
)
def test_wrong_usage_is_2(ctl: Run, words: str) -> None:
    ended = ctl(*words.split())
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "Usage: " in ended.stderr


@pytest.mark.parametrize("words", [(), *[(name,) for name in main.commands]])
def test_help_is_there_for_all(ctl: Run, words: tuple[str, ...]) -> None:
    ended = ctl(*words, "--help")
    assert ended.exit_code == 0
    assert "--json" in ended.stdout
    assert "..." not in ended.stdout.split("Commands:")[-1].replace("[ID]...", "")


def test_the_program_itself() -> None:
    version = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout == f"claude-codectl, version {__version__}\n"
    wrong = subprocess.run([PROGRAM, "frob"], capture_output=True, check=False)
    assert wrong.returncode == 2


@pytest.mark.skipif(SYSTEMS.exists(), reason="a daemon of the machine's own runs")
def test_without_a_daemon_the_program_says_where_it_has_looked(tmp_path: Path) -> None:
    environment = {
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "PATH": os.environ["PATH"],
    }
    alone = subprocess.run([PROGRAM, "status"], capture_output=True, text=True, env=environment, check=False)
    assert (alone.returncode, alone.stdout) == (3, "")
    for path in (
        tmp_path / "run/claude-coded/control.sock",
        SYSTEMS,
        tmp_path / ".local/state/claude-coded/control.sock",
        tmp_path / ".local/state/claude-coded/offline/control.sock",
    ):
        assert f"\n  {path}: " in alone.stderr


def test_the_socket_and_json_stand_where_one_likes(control: Control, tmp_path: Path) -> None:
    control.on("GET", "/v1/ready", {"ready": True})
    other = str(tmp_path / "other.sock")
    path = str(control.path)
    for words in (
        ("--socket", path, "--json", "ready"),
        ("ready", "--socket", path, "--json"),
        ("--socket", other, "ready", "--json", "--socket", path),
    ):
        ended = CliRunner().invoke(main, words, env={"CLAUDE_CODED_SOCKET": other})
        assert json.loads(ended.stdout) == {"ready": True, "reason": ""}, words
    ended = CliRunner().invoke(main, ["ready"], env={"CLAUDE_CODED_SOCKET": path})
    assert (ended.exit_code, ended.stdout) == (0, "ready\n")


# Looking -----------------------------------------------------------------------------------------------


def test_answers_are_shown_as_text_or_json(ctl: Run, control: Control) -> None:
    control.on("GET", "/v1/status", plain(STATUS))
    control.on("GET", "/v1/workers", plain([BUSY, IDLE]))
    control.on("GET", "/v1/conversations", plain([CONVERSATION]))
    control.on("GET", "/v1/config", [plain(api.Setting("PORT", "1", "default", restart=True))])
    assert "state          ok" in ctl("status").stdout
    assert json.loads(ctl("--json", "status").stdout) == plain(STATUS)
    assert ctl("workers").stdout.splitlines()[1].startswith("w3      busy   fix-the-parser  ")
    assert [it["id"] for it in json.loads(ctl("workers", "--json").stdout)] == ["w3", "w2"]
    assert ctl("conversations").stdout.startswith("CONVERSATION ")
    assert json.loads(ctl("conversations", "--json", "--all").stdout)[0]["tenant"] == "default"
    assert [asked.query for asked in control.asked[-2:]] == [{}, {"all": "true"}]
    assert "needs a restart" in ctl("config").stdout
    assert ctl("log-level").stdout == "info\n"
    assert ctl("top", "--once").stdout.splitlines()[4].startswith("w3 ")
    assert set(json.loads(ctl("top", "--json", "--interval", "0.1").stdout)) == {"status", "workers"}


def test_an_id_is_a_conversation_first_and_then_a_worker(ctl: Run, control: Control) -> None:
    control.on("GET", "/v1/workers/w3", story(BUSY))
    assert ctl("show", "w3").stdout.startswith("worker        w3\n")
    control.on("GET", "/v1/conversations/w3", plain(api.Shown(CONVERSATION, 15)))
    assert ctl("show", "w3").stdout.startswith("conversation  fix-the-parser\n")
    assert ctl("show", "w4").stderr == "claude-codectl: nothing at /v1/workers/w4\n"
    assert ctl("show", "other").stderr == "claude-codectl: nothing at /v1/conversations/other\n"
    assert ctl("show", "anna/notes").exit_code == 1
    assert control.asked[-1].query == {"tenant": "anna"}


def test_a_name_of_several_tenants_is_1_and_names_them(ctl: Run, control: Control) -> None:
    answer = fault("ambiguous", "there are a/c and b/c: say which", ("a", "b"))
    control.on("GET", "/v1/conversations/c", answer, 409)
    ended = ctl("show", "c")
    assert (ended.exit_code, ended.stderr) == (1, "claude-codectl: there are a/c and b/c: say which\n")


def test_events_are_lines(ctl: Run, control: Control) -> None:
    first = api.Event(1, NOW, "turn.ended", {"conversation": "c", "tenant": "default"})
    events = [first, api.Event(2, NOW, "pool.draining", {})]
    data = b"".join(b"data: " + msgspec.json.encode(it) + b"\n\n" for it in events)
    control.on("GET", "/v1/events", b": events\n\n" + data)
    text = ctl("events").stdout.splitlines()
    assert [line.split(maxsplit=2)[2] for line in text] == ["turn.ended  conversation=c", "pool.draining"]
    followed = ctl("events", "--json", "--since", "0", "-f")
    assert [json.loads(line) for line in followed.stdout.splitlines()] == plain(events)
    assert (followed.exit_code, followed.stderr) == (3, "claude-codectl: the daemon has ended\n")
    assert [it.query for it in control.asked] == [{"follow": "false"}, {"follow": "true", "since": "0"}]


def test_ready_is_told_by_the_status(ctl: Run, control: Control) -> None:
    control.on("GET", "/v1/ready", {"ready": False, "reason": "draining"}, 503)
    ended = ctl("ready")
    assert (ended.exit_code, ended.stdout) == (1, "not ready: draining\n")
    assert ctl("ready", "--wait", "0.2").exit_code == 1
    assert len(control.asked) >= 3


def test_ready_waits_for_a_daemon_that_starts(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    command = [str(PROGRAM), "--socket", str(path), "ready", "--wait", "20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiting, serving(path) as control:
        control.on("GET", "/v1/ready", {"ready": True})
        assert waiting.communicate(timeout=20)[0] == "ready\n"
    assert waiting.returncode == 0


# Doing -------------------------------------------------------------------------------------------------


def test_evicting_goes_on_after_one_that_is_not_there(ctl: Run, control: Control) -> None:
    control.on("DELETE", "/v1/conversations/a", {"evicted": ["default/a"]})
    control.on("DELETE", "/v1/workers/w3", {"evicted": ["w3"]})
    ended = ctl("evict", "a", "lost", "w3", "--now")
    assert (ended.exit_code, ended.stdout) == (1, "evicted a\nevicted w3\n")
    assert ended.stderr == "claude-codectl: lost: nothing at /v1/conversations/lost\n"
    assert all(asked.query == {"now": "true"} for asked in control.asked)
    assert json.loads(ctl("evict", "a", "w3", "--json").stdout) == {"evicted": ["default/a", "w3"]}


def test_evicting_many(ctl: Run, control: Control) -> None:
    control.on("DELETE", "/v1/conversations", {"evicted": []})
    assert ctl("evict", "--idle").stdout == "nothing to evict\n"
    assert ctl("evict", "--all", "--now").exit_code == 0
    assert [it.query for it in control.asked] == [{"which": "idle"}, {"which": "all", "now": "true"}]


def test_interrupting_a_worker_is_interrupting_its_conversation(ctl: Run, control: Control) -> None:
    control.on("GET", "/v1/workers/w2", story(IDLE))
    control.on("POST", "/v1/conversations/notes/interrupt", {"interrupted": False})
    assert ctl("interrupt", "w2").stdout == "w2: no turn was running\n"
    assert control.asked[-1].query == {"tenant": "anna"}
    control.on("GET", "/v1/workers/w1", story(api.Worker("w1", "spare", 1, NOW, 0, "", "")))
    ended = ctl("interrupt", "w1")
    assert (ended.exit_code, ended.stderr) == (1, "claude-codectl: worker w1 has no conversation\n")


def test_draining_ends_with_the_last_turn_or_its_time(ctl: Run, control: Control) -> None:
    control.on("POST", "/v1/drain", {"draining": True, "running": 0, "parked": 1})
    ended = ctl("drain")
    assert ended.exit_code == 0
    assert ended.stdout.startswith("drained: no turn runs, and no new one is taken; 1 turn ")
    control.on("POST", "/v1/drain", {"draining": True, "running": 2, "parked": 0})
    late = ctl("drain", "--wait", "0.5")
    assert (late.exit_code, late.stdout) == (1, "draining: 2 turns still running\n")
    assert late.stderr == "waiting for 2 turns\n"
    assert ctl("drain", "--no-wait").exit_code == 0
    assert json.loads(ctl("drain", "--wait", "0", "--json").stdout)["running"] == 2
    waits = [float(it.query["wait"]) for it in control.asked]
    assert waits[0] == waits[-1] == 0
    assert 0 < waits[2] <= 0.5
    control.on("POST", "/v1/resume", {"draining": False, "running": 0, "parked": 0})
    assert ctl("resume").stdout == "taking turns again\n"


def test_reloading(ctl: Run, control: Control) -> None:
    control.on("POST", "/v1/reload", {"changed": ["POOL_SIZE"], "restart": ["PORT"]})
    assert ctl("reload").stdout == "changed: POOL_SIZE\nneeds a restart: PORT\n"
    control.on("POST", "/v1/reload", fault("configuration", "POOL_SIZE ('x'): no number"), 409)
    ended = ctl("reload")
    assert (ended.exit_code, ended.stderr) == (1, "claude-codectl: POOL_SIZE ('x'): no number\n")


def test_deciding(ctl: Run, control: Control) -> None:
    control.on("POST", "/v1/requests/p1", {})
    assert ctl("approve", "p1", "--always").stdout == "p1: allowed\n"
    assert ctl("deny", "p1", "--message", "not today").stdout == "p1: denied\n"
    assert [it.body for it in control.asked] == [
        {"decision": "allow", "message": "", "always": True},
        {"decision": "deny", "message": "not today", "always": False},
    ]
    assert json.loads(ctl("deny", "p1", "--json").stdout)["id"] == "p1"


def test_the_log_level(ctl: Run, control: Control) -> None:
    control.on("PUT", "/v1/log-level", {"level": "debug"})
    assert ctl("log-level", "debug").stdout == "debug\n"
    assert control.asked[-1].body == {"level": "debug"}


# Attaching ---------------------------------------------------------------------------------------------

ATTACHED = api.Attached(["/bin/claude", "--resume", "s"], "/my work", {"HOME": "/h"}, "bob", 7, "s")


def test_how_a_session_is_opened() -> None:
    assert attach.manner(ATTACHED, 7, here=True) is Manner.OURSELVES
    assert attach.manner(ATTACHED, 0, here=True) is Manner.AS_USER
    assert attach.manner(ATTACHED, 8, here=True) is Manner.BY_SUDO
    assert attach.manner(ATTACHED, 7, here=False) is Manner.IN_CONTAINER
    assert attach.command_line(ATTACHED, Manner.BY_SUDO) == (
        "sudo -u bob env -C '/my work' HOME=/h /bin/claude --resume s"
    )
    assert attach.command_line(ATTACHED, Manner.IN_CONTAINER) == (
        "docker exec -it --user bob --workdir '/my work' --env HOME=/h CONTAINER /bin/claude --resume s"
    )


def test_attaching_needs_a_terminal_or_json(ctl: Run, control: Control) -> None:
    ended = ctl("attach", "c")
    assert (ended.exit_code, control.asked) == (1, [])
    assert "needs a terminal" in ended.stderr
    stream = b"event: attached\ndata: " + msgspec.json.encode(ATTACHED) + b"\n\n"
    control.on("POST", "/v1/conversations/c/attach", stream)
    assert json.loads(ctl("attach", "c", "--json").stdout) == plain(ATTACHED)


@pytest.mark.skipif(TMUX is None, reason="needs tmux")
def test_what_cannot_be_run_from_here_is_said(control: Control, tmp_path: Path) -> None:
    stream = b"event: attached\ndata: " + msgspec.json.encode(ATTACHED) + b"\n\n"
    control.on("POST", "/v1/conversations/c/attach", stream)
    terminal = Terminal(tmp_path, [PROGRAM, "--socket", control.path, "attach", "c"], {})
    try:
        screen = terminal.shows("Press Enter when you have left Claude")
        assert "docker exec -it --user bob --workdir '/my work'" in screen
        terminal.press("Enter")
        assert "claude-codectl: c: " in terminal.shows("ended 0")
    finally:
        terminal.close()


def test_the_command_runs_with_its_directory_variables_and_status(tmp_path: Path) -> None:
    script = f'test "$HOME,$PWD,$MINE" = "/h,{tmp_path},kept" && exit 7'
    attached = api.Attached(["/bin/sh", "-c", script], str(tmp_path), {"HOME": "/h"}, "", os.getuid(), "")
    assert attach.is_here(attached)
    assert attach.run(attached, Manner.OURSELVES, {"HOME": "/other", "MINE": "kept"}) == 7
    killed = msgspec.structs.replace(attached, command=["/bin/sh", "-c", "kill -9 $$"])
    assert attach.run(killed, Manner.OURSELVES, {}) == 137
    assert not attach.is_here(msgspec.structs.replace(attached, directory="/none/such"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_runs_it_as_the_sessions_user_and_keeps_its_own_variables(tmp_path: Path) -> None:
    script = 'test "$(id -u),$HOME,$LOGNAME,$SECRET,$TERM" = "65534,/h,nobody,,vt100" && exit 7'
    attached = api.Attached(["/bin/sh", "-c", script], "/", {"HOME": "/h"}, "nobody", 65534, "")
    environment = {"PATH": os.environ["PATH"], "SECRET": "x", "TERM": "vt100", "HOME": "/root"}
    assert attach.run(attached, Manner.AS_USER, environment) == 7


# Completion --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shell", "mark"), [("bash", "complete -o"), ("zsh", "#compdef"), ("fish", "complete ")]
)
def test_completion_scripts(ctl: Run, shell: str, mark: str) -> None:
    ended = ctl("completion", shell)
    assert ended.exit_code == 0
    assert mark in ended.stdout
    assert "_CLAUDE_CODECTL_COMPLETE" in ended.stdout


def completed(words: str, incomplete_at: int, path: Path) -> list[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "_CLAUDE_CODECTL_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(incomplete_at),
        "CLAUDE_CODED_SOCKET": str(path),
    }
    done = subprocess.run([PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_ids_are_completed_by_what_the_daemon_knows(control: Control, tmp_path: Path) -> None:
    control.on("GET", "/v1/conversations", plain([CONVERSATION]))
    control.on("GET", "/v1/workers", plain([BUSY, IDLE]))
    request = api.Permission("p7", "default", "c", "w1", "Bash", "", {}, NOW, NOW)
    control.on("GET", "/v1/requests", plain([request]))
    assert completed("claude-codectl show ", 2, control.path) == ["fix-the-parser", "w3", "w2"]
    assert completed("claude-codectl evict w3 w", 3, control.path) == ["w3", "w2"]
    assert completed("claude-codectl approve ", 2, control.path) == ["p7"]
    named = f"claude-codectl --socket {control.path} attach fix"
    assert completed(named, 4, tmp_path / "none") == ["fix-the-parser"]
    assert completed("claude-codectl show ", 2, tmp_path / "none") == []
    assert completed("claude-codectl dr", 1, tmp_path / "none") == ["drain"]


# Usage -------------------------------------------------------------------------------------------------

USED = [
    api.Usage(None, "anna", "opus", 2, api.Tokens(1500, 20, 1000, 0.25)),
    api.Usage(None, "=bob", "haiku", 1, api.Tokens(10, 1, 0, 0.000012)),
]


def test_usage_is_asked_for_by_what_is_named_in_the_daemons_order(ctl: Run, control: Control) -> None:
    control.on("GET", "/v1/usage", plain(USED))
    assert ctl("usage").exit_code == 0
    ended = ctl("usage", "--by", "model", "--by", "tenant", "--since", "2026-11-01", "--json")
    assert json.loads(ended.stdout) == plain(USED)
    assert [asked.query for asked in control.asked] == [
        {"by": "day,tenant,model"},
        {"by": "tenant,model", "since": "2026-11-01"},
    ]


def test_usage_as_csv_has_the_sides_that_are_told_apart_and_figures_in_full(
    ctl: Run, control: Control
) -> None:
    control.on("GET", "/v1/usage", plain(USED))
    ended = ctl("usage", "--csv", "--by", "tenant", "--by", "model")
    assert list(csv.reader(io.StringIO(ended.stdout))) == [
        ["tenant", "model", "turns", "input", "cached", "output", "cost_usd"],
        ["anna", "opus", "2", "1500", "1000", "20", "0.25"],
        ["=bob", "haiku", "1", "10", "0", "1", "1.2e-05"],
    ]
