"""What tells a program's request from a web page's."""

import pytest

from claude_coded.browsers import is_foreign, is_json

SAFELISTED = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
"""What a page may send with no leave asked for: https://fetch.spec.whatwg.org/#cors-safelisted-request-header."""


@pytest.mark.parametrize(
    "kind",
    ["application/json", "APPLICATION/JSON", "application/json; charset=utf-8", "application/vnd.api+json"],
)
def test_json_is_told_by_its_kind(kind: str) -> None:
    assert is_json(kind)


@pytest.mark.parametrize(
    "kind", [None, "", "json", "text/json", "application/jsonp", "image/a+json", ";json"]
)
def test_what_is_no_json(kind: str | None) -> None:
    assert not is_json(kind)


@pytest.mark.parametrize("kind", SAFELISTED)
@pytest.mark.parametrize("more", ["", ";json", "; charset=application/json", "; a=b+json"])
def test_what_a_page_may_send_unasked_is_never_json(kind: str, more: str) -> None:
    assert not is_json(kind + more)


@pytest.mark.parametrize(
    ("site", "foreign"),
    [(None, False), ("none", False), ("same-origin", False), ("same-site", True), ("cross-site", True)],
)
def test_pages_of_somebody_elses(site: str | None, foreign: bool) -> None:
    assert is_foreign(site) is foreign
