"""A real terminal: a program in tmux, what it shows, and what is typed into it."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.daemon import eventually

TMUX = shutil.which("tmux")


class Terminal:
    """A terminal of its own server, in which a program runs; it stays open after the program's end."""

    def __init__(
        self, directory: Path, command: Sequence[str | Path], environment: Mapping[str, str]
    ) -> None:
        self._socket = directory / "tmux"
        words = shlex.join(str(word) for word in command)
        variables = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8", **environment}
        # The shell tells the end, and how it ended.
        self._tmux(
            "new-session", "-d", "-x", "120", "-y", "40", "sh", "-c", f"{words}; echo ended $?; exec cat",
            environment=variables,
        )  # fmt: skip

    def _tmux(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        command = ["tmux", "-S", str(self._socket), "-f", "/dev/null", *arguments]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=20, check=True
        )
        return done.stdout

    @property
    def screen(self) -> str:
        return self._tmux("capture-pane", "-p")

    def shows(self, text: str, seconds: float = 20.0) -> str:
        """Wait until the screen has a text; return the screen."""
        seen = ""

        def look() -> bool:
            nonlocal seen
            seen = self.screen
            return text in seen

        try:
            eventually(look, seconds, every=0.05)
        except AssertionError:
            raise AssertionError(f"no {text!r} on the screen:\n{seen}") from None
        return seen

    def type(self, text: str) -> None:
        """Type a text, as it is."""
        self._tmux("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names for them: Enter, C-c."""
        self._tmux("send-keys", *keys)

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def close(self) -> None:
        self._tmux("kill-server")
