"""The control client against real sockets: who is there, who is not, and who is somebody else."""

import contextlib
import os
import pwd
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from claude_coded.codectl.client import (
    ControlClient,
    Foreign,
    Lost,
    Name,
    NoDaemon,
    Refused,
    Wedged,
)
from claude_coded.codectl.places import candidates
from claude_coded.control import api
from tests.support.control import Control, fault, serving

READY = api.Ready(True)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    with serving(tmp_path / "control.sock") as control:
        yield control


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that everybody can get to: pytest's own are for their user only."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def client_of(control: Control) -> ControlClient:
    return ControlClient([control.path], patience=5)


@contextlib.contextmanager
def listening(path: Path, handle: Callable[[socket.socket], None]) -> Iterator[None]:
    """Hand each connection to `handle`; the socket is closed after it."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):
                        handle(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def silent(over: threading.Event) -> None:
    over.wait()


def answering(data: bytes) -> Callable[[socket.socket], None]:
    def handle(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(data)

    return handle


# Where it is looked for --------------------------------------------------------------------------------


def test_the_places_in_order() -> None:
    environment = {"XDG_RUNTIME_DIR": "/run/user/7", "XDG_STATE_HOME": "/state"}
    assert candidates(environment) == (
        Path("/run/user/7/claude-coded/control.sock"),
        Path("/run/claude-coded/control.sock"),
        Path("/state/claude-coded/control.sock"),
        Path("/state/claude-coded/offline/control.sock"),
    )
    assert candidates({})[1:] == (
        Path.home() / ".local/state/claude-coded/control.sock",
        Path.home() / ".local/state/claude-coded/offline/control.sock",
    )


def test_the_first_that_somebody_listens_on_is_taken_and_kept_to(control: Control, tmp_path: Path) -> None:
    control.on("GET", "/v1/ready", {"ready": True})
    stale = tmp_path / "stale.sock"
    leave_stale(stale)
    client = ControlClient([tmp_path / "none.sock", stale, control.path, tmp_path / "never.sock"])
    assert client.ready() == READY
    stale.unlink()
    with serving(stale):
        assert client.ready() == READY
    assert len(control.asked) == 2


def leave_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


def test_no_daemon_names_all_places_and_why(tmp_path: Path) -> None:
    stale, file, none = tmp_path / "stale", tmp_path / "file", tmp_path / "none"
    leave_stale(stale)
    file.touch()
    long = tmp_path / ("x" * 200)  # a name alone that no address can hold
    with pytest.raises(NoDaemon) as caught:
        ControlClient([none, none / "below", stale, file, long]).ready()
    whys = [why for _, why in caught.value.attempts]
    assert whys == ["not there", "not there", "nobody answers there", "not a socket", "AF_UNIX path too long"]
    assert all(str(path) in str(caught.value) for path in (none, stale, file))
    assert "--socket" in str(caught.value)


def test_a_path_may_be_longer_than_an_address(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 100) / ("y" * 100)
    directory.mkdir(parents=True)
    with contextlib.chdir(directory), serving(Path("s")) as control:
        control.on("GET", "/v1/ready", {"ready": True})
        assert ControlClient([directory / "s"]).ready() == READY
    with pytest.raises(NoDaemon, match="nobody answers there"):
        ControlClient([directory / "s"]).ready()
    with pytest.raises(NoDaemon, match="not there"):
        ControlClient([directory / "none" / "s"]).ready()


def test_one_place_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon, match=r"^cannot connect to .*/none: not there$"):
        ControlClient([tmp_path / "none"]).ready()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_who_is_not_let_in_is_told_what_would_help(public: Path) -> None:
    nobody, games = pwd.getpwnam("nobody"), pwd.getpwnam("games")
    room = public / "room"
    room.mkdir()
    leave_stale(path := room / "control.sock")
    os.chown(path, games.pw_uid, games.pw_gid)
    os.chown(room, games.pw_uid, games.pw_gid)

    def attempt() -> str:
        code = (
            "import os, sys; from pathlib import Path; from claude_coded.codectl.client import *\n"
            f"os.setgroups([]); os.setegid({nobody.pw_gid}); os.seteuid({nobody.pw_uid})\n"
            "try: ControlClient([Path(sys.argv[1])]).ready()\n"
            "except NoDaemon as error: print(error)"
        )
        return subprocess.check_output([sys.executable, "-c", code, path], text=True).strip()

    denied = f"cannot connect to {path}: permission denied"
    for directory, sock, hint in (
        (0o750, 0o660, "is your user in group games?"),
        (0o755, 0o660, "is your user in group games?"),
        (0o700, 0o660, "it is for user games only"),
        (0o755, 0o600, "it is for user games only"),
    ):
        room.chmod(directory)
        path.chmod(sock)
        assert attempt() == f"{denied}; {hint}"
    os.chown(room, 0, 0)
    room.chmod(0o750)
    assert attempt() == f"{denied}; it is for user root only"


# Who answers, and how ----------------------------------------------------------------------------------


def test_who_takes_the_connection_and_says_nothing_is_wedged(tmp_path: Path) -> None:
    path, over = tmp_path / "s", threading.Event()
    with listening(path, lambda _: silent(over)):
        client = ControlClient([path], patience=0.05)
        with pytest.raises(Wedged, match=rf"process {os.getpid()}\) does not answer \(waited 0.05 seconds"):
            client.status()
        over.set()


def test_who_takes_no_connection_is_wedged(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server, contextlib.ExitStack() as stack:
        server.bind(str(path))
        server.listen(0)
        for _ in range(2):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(str(path))
        with pytest.raises(Wedged, match="no more connections"):
            ControlClient([path], patience=0.01).ready()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\xff\x00\xff\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\n<html>",
        b'HTTP/1.1 404 Not Found\r\nContent-Length: 17\r\n\r\n{"message":"no"}\n',
        b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"state": "ok"}',
        b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"ready": 1}',
    ],
)
def test_who_answers_otherwise_is_foreign(tmp_path: Path, answer: bytes) -> None:
    with listening(tmp_path / "s", answering(answer)), pytest.raises(Foreign, match="not claude_coded"):
        ControlClient([tmp_path / "s"]).ready()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"])
def test_an_answer_that_breaks_off_is_lost(tmp_path: Path, answer: bytes) -> None:
    with listening(tmp_path / "s", answering(answer)), pytest.raises(Lost, match="closed the connection"):
        ControlClient([tmp_path / "s"]).ready()


def test_what_may_take_long_is_waited_for_while_the_daemon_lives(tmp_path: Path) -> None:
    asked: list[bytes] = []
    held: list[socket.socket] = []

    def handle(connection: socket.socket) -> None:
        asked.append(connection.recv(65536))
        if asked[-1].startswith(b"DELETE"):
            held.append(connection.dup())
        elif len(asked) < 4:
            connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"ready":true}')
        else:
            held[0].sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"evicted":["a"]')
            connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"ready":true}')
            held[0].close()

    with listening(tmp_path / "s", handle):
        client = ControlClient([tmp_path / "s"], patience=0.05)
        with pytest.raises(Foreign):  # the answer came, if not whole
            client.evict(Name("a"), now=False)
    assert [line.split()[0] for line in asked] == [b"DELETE", b"GET", b"GET", b"GET"]


def test_what_may_take_long_is_not_waited_for_when_the_daemon_is_stuck(tmp_path: Path) -> None:
    over = threading.Event()
    with listening(tmp_path / "s", lambda _: silent(over)):
        with pytest.raises(Wedged):
            ControlClient([tmp_path / "s"], patience=0.05).drain(60)
        over.set()


def test_the_daemons_no_is_told_with_its_kind(control: Control) -> None:
    answer = fault("ambiguous", "there are a/c and b/c: say which", ("a", "b"))
    control.on("DELETE", "/v1/conversations/c", answer, 409)
    with pytest.raises(Refused, match="say which") as caught:
        client_of(control).evict(Name("c"), now=True)
    assert (caught.value.status, caught.value.kind) == (409, api.Kind.AMBIGUOUS)
    assert caught.value.fault.tenants == ["a", "b"]


def test_not_being_ready_is_an_answer(control: Control) -> None:
    control.on("GET", "/v1/ready", {"ready": False, "reason": "starting"}, 503)
    assert client_of(control).ready() == api.Ready(False, "starting")


def test_fields_of_a_newer_daemon_are_let_be(control: Control) -> None:
    control.on("GET", "/v1/ready", {"ready": True, "mood": "good"})
    assert client_of(control).ready() == READY


def test_names_and_queries_are_quoted(control: Control) -> None:
    control.on("POST", "/v1/conversations/a%2Fb%3F/interrupt", {"interrupted": True})
    assert client_of(control).interrupt(Name("a/b?", "t&t")).interrupted
    (asked,) = control.asked
    assert asked.query == {"tenant": "t&t"}
    assert asked.headers["Host"] == "localhost"


def test_bodies_are_json(control: Control) -> None:
    control.on("PUT", "/v1/log-level", {"level": "debug"})
    assert client_of(control).set_log_level("debug") == api.LogLevel("debug")
    (asked,) = control.asked
    assert (asked.body, asked.headers["Content-Type"]) == ({"level": "debug"}, "application/json")


@pytest.mark.parametrize(
    ("text", "name"),
    [("c", Name("c")), ("t/c", Name("c", "t")), ("t/u/c", Name("c", "t/u")), ("/c", Name("c", ""))],
)
def test_names(text: str, name: Name) -> None:
    assert Name.of(text) == name


# Streams -----------------------------------------------------------------------------------------------


def chunked(*chunks: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


EVENT = b'id: 4\nevent: turn\ndata: {"number":4,"at":1.5,"kind":"turn","fields":{"a":1},"missed":3}\n\n'


def test_events_come_as_they_happen(tmp_path: Path) -> None:
    whole = b": events\n\n" + EVENT + b": quiet\n\n" + EVENT
    pieces = [whole[at : at + 7] for at in range(0, len(whole), 7)]
    with listening(tmp_path / "s", answering(chunked(*pieces, b"")[:-2] + b"\r\n")):
        events = list(ControlClient([tmp_path / "s"]).events(None, follow=True))
    assert events == [api.Event(4, 1.5, "turn", {"a": 1}, missed=3)] * 2


def test_a_stream_that_breaks_off_is_lost(tmp_path: Path) -> None:
    with listening(tmp_path / "s", answering(chunked(EVENT))):
        events = ControlClient([tmp_path / "s"]).events(3, follow=True)
        assert next(events).number == 4
        with pytest.raises(Lost):
            next(events)


def test_a_conversation_is_held_as_long_as_the_connection_lives(tmp_path: Path) -> None:
    attached = api.Attached(["claude"], "/w", {"A": "b"}, "me", 7, "s")
    data = (
        b'{"command":["claude"],"directory":"/w","environment":{"A":"b"},"user":"me","uid":7,"session":"s"}'
    )
    left = threading.Event()

    def handle(connection: socket.socket) -> None:
        answering(chunked(b"event: attached\ndata: " + data + b"\n\n"))(connection)
        assert connection.recv(1) == b""
        left.set()

    with listening(tmp_path / "s", handle):
        with ControlClient([tmp_path / "s"]).attach(Name("c"), now=False) as held:
            assert held.attached == attached
            assert not left.is_set()
        assert left.wait(5)
