"""The daemon of the acceptance tests, and a home for the programs."""

from pathlib import Path

import pytest

from tests.acceptance.conftest import daemon, make, model, name, served_model, start
from tests.clients.programs import Home
from tests.support.daemon import Daemon

__all__ = ["daemon", "home", "make", "model", "name", "served_model", "start"]


@pytest.fixture
def home(daemon: Daemon, tmp_path: Path) -> Home:
    """A place to run programs in; they find the daemon where they look for OpenAI."""
    return Home(tmp_path, f"{daemon.base_url}/v1")
