"""Who may call."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.errors import Forbidden
from claude_coded.http.access import Access
from claude_coded.settings import load

KEYS = {"joe": "key-of-joe", "ann": "key-of-ann"}


def access(keys: dict[str, str] | None = None, **environment: str) -> Access:
    return Access.of(load({}, environment), keys or {})


@pytest.mark.parametrize(
    ("header", "tenant"),
    [
        ("Bearer key-of-joe", "joe"),
        ("bearer key-of-ann", "ann"),
        ("Bearer  key-of-ann ", "ann"),
        ("Bearer key-of-jo", None),
        ("Bearer", None),
        ("Basic key-of-joe", None),
        ("", None),
        (None, None),
    ],
)
def test_the_keys_name_is_the_tenant(header: str | None, tenant: str | None) -> None:
    assert access(KEYS).tenant(header) == tenant


def test_a_key_may_be_given_by_its_digest_which_is_no_key() -> None:
    digest = f"sha256:{sha256(b'key-of-joe').hexdigest()}"
    allowed = access({"joe": digest, "ann": "key-of-ann"})
    assert allowed.tenant("Bearer key-of-joe") == "joe"
    assert allowed.tenant("Bearer key-of-ann") == "ann"
    assert allowed.tenant(f"Bearer {digest}") is None


def test_with_no_keys_everybody_is_one_tenant() -> None:
    assert access().tenant(None) == access().tenant("Bearer anything") == "default"


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:3000", "127.0.0.1:3000", "[::1]:3000", "[::1]", "10.1.2.3", "box.lan:80"]
)
def test_hosts_that_name_us(host: str) -> None:
    assert access(CLAUDE_CODED_ALLOWED_HOSTS="box.lan").host_allowed(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:3000",
        "localhost.evil.example",
        "localhost:3000@evil.example",
        "localhost:evil.example",
        "localhost,evil.example",
        "[::1].evil.example",
        "[::1",
        "",
        "127.0.0.1.x",
        "127.0.0.1:",
        "x" * 10_000,
    ],
)
def test_hosts_of_somebody_elses(host: str) -> None:
    assert not access().host_allowed(host)
    assert access(CLAUDE_CODED_ALLOWED_HOSTS="*").host_allowed(host)


@given(st.text())
def test_a_host_is_ours_or_it_is_not(host: str) -> None:
    assert access().host_allowed(host) in {True, False}
    assert not access().host_allowed(f"{host}.evil.example")


def admitted(headers: dict[str, str], **environment: str) -> bool:
    try:
        access(None, **environment).admit(headers.get, "/v1/models")
    except Forbidden:
        return False
    return True


def test_a_page_that_sends_no_origin_is_told_by_where_its_browser_says_it_is() -> None:
    image = {"Host": "localhost", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert not admitted(image)
    assert not admitted(image, CLAUDE_CODED_ALLOWED_ORIGINS="https://a.example")
    assert admitted(image, CLAUDE_CODED_ALLOWED_ORIGINS="*")
    assert admitted({**image, "Sec-Fetch-Site": "none"})
    allowed = {**image, "Origin": "https://a.example"}
    assert admitted(allowed, CLAUDE_CODED_ALLOWED_ORIGINS="https://a.example")


def test_no_web_page_may_call_unless_it_is_named() -> None:
    assert not access().origin_allowed("http://localhost:3000")
    named = access(CLAUDE_CODED_ALLOWED_ORIGINS="https://a.example")
    assert named.origin_allowed("https://a.example")
    assert not named.origin_allowed("https://b.example")


def test_the_page_for_prometheus_needs_a_key_unless_it_is_open() -> None:
    assert access(KEYS).open_paths == {"/health"}
    assert access(KEYS, CLAUDE_CODED_METRICS_OPEN="true").open_paths == {"/health", "/metrics"}
