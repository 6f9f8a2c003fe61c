"""`GET /`: the status page, one file with all that it needs, and a policy that lets it have nothing else."""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

import falcon.asgi

FILE: Final = Path(__file__).with_name("page.html")

POLICY: Final = (
    "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""By it a browser runs the page's own script alone, and no text becomes markup, whatever the script does."""


class Page:
    """The page; it asks for all that it shows."""

    async def on_get(self, _: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Send it."""
        data, policy = _page()
        resp.content_type = "text/html; charset=utf-8"
        resp.set_header("Content-Security-Policy", policy)
        resp.set_header("Cache-Control", "no-store")
        resp.data = data


@cache
def _page() -> tuple[bytes, str]:
    text = FILE.read_text()
    return text.encode(), policy_of(text)


def policy_of(page: str) -> str:
    """Return the policy of a page: script and style are those of these hashes (CSP 3, 2.3.1)."""
    return POLICY.format(script=_hash(page, "script"), style=_hash(page, "style"))


def _hash(page: str, element: str) -> str:
    (content,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"
