"""One booted systemd for all tests, with the package installed in it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.booted import Booted, booted, missing
from tests.support.daemon import Model
from tests.support.installed import Service, build, install

Make = Callable[..., Service]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.systemd)


@pytest.fixture(scope="session")
def served_model() -> Iterator[Model]:
    model = Model()
    yield model
    model.stop()


@pytest.fixture
def model(served_model: Model) -> Model:
    served_model.forget()
    return served_model


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    if why := missing():
        pytest.skip(why)
    with booted(build(tmp_path_factory.mktemp("opt") / "claude-coded")) as system:
        install(system)
        yield system


@pytest.fixture
def make(system: Booted, served_model: Model) -> Iterator[Make]:
    """Return a function that installs the service with settings of its own; it is gone after the test."""
    made: list[Service] = []

    def build(**settings: object) -> Service:
        own = {
            "ANTHROPIC_BASE_URL": served_model.url,
            "ANTHROPIC_API_KEY": "sk-ant-test",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODED_LOG_LEVEL": "debug",
            "POOL_SIZE": "2",
        }
        given = {name: str(value) for name, value in settings.items()}
        made.append(Service(Path("/"), own | given, system=system))
        return made[-1]

    yield build
    for service in made:
        service.close()


@pytest.fixture(scope="session")
def boot_wide() -> dict[str, int]:
    return {}


@pytest.fixture
def name(boot_wide: dict[str, int]) -> str:
    """A conversation's name that no other test uses."""
    boot_wide["names"] = boot_wide.get("names", 0) + 1
    return f"c{boot_wide['names']}"
