"""A workspace for each tenant: two of them, each in its own, and no way from one to the other by the API."""

from collections.abc import Iterator

import pytest

from tests.acceptance.test_sandbox import needs_bubblewrap, tool
from tests.support.daemon import Daemon, Model

PLACE = "X-Claude-Workspace"
KEYS = {"alice": "sk-alice", "bob": "sk-bob"}
PWD = '[[tool Bash {"command": "pwd"}]] [[result]]'


@pytest.fixture(scope="module")
def alice(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    settings = {
        "ANTHROPIC_BASE_URL": served_model.url,
        "CLAUDE_CODED_API_KEYS": ",".join(f"{name}:{key}" for name, key in KEYS.items()),
        "CLAUDE_CODED_WORKSPACES": "tenant",
    }
    daemon = Daemon(tmp_path_factory.mktemp("apart"), settings, key=KEYS["alice"])
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture
def bob() -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS['bob']}"}


def test_each_tenant_works_in_a_directory_of_its_own(alice: Daemon, bob: dict[str, str], name: str) -> None:
    assert alice.ask(PWD, name).text == str(alice.workspace / "alice")
    assert alice.ask(PWD, name, headers=bob).text == str(alice.workspace / "bob")
    assert alice.shown(name)["workspace"] == str(alice.workspace / "alice")
    alice.delete(f"/conversations/{name}?purge=true")
    assert (alice.workspace / "alice").is_dir()  # the files are the tenant's
    assert alice.ask(PWD, name).ok


def test_a_choice_is_below_the_tenants_own(alice: Daemon, bob: dict[str, str], name: str) -> None:
    alice.ask("[[say hi]]", name, headers=bob)
    (alice.workspace / "alice" / name).mkdir(parents=True)
    (alice.workspace / "alice" / f"{name}-out").symlink_to(alice.workspace / "bob")
    chosen = alice.ask(PWD, headers={PLACE: name})
    assert chosen.text == str(alice.workspace / "alice" / name)
    for place in ("bob", "../bob", f"{name}-out"):
        refused = alice.ask(PWD, headers={PLACE: place})
        assert refused.code == ("forbidden" if place != "bob" else None)
        assert not refused.ok


def test_a_directory_that_has_become_a_link_is_not_worked_in(
    alice: Daemon, bob: dict[str, str], name: str
) -> None:
    alice.ask("[[say hi]]", headers=bob)
    place = alice.workspace / "alice" / name
    place.mkdir(parents=True)
    assert alice.ask("[[say hi]]", name, headers={PLACE: name}).ok
    alice.delete(f"/conversations/{name}")
    place.rmdir()
    place.symlink_to(alice.workspace / "bob")
    assert alice.ask(PWD, name).code == "workspace_gone"
    assert alice.ask(PWD, name, headers={PLACE: name}).code == "forbidden"


@needs_bubblewrap
def test_in_the_sandbox_a_tenants_commands_do_not_see_another_tenants_files(
    served_model: Model, tmp_path_factory: pytest.TempPathFactory, bob: dict[str, str], name: str
) -> None:
    settings = {
        "ANTHROPIC_BASE_URL": served_model.url,
        "CLAUDE_CODED_API_KEYS": ",".join(f"{name}:{key}" for name, key in KEYS.items()),
        "CLAUDE_CODED_WORKSPACES": "tenant",
        "CLAUDE_CODED_SANDBOX": "1",
        "CLAUDE_CODED_PERMISSION_MODE": "acceptEdits",
    }
    daemon = Daemon(tmp_path_factory.mktemp("walled"), settings, key=KEYS["alice"])
    try:
        daemon.start()
        secret = daemon.workspace / "alice" / "secret"
        daemon.ask(tool("Write", file_path=str(secret), content="of alice"), name)
        assert secret.read_text() == "of alice"
        own = daemon.ask(tool("Bash", command=f"sh -c 'cat {secret}'"), name)
        assert own.text == "of alice"
        for tried in (tool("Bash", command=f"sh -c 'cat {secret}'"), tool("Read", file_path=str(secret))):
            assert "of alice" not in daemon.ask(tried, name, headers=bob).text
        assert str(daemon.workspace / "bob") in daemon.ask(PWD, name, headers=bob).text
    finally:
        daemon.close()
