"""A process whose main thread stands still while its other threads go on, as a tracer can have it."""

import ctypes
import os
import socket
from types import TracebackType
from typing import Final

SEIZE: Final = 0x4206
INTERRUPT: Final = 0x4207
WAIT_ALL: Final = 0x40000000


class Wedge:
    """Holds the main thread of a process until that is killed, or the context ends."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._gone = False

    def __enter__(self) -> "Wedge":
        for request in (SEIZE, INTERRUPT):
            if self._trace(request) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._gone:
            self._trace(17)  # detach: it goes on

    def _trace(self, request: int) -> int:
        ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        return int(ptrace(request, self._pid, None, None))

    def accepts_connections(self, port: int) -> bool:
        """Return whether somebody takes connections, and says nothing."""
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.settimeout(0.5)
            try:
                return not connection.recv(1)
            except TimeoutError:
                return True

    def is_over(self) -> bool:
        """Return whether the process has been killed; its parent hears of it only after its tracer has."""
        if not self._gone:
            pid, status = os.waitpid(self._pid, os.WNOHANG | WAIT_ALL)
            self._gone = pid == self._pid and not os.WIFSTOPPED(status)
        return self._gone
