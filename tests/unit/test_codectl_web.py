"""The port of `claude-codectl web`: who gets in, what is handed on, and what comes back."""

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.codectl.client import ControlClient
from claude_coded.codectl.web import COOKIE, HEADERS, MAX_BODY, Door, Web, open_browser
from tests.support.control import Control, serving
from tests.unit.test_codectl_client import listening
from tests.unit.test_codectl_display import STATUS

PROGRAM = Path(sys.executable).with_name("claude-codectl")
PAGE = b"<!doctype html>the page"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        return str(json.loads(self.body)["error"]["kind"])


class Browser:
    """Asks the port as a browser does, with the cookie once it has one."""

    def __init__(self, server: Web) -> None:
        self.server = server
        self.cookie = ""
        self.place = ""

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def raw(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Reply(response.status, dict(response.headers), response.read())

    def enter(self) -> Reply:
        """Open the address."""
        reply = self.raw("GET", self.server.address.removeprefix(self.origin), {})
        if reply.status == 200:
            self.cookie = reply.headers["Set-Cookie"].partition(";")[0]
            (self.place,) = re.findall(rb'href="([^"]+)"', reply.body)[0].decode().splitlines()
        return reply

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """Ask as the page does."""
        own = {"Cookie": self.cookie, "Sec-Fetch-Site": "same-origin"}
        own |= {} if method == "GET" else {"Origin": self.origin}
        own |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        return self.raw(method, self.place + path, own, data)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    with serving(tmp_path / "control.sock") as control:
        control.on("GET", "/", PAGE)
        control.on("GET", "/v1/status", {"state": "ok"})
        control.on("GET", "/v1/ready", {"ready": True})
        yield control


@contextlib.contextmanager
def served(path: Path, **more: Any) -> Iterator[tuple[Web, list[str]]]:
    told: list[str] = []
    with Web(ControlClient([path], 5), 0, told.append, **more) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server, told
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def browser(control: Control) -> Iterator[Browser]:
    with served(control.path) as (server, _):
        yield Browser(server)


@pytest.fixture
def inside(browser: Browser) -> Browser:
    assert browser.enter().status == 200
    return browser


def paths(control: Control) -> list[str]:
    return [asked.path for asked in control.asked]


# Who gets in -------------------------------------------------------------------------------------------


def test_the_token_is_exchanged_for_a_cookie_with_which_the_page_is_there(browser: Browser) -> None:
    reply = browser.enter()
    name, _, rest = reply.headers["Set-Cookie"].partition("=")
    assert name == COOKIE
    assert rest.partition("; ")[2] == f"Path={browser.place}; HttpOnly; SameSite=Strict"
    assert browser.ask("GET", "").body == PAGE
    assert json.loads(browser.ask("GET", "v1/status").body) == {"state": "ok"}


def test_the_token_is_void_after_its_use_and_the_user_is_told_of_another(control: Control) -> None:
    with served(control.path) as (server, told):
        assert Browser(server).enter().status == 200
        assert told == []
        other = Browser(server).enter()
        assert (other.status, "Set-Cookie" in other.headers) == (403, False)
        assert told == ["the address was opened again, and refused; was it you?"]
        assert Browser(server).raw("GET", "/?token=wrong", {}).status == 403
        assert len(told) == 1


def test_of_many_who_bring_the_token_at_once_one_gets_in() -> None:
    door = Door()
    with ThreadPoolExecutor(16) as threads:
        cookies = list(threads.map(door.exchange, [door.token] * 64))
    assert sum(cookie is not None for cookie in cookies) == 1


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS"])
def test_nothing_is_there_without_the_cookie(inside: Browser, control: Control, method: str) -> None:
    before = len(control.asked)
    strangers = [{}, {"Cookie": f"{COOKIE}="}, {"Cookie": f"{COOKIE}=x"}, {"Cookie": inside.cookie[:-1]}]
    for path in ("/", "/v1/status", "/favicon.ico", inside.place, f"{inside.place}v1/workers/w1", "//[", "*"):
        for headers in strangers:
            reply = inside.raw(method, path, {**headers, "Origin": inside.origin})
            assert reply.status == (403 if method in {"GET", "POST", "DELETE"} else 501), path
            assert PAGE not in reply.body
    # Nor with it at another place: a browser sends it to no other, and to no other port then.
    for path in ("/", "/v1/status", "/x/v1/status"):
        assert inside.raw(method, path, {"Cookie": inside.cookie, "Origin": inside.origin}).status >= 403
    assert len(control.asked) == before


def test_a_host_of_another_name_is_refused_with_the_cookie_too(inside: Browser, control: Control) -> None:
    port = inside.server.port
    before = len(control.asked)
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        f"127.0.0.1:{port + 1}",
        f"[::1]:{port}",
    ):
        assert inside.ask("GET", "v1/status", Host=host).status == 403
        assert inside.raw("GET", f"/?token={inside.server.door.token}", {"Host": host}).status == 403
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        head = f"GET {inside.place} HTTP/1.1\r\nCookie: {inside.cookie}\r\n"
        sock.sendall(f"{head}Host: 127.0.0.1:{port}\r\nHost: evil.example\r\n\r\n".encode())
        assert sock.recv(20).startswith(b"HTTP/1.1 403")
    assert len(control.asked) == before
    assert inside.ask("GET", "v1/status", Host=f"LOCALHOST:{port}").status == 200


def test_what_changes_things_needs_our_own_origin(inside: Browser, control: Control) -> None:
    control.on("POST", "/v1/requests/1-ab", {})
    allow = {"decision": "allow"}
    for origin in (
        "null",
        "http://evil.example",
        f"http://localhost:{inside.server.port}",
        "",
        "http://127.0.0.1",
    ):
        assert inside.ask("POST", "v1/requests/1-ab", allow, Origin=origin).kind == "forbidden"
    without = {"Cookie": inside.cookie}
    assert inside.raw("DELETE", f"{inside.place}v1/workers/w1", without).status == 403
    assert control.asked == []
    assert inside.ask("POST", "v1/requests/1-ab", allow).status == 200
    assert control.asked[-1].body == allow


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_pages_get_nothing_also_where_the_browser_sends_the_cookie(inside: Browser, site: str) -> None:
    assert inside.ask("GET", "v1/status", Sec_Fetch_Site=site).status == 403
    assert inside.ask("GET", "", Sec_Fetch_Site=site).status == 403


@given(st.text(max_size=60), st.text(max_size=60))
def test_the_cookie_is_found_among_whatever_others(before: str, after: str) -> None:
    door = Door()
    cookie = (door.exchange(door.token) or "").partition(";")[0]
    assert door.knows(f"{before}; {cookie}; {after}")
    assert not door.knows(f"{before}; {cookie[:-1]}; {after}")


# What is handed on -------------------------------------------------------------------------------------


def test_the_daemon_gets_the_request_and_nothing_of_the_browser(inside: Browser, control: Control) -> None:
    control.on("POST", "/v1/conversations/a.b-c/interrupt", {"interrupted": True})
    path = "v1/conversations/a.b-c/interrupt?tenant=ann&x=%20"
    assert inside.ask("POST", path, X_More="1").status == 200
    asked = control.asked[-1]
    assert asked.query == {"tenant": "ann", "x": " "}
    assert set(asked.headers) == {
        "Host",
        "Accept-Encoding",
        "Connection",
        "Content-Type",
        "Content-Length",
    } - (set() if "Content-Length" in asked.headers else {"Content-Length"})
    assert asked.headers["Host"] == "localhost"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "v1/reload", 404),
        ("POST", "v1/drain", 404),
        ("POST", "v1/conversations/c/attach", 404),
        ("GET", "v1/config", 404),
        ("DELETE", "v1/workers/w1%2f", 404),
        ("DELETE", "v1/workers/../drain", 404),
        ("GET", "/v1/status", 404),
        ("DELETE", "v1/conversations", 405),
        ("DELETE", "v1/conversations/c", 404),
        ("POST", "v1/status", 405),
        ("DELETE", "", 405),
    ],
)
def test_only_what_the_page_needs_is_there(
    inside: Browser, control: Control, method: str, path: str, status: int
) -> None:
    assert inside.ask(method, path).status == status
    assert control.asked == []


def test_errors_of_the_daemon_are_handed_on_as_they_are(inside: Browser, control: Control) -> None:
    reply = inside.ask("DELETE", "v1/workers/w7")
    assert (reply.status, reply.kind) == (404, "not_found")


def test_bodies_are_bounded_and_have_a_length(inside: Browser, control: Control) -> None:
    assert inside.ask("POST", "v1/requests/1", b" " * (MAX_BODY + 1)).status == 413
    assert inside.ask("POST", "v1/requests/1", Content_Length="9" * 40).status == 413
    assert inside.ask("POST", "v1/requests/1", Content_Length="-1").status == 400
    assert inside.ask("POST", "v1/requests/1", Transfer_Encoding="chunked").status == 400
    assert control.asked == []


def test_every_answer_says_that_it_is_for_this_page_alone(inside: Browser, control: Control) -> None:
    replies = [
        Browser(inside.server).raw("GET", "/", {}),
        Browser(inside.server).raw("BREW", "/", {}),
        inside.ask("GET", ""),
        inside.ask("GET", "v1/status"),
        inside.ask("POST", "v1/reload"),
    ]
    for reply in replies:
        assert {name: reply.headers[name] for name in HEADERS} == HEADERS
        assert "Server" not in reply.headers


def test_a_stream_is_handed_on_as_it_comes_and_ends_with_the_daemon(tmp_path: Path) -> None:
    go_on = threading.Event()

    def handle(connection: socket.socket) -> None:
        connection.recv(65536)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"9\r\ndata: 1\n\n\r\n")
        assert go_on.wait(10)
        connection.sendall(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    path = tmp_path / "control.sock"
    with listening(path, handle), served(path) as (server, _):
        browser = Browser(server)
        browser.enter()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        with contextlib.closing(connection):
            connection.request(
                "GET", f"{browser.place}v1/events?follow=true", headers={"Cookie": browser.cookie}
            )
            response = connection.getresponse()
            assert response.headers["Content-Type"] == "text/event-stream"
            assert response.read1(100) == b"data: 1\n\n"
            go_on.set()
            assert response.read() == b"data: 2\n\n"


def test_where_there_is_no_daemon_any_more_the_page_is_told(tmp_path: Path) -> None:
    with serving(tmp_path / "control.sock") as control, served(control.path) as (server, _):
        browser = Browser(server)
        browser.enter()
        control.path.unlink()
        reply = browser.ask("GET", "v1/status")
    assert (reply.status, reply.kind) == (502, "unreachable")
    assert "not there" in json.loads(reply.body)["error"]["message"]


def test_a_connection_too_many_is_closed(control: Control) -> None:
    with served(control.path, connections=1) as (server, _):
        address = "127.0.0.1", server.port
        with socket.create_connection(address, timeout=10) as one:
            one.sendall(b"GET / HTTP/1.1\r\n")
            with socket.create_connection(address, timeout=10) as other:
                assert other.recv(1) == b""
            one.sendall(f"Host: 127.0.0.1:{server.port}\r\n\r\n".encode())
            assert one.recv(20).startswith(b"HTTP/1.1 403")


# The command -------------------------------------------------------------------------------------------


def running(control: Control, *arguments: str) -> "subprocess.Popen[str]":
    command = [str(PROGRAM), "--socket", str(control.path), "web", "--no-browser", *arguments]
    # What runs in the background of a shell, as we may, has interrupts ignored, and so have its children.
    command = ["env", "--default-signal=INT", *command]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_command_prints_the_address_serves_and_ends_with_ctrl_c(control: Control) -> None:
    control.on("GET", "/v1/status", msgspec.to_builtins(STATUS))
    with running(control, "--json") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        address = json.loads("".join(lines))["address"]
        port = int(re.findall(r"127\.0\.0\.1:(\d+)", address)[0])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            sock.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            assert sock.recv(20).startswith(b"HTTP/1.1 403")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_port_that_is_taken_is_named(control: Control) -> None:
    control.on("GET", "/v1/status", msgspec.to_builtins(STATUS))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with running(control, "--port", port) as process:
            assert process.wait(10) == 1
            assert process.stderr is not None
            assert (
                process.stderr.read() == f"claude-codectl: port {port} of 127.0.0.1: Address already in use\n"
            )


@pytest.mark.parametrize(("environment", "opened"), [({}, False), ({"DISPLAY": ":0"}, True)])
def test_a_browser_is_opened_where_there_is_a_desktop(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], opened: bool
) -> None:
    asked: list[str] = []
    over = threading.Event()

    def take(address: str) -> None:
        asked.append(address)
        over.set()

    monkeypatch.setattr(webbrowser, "open", take)
    open_browser("http://x", environment)
    if opened:
        assert over.wait(10)
    assert asked == (["http://x"] if opened else [])
