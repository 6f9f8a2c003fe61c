"""The scripted model, and daemons in front of it."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, Model

Start = Callable[..., Daemon]

_NAMES = count(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to the long tier the inner cells of matrices: of ways to ask, of what happens between turns.

    By default every value of a dimension is tried once, with the first values of the others.
    """
    for item in items:
        if isinstance(item, pytest.Function) and sum(index > 0 for index in _cell(item)) > 1:
            item.add_marker(pytest.mark.soak)


def _cell(item: pytest.Function) -> list[int]:
    """Return a test's place in each dimension of such a matrix; what one mark gives together is one."""
    places: dict[str, int] = dict(item.callspec.indices) if hasattr(item, "callspec") else {}
    if not places.keys() & {"client", "between"}:
        return []
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0]
        for name in names[1:]:
            places.pop(name.strip(), None)
    return list(places.values())


@pytest.fixture(scope="session")
def served_model() -> Iterator[Model]:
    model = Model()
    yield model
    model.stop()


@pytest.fixture
def model(served_model: Model) -> Model:
    """The scripted model; what reached it before the test is forgotten."""
    served_model.forget()
    return served_model


@pytest.fixture(scope="session")
def daemon(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon with the default settings for all tests that leave it as it was."""
    directory = tmp_path_factory.mktemp("shared")
    daemon = Daemon(directory, {"ANTHROPIC_BASE_URL": served_model.url, "CLAUDE_CODED_LOG_LEVEL": "debug"})
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture(scope="module")
def pool(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon of a module's own: it may be restarted."""
    settings = {"ANTHROPIC_BASE_URL": served_model.url, "CLAUDE_CODED_LOG_LEVEL": "debug"}
    daemon = Daemon(tmp_path_factory.mktemp("pool"), settings)
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture
def make(served_model: Model, tmp_path: Path) -> Iterator[Start]:
    """Return a function that makes a daemon of given settings, not yet started; it's closed in the end."""
    made: list[Daemon] = []

    def build(*arguments: str, key: str | None = None, **settings: object) -> Daemon:
        given = {name: str(value) for name, value in settings.items()}
        directory = tmp_path / f"daemon{next(_NAMES)}"
        daemon = Daemon(directory, {"ANTHROPIC_BASE_URL": served_model.url, **given}, arguments, key)
        made.append(daemon)
        return daemon

    yield build
    for daemon in made:
        daemon.close()


@pytest.fixture
def start(make: Start) -> Start:
    """Return a function that starts a daemon of given settings; it's stopped after the test."""
    return lambda *arguments, **settings: make(*arguments, **settings).start()


@pytest.fixture
def name() -> str:
    """A conversation's name that no other test uses."""
    return f"c{next(_NAMES)}"
