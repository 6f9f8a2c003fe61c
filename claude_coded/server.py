"""Granian, embedded as this program needs it: on a socket that it did not bind, with bodies asked for ahead.

A request passes three threads: one of Granian's reads it, a second one makes its scope of it and wakes the
loop's, which runs the app. A body that is asked for there takes the same way once more. Here the second
thread asks for it, so that most are there before the app looks for them. And it wakes a task that was made
before: a new one would run a round of the loop later.

Three things that are used of Granian are not public, and a contract test watches them:
`Server._init_shared_socket`, what a target of `serve` is given, and `CallbackScheduler`.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from contextvars import Context, copy_context
from typing import Any, Final, TypeAlias

from granian import _granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import embed

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

BACKLOG: Final = 1024
"""Connections that the kernel holds before they are accepted."""

MAX_CONNECTIONS: Final = 4096
"""Connections served at once, idle ones too; the next one waits in the backlog."""

_NATIVE: Final[Any] = _granian  # its own hints are behind

_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_EXPECTING: Final = (b"expect", b"100-continue")
"""Of a client that waits with its body: it is told to send it when that is asked for (RFC 9110, 10.1.1)."""


class Server(embed.Server):
    """Granian's embedded server, for an app that has no lifespan.

    `address` is shown only. `on_ready` is called when requests are accepted.
    """

    def __init__(
        self,
        app: App,
        sock: socket.socket,
        address: str,
        *,
        header_buffer: int,
        on_ready: Callable[[], None],
    ) -> None:
        super().__init__(
            app,
            address=address,  # as a place to bind it fails, should the hand-over ever be skipped
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=BACKLOG,
            backpressure=MAX_CONNECTIONS,
            http1_settings=HTTP1Settings(max_buffer_size=header_buffer),
            log_level=LogLevels.error,
            # Incremental: its own configuration would close every handler of the process.
            log_dictconfig={"incremental": True, "handlers": {}, "loggers": {}},
        )
        self._app = app
        self._handed_over = sock
        self._on_ready = on_ready
        self._cancelling = False
        self._ended = False
        self._waiting = deque[_Handover]()
        self.calls: set[asyncio.Task[None]] = set()

    def _init_shared_socket(self) -> None:
        is_uds = self._handed_over.family == socket.AF_UNIX
        self._sfd = descriptor = self._handed_over.fileno()  # type: ignore[assignment]
        self._shd = _NATIVE.SocketHolder(descriptor, is_uds, BACKLOG)
        self._ssp = None

    async def run(self) -> None:
        """Serve until `stop()`, and until every connection has ended."""
        await self.serve(self._work)  # type: ignore[arg-type]  # it is awaited

    def cancel(self) -> None:
        """Cancel the calls of the app that run; their clients are told nothing."""
        self._cancelling = True
        for task in self.calls:
            task.cancel()

    async def _work(self, number: int, stopping: Any, _app: App, sockets: Any, *settings: Any) -> None:  # noqa: ANN401
        *threads, _task, http, http1, http2, websockets, files, _log, tls, _scope = settings
        metrics = (None, None)
        worker = _NATIVE.ASGIWorker(
            number, sockets, None, *threads, http, http1, http2, websockets, files, *tls, metrics
        )
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        stopping.add_cb(lambda: loop.call_soon_threadsafe(ended.set))
        serve = worker.serve_async_uds if self._handed_over.family == socket.AF_UNIX else worker.serve_async
        serve(self._scheduler(loop), loop, stopping)
        self._on_ready()
        try:
            await ended.wait()
        finally:
            self._ended = True
            for handover in list(self._waiting):
                handover.task.cancel()

    def _scheduler(self, loop: asyncio.AbstractEventLoop) -> Any:  # noqa: ANN401
        """Return what is told of each request, in a thread of Granian's."""
        context = copy_context()

        def schedule(request: Any) -> None:  # noqa: ANN401
            receive, scope = _Receive(request.proto.receive), request.scope
            if scope["method"] in _WITH_BODY and _EXPECTING not in scope["headers"]:
                receive.ask()
            try:
                handover = self._waiting.popleft()
            except IndexError:  # too many at once
                loop.call_soon_threadsafe(begin, request, receive, context=context)
            else:
                handover.give(request, receive)

        def begin(request: Any, receive: Receive) -> None:  # noqa: ANN401
            task = loop.create_task(self._call(request, receive))
            self.calls.add(task)
            task.add_done_callback(self.calls.discard)

        def make_one_wait() -> None:
            if not self._ended:
                handover = _Handover(loop, self._waiting)
                handover.task = task = loop.create_task(take(handover))
                task.add_done_callback(self.calls.discard)

        async def take(handover: _Handover) -> None:
            request, receive = await handover
            self.calls.add(handover.task)
            loop.call_soon(make_one_wait, context=context)
            await self._call(request, receive)

        loop.call_soon(make_one_wait, context=context)
        # The rest of what it takes is for tasks of its own making.
        scheduler = _NATIVE.CallbackScheduler(loop, self._app, None, None, None)
        scheduler._schedule_fn = schedule
        return scheduler

    async def _call(self, request: Any, receive: Receive) -> None:  # noqa: ANN401
        """Call the app for a request; Granian logs what it raises, and answers 500 where that can be."""
        try:
            await self._app(request.scope, receive, request.proto.send)
        except BaseException as error:
            if self._cancelling and isinstance(error, asyncio.CancelledError):
                request.done()
            else:
                request.err(error)
        else:
            request.done()


class _Handover:
    """What a task waits for a request by: a future, as far as tasks can tell, that a thread gives its result.

    A future of asyncio's would have its task run a round of the loop later than the thread's word comes.
    That a task may wait for others is of asyncio's own interface (`asyncio.isfuture`).
    """

    __slots__ = ("_asyncio_future_blocking", "_context", "_given", "_loop", "_waiting", "_wake", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop, waiting: deque[_Handover]) -> None:
        self._asyncio_future_blocking = False
        self._loop = loop
        self._waiting = waiting
        self._given: tuple[Any, Receive] | None = None
        self.task: asyncio.Task[None]

    def give(self, request: Any, receive: Receive) -> None:  # noqa: ANN401
        """Let the task have a request: by whoever has taken this from those that wait, in any thread."""
        self._given = request, receive
        self._loop.call_soon_threadsafe(self._wake, self, context=self._context)

    def __await__(self) -> Generator[Any, None, tuple[Any, Receive]]:
        self._asyncio_future_blocking = True
        yield self
        return self.result()

    # Called by the task --------------------------------------------------------------------------------

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(self, wake: Callable[[_Handover], None], *, context: Context) -> None:
        self._wake, self._context = wake, context
        self._waiting.append(self)

    def cancel(self, msg: object = None) -> bool:
        try:
            self._waiting.remove(self)
        except ValueError:  # it is woken anyway
            return False
        self._loop.call_soon(self._wake, self, context=self._context)
        return True

    def result(self) -> tuple[Any, Receive]:
        if self._given is None:
            raise asyncio.CancelledError
        return self._given


class _Receive:
    """A request's `receive`: what was asked for ahead comes first."""

    __slots__ = ("_asked", "_receive")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._asked: Awaitable[Message] | None = None

    def ask(self) -> None:
        self._asked = self._receive()

    def __call__(self) -> Awaitable[Message]:
        asked, self._asked = self._asked, None
        return self._receive() if asked is None else asked
