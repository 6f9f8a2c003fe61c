"""How the text of a setting is read; what is wrong with it is a ValueError that does not quote it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeAlias

Parser: TypeAlias = Callable[[str], Any]

DIGEST: Final = "sha256:"
"""What a key begins with that is given by its digest: who can read that has no key."""

_DIGEST: Final = re.compile(f"{DIGEST}[0-9a-f]{{64}}")


@dataclass(frozen=True, slots=True)
class Number:
    """Reads whole numbers, from `low` on."""

    low: int

    def __call__(self, text: str) -> int:
        """Return the number. Raises ValueError."""
        value = int(text)
        if value < self.low:
            raise ValueError(f"must be at least {self.low}")
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    """Reads one of some words."""

    words: tuple[str, ...]

    def __call__(self, text: str) -> str:
        """Return the word. Raises ValueError."""
        if text not in self.words:
            raise ValueError(f"must be one of {', '.join(self.words)}")
        return text


def seconds(text: str) -> float:
    """Return seconds of milliseconds. Raises ValueError."""
    value = int(text)
    if value < 0:
        raise ValueError("must not be negative")
    return value / 1000


def some_seconds(text: str) -> float:
    """Return the same, of which there must be some. Raises ValueError."""
    if (found := seconds(text)) == 0:
        raise ValueError("must be more than 0")
    return found


def truth(text: str) -> bool:
    """Return whether a text says yes. Raises ValueError."""
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False}
    try:
        return {**words, "off": False, "": False}[text.strip().lower()]
    except KeyError:
        raise ValueError("must be true or false") from None


def names(text: str) -> tuple[str, ...]:
    """Return names with commas between them."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def path(text: str) -> Path:
    """Return an absolute path; `~` is the home."""
    return Path(text).expanduser().absolute()


def pairs(text: str) -> Mapping[str, str]:
    """Return `name:key` pairs, with commas or in lines; a `#` starts a comment line. Raises ValueError.

    A key may be given as `sha256:` and its digest.
    """
    found: dict[str, str] = {}
    for item in text.replace("\n", ",").split(","):
        entry = item.strip()
        if not entry or entry.startswith("#"):
            continue
        name, colon, key = entry.partition(":")
        if not colon or not name.strip() or not key.strip():
            # The text may hold a secret: the message never quotes it.
            raise ValueError("must be name:key pairs")
        if key.strip().startswith(DIGEST) and not _DIGEST.fullmatch(key.strip()):
            raise ValueError(f"must have 64 digits, 0 to 9 and a to f, after {DIGEST}")
        found[name.strip()] = key.strip()
    return found


def digest(key: str) -> bytes:
    """Return the digest of a key, which may be given by that."""
    if key.startswith(DIGEST):
        return bytes.fromhex(key.removeprefix(DIGEST))
    return sha256(key.encode()).digest()


def placeholder(parse: Parser, unit: str) -> str:
    """Return what stands for a value in the help."""
    if unit or isinstance(parse, Number):
        return unit.upper() or "N"
    words: dict[object, str] = {truth: "true|false", path: "PATH"}
    return words.get(parse, "TEXT")
