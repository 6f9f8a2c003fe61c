"""Keys are where they are needed and nowhere else: what a daemon writes, shows and answers is searched."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import psutil
import pytest

from tests.acceptance.conftest import Start
from tests.support.daemon import Daemon, command_line, eventually

SHOWN = ("status", "ready", "workers", "conversations?all=true", "requests", "events", "config", "log-level")
COMMANDS = ("config", "status", "events", "--json config", "--json conversations --all", "show first")


class Keys:
    """Keys that nobody else has. The half of one is searched for: a piece of a key is no less a leak."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.made: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        return self.made.setdefault(name, f"sk-{name}-{token_hex(24)}")

    def found(self, data: bytes) -> list[str]:
        return [name for name, key in self.made.items() if key[-24:].encode() in data]

    def write(self, name: str, text: str) -> Path:
        """Write a file that may have keys, and is not searched."""
        self.directory.mkdir(exist_ok=True)
        (self.directory / name).write_text(text)
        return self.directory / name


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys")


def written(daemon: Daemon) -> Iterator[tuple[Path, bytes]]:
    """Yield what is in all files that the daemon, and what it runs, may have written."""
    for path in daemon.directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path, path.read_bytes()


def begin(daemon: Daemon) -> None:
    """Start a daemon, whatever the format of its log is; have its port from the control socket."""
    process = daemon.spawn()
    eventually(lambda: process.poll() is not None or daemon.socket.exists(), 30)
    address = daemon.control("GET", "/v1/status").json()["address"]
    daemon.port = int(address.rsplit(":", 1)[1])
    eventually(lambda: daemon.control("GET", "/v1/ready").status_code == 200)


def talk(daemon: Daemon, keys: Keys) -> list[bytes]:
    """Have all kinds of requests, good and bad; return what was answered."""
    bearer = {"Authorization": f"Bearer {keys['wrong']}"}
    malformed = {"content": b"{", "headers": {"Content-Type": "application/json"}}
    answers = [
        daemon.ask("[[say hi]]", "first"),
        daemon.ask("[[error 401]]", "first"),
        daemon.ask("[[error 400]]", "first"),
        daemon.ask('[[tool Bash {"command": "nothing-like-it"}]] [[result]]', "first"),
        daemon.ask("[[say hi]]", model="nobody"),
        daemon.ask("[[say hi]]", headers=bearer),
        daemon.ask("[[say hi]]", headers={"X-Claude-Workspace": "../.."}),
        daemon.request("POST", "/v1/responses", json={"model": "claude-code", "input": "[[say hi]]"}),
        daemon.request("POST", "/v1/chat/completions", **malformed),
        daemon.get("/health"),
        daemon.request("GET", "/health", headers=bearer),
        daemon.get("/conversations?all=true"),
        daemon.get("/conversations/first"),
    ]
    with daemon.stream("[[delay 20]] [[words 400]]", "killed") as stream:
        stream.until("w5")
        for worker in daemon.workers():
            worker.kill()
        answers.append(stream.answer())
    assert [answer.status for answer in answers[:3]] == [200, 502, 400]
    return [json.dumps([answer.body, dict(answer.headers)]).encode() for answer in answers]


def look(daemon: Daemon) -> list[bytes]:
    """Return what the control interface shows."""
    workers = daemon.control("GET", "/v1/workers").json()
    paths = [*SHOWN, *(f"workers/{worker['id']}" for worker in workers)]
    return [daemon.control("GET", f"/v1/{path}").content for path in paths]


def run(daemon: Daemon) -> list[bytes]:
    """Return what the operator's programs print."""
    codectl = [sys.executable, "-c", "from claude_coded.codectl.commands import main; main()"]
    programs = [[*codectl, "--socket", str(daemon.socket), *command.split()] for command in COMMANDS]
    programs.append([sys.executable, "-m", "claude_coded", "check", "--json"])
    environment, shown = daemon.environment, []
    for program in programs:
        done = subprocess.run(program, env=environment, cwd="/", capture_output=True, timeout=60, check=False)
        assert b"Traceback" not in done.stderr
        shown.append(done.stdout + done.stderr)
    return shown


def reload(daemon: Daemon, config: Path, text: str) -> bytes:
    config.write_text(text)
    return daemon.control("POST", "/v1/reload").content


@pytest.mark.parametrize(
    "kind", ["json", *(pytest.param(it, marks=pytest.mark.soak) for it in ("text", "journal"))]
)
def test_keys_are_in_nothing_that_is_written_or_answered(make: Start, keys: Keys, kind: str) -> None:
    credentials = keys.write("api-keys", f"carol:{keys['credential']}\n").parent
    clients = f'api_keys = "alice:{keys["alice"]}"\n'
    config = keys.write("config.toml", f'anthropic_api_key = "{keys["first"]}"\n{clients}')
    daemon = make(
        key=keys["alice"],
        ANTHROPIC_API_KEY="",
        CREDENTIALS_DIRECTORY=credentials,
        CLAUDE_CODED_CONFIG=config,
        CLAUDE_CODED_API_KEYS_FILE=keys.write("file", f"bob:{keys['file']}\n"),
        CLAUDE_CODED_LOG_FORMAT=kind,
        CLAUDE_CODED_LOG_LEVEL="debug",
        CLAUDE_CODED_UPSTREAM_RETRIES=0,
        CLAUDE_CODED_DRAIN_TIMEOUT_MS=1000,
        POOL_SIZE=2,
    )
    logs = daemon.directory / "logs"
    logs.mkdir()
    daemon.settings = {**daemon.settings, "LOGS_DIRECTORY": str(logs)}
    begin(daemon)
    shown = talk(daemon, keys) + look(daemon)
    if kind == "json":  # what they print is the same
        shown += run(daemon)
    shown += [
        reload(daemon, config, f'anthropic_api_key = "{keys["first"]}"\napi_keys = "{keys["bad"]}"\n'),
        reload(daemon, config, f'anthropic_api_key = "{keys["worse"]}\n'),
        reload(daemon, config, f'anthropic_api_key = "{keys["second"]}"\n{clients}'),
    ]
    assert [b'"error"' in told for told in shown[-3:]] == [True, True, False]
    assert daemon.ask("[[say hi]]", "second").text == "hi"
    workers = eventually(daemon.workers)
    shown += [command_line(process).encode() for process in daemon.processes()]
    environments = [str(worker.environ()).encode() for worker in workers]
    assert {tuple(keys.found(environment)) for environment in environments} == {("second",)}
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGABRT)
    daemon.process.wait(20)
    assert b"most recent call first" in (logs / "crash.log").read_bytes()

    assert len(shown) > 25
    assert not [(found, data) for data in shown if (found := keys.found(data))]
    files = dict(written(daemon))
    assert {daemon.log_file, daemon.state / "claude-coded.db"} <= set(files)
    assert b"second" in files[daemon.log_file]
    assert not [(path, found) for path, data in files.items() if (found := keys.found(data))]


def test_the_daemon_leaves_no_core_and_lets_claudes_commands_choose(make: Start) -> None:
    daemon = make(CLAUDE_CODED_SPARE_WORKERS=0).start()
    soft, hard = psutil.Process(daemon.pid).rlimit(psutil.RLIMIT_CORE)
    assert (soft, hard) == (0, psutil.Process().rlimit(psutil.RLIMIT_CORE)[1])
    # Of a process of which no core is made these are root's, and closed to others of its user: proc(5).
    assert Path(f"/proc/{daemon.pid}/environ").stat().st_uid == 0
    told = daemon.ask('[[tool Bash {"command": "ulimit -Sc; ulimit -Hc"}]] [[result]]').text.split()
    assert told == ["0", "unlimited" if hard == psutil.RLIM_INFINITY else str(hard // 1024)]
