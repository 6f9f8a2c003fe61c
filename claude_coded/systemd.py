"""What systemd is told, and what it hands over; nothing of it happens where the daemon runs without systemd.

The messages are those of sd_notify(3): `sdnotify` sends them. The rest is environment variables.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sdnotify import SystemdNotifier

from claude_coded.errors import ConfigurationError

FIRST_DESCRIPTOR: Final = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""

PATIENCE: Final = 0.2
"""Seconds that a message may wait for a place in the manager's queue; then it is dropped."""

STATUS_PERIOD: Final = 1.0
"""Seconds between two looks at what there is to say."""

EXTENSION: Final = 20.0
"""Seconds that a stop asks for at a time, and asks for again when a quarter of them is over."""


class Notifier:
    """The messages of sd_notify(3). Without NOTIFY_SOCKET they go nowhere.

    `monotonic` returns CLOCK_MONOTONIC in seconds.
    """

    def __init__(
        self, environment: Mapping[str, str], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._monotonic = monotonic
        self._sender = SystemdNotifier() if environment.get("NOTIFY_SOCKET") else None
        if self._sender is not None and self._sender.socket is not None:
            self._sender.socket.settimeout(PATIENCE)  # a manager that does not read must not stop the loop
        self._status = ""

    @property
    def active(self) -> bool:
        """Return whether anybody listens."""
        return self._sender is not None and self._sender.socket is not None

    def ready(self) -> None:
        """Say that the daemon serves, or that a reload has ended."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Say that a reload begins; `ready` is to follow. The time is what Type=notify-reload asks for."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={_microseconds(self._monotonic())}")

    def stopping(self) -> None:
        """Say that the daemon is on its way out."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Say in a line how things stand, if that is news."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={' '.join(text.splitlines())}")

    def watchdog(self) -> None:
        """Say that the daemon is alive: WATCHDOG=1."""
        self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for so much time from now on, beyond what the unit's time-out leaves."""
        self._send(f"EXTEND_TIMEOUT_USEC={_microseconds(seconds)}")

    def close(self) -> None:
        """Say nothing any more."""
        if self._sender is not None and self._sender.socket is not None:
            self._sender.socket.close()
        self._sender = None

    def _send(self, message: str) -> None:
        if self._sender is not None:
            # The package encodes in Latin-1 and swallows what fails; on the wire it has to be UTF-8.
            self._sender.notify(message.encode(errors="replace").decode("latin-1"))


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


# While the daemon runs ---------------------------------------------------------------------------------


def watchdog_interval(environment: Mapping[str, str], pid: int) -> float | None:
    """Return within how many seconds the watchdog wants to be fed; None: it is off, or not for this process.

    The rules are those of sd_watchdog_enabled(3). It advises to feed at half of the time.
    """
    meant = environment.get("WATCHDOG_PID", str(pid))
    microseconds = environment.get("WATCHDOG_USEC", "")
    if meant != str(pid) or not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    return int(microseconds) / 1e6


async def feed_watchdog(notifier: Notifier, interval: float, beat: Callable[[], Awaitable[bool]]) -> None:
    """Feed the watchdog at half the interval, as long as `beat` returns true; until cancelled."""
    while True:
        if await beat():
            notifier.watchdog()
        await asyncio.sleep(interval / 2)


async def report_status(notifier: Notifier, describe: Callable[[], str]) -> None:
    """Say how things stand whenever that changes, once a second at most; until cancelled."""
    while True:
        notifier.status(describe())
        await asyncio.sleep(STATUS_PERIOD)


@contextlib.asynccontextmanager
async def attended(
    notifier: Notifier,
    interval: float | None,
    beat: Callable[[], Awaitable[bool]],
    describe: Callable[[], str],
) -> AsyncIterator[None]:
    """Report the status and feed the watchdog while the context lasts, as far as anybody wants to know."""
    tasks = [asyncio.ensure_future(report_status(notifier, describe))] if notifier.active else []
    tasks += [asyncio.ensure_future(feed_watchdog(notifier, interval, beat))] if interval else []
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


@contextlib.contextmanager
def extending(notifier: Notifier, limit: float) -> Iterator[None]:
    """Ask systemd for more time again and again while a stop's work is done, for `limit` seconds in all."""
    asking = asyncio.ensure_future(_extend(notifier, limit)) if notifier.active else None
    try:
        yield
    finally:
        if asking is not None:
            asking.cancel()


async def _extend(notifier: Notifier, limit: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + limit
    while (left := end - loop.time()) > 0:
        notifier.extend_timeout(min(EXTENSION, left))
        await asyncio.sleep(EXTENSION / 4)


# What is handed over -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Inherited:
    """A listening socket that systemd has opened, and its FileDescriptorName."""

    name: str
    socket: socket.socket

    @property
    def is_unix(self) -> bool:
        """Return whether it is one for the control interface."""
        return self.socket.family == socket.AF_UNIX


def inherited_sockets(environment: Mapping[str, str], pid: int) -> list[Inherited]:
    """Return the listening sockets that the environment hands to this process, by sd_listen_fds(3).

    Children do not get them. Raises ConfigurationError where one is no listening stream socket.
    """
    if environment.get("LISTEN_PID") != str(pid):
        return []
    count = environment.get("LISTEN_FDS", "")
    if not count.isdecimal():
        raise ConfigurationError(f"LISTEN_FDS is {count!r}, not a number")
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    return [
        Inherited((names[index] if index < len(names) else "") or "unknown", _take(FIRST_DESCRIPTOR + index))
        for index in range(int(count))
    ]


def _take(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ConfigurationError(f"descriptor {descriptor} of LISTEN_FDS: {error.strerror}") from None
    listens = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if not listens or sock.family not in {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}:
        sock.detach()
        raise ConfigurationError(
            f"descriptor {descriptor} of LISTEN_FDS is no listening stream socket of TCP or Unix"
        )
    return sock
