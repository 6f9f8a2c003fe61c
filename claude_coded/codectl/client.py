"""The control socket's client: HTTP/1.1 over a Unix socket, synchronous, typed by `control.api`.

A request has a connection of its own. Who accepts one and then says nothing is told apart from who takes
long over what was asked: while an answer may take its time, another connection asks whether the daemon lives.
"""

import contextlib
import http.client
import select
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from claude_coded.codectl.places import obstacle
from claude_coded.control import api
from claude_coded.control.api import Route
from claude_coded.unix import addressable, peer_of

PATIENCE: Final = 5.0
"""Seconds that the daemon may take for an answer that needs no waiting."""

QUIET: Final = 45.0
"""Seconds without a sign of life after which a stream that is handed on counts as lost: three are missing."""

_HEADERS: Final = {"Connection": "close", "Content-Type": "application/json"}
READ_SIZE: Final = 65536

T = TypeVar("T")


# Errors ------------------------------------------------------------------------------------------------


class ControlError(Exception):
    """What was asked was not done; the text says why, for people."""


class Unreachable(ControlError):
    """There is no daemon that answers."""


class NoDaemon(Unreachable):
    """No connection; `attempts` are the paths tried, and why each failed."""

    def __init__(self, attempts: Sequence[tuple[Path, str]]) -> None:
        self.attempts = tuple(attempts)
        super().__init__(self._text())

    def _text(self) -> str:
        if len(self.attempts) == 1:
            return "cannot connect to {}: {}".format(*self.attempts[0])
        tried = "".join(f"\n  {path}: {why}" for path, why in self.attempts)
        return f"no daemon found; tried{tried}\nStart one with claude-coded, or name its socket with --socket"


class Wedged(Unreachable):
    """Somebody took the connection and says nothing."""


class Lost(Unreachable):
    """The connection ended before the answer did."""


class Foreign(Unreachable):
    """Somebody answers who does not speak this API, or another version of it."""


class Refused(ControlError):
    """The daemon's own no."""

    def __init__(self, status: int, fault: api.Fault) -> None:
        super().__init__(fault.message)
        self.status = status
        self.fault = fault

    @property
    def kind(self) -> str:
        """Return the kind of what is wrong, of `api.Kind`."""
        return self.fault.kind


# The connection ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Name:
    """A conversation's name, with its tenant where it was given."""

    id: str
    tenant: str | None = None

    @classmethod
    def of(cls, text: str) -> "Name":
        """Read `conversation` or `tenant/conversation`: no conversation has a slash in its own name."""
        tenant, slash, name = text.rpartition("/")
        return cls(name, tenant if slash else None)


class ControlClient:
    """A daemon's control interface. The first of `paths` that takes a connection is kept to."""

    def __init__(self, paths: Sequence[Path], patience: float = PATIENCE) -> None:
        self._paths = tuple(paths)
        self._patience = patience

    # What is shown -------------------------------------------------------------------------------------

    def status(self) -> api.Status:
        """Return what the daemon is doing."""
        return self._ask("GET", Route.STATUS, api.Status)

    def ready(self) -> api.Ready:
        """Return whether it serves."""
        return self._ask("GET", Route.READY, api.Ready)

    def workers(self) -> list[api.Worker]:
        """Return the workers."""
        return self._ask("GET", Route.WORKERS, list[api.Worker])

    def worker(self, worker: str) -> api.WorkerStory:
        """Return a worker with its story."""
        return self._ask("GET", _path(Route.WORKER, worker), api.WorkerStory)

    def conversations(self, *, stored: bool) -> list[api.Conversation]:
        """Return the hot conversations, or the stored ones too."""
        query = {"all": "true"} if stored else {}
        return self._ask("GET", Route.CONVERSATIONS, list[api.Conversation], query)

    def conversation(self, name: Name) -> api.Shown:
        """Return a conversation with its worker's story."""
        return self._ask("GET", _path(Route.CONVERSATION, name.id), api.Shown, _tenant(name))

    def usage(self, by: Sequence[str], since: str) -> list[api.Usage]:
        """Return what turns have used, told apart by day, tenant, model, from a day on; "": all."""
        query = {"by": ",".join(by)} | ({"since": since} if since else {})
        return self._ask("GET", Route.USAGE, list[api.Usage], query)

    def requests(self) -> list[api.Permission]:
        """Return the permission requests that wait."""
        return self._ask("GET", Route.REQUESTS, list[api.Permission])

    def config(self) -> list[api.Setting]:
        """Return the settings in force."""
        return self._ask("GET", Route.CONFIG, list[api.Setting])

    def events(self, since: int | None, *, follow: bool) -> Iterator[api.Event]:
        """Yield what happened after an event; with `follow` also what happens from now on."""
        query = {"follow": "true" if follow else "false"}
        query |= {} if since is None else {"since": str(since)}
        with self._exchange("GET", Route.EVENTS, query) as (sock, response):
            sock.settimeout(None if follow else self._patience)
            for data in _data(response):
                yield self._decode(data, api.Event)

    # What is done --------------------------------------------------------------------------------------

    def evict(self, name: Name, *, now: bool) -> api.Evicted:
        """Release a conversation's worker, after its turn or in the middle of it."""
        path = _path(Route.CONVERSATION, name.id)
        return self._ask("DELETE", path, api.Evicted, _tenant(name) | _now(now), waits=True)

    def evict_worker(self, worker: str, *, now: bool) -> api.Evicted:
        """Release a worker."""
        return self._ask("DELETE", _path(Route.WORKER, worker), api.Evicted, _now(now), waits=True)

    def evict_many(self, which: str, *, now: bool) -> api.Evicted:
        """Release the workers of the `idle` or of `all` conversations."""
        query = {"which": which} | _now(now)
        return self._ask("DELETE", Route.CONVERSATIONS, api.Evicted, query, waits=True)

    def interrupt(self, name: Name) -> api.Interrupted:
        """Stop a conversation's turn."""
        return self._ask("POST", _path(Route.INTERRUPT, name.id), api.Interrupted, _tenant(name))

    def drain(self, wait: float) -> api.Drain:
        """Take no more turns; the answer comes when none runs, or after the wait."""
        return self._ask("POST", Route.DRAIN, api.Drain, {"wait": f"{wait:g}"}, waits=True)

    def resume(self) -> api.Drain:
        """Take turns again."""
        return self._ask("POST", Route.RESUME, api.Drain)

    def reload(self) -> api.Reloaded:
        """Have the configuration read again."""
        return self._ask("POST", Route.RELOAD, api.Reloaded, waits=True)

    def decide(self, request: str, decision: api.Decision) -> None:
        """Answer a permission request."""
        with self._exchange("POST", _path(Route.REQUEST, request), body=decision) as (_, response):
            response.read()

    def set_log_level(self, level: str) -> api.LogLevel:
        """Set how much the daemon logs."""
        return self._ask("PUT", Route.LOG_LEVEL, api.LogLevel, body=api.LogLevel(level))

    @contextlib.contextmanager
    def attach(self, name: Name, *, now: bool) -> Iterator["Attachment"]:
        """Hold a conversation for a person, for as long as the context lasts."""
        path, query = _path(Route.ATTACH, name.id), _tenant(name) | _now(now)
        with self._exchange("POST", path, query, waits=True) as (sock, response):
            events = _data(response)
            first = next(events, None)
            if first is None:
                raise Lost(f"{self._holder(sock)} closed the connection without an answer")
            sock.settimeout(None)
            yield Attachment(self._decode(first, api.Attached), events)

    # What is handed on ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def relay(self, method: str, target: str, body: bytes) -> Iterator[http.client.HTTPResponse]:
        """Ask for somebody else, and yield the answer as it is, errors too; it may take long."""
        with self._sent(method, target, body or None, waits=True) as (sock, response):
            sock.settimeout(QUIET)
            yield response

    # How -----------------------------------------------------------------------------------------------

    def _ask(
        self,
        method: str,
        path: str,
        kind: type[T],
        query: Mapping[str, str] | None = None,
        *,
        body: msgspec.Struct | None = None,
        waits: bool = False,
    ) -> T:
        with self._exchange(method, path, query, body=body, waits=waits) as (_, response):
            return self._decode(response.read(), kind)

    @contextlib.contextmanager
    def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: msgspec.Struct | None = None,
        waits: bool = False,
    ) -> Iterator[tuple[socket.socket, http.client.HTTPResponse]]:
        """Ask, and yield an answer that is no error, of which the head has come. Raises ControlError."""
        target = path + (f"?{urlencode(query)}" if query else "")
        data = msgspec.json.encode(body) if body else None
        with self._sent(method, target, data, waits=waits) as (sock, response):
            self._check(response, path)
            yield sock, response

    @contextlib.contextmanager
    def _sent(
        self, method: str, target: str, body: bytes | None, *, waits: bool
    ) -> Iterator[tuple[socket.socket, http.client.HTTPResponse]]:
        sock = self._connect()
        connection = _Connection(sock)
        with sock, self._told(sock):
            connection.request(method, target, body, _HEADERS)
            if waits:
                self._await(sock)
            response = connection.getresponse()
            try:
                yield sock, response
            finally:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)  # a thread may be reading, which close would wait for
                connection.close()

    def _connect(self) -> socket.socket:
        attempts = []
        for path in self._paths:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(self._patience)
            try:
                with addressable(path) as address:
                    sock.connect(address)
            except (BlockingIOError, TimeoutError):
                sock.close()
                raise Wedged(f"{path} takes no more connections: its daemon is stuck") from None
            except OSError as error:
                sock.close()
                attempts.append((path, obstacle(path, error)))
            else:
                # Whatever comes next must not go to another daemon.
                self._paths = (path,)
                return sock
        raise NoDaemon(attempts)

    @contextlib.contextmanager
    def _told(self, sock: socket.socket) -> Iterator[None]:
        """Raise what goes wrong on a connection as one of our errors."""
        try:
            yield
        except TimeoutError:
            raise Wedged(
                f"{self._holder(sock)} does not answer (waited {self._patience:g} seconds)"
            ) from None
        except (ConnectionError, http.client.IncompleteRead):
            raise Lost(f"{self._holder(sock)} closed the connection without an answer") from None
        except http.client.HTTPException:
            raise Foreign(f"{self._holder(sock)} is not claude_coded: it does not speak HTTP") from None

    def _await(self, sock: socket.socket) -> None:
        """Wait for an answer that may take long, for as long as the daemon answers others."""
        while not select.select([sock], [], [], self._patience)[0]:
            self.ready()

    def _check(self, response: http.client.HTTPResponse, path: str) -> None:
        """Raise Refused or Foreign if the answer is an error. Not being ready is none."""
        if response.status < 400 or (response.status == 503 and path == Route.READY):
            return
        data = response.read()
        try:
            fault = msgspec.json.decode(data, type=api.Failure).error
        except msgspec.DecodeError:
            raise self._foreign(f"it answered {response.status} to {path}") from None
        raise Refused(response.status, fault)

    def _decode(self, data: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError as error:
            raise self._foreign(str(error)) from None

    def _foreign(self, why: str) -> Foreign:
        return Foreign(
            f"what answers at {self._paths[0]} is not claude_coded, or of another version than "
            f"this claude-codectl, which speaks {api.VERSION}: {why}"
        )

    def _holder(self, sock: socket.socket) -> str:
        """Return who is at the other end, in words."""
        with contextlib.suppress(OSError):
            return f"{self._paths[0]} (held by process {peer_of(sock)[0]})"
        return str(self._paths[0])


@dataclass(frozen=True, slots=True)
class Attachment:
    """A conversation that is held: what to run, and the connection that holds it."""

    attached: api.Attached
    events: Iterator[bytes]

    def watch(self) -> None:
        """Read what comes until the daemon ends it: what nobody reads would stop the daemon's writing."""
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            for _ in self.events:
                pass


class _Connection(http.client.HTTPConnection):
    """HTTP on a socket that is connected."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(api.HOST)
        self.auto_open = 0
        self.sock = sock


def _path(route: str, name: str) -> str:
    return route.replace("{id}", quote(name, safe=""))


def _tenant(name: Name) -> dict[str, str]:
    return {} if name.tenant is None else {"tenant": name.tenant}


def _now(now: bool) -> dict[str, str]:
    return {"now": "true"} if now else {}


def _data(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the data of each server-sent event."""
    unread = b""
    while piece := response.read1(READ_SIZE):  # readline would take a broken stream for its end
        *whole, unread = (unread + piece).split(b"\n")
        for line in whole:
            if line.startswith(b"data:"):
                yield line[5:].strip()
