"""Client programs as processes: a clean environment, a HOME of their own, no network but loopback."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.daemon import Json

PROGRAM_SECONDS = 120.0
NOWHERE = "http://127.0.0.1:9"
"""A proxy that refuses every connection: who tries to leave the machine fails at once."""


@dataclass(frozen=True)
class Output:
    """What a program has written, and its exit status."""

    status: int
    out: str
    err: str

    def ok(self) -> str:
        """Return what it wrote to stdout; fail if it failed."""
        assert self.status == 0, f"exit status {self.status}\n{self.out}\n{self.err}"
        return self.out


@dataclass
class Home:
    """Where programs run: a HOME and a working directory that no other test sees."""

    directory: Path
    base_url: str
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.path.mkdir(parents=True)
        self.work.mkdir()

    @property
    def path(self) -> Path:
        return self.directory / "home"

    @property
    def work(self) -> Path:
        return self.directory / "work"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.path),
            "LANG": "C.UTF-8",
            "HTTP_PROXY": NOWHERE,
            "HTTPS_PROXY": NOWHERE,
            "NO_PROXY": "127.0.0.1,localhost",
            **self.settings,
        }

    def run(self, *command: str | Path, text: str | None = None, **settings: str) -> Output:
        """Run a program to its end; what it leaves behind is killed."""
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=self.work,
            env={**self.environment, **settings},
            stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(text, PROGRAM_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(f"not within {PROGRAM_SECONDS:g} s: {command}\n{out}\n{err}") from None
        return Output(process.returncode, out, err)


@dataclass(frozen=True)
class Library:
    """A program of ours that uses a library. It takes a mode and texts, and writes a JSON object.

    `written` is what the README's readers write to use the library; the program begins with it.

    The modes: `chat` holds a conversation, every second answer streamed; `stream` counts the deltas; `tools`
    and `stream_tools` run the function `get_weather`; `document` and `stream_document` ask for an object of
    `city` and `degrees`, `document_by_tools` has the function besides; `look` shows an image and a PDF file.
    """

    home: Home
    command: Sequence[str | Path]
    written: str
    settings: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, mode: str, *texts: str, model: str = "claude-code-chat") -> Json:
        given = {"MODEL": model, "WRITTEN": self.written.replace("claude-code-chat", model), **self.settings}
        out = self.home.run(*self.command, mode, *texts, **given).ok()
        told: Json = json.loads(out.splitlines()[-1])
        return told
