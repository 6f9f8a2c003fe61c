"""A real Chromium on the status page of a real daemon; skipped where there is no Chromium."""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.daemon import Answer, Daemon, Model

HERE = Path(__file__).parent
PROGRAM = Path(sys.executable).with_name("claude-codectl")
PATIENCE = 20_000.0
"""Milliseconds that the page may take to show something, on a machine with much else to do."""

Open = Callable[..., AbstractContextManager[Page]]
Later = Callable[..., Future[Answer]]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        # As root it needs --no-sandbox; what it loads here is ours.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def model() -> Iterator[Model]:
    model = Model()
    yield model
    model.stop()


@pytest.fixture(scope="module")
def daemon(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    settings = {"ANTHROPIC_BASE_URL": model.url, "POOL_SIZE": "3", "CLAUDE_CODED_HEADER_HOLD_MS": "100"}
    daemon = Daemon(tmp_path_factory.mktemp("shown"), settings)
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture
def later() -> Iterator[Later]:
    """Return a function that lets a request run meanwhile."""
    with ThreadPoolExecutor(8) as threads:
        yield threads.submit


@contextlib.contextmanager
def forwarding(daemon: Daemon) -> Iterator[str]:
    """Run `claude-codectl web` while the context lasts; yield the address."""
    command = [str(PROGRAM), "--socket", str(daemon.socket), "--json", "web", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads("".join(process.stdout.readline() for _ in range(3)))["address"]
        finally:
            process.terminate()


@pytest.fixture
def open_page(chromium: Browser, daemon: Daemon) -> Open:
    """Return a function that opens the page in a browser of its own.

    Whatever the browser complains of fails the test, but for what has the `expected` text.
    """

    @contextlib.contextmanager
    def opened(expected: str | None = None, **options: Any) -> Iterator[Page]:
        with forwarding(daemon) as address, contextlib.closing(chromium.new_context(**options)) as context:
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            wrong: list[str] = []
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
            page.goto(address)
            page.wait_for_url("**/*/")
            yield page
            assert [it for it in wrong if expected is None or expected not in it] == []

    return opened
