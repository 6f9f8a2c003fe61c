"""A server on a real Unix socket that answers as it is told, for the control client's tests."""

import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Json = Any


@dataclass(frozen=True)
class Asked:
    """A request that came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Json


@dataclass
class Control:
    """Answers by method and path: a status and a body, which is bytes, or anything else as JSON."""

    path: Path
    answers: dict[tuple[str, str], tuple[int, Json]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def on(self, method: str, path: str, body: Json, status: int = 200) -> None:
        self.answers[method, path] = status, body


def fault(kind: str, message: str, tenants: tuple[str, ...] = ()) -> Json:
    return {"error": {"kind": kind, "message": message, "tenants": list(tenants)}}


@contextlib.contextmanager
def serving(path: Path) -> Iterator[Control]:
    """Serve on a socket at `path` while the context lasts."""
    control = Control(path)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            target = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = dict(parse_qsl(target.query))
            asked = Asked(
                self.command, target.path, query, dict(self.headers), json.loads(body) if body else None
            )
            control.asked.append(asked)
            missing = 404, fault("not_found", f"nothing at {target.path}")
            status, answer = control.answers.get((self.command, target.path), missing)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: Any) -> None: ...

    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield control
        finally:
            server.shutdown()
            thread.join()
