"""A real daemon in a process of its own, in front of real Claude Code processes and a scripted model."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import openai
import psutil

from claude_coded.offline import read_conversation
from tests.support.schemas import check

Json = dict[str, Any]
T = TypeVar("T")

START_SECONDS = 30.0
STOP_SECONDS = 30.0
REQUEST_SECONDS = 60.0
CHAT = "/v1/chat/completions"
NOISE = re.compile(r"<system-reminder>.*?</system-reminder>\s*", re.DOTALL)
SESSION = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def eventually(check: Callable[[], T], seconds: float = 10.0, every: float = 0.02) -> T:
    """Return the first true value of a check that is repeated; fail when none comes in so many seconds."""
    deadline = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s; last seen: {value!r}"
        time.sleep(every)
    return value


class Model:
    """The scripted Messages API as a process, and what reached it."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        command = [sys.executable, "-m", "claude_coded.offline", "--host", host]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().split()[-1]
        self._http = httpx.Client(base_url=self.url, timeout=REQUEST_SECONDS, trust_env=False)

    def stop(self) -> None:
        self._http.close()
        self._process.terminate()
        self._process.communicate(timeout=STOP_SECONDS)

    def forget(self) -> None:
        self._http.delete("/_offline/requests").raise_for_status()

    def stats(self) -> dict[str, int]:
        counts: dict[str, int] = self._http.get("/_offline/stats").raise_for_status().json()
        return counts

    def requests(self, marker: str = "") -> list[Json]:
        """Return the requests since `forget` of which a user's text contains `marker`, in order."""
        recorded = self._http.get("/_offline/requests").raise_for_status().json()
        bodies: list[Json] = [item["body"] for item in recorded]
        return [body for body in bodies if any(marker in text for text in texts(body))]

    def session(self, marker: str) -> str:
        """Return the CLI's session id of the newest request with this text; wait for the request."""
        body = eventually(lambda: self.requests(marker))[-1]
        found = SESSION.findall(json.dumps(body["metadata"]))
        return str(found[-1])


def texts(body: Json) -> list[str]:
    """Return the user's own texts in a request of the CLI."""
    return list(read_conversation(body).texts)


def dialogue(body: Json) -> list[tuple[str, str]]:
    """Return role and text of a request's text blocks, without what the CLI adds in reminders."""
    said = []
    for message in body["messages"]:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for block in blocks:
            text = NOISE.sub("", block["text"]).strip() if block["type"] == "text" else ""
            if text:
                said.append((message["role"], text))
    return said


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: httpx.Headers
    body: Json

    @property
    def ok(self) -> bool:
        return self.status == 200

    @property
    def conversation(self) -> str:
        return self.headers["X-Conversation-ID"]

    @property
    def message(self) -> Json:
        assert self.ok, self.body
        message: Json = self.body["choices"][0]["message"]
        return message

    @property
    def text(self) -> str:
        return str(self.message["content"])

    @property
    def finish(self) -> str:
        assert self.ok, self.body
        return str(self.body["choices"][0]["finish_reason"])

    @property
    def said(self) -> Any:
        """Return the answer's text, read as JSON: what `[[recall]]` and the like say."""
        return json.loads(self.text)

    @property
    def error(self) -> Json:
        error: Json = self.body["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error

    @property
    def code(self) -> Any:
        return self.error["code"]


class Stream:
    """A streamed answer on its way; leaving the context closes the connection. Its events fit the schemas."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.raw: list[str] = []
        self.text = ""
        self.reasoning = ""
        self._lines = response.iter_lines()

    @property
    def conversation(self) -> str:
        return self.response.headers["X-Conversation-ID"]

    def lines(self) -> Iterator[str]:
        """Yield the lines that are not empty, comments included, as they come."""
        for line in self._lines:
            if line:
                self.raw.append(line)
                yield line

    def events(self) -> Iterator[Json]:
        """Yield each event's data as it comes, `[DONE]` excluded."""
        for line in self.lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                event = json.loads(line.removeprefix("data: "))
                check("ErrorResponse" if "error" in event else "CreateChatCompletionStreamResponse", event)
                for choice in event.get("choices", ()):
                    self.text += choice["delta"].get("content") or ""
                    self.reasoning += choice["delta"].get("reasoning_content") or ""
                yield event

    def until(self, text: str) -> str:
        """Read until the answer contains a text; return what came so far."""
        for event in self.events():
            assert "error" not in event, event
            if text in self.text:
                return self.text
        raise AssertionError(f"the stream ended before {text!r}: {self.text!r}")

    def rest(self) -> list[Json]:
        """Read to the end; return the remaining events."""
        return list(self.events())

    def answer(self) -> Answer:
        """Read to the end; return what the answer would be if it were not streamed, or its error."""
        if self.response.status_code != 200:
            return _checked(CHAT, self.response.status_code, self.response.headers, self.response.read())
        events = self.rest()
        if "error" in events[-1]:
            return Answer(0, self.response.headers, events[-1])
        assert self.raw[-1] == "data: [DONE]"
        choices = [choice for event in events for choice in event["choices"]]
        message = _folded([choice["delta"] for choice in choices])
        reasons = [choice["finish_reason"] for choice in choices]
        assert set(reasons[:-1]) <= {None}
        body = {**events[0], "choices": [{"message": message, "finish_reason": reasons[-1]}]}
        return Answer(200, self.response.headers, body)


def _folded(deltas: list[Json]) -> Json:
    """Return the message that a stream's deltas make."""
    made: Json = {"role": "assistant", "content": ""}
    for delta in deltas:
        for key in ("content", "reasoning_content"):
            if key in delta:
                made[key] = made.get(key, "") + delta[key]
        for piece in delta.get("tool_calls", ()):
            calls = made.setdefault("tool_calls", [])
            if piece["index"] == len(calls):
                calls.append({"id": piece["id"], "type": "function", "function": piece["function"]})
            else:
                calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
        if piece := delta.get("function_call"):
            called = made.setdefault("function_call", {"name": piece.get("name"), "arguments": ""})
            called["arguments"] += piece["arguments"]
    return made


def _checked(path: str, status: int, headers: httpx.Headers, content: bytes) -> Answer:
    """Return an answer, whose body fits OpenAI's schema."""
    body = json.loads(content)
    if status >= 400 and path != "/health":
        check("ErrorResponse", body)
    elif path == CHAT:
        check("CreateChatCompletionResponse", body)
    return Answer(status, headers, body)


def chat(text: str | list[Json], **more: Any) -> Json:
    """Return a chat request's body."""
    messages = [{"role": "user", "content": text}] if isinstance(text, str) else text
    return {"model": "claude-code", "messages": messages, **more}


@dataclass
class Daemon:
    """`claude-coded serve` with directories of its own. `settings` are environment variables."""

    directory: Path
    settings: Mapping[str, str]
    arguments: tuple[str, ...] = ()
    key: str | None = None
    port: int = 0
    program: tuple[str, ...] = (sys.executable, "-m", "claude_coded")
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.workspace.mkdir(exist_ok=True)
        self.http = httpx.Client(timeout=REQUEST_SECONDS, trust_env=False)

    @property
    def home(self) -> Path:
        return self.directory / "home"

    @property
    def workspace(self) -> Path:
        return self.directory / "workspace"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def socket(self) -> Path:
        return self.directory / "run" / "control.sock"

    @property
    def log_file(self) -> Path:
        return self.directory / "log"

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "IS_SANDBOX": "1",
            "ANTHROPIC_API_KEY": "sk-ant-test",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "WORKSPACE_DIR": str(self.workspace),
            "CLAUDE_CODED_STATE_DIR": str(self.state),
            "CLAUDE_CODED_SOCKET": str(self.socket),
            "CLAUDE_CODED_CONFIG": str(self.directory / "config.toml"),
            "PORT": str(self.port),
            **self.settings,
        }
        return {name: value for name, value in own.items() if value}

    # The process ---------------------------------------------------------------------------------------

    def spawn(self) -> "subprocess.Popen[bytes]":
        """Start the process and don't wait for anything."""
        (self.directory / "config.toml").touch()
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.program, "serve", *self.arguments],
                env=self.environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self.process

    def start(self) -> "Daemon":
        """Start the process and wait until it serves; a second time it has the same port."""
        before = len(self.log)
        process = self.spawn()

        def serving() -> str:
            assert process.poll() is None, f"the daemon ended with {process.poll()}: {self.log}"
            found = re.search(r'"message":"serving","address":"([^"]+)"', self.log[before:])
            return found[1] if found else ""

        self.port = httpx.URL(eventually(serving, START_SECONDS)).port or 0
        return self

    def stop(self) -> int:
        """Stop with SIGTERM; return the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """Stop with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def restart(self) -> "Daemon":
        assert self.stop() == 0
        return self.start()

    def close(self) -> None:
        """End the daemon; check that it goes in order and leaves no process."""
        self.http.close()
        if self.process is not None and self.process.poll() is None:
            try:
                assert self.stop() == 0, self.log
            finally:
                if self.process.poll() is None:
                    self.kill()
        eventually(lambda: not self.processes(), 15)

    def workers(self) -> list[psutil.Process]:
        """Return the daemon's CLI processes."""
        return [child for child in self.children() if _executable(child) == "claude"]

    def children(self) -> list[psutil.Process]:
        """Return the daemon's live child processes, whatever they have become by now."""
        try:
            found = psutil.Process(self.pid).children()
        except psutil.NoSuchProcess:
            return []
        return [child for child in found if _alive(child)]

    def processes(self) -> list[psutil.Process]:
        """Return every process of this machine that has the daemon's HOME: its own and all descendants'."""
        return [
            process
            for process in psutil.process_iter()
            if _home(process) == str(self.home) and _alive(process)
        ]

    def runs(self, command: str) -> bool:
        """Return whether a process of this command line is among the daemon's descendants."""
        return any(command_line(process) == command for process in self.processes())

    def worker_of(self, session: str) -> psutil.Process:
        """Return the CLI process that runs a session."""
        (worker,) = [it for it in self.workers() if _session(command_line(it)) == session]
        return worker

    def runs_session(self, session: str) -> bool:
        """Return whether a CLI process runs a session."""
        return session in map(_session, map(command_line, self.workers()))

    # Requests ------------------------------------------------------------------------------------------

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def openai(self) -> openai.OpenAI:
        """Return a client of OpenAI's SDK, to be closed; it never retries."""
        return openai.OpenAI(base_url=f"{self.base_url}/v1", api_key=self.key or "none", max_retries=0)

    def request(self, method: str, path: str, **options: Any) -> Answer:
        headers = {**self.headers, **options.pop("headers", {})}
        response = self.http.request(method, self.base_url + path, headers=headers, **options)
        return _checked(path, response.status_code, response.headers, response.content)

    def control(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Ask the control socket."""
        transport = httpx.HTTPTransport(uds=str(self.socket))
        with httpx.Client(transport=transport, base_url="http://localhost", timeout=REQUEST_SECONDS) as http:
            return http.request(method, path, **options)

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def delete(self, path: str) -> Answer:
        return self.request("DELETE", path)

    def ask(self, text: str | list[Json], conversation: str | None = None, **more: Any) -> Answer:
        """Return the answer to a chat request that is not streamed."""
        headers = {**more.pop("headers", {}), **_named(conversation)}
        return self.request("POST", CHAT, json=chat(text, **more), headers=headers)

    @contextlib.contextmanager
    def stream(
        self, text: str | list[Json], conversation: str | None = None, **more: Any
    ) -> Iterator[Stream]:
        """Ask for a streamed answer on a connection of its own."""
        headers = {**self.headers, **more.pop("headers", {}), **_named(conversation)}
        url = self.base_url + CHAT
        with (
            httpx.Client(timeout=REQUEST_SECONDS, trust_env=False) as client,
            client.stream("POST", url, json=chat(text, stream=True, **more), headers=headers) as response,
        ):
            yield Stream(response)

    def health(self) -> Json:
        return self.get("/health").body

    def pool(self) -> dict[str, int]:
        pool: dict[str, int] = self.health()["pool"]
        return pool

    def shown(self, conversation: str) -> Json:
        answer = self.get(f"/conversations/{conversation}")
        assert answer.ok, answer.body
        return answer.body

    def settled(self, seconds: float = 10.0) -> None:
        """Wait until no worker is busy."""
        eventually(lambda: not self.pool()["busy"] and not self.pool()["starting"], seconds)


def _named(conversation: str | None) -> dict[str, str]:
    return {"X-Conversation-ID": conversation} if conversation is not None else {}


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _executable(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return Path(process.exe()).name
    return ""


def command_line(process: psutil.Process) -> str:
    """Return the words of a process; nothing of one that has ended, also between two looks."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _session(command: str) -> str:
    """Return the session of a CLI's command line; a fork names that of its origin too."""
    words = command.split()
    named = [words[words.index(flag) + 1] for flag in ("--session-id", "--resume") if flag in words]
    return named[0] if named else ""


def _home(process: psutil.Process) -> str | None:
    with contextlib.suppress(psutil.Error):
        return process.environ().get("HOME")
    return None
