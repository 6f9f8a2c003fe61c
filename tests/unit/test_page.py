"""The status page's file: its policy fits it, and it asks nobody else for anything."""

import re
from base64 import b64decode
from hashlib import sha256

import pytest

from claude_coded.codectl.web import HANDED_ON
from claude_coded.control.page import FILE, policy_of
from claude_coded.events import EventKind

PAGE = FILE.read_text()


def directives(policy: str) -> dict[str, str]:
    return dict(part.strip().partition(" ")[::2] for part in policy.split(";"))


def test_the_policy_lets_in_the_page_itself_and_nothing_else() -> None:
    policy = directives(policy_of(PAGE))
    for element in ("script", "style"):
        (content,) = re.findall(rf"<{element}\b[^>]*>(.*?)</{element}>", PAGE, re.DOTALL)
        (digest,) = re.findall(r"^'sha256-(.*)'$", policy[f"{element}-src"])
        assert b64decode(digest) == sha256(content.encode()).digest()
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in policy_of(PAGE)
    assert "Content-Security-Policy" in HANDED_ON


def test_a_page_of_two_scripts_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="too many"):
        policy_of("<style></style><script>1</script><script>2</script>")


def test_the_page_needs_nothing_from_elsewhere_and_has_no_way_to_make_markup() -> None:
    addresses = set(re.findall(r"https?://[^\s'\"]+", PAGE))
    assert addresses == {"http://www.w3.org/2000/svg"}
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "srcdoc"):
        assert way not in PAGE
    assert not re.search(r"\ssrc=|\son[a-z]+=|@import|url\(", PAGE)


def test_the_kinds_of_events_that_it_knows_are_told() -> None:
    known = set(re.findall(r'"((?:turn|permission|worker|daemon|pool|settings)\.[a-z_]+)"', PAGE))
    assert known
    assert known <= set(EventKind)
