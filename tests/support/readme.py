"""The README as its readers use it: sections, blocks of code, and commands."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

README: Final = Path(__file__).parents[2] / "README.md"
PART: Final = re.compile(r"^```(\w*)\n(.*?)^```|((?:^    [^\n]*\n)+)", re.MULTILINE | re.DOTALL)
INLINE: Final = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A block of code; `language` is empty where none is told."""

    section: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Return the commands of a shell: those after a `$`, if there are any, else all."""
        lines = self.text.splitlines()
        prompts = any(line.startswith("$ ") for line in lines)
        found: list[str] = []
        for line in lines:
            if found and not _is_whole(found[-1]):
                found[-1] += f"\n{line}"
            elif not prompts or line.startswith("$ "):
                found.append(line.removeprefix("$ "))
        return found


def _is_whole(command: str) -> bool:
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return False
    return not command.endswith("\\")


def section(title: str) -> str:
    """Return a section's text, with those below it."""
    found = re.search(rf"^(#+) {re.escape(title)}\n", README.read_text(), re.MULTILINE)
    assert found is not None, f"the README has no section {title!r}"
    rest = README.read_text()[found.end() :]
    return re.split(rf"^#{{1,{len(found[1])}}} ", rest, flags=re.MULTILINE)[0]


def blocks() -> Iterator[Block]:
    """Yield all blocks of code."""
    title = ""
    for part in re.split(r"^(#+ .*)\n", README.read_text(), flags=re.MULTILINE):
        if re.match("#+ ", part):
            title = part.lstrip("# ")
        else:
            yield from _blocks_in(title, part)


def _blocks_in(title: str, text: str) -> Iterator[Block]:
    for found in PART.finditer(text):
        if found[3] is None:
            yield Block(title, found[1], found[2])
        else:
            yield Block(title, "", re.sub("^    ", "", found[3], flags=re.MULTILINE))


def commands(start: str) -> list[str]:
    """Return the commands that begin so, of all blocks without a language."""
    all_of_them = [it for block in blocks() if not block.language for it in block.commands]
    found = [command for command in all_of_them if command.startswith(start)]
    assert found, f"the README has no command {start!r}"
    return found


def programs(imports: str) -> list[Block]:
    """Return the blocks of Python that have this text."""
    found = [block for block in blocks() if block.language == "python" and imports in block.text]
    assert found, f"the README has no Python with {imports!r}"
    return found


def inline(start: str) -> str:
    """Return the first code that begins so and stands within a line of text."""
    found = [code for code in INLINE.findall(README.read_text()) if code.startswith(start)]
    assert found, f"the README has no {start!r} in a line"
    return str(found[0])
