"""`claude-codectl web`: the daemon's status page, handed on from its Unix socket to a browser here.

Every user of the machine and every page in the browser can reach a port on loopback. So nothing is on it but
for the browser that brings the token of the printed address first: it gets a cookie, and the token is void.
Browsers send cookies to all ports of a host, so the page is below a path that nobody else knows either. Hosts
of other names (DNS rebinding) and requests that other pages make are refused, and of the control interface
only what the page needs is there.
"""

import contextlib
import html
import re
import secrets
import threading
import webbrowser
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any, ClassVar, Final
from urllib.parse import parse_qs

import msgspec

from claude_coded.codectl.client import READ_SIZE, ControlClient, ControlError
from claude_coded.control import api
from claude_coded.control.api import Kind, Route

LOOPBACK: Final = "127.0.0.1"
COOKIE: Final = "claude-codectl"
MAX_BODY: Final = 65536
"""Bytes of a request's body, as many as the daemon takes."""

CONNECTIONS: Final = 64
"""At once; each has a thread."""

BROWSER_PATIENCE: Final = 30.0
"""Seconds that a browser may take to send a request, or to read what is there."""

HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""What every answer has; the daemon has a policy of its own for its page."""

HANDED_ON: Final = ("Content-Type", "Content-Security-Policy")

WELCOME: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>claude_coded</title>'
    '<meta http-equiv="refresh" content="0; url={place}"><p><a href="{place}">Go on to the page</a>'
)
"""Not a redirect: a browser that came from another page would not send it the cookie."""

VOID: Final = "Nothing is here without the address that claude-codectl web has printed, and that works once."

_ID: Final = r"/[\w.-]+"
_ALLOWED: Final = tuple(
    (method, re.compile(re.escape(route).replace(r"/\{id\}", _ID), re.ASCII))
    for method, route in (
        ("GET", Route.PAGE),
        ("GET", Route.STATUS),
        ("GET", Route.WORKERS),
        ("GET", Route.CONVERSATIONS),
        ("GET", Route.REQUESTS),
        ("GET", Route.EVENTS),
        ("DELETE", Route.WORKER),
        ("POST", Route.INTERRUPT),
        ("POST", Route.REQUEST),
    )
)


class Door:
    """Who is let in: the first to bring the token, and then whoever has the cookie that was given for it."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(32)
        self.place = f"/{secrets.token_urlsafe(16)}/"
        self._cookie = secrets.token_urlsafe(32)
        self._lock = threading.Lock()
        self._void = False

    def exchange(self, token: str) -> str | None:
        """Return the cookie to set for a token, the first time; None for any other."""
        with self._lock:
            if self._void or not _equal(token, self.token):
                return None
            self._void = True
        return f"{COOKIE}={self._cookie}; Path={self.place}; HttpOnly; SameSite=Strict"

    def used(self, token: str) -> bool:
        """Return whether it is the token, and void."""
        return self._void and _equal(token, self.token)

    def knows(self, cookies: str) -> bool:
        """Return whether our cookie is among those of a request, whatever others there are."""
        pairs = (pair.strip().partition("=") for pair in cookies.split(";"))
        return any(name == COOKIE and _equal(value, self._cookie) for name, _, value in pairs)


def _equal(given: str, known: str) -> bool:
    return secrets.compare_digest(given.encode(), known.encode())


class Web(ThreadingTCPServer):
    """The port. `tell` gets what the user should know."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False  # a stream goes on for as long as its browser reads

    def __init__(
        self,
        client: ControlClient,
        port: int,
        tell: Callable[[str], None],
        connections: int = CONNECTIONS,
    ) -> None:
        super().__init__((LOOPBACK, port), Handler)
        self.client = client
        self.door = Door()
        self.tell = tell
        self._places = threading.BoundedSemaphore(connections)

    @property
    def port(self) -> int:
        """Return the port's number."""
        return int(self.socket.getsockname()[1])

    @property
    def address(self) -> str:
        """Return what the first browser opens."""
        return f"http://{LOOPBACK}:{self.port}/?token={self.door.token}"

    @property
    def hosts(self) -> frozenset[str]:
        """Return what a browser may call us."""
        return frozenset({f"{LOOPBACK}:{self.port}", f"localhost:{self.port}"})

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's
        """Serve a connection in a thread of its own, or close it where there are too many."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Serve a connection; that its browser has left is no error."""
        try:
            with contextlib.suppress(OSError):
                self.finish_request(request, client_address)
        finally:
            self.shutdown_request(request)
            self._places.release()


class Refusal(Exception):
    """A request that is not handed on."""

    def __init__(self, status: HTTPStatus, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class Handler(BaseHTTPRequestHandler):
    """One request: each has its own connection."""

    protocol_version = "HTTP/1.1"
    timeout = BROWSER_PATIENCE
    server: Web

    def do_GET(self) -> None:
        """Show something."""
        self._serve()

    do_POST: ClassVar = do_GET  # noqa: N815 - http.server's names
    do_DELETE: ClassVar = do_GET  # noqa: N815

    def _serve(self) -> None:
        try:
            self._check_host()
            path, mark, query = self.path.partition("?")
            token = parse_qs(query).get("token", [""])[0]
            if self.command == "GET" and path == "/" and token:
                self._welcome(token)
                return
            self._check_right(path)
            inner = path.removeprefix(self.server.door.place.removesuffix("/"))
            self._check_route(inner)
            self._hand_on(inner + mark + query, self._body())
        except Refusal as refusal:
            self._fail(refusal.status, refusal.kind, str(refusal))

    # Who may -------------------------------------------------------------------------------------------

    def _check_host(self) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            raise _forbidden(f"This is {LOOPBACK}:{self.server.port}, and answers to no other name.")

    def _welcome(self, token: str) -> None:
        """Exchange the token for the cookie."""
        if (cookie := self.server.door.exchange(token)) is None:
            if self.server.door.used(token):
                self.server.tell("the address was opened again, and refused; was it you?")
            raise _forbidden(VOID)
        page = WELCOME.format(place=html.escape(self.server.door.place))
        self._send(
            HTTPStatus.OK, {"Content-Type": "text/html; charset=utf-8", "Set-Cookie": cookie}, page.encode()
        )

    def _check_right(self, path: str) -> None:
        """Refuse who has no cookie, and what another page makes a browser send that has it."""
        door = self.server.door
        if not (path.startswith(door.place) and door.knows(self.headers.get("Cookie") or "")):
            raise _forbidden(VOID)
        if self.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            raise _forbidden("Other pages have no access.")
        if self.command != "GET" and self.headers.get("Origin") != f"http://{self.headers['Host'].lower()}":
            raise _forbidden("Only the page itself changes anything: the Origin is another's.")

    def _check_route(self, path: str) -> None:
        methods = {method for method, route in _ALLOWED if route.fullmatch(path)}
        if not methods:
            raise Refusal(HTTPStatus.NOT_FOUND, Kind.NOT_FOUND, "There is nothing at this path.")
        if self.command not in methods:
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, Kind.METHOD, "This method is not allowed here.")

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length") or "0"
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdecimal()):
            raise Refusal(HTTPStatus.BAD_REQUEST, Kind.INVALID, "The body's length is not told.")
        if int(length[:9]) > MAX_BODY or len(length) > 9:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, Kind.INVALID, f"More than {MAX_BODY} bytes.")
        return self.rfile.read(int(length))

    # What comes back -----------------------------------------------------------------------------------

    def _hand_on(self, target: str, body: bytes) -> None:
        """Ask the daemon, and send what it answers as it comes."""
        begun = False
        try:
            with self.server.client.relay(self.command, target, body) as response:
                begun = True
                headers = {name: response.headers[name] for name in HANDED_ON if name in response.headers}
                self._begin(HTTPStatus(response.status), headers)
                while piece := response.read1(READ_SIZE):
                    self._write(piece)
        except ControlError as error:
            if not begun:
                self._fail(HTTPStatus.BAD_GATEWAY, Kind.UNREACHABLE, str(error))
        except _Left:
            pass

    def _send(self, status: HTTPStatus, headers: Mapping[str, str], body: bytes) -> None:
        with contextlib.suppress(_Left):
            self._begin(status, {**headers, "Content-Length": str(len(body))})
            self._write(body)

    def _begin(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        """Send a head. Its end is the connection's where no length is told."""
        self.close_connection = True
        self.send_response_only(status)
        for name, value in {**HEADERS, **headers, "Connection": "close"}.items():
            self.send_header(name, value)
        try:
            self.end_headers()
        except OSError:
            raise _Left from None

    def _write(self, data: bytes) -> None:
        try:
            self.wfile.write(data)
        except OSError:
            raise _Left from None

    def _fail(self, status: HTTPStatus, kind: str, message: str) -> None:
        """Send an error: for the page as the daemon tells one, else for people."""
        if "/v1/" in self.path:
            failure = msgspec.json.encode(api.Failure(api.Fault(kind, message)))
            self._send(status, {"Content-Type": "application/json"}, failure)
        else:
            self._send(status, {"Content-Type": "text/plain; charset=utf-8"}, f"{message}\n".encode())

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no request, or of a method that nothing has, in our own way."""
        self.path = ""
        self._fail(HTTPStatus(code), Kind.INVALID, message or explain or "")

    def log_message(self, *_: object) -> None:
        """Keep quiet: who changes something is in the daemon's log."""


class _Left(Exception):
    """The browser reads no more."""


def _forbidden(message: str) -> Refusal:
    return Refusal(HTTPStatus.FORBIDDEN, Kind.FORBIDDEN, message)


def open_browser(address: str, environment: Mapping[str, str]) -> None:
    """Have the desktop's browser open an address, where there is a desktop."""
    if any(environment.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")):
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
