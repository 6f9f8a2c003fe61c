"""`claude-coded check`: each fault provoked with real files, sockets, programs and servers."""

import asyncio
import contextlib
import http.server
import json
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.check import Finding, Mark, as_json, as_text, cli, doors, examine, failed, places, probes
from claude_coded.check.findings import Machine
from claude_coded.settings import load
from claude_coded.store import Store

NOBODY = 65534


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short name, for sockets, that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="check-") as name:
        Path(name).chmod(0o755)
        for part in ("home", "work"):
            Path(name, part).mkdir()
        yield Path(name)


def machine(place: Path, **more: object) -> Machine:
    """Return a machine on which nothing is wrong but what `more` says, in environment variables."""
    surroundings = {
        "PATH": os.environ["PATH"],
        "HOME": str(place / "home"),
        "WORKSPACE_DIR": str(place / "work"),
        "CLAUDE_CODED_STATE_DIR": str(place / "state"),
        "CLAUDE_CODED_SOCKET": str(place / "control.sock"),
        "PORT": "0",
        **{name: str(value) for name, value in more.items()},
    }
    return Machine(load({}, surroundings), surroundings)


def finding(look: Callable[[Machine], Iterator[Finding]], it: Machine) -> Finding:
    (made,) = look(it)
    return made


def ok(look: Callable[[Machine], Iterator[Finding]], it: Machine, text: str = "") -> None:
    made = finding(look, it)
    assert made.mark is Mark.OK, made
    assert text in made.text
    assert not made.advice


def bad(look: Callable[[Machine], Iterator[Finding]], it: Machine, text: str, advice: str) -> None:
    made = finding(look, it)
    assert made.mark is Mark.FAILED, made
    assert text in made.text
    assert advice in made.advice


def warned(look: Callable[[Machine], Iterator[Finding]], it: Machine, text: str) -> None:
    made = finding(look, it)
    assert made.mark is Mark.WARNING, made
    assert text in made.text
    assert made.advice


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """Be a user with no rights of root's while the context lasts."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


@contextlib.contextmanager
def running(place: Path) -> Iterator[None]:
    """Hold the state directory as a daemon does."""
    store = Store(place / "state")
    asyncio.run(store.open())
    try:
        yield
    finally:
        asyncio.run(store.close())


# The configuration -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pool_sise = 3", "pool_sise"),
        ("pool_size = 0", "pool_size"),
        ("pool_size =", "c.toml: "),
        ('[models.x]\neffort = "huge"', "[models.x] effort"),
    ],
)
def test_a_configuration_that_does_not_load_is_all_that_is_told(place: Path, text: str, said: str) -> None:
    file = place / "c.toml"
    file.write_text(text)
    found = examine({}, {"CLAUDE_CODED_CONFIG": str(file)}, None)
    assert [(it.item, it.mark) for it in found] == [("configuration", Mark.FAILED)]
    assert said in found[0].text
    assert failed(found)
    assert "none.toml" in examine({}, {}, place / "none.toml")[0].text
    assert "--pool-size" in examine({"pool_size": "x"}, {}, None)[0].text


# The CLI -----------------------------------------------------------------------------------------------


def script(place: Path, text: str) -> str:
    file = place / "claude"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize(
    ("text", "said", "advice"),
    [
        ("echo '2.1.197 (Claude Code)'", "2.1.197", "update"),
        ("echo hello", "says no version: hello", "Install"),
        ("echo broken >&2; exit 3", "says no version: broken", "Install"),
        ("exit 3", "says no version: exit status 3", "Install"),
        ('[ "$1" = --version ] && echo 2.2.0 && exit; echo no libc >&2; exit 1', "not start: no libc", ""),
    ],
)
def test_a_cli_that_is_of_no_use(place: Path, text: str, said: str, advice: str) -> None:
    bad(cli.cli, machine(place, CLAUDE_CODED_CLAUDE_BIN=script(place, text)), said, advice)


def test_no_cli_and_one_that_does_not_answer(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad(cli.cli, machine(place, CLAUDE_CODED_CLAUDE_BIN=place / "none"), "no executable", "pip install")
    monkeypatch.setattr(cli, "TIMEOUT", 0.1)
    slow = script(place, "exec sleep 60")
    bad(cli.cli, machine(place, CLAUDE_CODED_CLAUDE_BIN=slow), "no end within 0.1 s", "")


def test_a_cli_is_started_as_a_worker_is_and_not_at_home(place: Path) -> None:
    told = place / "told"
    run = f'[ "$1" = --version ] && echo 2.2.0 && exit; echo "$HOME" "$PWD" "$@" > {told}'
    ok(cli.cli, machine(place, CLAUDE_CODED_CLAUDE_BIN=script(place, run)), "Claude Code 2.2.0 at")
    home, directory, *arguments = told.read_text().split()
    assert home != str(place / "home")
    assert not Path(home).exists()
    assert directory == str(place / "work")
    assert {"stream-json", "bypassPermissions"} <= set(arguments)


def test_root_needs_a_sandbox(place: Path) -> None:
    if os.geteuid() == 0:
        bad(cli.user, machine(place), "root", "IS_SANDBOX=1")
        ok(cli.user, machine(place, IS_SANDBOX=1))
        ok(cli.user, machine(place, CLAUDE_CODED_PERMISSION_MODE="acceptEdits"))
        file = place / "c.toml"
        file.write_text('[models.x]\npermission_mode = "bypassPermissions"\n')
        more = {"CLAUDE_CODED_PERMISSION_MODE": "plan", "CLAUDE_CODED_CONFIG": file}
        bad(cli.user, machine(place, **more), "root", "IS_SANDBOX=1")
    with without_rights():
        ok(cli.user, machine(place), "user ")


def test_what_ends_workers_with_the_daemon(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ok(cli.end, machine(place))
    monkeypatch.setenv("PATH", str(place))
    warned(cli.end, machine(place), "setpriv")


# The key -----------------------------------------------------------------------------------------------


class Api(http.server.BaseHTTPRequestHandler):
    """Answers every request with a status, and notes it."""

    answers: tuple[int, bytes] = (200, b"{}")
    seen: list[tuple[str, dict[str, str]]]

    def do_GET(self) -> None:
        self.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        status, body = self.answers
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def api(status: int = 200, body: bytes = b"{}") -> Iterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    seen: list[tuple[str, dict[str, str]]] = []
    handler = type("Handler", (Api,), {"answers": (status, body), "seen": seen})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", seen
        finally:
            server.shutdown()
            thread.join()


def test_the_key_is_tried_as_the_cli_sends_it(place: Path) -> None:
    with api() as (url, seen):
        ok(
            cli.key,
            machine(place, ANTHROPIC_BASE_URL=f"{url}/", ANTHROPIC_API_KEY="sk-1"),
            "ANTHROPIC_API_KEY",
        )
        ok(cli.key, machine(place, ANTHROPIC_BASE_URL=url, ANTHROPIC_AUTH_TOKEN="t"), "ANTHROPIC_AUTH_TOKEN")
        both = {"ANTHROPIC_API_KEY": "sk-1", "ANTHROPIC_AUTH_TOKEN": "t"}
        ok(cli.key, machine(place, ANTHROPIC_BASE_URL=url, **both), "ANTHROPIC_API_KEY and")
    assert {path for path, _ in seen} == {"/v1/models?limit=1"}
    sent = [(headers.get("x-api-key"), headers.get("authorization")) for _, headers in seen]
    assert sent == [("sk-1", None), (None, "Bearer t"), ("sk-1", "Bearer t")]
    assert {headers["anthropic-version"] for _, headers in seen} == {"2023-06-01"}


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused(place: Path, status: int) -> None:
    body = b'{"type": "error", "error": {"type": "x", "message": "invalid x-api-key"}}'
    with api(status, body) as (url, _):
        it = machine(place, ANTHROPIC_BASE_URL=url, ANTHROPIC_API_KEY="sk-secret")
        bad(cli.key, it, f"refuses ANTHROPIC_API_KEY ({status}: invalid x-api-key)", "set ANTHROPIC_API_KEY")
        assert "secret" not in as_json(list(cli.key(it)))


@pytest.mark.parametrize("status", [302, 404, 429, 500, 529])
def test_an_answer_that_says_nothing_of_the_key_is_a_warning_and_is_not_followed(
    place: Path, status: int
) -> None:
    with api(status, b"[]") as (url, seen):
        warned(cli.key, machine(place, ANTHROPIC_BASE_URL=url, ANTHROPIC_API_KEY="k"), f"answers {status}")
    assert len(seen) == 1


def accept_and_close(server: socket.socket) -> None:
    server.accept()[0].close()


def test_an_address_that_cannot_be_reached(place: Path) -> None:
    def unreachable(url: str, text: str) -> None:
        bad(cli.key, machine(place, ANTHROPIC_BASE_URL=url, ANTHROPIC_API_KEY="k"), text, "network")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        unreachable(f"http://127.0.0.1:{free.getsockname()[1]}", "refused")
        free.listen()
        unreachable("ftp://127.0.0.1", "no http")
        unreachable("http://127.0.0.1:port", "cannot be reached")
        threading.Thread(target=accept_and_close, args=(free,)).start()
        unreachable(f"http://127.0.0.1:{free.getsockname()[1]}", "cannot be reached")
    with api() as (url, _):
        unreachable(url.replace("http", "https"), "SSL")


def test_a_proxy_of_the_environment_is_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with api() as (url, seen):
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("no_proxy", "")
        ok(cli.key, machine(place, ANTHROPIC_BASE_URL="http://api.invalid", ANTHROPIC_API_KEY="k"))
        assert seen[0][0] == "http://api.invalid/v1/models?limit=1"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        ok(cli.key, machine(place, ANTHROPIC_BASE_URL=url, ANTHROPIC_API_KEY="k"))
        assert seen[1][0] == "/v1/models?limit=1"


def test_a_key_that_cannot_be_one_is_not_sent_nor_shown(place: Path) -> None:
    for key in ("sk-secret\n", "sk secret", "sk-secrét"):
        it = machine(place, ANTHROPIC_API_KEY=key, ANTHROPIC_BASE_URL="http://127.0.0.1:9")
        bad(cli.key, it, "characters that no key has", "set ANTHROPIC_API_KEY")
        assert "secr" not in as_json(list(cli.key(it)))


def test_a_cli_that_tells_of_no_login_leaves_it_open(place: Path) -> None:
    warned(cli.key, machine(place, CLAUDE_CODED_CLAUDE_BIN=script(place, "echo what")), "does not tell")


# Directories -------------------------------------------------------------------------------------------


def test_the_workspace(place: Path) -> None:
    ok(places.workspaces, machine(place), str(place / "work"))
    bad(places.workspaces, machine(place, WORKSPACE_DIR=place / "none"), "no directory", "make it")
    (place / "file").touch()
    bad(places.workspaces, machine(place, WORKSPACE_DIR=place / "file"), "no directory", "make it")
    (place / "work").chmod(0o555)
    with without_rights():
        bad(places.workspaces, machine(place), "cannot be written by user", "let that user in")
    (place / "work").chmod(0o333)
    with without_rights():
        bad(places.workspaces, machine(place), "cannot be read by user", "let that user in")


def test_the_workspaces_of_models(place: Path) -> None:
    file = place / "c.toml"
    file.write_text('[models.x]\nworkspace = "other"\n')
    (place / "other").mkdir()
    _, other = places.workspaces(machine(place, CLAUDE_CODED_CONFIG=file))
    assert (other.item, other.mark) == ("workspace of x", Mark.OK)
    it = machine(place, CLAUDE_CODED_CONFIG=file)
    (place / "other").rmdir()
    _, other = places.workspaces(it)
    assert other.mark is Mark.FAILED


def test_the_state_directory(place: Path) -> None:
    ok(places.state, machine(place), "to be made")
    (place / "file").touch()
    deep = {"CLAUDE_CODED_STATE_DIR": place / "file/a/b"}
    bad(places.state, machine(place, **deep), "no directory", "CLAUDE_CODED_STATE_DIR")
    with without_rights():
        if os.geteuid() == NOBODY:
            bad(places.state, machine(place), f"made: {place} cannot be written by user", "let that user")
    with running(place):
        ok(places.state, machine(place), "is in use: the daemon runs")
    ok(places.state, machine(place))
    (place / "state").chmod(0o500)
    with without_rights():
        bad(places.state, machine(place), "it cannot be written by user", "let that user")


def test_where_claude_keeps_its_sessions(place: Path) -> None:
    ok(places.home, machine(place), str(place / "home/.claude/projects"))
    ok(places.home, machine(place, CLAUDE_CONFIG_DIR=place / "work/c"), str(place / "work/c/projects"))
    (place / "home").chmod(0o555)
    with without_rights():
        bad(places.home, machine(place), "cannot be made", "set HOME")


# Keys --------------------------------------------------------------------------------------------------


def test_clients_keys(place: Path) -> None:
    file = place / "keys"
    given = {"CLAUDE_CODED_API_KEYS_FILE": file}
    bad(doors.keys, machine(place, **given), "No such file", "read it")
    file.write_text("secret")
    bad(doors.keys, machine(place, **given), "name:key pairs", "NAME:KEY")
    file.write_text("ann:k1\nbob:k2\n")
    file.chmod(0o644)
    warned(doors.keys, machine(place, **given), "everybody here can read")
    file.chmod(0o640)
    ok(doors.keys, machine(place, **given), "2 set")
    file.chmod(0)
    with without_rights():
        bad(doors.keys, machine(place, **given), "Permission denied", "read it")


def test_beyond_loopback_keys_are_needed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "CONTAINER_MARKS", ())
    bad(doors.keys, machine(place, HOST="0.0.0.0"), "HOST 0.0.0.0 is beyond loopback", "API_KEYS_FILE")
    warned(doors.keys, machine(place, HOST="0.0.0.0", CLAUDE_CODED_ALLOW_NO_KEYS=1), "gets a shell")
    ok(doors.keys, machine(place, HOST="0.0.0.0", CLAUDE_CODED_API_KEYS="a:k"), "1 set")
    ok(doors.keys, machine(place, HOST="::1"), "none, on ::1")


def test_in_a_container_it_is_the_published_port_that_counts(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "mark").touch()
    monkeypatch.setattr(probes, "CONTAINER_MARKS", (place / "mark",))
    bad(doors.keys, machine(place, HOST="0.0.0.0"), "in this container", "ALLOW_NO_KEYS=1")
    warned(doors.keys, machine(place, HOST="0.0.0.0", CLAUDE_CODED_ALLOW_NO_KEYS=1), "as it is published")


# The port ----------------------------------------------------------------------------------------------


def test_a_port_that_is_free_and_one_that_is_not(place: Path) -> None:
    ok(doors.port, machine(place), "any free one")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        bad(doors.port, machine(place, PORT=port), f"taken by process {os.getpid()} (", "another PORT")
    ok(doors.port, machine(place, PORT=port), "is free")
    bad(doors.port, machine(place, HOST="nowhere.invalid", PORT=1), "nowhere.invalid", "HOST")


def test_a_port_that_this_user_may_not_have(place: Path) -> None:
    least = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    with without_rights():
        if least > 1:
            bad(doors.port, machine(place, PORT=1), "Permission denied", "1024")


def test_the_daemon_itself_may_have_the_port_but_nobody_else_who_speaks_like_it(place: Path) -> None:
    with api(200, b'{"status": "ok"}') as (url, _):
        it = machine(place, PORT=url.rsplit(":", 1)[1])
        bad(doors.port, it, "taken by", "another PORT")
        with running(place):
            ok(doors.port, it, f"served by process {os.getpid()}")
    with running(place), api(200, b'{"status": "fine"}') as (url, _):
        bad(doors.port, machine(place, PORT=url.rsplit(":", 1)[1]), "taken by", "another PORT")


# The control socket ------------------------------------------------------------------------------------


@contextlib.contextmanager
def listening(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as served:
        served.bind(str(path))
        served.listen()
        yield


def test_the_control_socket_and_what_may_be_there(place: Path) -> None:
    path = place / "control.sock"
    ok(doors.control, machine(place), str(path))
    path.touch()
    bad(doors.control, machine(place), "no socket", "remove it")
    path.unlink()
    with listening(path):
        bad(doors.control, machine(place), f"served by process {os.getpid()}", "stop that")
        with running(place):
            ok(doors.control, machine(place), "the daemon runs")
    ok(doors.control, machine(place), "nobody serves")
    assert path.exists()


def test_where_the_control_socket_cannot_be(place: Path) -> None:
    long = place / ("x" * 100) / "control.sock"
    bad(doors.control, machine(place, CLAUDE_CODED_SOCKET=long), "107 bytes", "CLAUDE_CODED_SOCKET")
    (place / "file").touch()
    under = {"CLAUDE_CODED_SOCKET": place / "file/control.sock"}
    bad(doors.control, machine(place, **under), "no directory", "CLAUDE_CODED_SOCKET")
    group = {"CLAUDE_CODED_SOCKET_GROUP": "no-such-group"}
    bad(doors.control, machine(place, **group), "there is no group 'no-such-group'", "GROUP")
    ok(doors.control, machine(place, CLAUDE_CODED_SOCKET_GROUP=os.getegid()))
    (place / "home").chmod(0o777)
    with without_rights():
        strange = {"CLAUDE_CODED_SOCKET_GROUP": 54321, "CLAUDE_CODED_SOCKET": place / "home/c.sock"}
        bad(doors.control, machine(place, **strange), "is not in the group '54321'", "GROUP")


def test_a_control_socket_that_may_not_be_spoken_to_is_a_warning(place: Path) -> None:
    with listening(place / "control.sock"):
        (place / "control.sock").chmod(0o600)
        if os.geteuid() == 0:
            with without_rights():
                warned(doors.control, machine(place), "Permission denied")


def test_the_control_socket_is_looked_for_where_a_daemon_puts_it(place: Path) -> None:
    it = machine(place, RUNTIME_DIRECTORY=place / "home", CLAUDE_CODED_SOCKET="")
    ok(doors.control, it, str(place / "home/control.sock"))


# How it is told ----------------------------------------------------------------------------------------

FINDINGS = st.lists(
    st.builds(Finding, st.text(), st.sampled_from(Mark), st.text(), st.text(alphabet="ab c")), min_size=1
)


@given(FINDINGS)
def test_it_is_told_in_a_line_an_item_and_in_json(found: list[Finding]) -> None:
    lines = as_text([Finding("item", it.mark, it.text, it.advice) for it in found]).split("\n")
    assert [line.split()[0] for line in lines] == [it.mark.value for it in found]
    told = json.loads(as_json(found))
    assert told["ok"] is not failed(found) is any(it.mark is Mark.FAILED for it in found)
    assert [(it["item"], it["mark"], it["text"]) for it in told["items"]] == [
        (it.item, it.mark.value, it.text) for it in found
    ]
