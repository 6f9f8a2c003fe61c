"""Logging: a constant message and fields beside it, for people, for machines, or for systemd's journal.

Text and JSON go to stderr, a line each. The journal is spoken to by its native protocol.
"""

import array
import contextlib
import contextvars
import errno
import faulthandler
import fcntl
import logging
import os
import re
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TextIO

import orjson

JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"
IDENTIFIER: Final = "claude-coded"

PATIENCE: Final = 0.2
"""Seconds that a record may wait for a place in the journal's queue, or in a pipe."""

PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""From which level on which priority of syslog(3); below it is 7."""

CRASH_LOG: Final = "crash.log"

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NO_FIELD: Final = re.compile(r"[^A-Z0-9_]")
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_NOTED: Final[contextvars.ContextVar[Mapping[str, Any]]] = contextvars.ContextVar("noted")


def configure(level: str, kind: str, stream: TextIO | None = None) -> None:
    """Set up the root logger. `kind` is text, json, journal or auto.

    auto: journal where stderr is connected to it, text on a terminal, else JSON.
    """
    target = stream or sys.stderr
    handler = make_handler(choose(target, os.environ) if kind == "auto" else kind, target)
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level.upper())


def level() -> str:
    """Return how much is logged."""
    return logging.getLevelName(logging.root.level).lower()


def set_level(level: str) -> None:
    """Log more or less from now on."""
    logging.root.setLevel(level.upper())


def choose(stream: TextIO, environment: Mapping[str, str]) -> str:
    """Return the format that suits where a stream goes."""
    if goes_to_journal(stream, environment):
        return "journal"
    return "text" if stream.isatty() else "json"


def goes_to_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Return whether a stream is the one that JOURNAL_STREAM names by device and inode: systemd.exec(5)."""
    try:
        stat = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


def make_handler(kind: str, stream: TextIO) -> logging.Handler:
    """Return what writes records in a format."""
    if kind == "journal":
        return JournalHandler(patient(stream))
    handler = LineHandler(patient(stream))
    handler.setFormatter(TextFormatter() if kind == "text" else JsonFormatter())
    return handler


def note(**fields: object) -> None:
    """Have all records of the running task, and of those that it starts, tell these fields too."""
    _NOTED.set({**_NOTED.get({}), **fields})


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return what was given as `extra`, or noted before."""
    given = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return {**_NOTED.get({}), **given}


def keep_crashes(environment: Mapping[str, str]) -> None:
    """Have the stacks of all threads written when the process dies of a fault, or of systemd's watchdog.

    They go to systemd's logs directory where there is one, else to stderr.
    """
    directory = environment.get("LOGS_DIRECTORY", "").split(":")[0]
    faulthandler.enable()
    if directory:
        with contextlib.suppress(OSError):
            faulthandler.enable((Path(directory) / CRASH_LOG).open("ab"))


# A full pipe -------------------------------------------------------------------------------------------


class Sink(Protocol):
    """Where lines go."""

    def write(self, text: str, /) -> object:
        """Write some of them."""

    def flush(self) -> object:
        """Leave nothing behind."""


class Patient:
    """A file, pipe or terminal that loses what nobody takes: that must not hold up the daemon.

    A text waits for room, PATIENCE at most; those after it do not, until there is some. `lost` counts them.
    """

    def __init__(self, descriptor: int) -> None:
        self.full = False
        self.lost = 0
        self._file = descriptor
        self._cut = False  # the last line that was begun has no end
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write(self, text: str) -> None:
        """Write in pieces that a pipe with any room takes whole: pipe(7). Raises OSError."""
        data = (b"\n" if self._cut else b"") + text.encode(errors="backslashreplace")
        begun = len(data)
        while data:
            self.full = not self._poll.poll(0 if self.full else PATIENCE * 1000)
            if self.full:
                self.lost += 1
                self._cut |= len(data) < begun
                return
            data = data[os.write(self._file, data[: select.PIPE_BUF]) :]
        self._cut = False

    def flush(self) -> None:
        """Do nothing: what was written has gone."""


def patient(stream: TextIO) -> Sink:
    """Return a stream's file as one that nobody waits for; the stream itself where it has none."""
    try:
        return Patient(stream.fileno())
    except (OSError, ValueError):
        return stream


class LineHandler(logging.StreamHandler[Any]):
    """Writes lines, and says when some were lost."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        super().emit(record)
        sink = self.stream
        if isinstance(sink, Patient) and sink.lost and not sink.full:
            told = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING", "count": sink.lost}
            sink.lost = 0
            super().emit(logging.makeLogRecord({**told, "msg": "log records were lost: nobody read them"}))


class TextFormatter(logging.Formatter):
    """`12:34:56 WARNING message  field=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{clock} {record.levelname:<7} {in_words(record, self, in_a_line)}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (Unix seconds), level, logger, message, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def in_words(
    record: logging.LogRecord, formatter: logging.Formatter, write: Callable[[object], str] = str
) -> str:
    """Return a record as people read it: `message  field=value`, and the exception below."""
    extra = "".join(f"  {name}={write(value)}" for name, value in fields(record).items())
    text = f"{record.getMessage()}{extra}"
    return f"{text}\n{formatter.formatException(record.exc_info)}" if record.exc_info else text


def in_a_line(value: object) -> str:
    """Return a value, what would end its line or steer a terminal escaped: clients choose some of it."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# The journal -------------------------------------------------------------------------------------------


class JournalHandler(logging.Handler):
    """Sends records by the journal's native protocol; where that fails they go to stderr, with priorities."""

    def __init__(self, stream: Sink, path: str = JOURNAL_SOCKET) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter())
        self._stream = stream
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(PATIENCE)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        try:
            assert self.formatter is not None
            message = in_words(record, self.formatter)
            entry = encode_entry(journal_fields(record, message))
            try:
                send_entry(self._socket, self._path, entry)
            except OSError:
                self._stream.write(with_prefixes(message, priority(record.levelno)))
                self._stream.flush()
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Send nothing any more."""
        self._socket.close()
        super().close()


def priority(level: int) -> int:
    """Return syslog's priority of a level of `logging`."""
    return next((priority for least, priority in PRIORITIES if level >= least), 7)


def journal_fields(record: logging.LogRecord, message: str) -> dict[str, str]:
    """Return a record's fields by the journal's names. EVENT is the message without what belongs to it."""
    extra = {field_name(name): str(value) for name, value in fields(record).items()}
    return extra | {
        "MESSAGE": message,
        "EVENT": record.getMessage(),
        "PRIORITY": str(priority(record.levelno)),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "LOGGER": record.name,
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName or "",
    }


def field_name(name: str) -> str:
    """Return a name that the journal takes: up to 64 of A-Z, 0-9 and _, the first of them a letter."""
    known = _NO_FIELD.sub("_", name.upper())[:62]
    return known if known[:1].isalpha() else f"X_{known.lstrip('_')}"


def encode_entry(entry: Mapping[str, str]) -> bytes:
    """Return an entry's datagram: a line a field, and those of several lines with their length."""
    return b"".join(
        _encode_field(name.encode(), value.encode(errors="replace")) for name, value in entry.items()
    )


def _encode_field(name: bytes, value: bytes) -> bytes:
    if b"\n" in value:
        return name + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
    return name + b"=" + value + b"\n"


def send_entry(sock: socket.socket, path: str, entry: bytes) -> None:
    """Send an entry; what is too large for a datagram goes as a sealed memory file. Raises OSError."""
    try:
        sock.sendto(entry, path)
    except OSError as error:
        if error.errno not in {errno.EMSGSIZE, errno.ENOBUFS}:
            raise
        _send_file(sock, path, entry)


def _send_file(sock: socket.socket, path: str, entry: bytes) -> None:
    descriptor = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(entry)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        sock.sendmsg([], rights, 0, path)
    finally:
        os.close(descriptor)


def with_prefixes(message: str, number: int) -> str:
    """Return the lines of a message as systemd takes them from stderr: sd-daemon(3)."""
    return "".join(f"<{number}>{line}\n" for line in message.splitlines() or [""])
