"""Who may call: Host, where a web page is from, key, and how often. Asked before a body is looked at."""

import hmac
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import falcon
import falcon.asgi

from claude_coded import reading
from claude_coded.browsers import FETCH_SITE, is_foreign
from claude_coded.errors import Forbidden, InvalidApiKey
from claude_coded.http.limits import KeyLimits, check
from claude_coded.http.turns import Request
from claude_coded.settings import Settings

DEFAULT_TENANT: Final = "default"
METRICS_PATH: Final = "/metrics"
OPEN_PATHS: Final = frozenset({"/health"})
"""What callers without a key may ask for; of their health they get no details."""
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::\d{1,5})?")
"""An address of version 6, or another host, and a port: https://www.rfc-editor.org/rfc/rfc9110#section-7.2."""

Header = Callable[[str], str | None]
"""Returns the text of a header by its name."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call: keys as digests by tenant, host names, origins, and the paths that need no key."""

    digests: Mapping[str, bytes]
    hosts: frozenset[str]
    origins: frozenset[str]
    open_paths: frozenset[str] = OPEN_PATHS

    @classmethod
    def of(cls, settings: Settings, keys: Mapping[str, str]) -> "Access":
        """Return what the settings say."""
        hosts = {*LOOPBACK, settings.server.host.lower(), *map(str.lower, settings.access.allowed_hosts)}
        digests = {tenant: reading.digest(key) for tenant, key in keys.items()}
        open_paths = OPEN_PATHS | {METRICS_PATH} if settings.access.metrics_open else OPEN_PATHS
        return cls(digests, frozenset(hosts), frozenset(settings.access.allowed_origins), open_paths)

    def admit(self, header: Header, path: str) -> str:
        """Return the tenant who calls, "" for anybody on an open path. Raises Forbidden, InvalidApiKey."""
        self.check_page(header)
        tenant = self.tenant(header("Authorization"))
        if tenant is None and path not in self.open_paths:
            raise InvalidApiKey("a valid API key is needed: Authorization: Bearer KEY")
        return tenant or ""

    def check_page(self, header: Header) -> None:
        """Raise Forbidden for what a web page may have sent, unless it is one that may call."""
        if not self.host_allowed(header("Host") or "localhost"):
            raise Forbidden("this Host is not allowed (CLAUDE_CODED_ALLOWED_HOSTS)")
        origin = header("Origin")
        if origin is None:
            page = is_foreign(header(FETCH_SITE)) and "*" not in self.origins
        else:
            page = not self.origin_allowed(origin)
        if page:
            raise Forbidden("this Origin is not allowed (CLAUDE_CODED_ALLOWED_ORIGINS)")

    def tenant(self, authorization: str | None) -> str | None:
        """Return the tenant of an Authorization header; None when its key is not one of ours."""
        if not self.digests:
            return DEFAULT_TENANT
        scheme, _, key = (authorization or "").partition(" ")
        digest = sha256(key.strip().encode()).digest()
        found = None
        for tenant, known in self.digests.items():  # all of them: the time tells nothing
            if hmac.compare_digest(known, digest):
                found = tenant
        return found if scheme.lower() == "bearer" else None

    def host_allowed(self, host: str) -> bool:
        """Return whether a Host header names us: a page that rebinds its name to our address does not."""
        if "*" in self.hosts:
            return True
        if (parts := _HOST.fullmatch(host)) is None:
            return False
        name = (parts[1] or parts[2]).lower()
        return name in self.hosts or _is_address(name)

    def origin_allowed(self, origin: str) -> bool:
        """Return whether a web page of this origin may call."""
        return "*" in self.origins or origin in self.origins


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Gate:
    """Lets in who may call, as often as that is allowed, before the body is looked at."""

    def __init__(self, access: Access, limits: KeyLimits) -> None:
        self.access = access
        self.limits = limits

    async def process_request(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Check Host, Origin, key and rate."""
        if (origin := req.get_header("Origin")) is not None:
            self.access.check_page(req.get_header)
            _share(origin, req, resp)
            if resp.complete:
                return
        req.context.tenant = tenant = self.access.admit(req.get_header, req.path)
        if tenant and req.path not in OPEN_PATHS and (standing := self.limits.ask(tenant)) is not None:
            resp.set_headers(dict(standing.headers()))
            check(standing)


def _share(origin: str, req: Request, resp: falcon.asgi.Response) -> None:
    """Let the page read the answer, and answer what its browser asks before."""
    resp.set_header("Access-Control-Allow-Origin", origin)
    resp.append_header("Vary", "Origin")
    if req.method == "OPTIONS" and req.get_header("Access-Control-Request-Method"):
        resp.set_header("Access-Control-Allow-Methods", "GET, POST, DELETE")
        resp.set_header(
            "Access-Control-Allow-Headers", req.get_header("Access-Control-Request-Headers") or "*"
        )
        resp.set_header("Access-Control-Max-Age", "600")
        resp.status = falcon.HTTP_204
        resp.complete = True
