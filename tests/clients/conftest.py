"""The daemon of the acceptance tests, and a home for the programs."""

from pathlib import Path

import pytest

from tests.acceptance.conftest import daemon, model, name, served_model
from tests.clients.programs import Home
from tests.support.daemon import Daemon

__all__ = ["daemon", "home", "model", "name", "served_model"]


@pytest.fixture
def home(daemon: Daemon, tmp_path: Path) -> Home:
    """A place to run programs in; they find the daemon where they look for OpenAI."""
    return Home(tmp_path, f"{daemon.base_url}/v1")
