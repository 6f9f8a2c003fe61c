"""Directories that are filled once, at some expense, and kept between runs."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

CACHES: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def kept(cache: str, name: str, parts: Sequence[str], fill: Callable[[Path], None]) -> Path:
    """Return a directory that was filled now or in an earlier run; another recipe has another directory."""
    directory = CACHES / cache / f"{name}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"
    mark = directory / ".complete"
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run may be at it
        if not mark.exists():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            fill(directory)
            mark.touch()
    return directory
