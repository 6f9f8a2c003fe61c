"""Who may call."""

from hashlib import sha256

import pytest

from claude_coded.http.app import Access
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
    "host", ["evil.example", "evil.example:3000", "localhost.evil.example", "", "127.0.0.1.x"]
)
def test_hosts_of_somebody_elses(host: str) -> None:
    assert not access().host_allowed(host)
    assert access(CLAUDE_CODED_ALLOWED_HOSTS="*").host_allowed(host)


def test_no_web_page_may_call_unless_it_is_named() -> None:
    assert not access().origin_allowed("http://localhost:3000")
    named = access(CLAUDE_CODED_ALLOWED_ORIGINS="https://a.example")
    assert named.origin_allowed("https://a.example")
    assert not named.origin_allowed("https://b.example")
