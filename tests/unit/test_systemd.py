"""Messages to systemd, on a real datagram socket; what it hands over, in a real child process."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.claude.launch import Launch
from claude_coded.daemon import status_line
from claude_coded.errors import ConfigurationError
from claude_coded.events import Events
from claude_coded.permissions import Desk
from claude_coded.plan import Handed, Plan, handed_over
from claude_coded.pool import Pool
from claude_coded.scheduler import Limits
from claude_coded.settings import load
from claude_coded.store import Store
from claude_coded.systemd import (
    EXTENSION,
    Inherited,
    Notifier,
    attended,
    extending,
    inherited_sockets,
    watchdog_interval,
)
from claude_coded.worker import Cli


class Manager:
    """The socket that systemd listens on."""

    def __init__(self, path: Path) -> None:
        self.environment = {"NOTIFY_SOCKET": str(path)}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """Return the messages since the last call."""
        messages = []
        with contextlib.suppress(BlockingIOError):
            while True:
                messages.append(self._socket.recv(65536).decode())
        return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", manager.environment["NOTIFY_SOCKET"])
    yield manager
    manager.close()


@pytest.fixture
def notifier(manager: Manager) -> Iterator[Notifier]:
    notifier = Notifier(manager.environment, lambda: 12.345678)
    yield notifier
    notifier.close()


def test_the_messages_are_those_of_sd_notify(manager: Manager, notifier: Notifier) -> None:
    assert notifier.active
    notifier.ready()
    notifier.reloading()
    notifier.stopping()
    notifier.watchdog()
    notifier.extend_timeout(1.5)
    assert manager.heard() == [
        "READY=1",
        "RELOADING=1\nMONOTONIC_USEC=12345678",
        "STOPPING=1",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=1500000",
    ]


def test_a_status_is_sent_when_it_is_news(manager: Manager, notifier: Notifier) -> None:
    for text in ("1 busy", "1 busy", "0 busy - größer, 忙", "0 busy\nREADY=1"):
        notifier.status(text)
    assert manager.heard() == ["STATUS=1 busy", "STATUS=0 busy - größer, 忙", "STATUS=0 busy READY=1"]


def test_without_systemd_nothing_is_sent() -> None:
    notifier = Notifier({})
    assert not notifier.active
    notifier.ready()
    notifier.status("fine")
    notifier.close()


def test_a_manager_that_does_not_read_stops_nothing(manager: Manager, notifier: Notifier) -> None:
    queue = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    for number in range(queue + 3):
        notifier.status(f"{number}")
    assert 0 < len(manager.heard()) <= queue + 1


def test_a_manager_that_is_gone_stops_nothing(manager: Manager, notifier: Notifier) -> None:
    manager.close()
    notifier.ready()


def test_the_watchdog_is_fed_by_what_beats(manager: Manager, notifier: Notifier) -> None:
    async def scenario() -> None:
        beats = count(1)
        enough = asyncio.Event()

        async def beat() -> bool:
            number = next(beats)
            if number == 6:
                enough.set()
            return number in {1, 4}

        async with attended(notifier, 0.001, beat, lambda: "fine"):
            await enough.wait()

    asyncio.run(scenario())
    assert sorted(manager.heard()) == ["STATUS=fine", "WATCHDOG=1", "WATCHDOG=1"]


def test_more_time_is_asked_for_while_the_work_lasts(manager: Manager, notifier: Notifier) -> None:
    async def scenario() -> None:
        with extending(notifier, 600):
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        with extending(notifier, 0.5):
            await asyncio.sleep(0)

    asyncio.run(scenario())
    first, last = (int(message.removeprefix("EXTEND_TIMEOUT_USEC=")) for message in manager.heard())
    assert first == EXTENSION * 1e6
    assert 0 < last <= 500_000


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "2500000"}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "7"}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": ""}, None),
    ],
)
def test_the_watchdogs_interval(environment: dict[str, str], interval: float | None) -> None:
    assert watchdog_interval(environment, 7) == interval


@given(st.dictionaries(st.sampled_from(["WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS"]), st.text()))
def test_odd_environments_are_no_error(environment: dict[str, str]) -> None:
    watchdog_interval(environment, 7)
    assert inherited_sockets({**environment, "LISTEN_PID": "8"}, 7) == []


INHERIT = """
import os, subprocess, sys
from claude_coded.errors import ConfigurationError
from claude_coded.systemd import inherited_sockets
environment = {"LISTEN_PID": str(os.getpid()), **dict(item.split("=") for item in sys.argv[1:])}
try:
    found = inherited_sockets(environment, os.getpid())
except ConfigurationError as error:
    sys.exit(str(error))
for item in found:
    print(item.name, item.is_unix, item.socket.getsockname(), os.get_inheritable(item.socket.fileno()))
"""


def inherit(*sockets: socket.socket, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a process that has these sockets from descriptor 3 on, as systemd starts one."""
    # High copies first: none is overwritten before it has its place.
    moves = "".join(f"{n}<&{100 + n} " for n in range(3, 3 + len(sockets)))
    for number, sock in enumerate(sockets, 3):
        os.dup2(sock.fileno(), 100 + number, inheritable=True)
    given = [f"{name}={value}" for name, value in environment.items()]
    try:
        return subprocess.run(
            ["bash", "-c", f'exec "$@" {moves}', "-", sys.executable, "-c", INHERIT, *given],
            pass_fds=[100 + number for number in range(3, 3 + len(sockets))],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        for number in range(3, 3 + len(sockets)):
            os.close(100 + number)


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[dict[str, socket.socket]]:
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as idle,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        unix.bind(str(tmp_path / "control.sock"))
        unix.listen()
        datagrams.bind(("127.0.0.1", 0))
        yield {"tcp": tcp, "unix": unix, "idle": idle, "datagrams": datagrams}


def test_sockets_are_handed_over_by_name(listening: dict[str, socket.socket]) -> None:
    tcp, unix = listening["tcp"], listening["unix"]
    told = inherit(tcp, unix, LISTEN_FDS="2", LISTEN_FDNAMES="http:control")
    assert told.stdout.splitlines() == [
        f"http False {tcp.getsockname()} False",
        f"control True {unix.getsockname()} False",
    ], told.stderr
    unnamed = inherit(tcp, LISTEN_FDS="1")
    assert unnamed.stdout == f"unknown False {tcp.getsockname()} False\n"


@pytest.mark.parametrize("kind", ["idle", "datagrams"])
def test_what_is_no_listening_stream_socket_is_refused(
    listening: dict[str, socket.socket], kind: str
) -> None:
    refused = inherit(listening[kind], LISTEN_FDS="1")
    assert refused.returncode == 1
    assert "descriptor 3 of LISTEN_FDS is no listening stream socket" in refused.stderr


def test_a_descriptor_that_is_not_there_is_said() -> None:
    assert "descriptor 3 of LISTEN_FDS: Bad file descriptor" in inherit(LISTEN_FDS="1").stderr


def test_a_count_that_is_no_number_is_said() -> None:
    with pytest.raises(ConfigurationError, match="LISTEN_FDS is 'two'"):
        inherited_sockets({"LISTEN_PID": "7", "LISTEN_FDS": "two"}, 7)


def test_the_address_of_an_inherited_socket_is_what_must_be_loopback() -> None:
    with socket.create_server(("0.0.0.0", 0)) as tcp:
        handed = Handed.of(tcp)
    # The socket has been taken away by who serves on it, when a reload asks.
    with pytest.raises(ConfigurationError, match=r"systemd's socket, 0\.0\.0\.0"):
        Plan.make(load({}, {}), {}, offline=False, handed=handed)


def test_of_two_tcp_sockets_none_is_chosen() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(ConfigurationError, match="hands over 2"),
    ):
        handed_over([Inherited("http", one), Inherited("http", other)])


def test_the_status_line_says_what_there_is() -> None:
    async def scenario() -> list[str]:
        launch = Launch(agent=True, workspace=Path("/"), permission_mode="plan")
        desk = Desk(Store(Path("/nowhere")), timeout=lambda: 60.0, wall=lambda: 0.0)
        cli = Cli(Path("/nowhere/claude"), {}, 0)
        events = Events(lambda: 0.0)
        pool = Pool(Limits(3), cli, launch, models=lambda _: None, desk=desk, events=events)
        before = status_line(pool)
        assert await pool.beat()
        during = status_line(pool)
        await pool.close()
        return [before, during, status_line(pool)]

    before, during, after = asyncio.run(scenario())
    assert before == "0 of 3 workers; 0 queued"
    assert during == "1 of 3 workers: 1 starting; 0 queued"
    assert after.startswith("draining; 0 of 3 workers; 0 queued; workers do not start: Claude Code could not")
