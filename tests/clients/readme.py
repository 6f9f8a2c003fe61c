"""What the README tells users to write, with the address of the daemon that is tested."""

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
ADDRESS = "http://127.0.0.1:3000/v1"
BLOCK = re.compile(r"^```\w*\n(.*?)^```|((?:^    [^\n]*\n)+)", re.MULTILINE | re.DOTALL)


def block(client: str, base_url: str) -> str:
    """Return the first block of code after a client's name in bold."""
    told = _clients().partition(f"\n**{client}**")[2]
    found = BLOCK.search(told)
    assert found is not None, f"the README has no settings of {client}"
    return _addressed(found[1] or re.sub("^    ", "", found[2], flags=re.MULTILINE), base_url)


def statement(start: str, base_url: str) -> str:
    """Return the line that begins so, with those after it that are indented or close it."""
    found = re.search(rf"^{re.escape(start)}.*\n(?:[ )].*\n)*", _clients(), re.MULTILINE)
    assert found is not None, f"the README has no {start}"
    return _addressed(found[0], base_url)


def _clients() -> str:
    return re.split(r"^## ", README.read_text().partition("\n## Clients\n")[2], flags=re.MULTILINE)[0]


def _addressed(text: str, base_url: str) -> str:
    assert ADDRESS in text, f"no address in {text}"
    return text.replace(ADDRESS, base_url)
