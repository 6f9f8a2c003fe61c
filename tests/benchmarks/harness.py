"""What the benchmarks drive: a scripted model, a daemon, and the same CLI with nothing between.

Both sides run the same binary with the same arguments, environment, workspace and model process, and both
answers are read by the same loop, which counts patterns of bytes and decodes nothing.
"""

import contextlib
import http.client
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Final
from uuid import uuid4

import orjson

import claude_coded
from claude_coded.claude.launch import Launch, arguments, die_with_parent, environment, find_binary
from claude_coded.claude.protocol import Protocol, Setup, message_line
from claude_coded.turn import Message, Role
from tests.benchmarks import stamper
from tests.benchmarks.measure import Timing
from tests.support import replaying

READ_SIZE: Final = 256 * 1024
RETRIES: Final = 3
API_KEY: Final = "sk-ant-test"

_NAME: Final = re.compile(rb"(?i)\r\nx-conversation-id: *([^\r]+)")
_RESPONSE: Final = re.compile(rb'"id":"(resp_\w+)"')
_CONTENT: Final = re.compile(rb'\{"content":("(?:[^"\\]|\\.)*")\}')

ANSWER_TIMEOUT: Final = 60.0
START_TIMEOUT: Final = 30.0
STOP_TIMEOUT: Final = 20.0
NOTED_TIMEOUT: Final = 1.0
"""Seconds: of silence in an answer, for a process to come up, and for one to end after TERM."""

SPARE_AGE: Final = 2.0
"""Seconds that a spare must have been seen: a younger one still loads, or is being prepared."""

POLL: Final = 0.05
SETTLE: Final = 0.05
"""Seconds between looks at /health, and of rest between turns, for what the CLI does after an answer."""


class BenchmarkError(Exception):
    """Something did not work, so that there is nothing to measure."""


# Reading answers ---------------------------------------------------------------------------------------


class Scanner:
    """Counts a pattern in a stream of bytes, across the borders of its pieces too."""

    def __init__(self, pattern: bytes) -> None:
        self._pattern = pattern
        self._keep = len(pattern) - 1
        self._tail = b""

    def feed(self, data: bytes) -> int:
        """Return how many more there are."""
        window = self._tail + data
        self._tail = window[-self._keep :]
        return window.count(self._pattern)


@dataclass(frozen=True, slots=True)
class Marks:
    """Patterns of an answer: each piece of it, its end, and the end of what follows that."""

    delta: bytes
    end: bytes
    close: bytes


HTTP_MARKS: Final = Marks(b'{"content":', b"data: [DONE]", b"\r\n0\r\n\r\n")
RESPONSES_MARKS: Final = Marks(b'"type":"response.output_text.delta"', HTTP_MARKS.end, HTTP_MARKS.close)
CLI_MARKS: Final = Marks(b'"text_delta"', b'"type":"result"', b'"state":"idle"')


def follow(read: Callable[[], bytes], marks: Marks, started: float) -> Timing:
    """Read an answer to its close. `started` is a time of `perf_counter`. Raises BenchmarkError."""
    delta, end, close = Scanner(marks.delta), Scanner(marks.end), Scanner(marks.close)
    first = total = 0.0
    deltas = 0
    while True:
        data = read()
        now = time.perf_counter() - started
        if found := delta.feed(data):
            deltas += found
            first = first or now
        if end.feed(data):
            total = now
        if close.feed(data):
            if not (first and total):
                raise BenchmarkError(f"an answer broke off after {deltas} deltas: {data[-600:]!r}")
            return Timing(first, total, deltas, started)


# The two ways to the CLI -------------------------------------------------------------------------------


class HttpConversation:
    """A conversation through the daemon, on one connection."""

    path = "/v1/chat/completions"
    marks = HTTP_MARKS

    def __init__(self, port: int) -> None:
        self.name = f"bench-{uuid4().hex}"
        self._port = port
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, text: str) -> Timing:
        """Run a turn."""
        return self._exchange(self._asking(text), self._read)

    def begin(self, text: str) -> int:
        """Ask for a turn; return the descriptor from which its answer is read, or not, by the caller."""
        self.socket.sendall(self._asking(text))
        return self.socket.fileno()

    def _asking(self, text: str) -> bytes:
        return self._request(_body([_said("user", text)]), f"X-Conversation-ID: {self.name}\r\n")

    def close(self) -> None:
        """Close the connection and have the daemon stop the conversation's worker."""
        self.socket.close()
        call(self._port, "DELETE", f"/conversations/{self.name}?purge=true")

    def _exchange(self, request: bytes, read: Callable[[], bytes]) -> Timing:
        started = time.perf_counter()
        self.socket.sendall(request)
        head = read()
        if not head.startswith(b"HTTP/1.1 200"):
            raise BenchmarkError(f"the daemon refused a turn: {head[:600].decode(errors='replace')}")
        unread = [head]
        return follow(lambda: unread.pop() if unread else read(), self.marks, started)

    def _request(self, body: bytes, header: str = "") -> bytes:
        """Return a whole request."""
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{header}\r\n"
        )
        return head.encode() + body

    def _exchange_whole(self, request: bytes) -> tuple[Timing, bytes]:
        """Return the whole response, too."""
        pieces: list[bytes] = []

        def read() -> bytes:
            pieces.append(self._read())
            return pieces[-1]

        timing = self._exchange(request, read)
        answer = b"".join(pieces)
        if (name := _NAME.search(answer)) is None:
            raise BenchmarkError("the daemon did not name the conversation")
        self.name = name[1].decode()
        return timing, answer

    def _read(self) -> bytes:
        data = self.socket.recv(READ_SIZE)
        if not data:
            raise BenchmarkError("the daemon closed the connection")
        return data


class StatelessConversation(HttpConversation):
    """A conversation whose client sends all that was said with each request, and no id.

    `name` is what the daemon calls it. What was answered is decoded after the turn.
    """

    def __init__(self, port: int, past: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(port)
        self.said = list(past)

    def ask(self, text: str) -> Timing:
        """Run a turn."""
        self.said.append(_said("user", text))
        timing, answer = self.send()
        self.said.append(_said("assistant", "".join(map(orjson.loads, _CONTENT.findall(answer)))))
        return timing

    def send(self, **fields: object) -> tuple[Timing, bytes]:
        """Send all that was said, with more fields of a request; return the whole response too."""
        return self._exchange_whole(self._request(_body(self.said, **fields)))


class ResponsesConversation(HttpConversation):
    """A conversation by the Responses API, each request after the response before."""

    path = "/v1/responses"
    marks = RESPONSES_MARKS

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._previous: str | None = None

    def ask(self, text: str) -> Timing:
        """Run a turn."""
        fields = {"model": "claude-code", "stream": True, "input": text}
        body = orjson.dumps({**fields, "previous_response_id": self._previous})
        timing, answer = self._exchange_whole(self._request(body))
        if (found := _RESPONSE.search(answer)) is None:
            raise BenchmarkError("the daemon did not name the response")
        self._previous = found[1].decode()
        return timing


def _said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _body(messages: Sequence[Mapping[str, Any]], **fields: object) -> bytes:
    return orjson.dumps({"model": "claude-code", "stream": True, "messages": messages, **fields})


@dataclass(frozen=True, slots=True)
class Command:
    """How the CLI is run, by the daemon and by us."""

    binary: Path
    workspace: Path
    environment: Mapping[str, str]

    def words(self, launch: Launch | None = None, session: str | None = None) -> list[str]:
        """Return the words of a process."""
        fresh = Launch(agent=True, workspace=self.workspace, permission_mode="bypassPermissions")
        words = arguments(launch or fresh, session or str(uuid4()))
        return [*die_with_parent(shutil.which), str(self.binary), *words]

    @property
    def variables(self) -> dict[str, str]:
        """Return its environment."""
        return environment(self.environment, api_key=API_KEY, retries=RETRIES)

    def spawn(self, launch: Launch | None = None, session: str | None = None) -> "subprocess.Popen[bytes]":
        """Start the CLI as the daemon would; a fresh one of the agent's unless a launch says otherwise."""
        return subprocess.Popen(
            self.words(launch, session),
            cwd=self.workspace,
            env=self.variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )


class DirectConversation:
    """A conversation with a CLI of our own, on its pipes; the CLI is started by the first turn."""

    def __init__(self, command: Command, launch: Launch | None = None, session: str | None = None) -> None:
        self._start = partial(command.spawn, launch, session)
        self._process: subprocess.Popen[bytes] | None = None
        self._setup = b""

    def ask(self, text: str) -> Timing:
        """Run a turn; the first one's time includes the start of the process."""
        line = _line(text)
        started = time.perf_counter()
        stdout = self._say(line)
        return follow(PipeReader(stdout).read, CLI_MARKS, started)

    def begin(self, text: str) -> int:
        """Ask for a turn; return the descriptor from which its answer is read by the caller."""
        return self._say(_line(text)).fileno()

    def _say(self, line: bytes) -> IO[bytes]:
        stdin, stdout = pipes(self._process or self.spawn())
        stdin.write(self._setup + line)
        self._setup = b""
        return stdout

    def spawn(self) -> "subprocess.Popen[bytes]":
        """Start the process, which waits for its first turn."""
        self._process = self._start()
        self._setup = Protocol().initialize(Setup())[0]
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            stdin, stdout = pipes(self._process)
            stdin.close()
            end(self._process)
            stdout.close()


def _line(text: str) -> bytes:
    return message_line(Message.of(Role.USER, text), str(uuid4()), query=True)


class PipeReader:
    """Reads a pipe, and does not wait for ever."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._number = pipe.fileno()
        self._poll = select.poll()
        self._poll.register(self._number, select.POLLIN | select.POLLHUP)

    def read(self) -> bytes:
        """Return what there is, at least a byte."""
        if not self._poll.poll(ANSWER_TIMEOUT * 1000):
            raise BenchmarkError("the CLI has fallen silent")
        data = os.read(self._number, READ_SIZE)
        if not data:
            raise BenchmarkError("the CLI ended in the middle of an answer")
        return data


def pipes(process: "subprocess.Popen[bytes]") -> tuple[IO[bytes], IO[bytes]]:
    """Return the input and the output of a process."""
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


# The processes -----------------------------------------------------------------------------------------


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process of ours and wait until it is gone."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def call(port: int, method: str, path: str) -> Any:
    """Return the JSON that the daemon answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_TIMEOUT)
    try:
        connection.request(method, path)
        return orjson.loads(connection.getresponse().read())
    finally:
        connection.close()


@contextlib.contextmanager
def model() -> Iterator[str]:
    """Serve the scripted model in a process of its own; yields its URL."""
    command = [*die_with_parent(shutil.which), sys.executable, "-m", "claude_coded.offline"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=_python_environment())
    try:
        assert process.stdout is not None
        said = process.stdout.readline().decode().split()
        if not said:
            raise BenchmarkError("the scripted model did not start")
        yield said[-1]
    finally:
        end(process)


@contextlib.contextmanager
def replayer(folder: Path) -> Iterator[Path]:
    """Replay in one process for all workers; yields what a daemon is to run in the place of the CLI."""
    program = folder / "claude"
    with replaying.install(program) as listening:
        number = listening.fileno()
        process = subprocess.Popen(
            [*die_with_parent(shutil.which), sys.executable, "-m", replaying.__name__, str(number)],
            pass_fds=[number],
            env=_python_environment(),
        )
    try:
        yield program
    finally:
        end(process)


@contextlib.contextmanager
def least_server(command: Command) -> Iterator[HttpConversation]:
    """Run the least server that there can be; yields its only conversation."""
    process = subprocess.Popen(
        [*die_with_parent(shutil.which), sys.executable, "-m", "tests.benchmarks.least", *command.words()],
        cwd=command.workspace,
        env=command.variables | _python_environment(),
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        with contextlib.closing(HttpConversation(int(process.stdout.readline()))) as conversation:
            yield conversation
    finally:
        end(process)


def stamper_of(folder: Path, binary: Path) -> Path:
    """Return what runs a CLI in its place and notes when messages and answers pass (see `Stamps`)."""
    program = folder / "claude"
    program.write_text(f"#!{sys.executable} -IS\n{Path(stamper.__file__).read_text()}")
    program.chmod(0o755)
    Path(f"{program}.real").symlink_to(binary.resolve())
    return program


class Stamps:
    """What a stamper has noted."""

    def __init__(self, program: Path) -> None:
        self._file = Path(f"{program}.times")

    def around(self, turn: Timing) -> float:
        """Return the seconds of a turn that lay outside of the CLI, up to the first piece of its answer.

        Raises BenchmarkError where the CLI was not asked just once.
        """
        asked, first = turn.asked, turn.asked + turn.first
        deadline = time.monotonic() + NOTED_TIMEOUT
        passed = self._passed(asked, first)
        while len(passed) < 2 and time.monotonic() < deadline:  # it notes what is on its way by then
            time.sleep(POLL)
            passed = self._passed(asked, first)
        match passed:
            case [("in", taken), ("out", given)]:
                return (taken - asked) + (first - given)
            case _:
                raise BenchmarkError(f"what passed a CLI from {asked} to {first} is no turn: {passed}")

    def _passed(self, since: float, until: float) -> list[tuple[str, float]]:
        noted = [line.split() for line in self._file.read_text().splitlines()]
        times = [(what, int(at) / 1e9) for what, at in noted]
        return [it for it in times if since <= it[1] <= until]


def _python_environment() -> dict[str, str]:
    # The same code as ours, installed or not.
    root = Path(claude_coded.__file__).parents[1]
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(root)}


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running daemon; `command` is how it runs its CLI."""

    pid: int
    port: int
    command: Command

    @property
    def control(self) -> Path:
        """Return where its control socket is."""
        return Path(self.command.environment["CLAUDE_CODED_SOCKET"])

    def health(self) -> Any:
        """Return what /health says."""
        return call(self.port, "GET", "/health")

    def converse(self) -> HttpConversation:
        """Return a new conversation through it."""
        return HttpConversation(self.port)

    def respond(self) -> ResponsesConversation:
        """Return a new conversation through its Responses API."""
        return ResponsesConversation(self.port)

    def resend(self, past: Sequence[Mapping[str, str]] = ()) -> StatelessConversation:
        """Return one whose client sends its whole history, which begins with `past`."""
        return StatelessConversation(self.port, past)

    def await_spare(self) -> None:
        """Wait until a spare has been there for SPARE_AGE and nothing else starts."""
        deadline = time.monotonic() + START_TIMEOUT
        since = None
        while time.monotonic() < deadline:
            pool = self.health()["pool"]
            now = time.monotonic()
            since = (since or now) if pool["spare"] >= 1 and not pool["starting"] else None
            if since is not None and now - since >= SPARE_AGE:
                return
            time.sleep(POLL)
        raise BenchmarkError("the daemon has no spare")

    def cpu_seconds(self) -> float:
        """Return the CPU time of the daemon's own process, user and system, in seconds."""
        return cpu_seconds(self.pid)

    def memory(self) -> dict[str, float]:
        """Return the daemon's own resident memory (rss) and its unshared part (uss), in MB."""
        return memory_of(self.pid)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, user and system, in seconds; finer than the ticks of /proc."""
    return time.clock_gettime(~pid << 3 | 2)  # its CPU clock, as the C library numbers it


def memory_of(pid: int | str) -> dict[str, float]:
    """Return the resident memory of a process (rss) and its unshared part (uss), in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    size = {line.split()[0]: int(line.split()[1]) * 1024 / 1e6 for line in lines}
    return {"rss": size["Rss:"], "uss": size["Private_Clean:"] + size["Private_Dirty:"]}


@contextlib.contextmanager
def daemon(
    folder: Path, model_url: str, *, module: str = "claude_coded", **settings: str
) -> Iterator[Daemon]:
    """Run a daemon in a clean environment with its own home, state and workspace below `folder`.

    `module` is the program that is run.
    """
    port = _free_port()
    variables = _daemon_environment(folder, model_url, port) | settings
    command = Command(Path(variables["CLAUDE_CODED_CLAUDE_BIN"]), Path(variables["WORKSPACE_DIR"]), variables)
    log = folder / "daemon.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*die_with_parent(shutil.which), sys.executable, "-m", module, "serve"],
            env=variables,
            cwd=folder,
            stderr=stderr,
        )
    try:
        running = Daemon(process.pid, port, command)
        _await_serving(running, process, log)
        yield running
    finally:
        end(process)


def _daemon_environment(folder: Path, model_url: str, port: int) -> dict[str, str]:
    for name in ("home", "state", "workspace"):
        (folder / name).mkdir(parents=True)
    return _python_environment() | {
        "HOME": str(folder / "home"),
        "IS_SANDBOX": "1",
        "ANTHROPIC_API_KEY": API_KEY,
        "ANTHROPIC_BASE_URL": model_url,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "WORKSPACE_DIR": str(folder / "workspace"),
        "CLAUDE_CODED_STATE_DIR": str(folder / "state"),
        "CLAUDE_CODED_SOCKET": str(folder / "control.sock"),
        "CLAUDE_CODED_CLAUDE_BIN": str(find_binary(None, shutil.which)),
        "CLAUDE_CODED_UPSTREAM_RETRIES": str(RETRIES),
        "PORT": str(port),
        "POOL_SIZE": "5",
    }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        number: int = sock.getsockname()[1]
    return number


def _await_serving(running: Daemon, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            running.health()
            return
        time.sleep(POLL)
    raise BenchmarkError(f"the daemon did not start: {log.read_text()[-2000:]}")
