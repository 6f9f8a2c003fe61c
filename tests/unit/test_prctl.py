"""What a process keeps to itself, as another process of its user sees it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from claude_coded import prctl

NOBODY: Final = 65534
PYTHON: Final = Path("/usr/bin/python3")

WAITS: Final = "import sys; print(flush=True); sys.stdin.read()"


@pytest.mark.parametrize(("before", "readable"), [("", True), ("keep_to_itself()", False)])
def test_others_of_the_same_user_cannot_read_environment_and_memory(before: str, readable: bool) -> None:
    root = os.geteuid() == 0  # who may look into everything
    if root and not PYTHON.exists():
        pytest.skip("no interpreter that other users may run")
    user, python = (NOBODY, str(PYTHON)) if root else (None, sys.executable)
    code = f"{Path(prctl.__file__).read_text()}\n{before}\n{WAITS}"
    with subprocess.Popen(
        [python, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"KEY": "sk"}, user=user
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        read = f"print('KEY' in open('/proc/{process.pid}/environ').read()); open('/proc/{process.pid}/mem')"
        other = subprocess.run(
            [python, "-c", read], capture_output=True, text=True, check=False, env={}, user=user
        )
        process.communicate(b"")
    assert process.returncode == 0
    assert (other.returncode == 0, "True" in other.stdout) == (readable, readable)
    assert readable or "Permission denied" in other.stderr
