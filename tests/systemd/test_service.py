"""The system service under a real systemd, with real Claude Code processes."""

import json
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.support import caller
from tests.support.booted import Booted
from tests.support.daemon import Model, command_line, eventually
from tests.support.installed import HOME, UNIT, Service
from tests.support.wedge import Wedge
from tests.systemd.conftest import Make

WORDS = [f"w{index}" for index in range(40)]
SLOW = "[[delay 100]] [[words 40]]"


def bash(command: str) -> str:
    """Return a question to which Claude runs a command, and says what comes of it."""
    return f"[[tool Bash {json.dumps({'command': command})}]] [[result]]"


def test_a_start_is_over_when_it_serves(make: Make, name: str) -> None:
    service = make().start()
    assert service.health()["status"] == "ok"
    assert (service.told("ActiveState"), service.told("SubState")) == ("active", "running")
    assert service.ask("[[say hi]]", name).text == "hi"


def test_without_a_cli_it_does_not_come_up(make: Make, system: Booted) -> None:
    service = make(CLAUDE_CODED_CLAUDE_BIN="/bin/false")
    service.drop_in("once", "Service", Restart="no")
    started = system.run("systemctl", "start", UNIT, check=False)
    assert started.returncode == 1
    assert service.told("Result") == "exit-code"


def test_the_status_line_follows_what_happens(make: Make, name: str) -> None:
    service = make().start()
    eventually(lambda: service.told("StatusText") == "1 of 2 workers: 1 spare; 0 queued")
    with service.stream(SLOW, name) as stream:
        stream.until("w3 ")
        eventually(lambda: re.match(r"[12] of 2 workers: 1 busy\b.*; 0 queued", service.told("StatusText")))
        stream.rest()
    eventually(lambda: "1 idle" in service.told("StatusText"))


def test_claude_works_in_its_workspace_and_nowhere_else(make: Make, name: str) -> None:
    service = make(CLAUDE_CODED_SPARE_WORKERS=0).start()
    wanted = "git init -q . && git -c user.name=c -c user.email=c@x commit -q --allow-empty -m x && pwd"
    assert f"{HOME}/workspace" in service.ask(bash(wanted), name).text
    refused = (
        "touch /etc/x /usr/x; ls /root /home; cat /etc/credstore/*; ls -d /proc/1; mount -t tmpfs x /mnt"
    )
    told = service.ask(bash(f"{refused}; echo end:$NOTIFY_SOCKET$CREDENTIALS_DIRECTORY; umask"), name).text
    for path in ("/etc/x", "/usr/x"):
        assert f"'{path}': Read-only file system" in told
    assert "/proc/1': No such file" in told
    assert "must be superuser to use mount" in told
    assert "end:\n0077" in told.replace("\\n", "\n")


def test_keys_are_handed_over_as_credentials(make: Make, system: Booted, name: str) -> None:
    store = system.path("/etc/credstore")
    assert store.stat().st_mode & 0o777 == 0o700
    (store / "anthropic-api-key").write_text("sk-ant-stored\n")
    (store / "api-keys").write_text("ann:k1\n# nobody\njoe:k2\n")
    try:
        service = make(ANTHROPIC_API_KEY="").start()
        assert (service.ask("[[say hi]]").status, service.ask("[[say hi]]").code) == (401, "invalid_api_key")
        service.key = "k2"
        assert service.ask("[[say hi]]", name).text == "hi"
        keys = {worker.environ()["ANTHROPIC_API_KEY"] for worker in service.workers()}
        assert keys == {"sk-ant-stored"}
        assert "sk-ant-stored" not in str(psutil.Process(service.pid).environ())
    finally:
        (store / "anthropic-api-key").unlink()
        (store / "api-keys").unlink()


def test_a_key_may_be_stored_encrypted(make: Make, system: Booted) -> None:
    """As an administrator may have it by a drop-in."""
    place = system.path("/etc/credstore.encrypted")
    place.mkdir(mode=0o700, exist_ok=True)
    system.path("/root/key").write_text("sk-ant-sealed")
    system.run(
        "systemd-creds",
        "encrypt",
        "--with-key=host",
        "--name=anthropic-api-key",
        "/root/key",
        "/etc/credstore.encrypted/anthropic-api-key",
    )
    service = make(ANTHROPIC_API_KEY="", CLAUDE_CODED_SPARE_WORKERS=1)
    service.drop_in("sealed", "Service", LoadCredentialEncrypted="anthropic-api-key")
    service.start()
    (worker,) = eventually(service.workers)
    assert eventually(lambda: worker.environ().get("ANTHROPIC_API_KEY")) == "sk-ant-sealed"


def test_the_journal_has_the_fields_and_priorities(make: Make, system: Booted, name: str) -> None:
    service = make().start()
    answer = service.ask("[[say hi]]", name)
    (entry,) = eventually(lambda: system.journal(f"CONVERSATION={name}", "EVENT=turn finished"))
    assert entry["MESSAGE"].startswith(f"turn finished  request={answer.headers['X-Request-ID']}")
    assert {key: entry[key] for key in ("PRIORITY", "SYSLOG_IDENTIFIER", "LOGGER", "REQUEST", "WORKER")} == {
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "claude-coded",
        "LOGGER": "claude_coded.running",
        "REQUEST": answer.headers["X-Request-ID"],
        "WORKER": "w1",
    }
    assert (entry["_SYSTEMD_UNIT"], entry["_TRANSPORT"]) == (UNIT, "journal")
    assert (entry["_PID"], entry["CODE_FUNC"]) == (service.told("MainPID"), "_say")
    assert service.ask("[[error 401]]", name).status == 502
    failed = system.journal("EVENT=request failed", "PRIORITY=4", f"_PID={service.told('MainPID')}")
    assert failed[-1]["REQUEST"].startswith("req_")


# Reload ------------------------------------------------------------------------------------------------


def test_a_reload_takes_new_settings_and_drops_no_turn(make: Make, system: Booted, name: str) -> None:
    file = system.path("/etc/claude-coded/config.toml")
    file.write_text("pool_size = 2\n")
    file.chmod(0o644)
    try:
        service = make(POOL_SIZE="").start()
        main = service.told("MainPID")
        with service.stream(SLOW, name) as stream:
            stream.until("w3 ")
            file.write_text("pool_size = 3\n")
            with system.debugging() as heard:
                system.systemctl("reload", UNIT)
                eventually(lambda: service.pool()["size"] == 3)
                assert re.search(
                    r"RELOADING=1, MONOTONIC_USEC=\d+", eventually(lambda: heard("RELOADING=1"))[0]
                )
                assert eventually(lambda: heard("(READY=1)"))
            stream.rest()
            assert stream.text.split() == WORDS
        eventually(lambda: service.told("SubState") == "running")
        file.write_text("pool_size = many\n")
        system.systemctl("reload", UNIT)
        eventually(lambda: system.journal("EVENT=the new configuration is bad, the old one stays"))
        eventually(lambda: service.told("SubState") == "running")
        assert (service.pool()["size"], service.told("MainPID")) == (3, main)
    finally:
        file.unlink()


# Watchdog ----------------------------------------------------------------------------------------------


@pytest.fixture
def watched(make: Make) -> Service:
    service = make()
    service.drop_in("watchdog", "Service", WatchdogSec="2s")
    return service.start()


def test_the_watchdog_is_fed_while_turns_run(watched: Service, system: Booted, name: str) -> None:
    with system.debugging() as heard:
        assert watched.ask(SLOW, name).text.split() == WORDS  # takes twice as long as the watchdog waits
        assert len(heard("WATCHDOG=1")) >= 3
    assert watched.told("NRestarts") == "0"


def test_a_stopped_daemon_is_killed_and_started_again(watched: Service, name: str) -> None:
    assert watched.ask("first [[say 1]]", name).text == "1"
    old = watched.processes()
    psutil.Process(watched.pid).suspend()
    eventually(lambda: watched.told("NRestarts") == "1" and watched.told("SubState") == "running", 30)
    assert not any(process.is_running() for process in old)
    assert watched.ask("second [[recall]]", name).said == ["first [[say 1]]", "second [[recall]]"]


def test_a_wedged_loop_is_killed_though_the_other_threads_go_on(
    watched: Service, system: Booted, name: str
) -> None:
    """The main thread alone is held; the server's threads still take connections."""
    assert watched.ask("first [[say 1]]", name).text == "1"
    log = system.path("/var/log/claude-coded/crash.log")
    before = log.read_text() if log.exists() else ""
    with Wedge(watched.pid) as wedge:
        assert wedge.accepts_connections(watched.port)
        eventually(wedge.is_over, 30)
    eventually(lambda: watched.told("NRestarts") == "1" and watched.told("SubState") == "running", 30)
    assert "Fatal Python error: Aborted" in log.read_text().removeprefix(before)
    assert watched.ask("second [[recall]]", name).said == ["first [[say 1]]", "second [[recall]]"]


# Stop --------------------------------------------------------------------------------------------------


def test_a_stop_lets_a_turn_finish_beyond_the_units_own_timeout(
    make: Make, system: Booted, name: str
) -> None:
    service = make()
    service.drop_in("short", "Service", TimeoutStopSec="2s")
    service.start()
    with ThreadPoolExecutor() as threads, service.stream(SLOW, name) as stream, system.debugging() as heard:
        stream.until("w3 ")
        stopping = threads.submit(service.stop)
        eventually(lambda: service.told("ActiveState") == "deactivating")
        assert service.told("StatusText").startswith(("1 of", "2 of", "draining"))
        stream.rest()
        assert stream.text.split() == WORDS
        assert stopping.result() == 0
        assert heard("STOPPING=1")
        assert heard("EXTEND_TIMEOUT_USEC=")
    assert service.told("Result") == "success"
    check_nothing_left(service)
    service.start()
    assert service.ask("next [[recall]]", name).said == [SLOW, "next [[recall]]"]


def test_a_stop_ends_a_turn_that_does_not_finish(make: Make, model: Model, name: str) -> None:
    service = make(CLAUDE_CODED_DRAIN_TIMEOUT_MS=1000).start()
    question = f"mine {bash('(env -i setsid sleep 81 &); sleep 82')}"
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(service.ask, question, name)
        eventually(lambda: service.runs("sleep 82"))
        before = time.monotonic()
        assert service.stop() == 0
        took = time.monotonic() - before
        assert asked.result().code == "worker_died"
    assert 1 <= took < 10
    assert service.told("Result") == "success"
    check_nothing_left(service)
    service.start()
    assert service.ask("next [[recall]]", name).said == ["next [[recall]]"]


def test_a_killed_main_process_leaves_nothing(make: Make, system: Booted, name: str) -> None:
    service = make().start()
    assert service.ask("first [[say 1]]", name).text == "1"
    with ThreadPoolExecutor() as threads:
        question = f"mine {bash('(env -i setsid sleep 83 &); sleep 84')}"
        asked = threads.submit(service.ask, question, f"{name}-other")
        eventually(lambda: service.runs("sleep 84"))
        inside = service.members()
        assert {"sleep 83", "sleep 84"} <= set(map(command_line, inside))
        service.kill()
        with pytest.raises(Exception, match=r"disconnected|reset|closed"):
            asked.result()
    eventually(lambda: service.told("NRestarts") == "1" and service.told("SubState") == "running", 30)
    assert not any(process.is_running() for process in inside)
    assert service.ask("second [[recall]]", name).said == ["first [[say 1]]", "second [[recall]]"]


def check_nothing_left(service: Service) -> None:
    assert not service.cgroup.exists()
    assert not service.processes()


def test_conversations_go_on_after_a_restart(make: Make, name: str) -> None:
    service = make().start()
    service.ask("one [[say 1]]", name)
    service.restart()
    assert service.shown(name)["state"] == "cold"
    assert service.ask("two [[recall]]", name).said == ["one [[say 1]]", "two [[recall]]"]
    state = {path.name for path in service.system.path(HOME).iterdir()}
    assert {".claude", "workspace"} <= state


# Control groups ----------------------------------------------------------------------------------------


def test_each_worker_has_a_control_group_that_goes_with_it(make: Make, model: Model, name: str) -> None:
    service = make(CLAUDE_CODED_SPARE_WORKERS=0).start()
    with ThreadPoolExecutor() as threads:
        question = f"mine {bash('(env -i setsid sleep 85 &); sleep 86')}"
        asked = threads.submit(service.ask, question, name)
        eventually(lambda: service.runs("sleep 86"))
        worker = service.worker_of(model.session("mine"))
        assert {path.name for path in service.cgroup.iterdir() if path.is_dir()} == {"daemon", "worker-1"}
        assert [process.pid for process in service.members("daemon")] == [service.pid]
        left = service.members("worker-1")
        assert {"sleep 85", "sleep 86"} <= set(map(command_line, left))
        worker.kill()
        assert asked.result().status == 502
    eventually(lambda: not (service.cgroup / "worker-1").exists())
    eventually(lambda: not any(process.is_running() for process in left))
    assert service.ask("next [[say on]]", name).text == "on"
    assert (service.cgroup / "worker-2").exists()
    assert service.delete(f"/conversations/{name}").ok
    eventually(lambda: not (service.cgroup / "worker-2").exists())


# Who may control it ------------------------------------------------------------------------------------


def test_the_control_socket_is_for_the_group(make: Make, system: Booted) -> None:
    service = make().start()
    system.run("useradd", "--groups", "claude-coded", "admin")
    system.run("useradd", "stranger")
    directory, sock = (system.run("stat", "-c", "%A %U %G", path).stdout.strip() for path in CONTROL)
    assert (directory, sock) == (
        "drwxr-x--- claude-coded claude-coded",
        "srw-rw---- claude-coded claude-coded",
    )
    status = system.run(*as_user("admin"), "/opt/claude-coded/bin/claude-codectl", "--json", "status")
    assert json.loads(status.stdout)["pid"] == int(service.told("MainPID"))
    refused = system.run(*as_user("stranger"), "/opt/claude-coded/bin/claude-codectl", "status", check=False)
    assert (refused.returncode, "is your user in group claude-coded?" in refused.stderr) == (3, True)
    system.run(*as_user("admin"), "/opt/claude-coded/bin/claude-codectl", "log-level", "debug")
    (entry,) = system.journal("EVENT=control request", f"_PID={service.told('MainPID')}")
    assert system.run("id", "-u", "admin").stdout.strip() in entry["UIDS"]


@pytest.mark.parametrize("how", ["plain", "orphan"])
def test_what_claude_runs_gets_neither_at_the_socket_nor_at_the_daemon(
    make: Make, system: Booted, name: str, how: str
) -> None:
    """It is of the daemon's user, and under that user the daemon cannot see who else calls."""
    service = make(CLAUDE_CODED_SPARE_WORKERS=0).start()
    workspace = system.path(f"{HOME}/workspace")
    shutil.copy(caller.__file__, workspace / "caller.py")
    told = f"{HOME}/workspace/{name}"
    call = f"python3 caller.py {how} {CONTROL[1]} POST /v1/drain '' {told}"
    pid = service.told("MainPID")
    answer = service.ask(bash(f"{call}; id -un; ls /proc/{pid}/fd; cat /proc/{pid}/environ"), name)
    assert "claude-coded" in answer.text
    assert answer.text.count("ermission denied") + answer.text.count("No such file") >= 2
    assert eventually(lambda: (workspace / name).exists() and (workspace / name).read_text()) == "403"
    status = system.run("/opt/claude-coded/bin/claude-codectl", "--json", "status")
    assert json.loads(status.stdout)["state"] == "ok"


CONTROL = ("/run/claude-coded", "/run/claude-coded/control.sock")


def as_user(name: str) -> list[str]:
    return ["setpriv", "--reuid", name, "--regid", name, "--init-groups"]
