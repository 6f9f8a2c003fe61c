"""Prometheus itself, where it is installed: its check of a page, and a server that scrapes a daemon."""

import contextlib
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.daemon import eventually

INTERVAL = "250ms"

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed"
)


def lint(page: str) -> str:
    """Return what promtool finds wrong with a page; it also ends with a status other than 0 then."""
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False
    )
    said = checked.stdout + checked.stderr
    assert bool(said) == bool(checked.returncode), said
    return said


@dataclass(frozen=True)
class Prometheus:
    """A server that runs."""

    http: httpx.Client

    def query(self, expression: str) -> list[Any]:
        """Return the series of an instant query."""
        body = self.http.get("/api/v1/query", params={"query": expression}).json()
        assert body["status"] == "success", (expression, body)
        series: list[Any] = body["data"]["result"]
        return series


@contextlib.contextmanager
def scraping(directory: Path, target: str) -> Iterator[Prometheus]:
    """Run a server that scrapes a target (host:port); yield it when it has done so."""
    job: dict[str, Any] = {"job_name": "claude-coded", "static_configs": [{"targets": [target]}]}
    scraped = {"global": {"scrape_interval": INTERVAL}, "scrape_configs": [job]}
    file = directory / "prometheus.yml"
    file.write_text(json.dumps(scraped))  # YAML holds JSON
    address = f"127.0.0.1:{_free_port()}"
    command = ["prometheus", f"--config.file={file}", f"--web.listen-address={address}"]
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--storage.tsdb.path={directory / 'tsdb'}"], stdout=log, stderr=subprocess.STDOUT
        )
    server = Prometheus(httpx.Client(base_url=f"http://{address}", trust_env=False))

    def scraped_once() -> bool:
        assert process.poll() is None, (directory / "prometheus.log").read_text()
        with contextlib.suppress(httpx.TransportError, json.JSONDecodeError, KeyError):
            return any(it["value"][1] == "1" for it in server.query("up"))
        return False

    try:
        eventually(scraped_once, every=0.1)
        yield server
    finally:
        server.http.close()
        process.terminate()
        process.wait(10)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
