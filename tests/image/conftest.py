"""One image, and an engine that runs it, for all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.composed import check_out, compose
from tests.support.daemon import Model
from tests.support.engine import Engine, UnavailableError, missing, serving
from tests.support.namespaces import Bind


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.image)


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that the engine sees in the same place."""
    return tmp_path_factory.mktemp("image")


@pytest.fixture(scope="session")
def checkout(ground: Path) -> Path:
    """Where the compose file of a checkout is, whose image was built."""
    if why := missing():
        pytest.skip(why)
    place = check_out(ground / "project")
    try:
        with serving([Bind(ground, ground)], isolated=False) as engine:
            compose(engine, place, "build", "--quiet")
    except UnavailableError as error:
        pytest.skip(f"Debian's packages cannot be had: {error}")
    return place


@pytest.fixture(scope="session")
def engine(ground: Path, checkout: Path) -> Iterator[Engine]:
    with serving([Bind(ground, ground)], isolated=True) as engine:
        yield engine


@pytest.fixture(scope="session")
def model(engine: Engine) -> Iterator[Model]:
    """The scripted model, where the engine's containers reach it as host.docker.internal."""
    with engine.network():
        model = Model("0.0.0.0")
    yield model
    model.stop()


@pytest.fixture(autouse=True)
def network(engine: Engine) -> Iterator[None]:
    """Be in the engine's network: what it publishes for this machine is for the tests."""
    with engine.network():
        yield


@pytest.fixture(scope="session")
def names() -> dict[str, int]:
    return {}


@pytest.fixture
def name(names: dict[str, int]) -> str:
    """A conversation's name that no other test uses."""
    names["used"] = names.get("used", 0) + 1
    return f"c{names['used']}"
