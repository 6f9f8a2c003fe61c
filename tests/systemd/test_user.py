"""The user unit, under a real `systemd --user`, in a developer's home."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import psutil
import pytest

from tests.support.booted import Booted
from tests.support.daemon import Model, chat, eventually
from tests.support.installed import PREFIX, UNIT, free_port
from tests.systemd.test_service import bash

UID = 4321
RUNTIME = f"/run/user/{UID}"
MANAGER = "developer.service"
HOME = "/home/dev"


@dataclass
class Developer:
    """A user with a manager of their own."""

    system: Booted
    port: int

    def run(self, *command: str) -> str:
        become = ["setpriv", "--reuid", "dev", "--regid", "dev", "--init-groups", "--reset-env"]
        given = ["env", f"XDG_RUNTIME_DIR={RUNTIME}"]
        return self.system.run(*become, *given, *command).stdout.strip()

    def systemctl(self, *arguments: str) -> str:
        return self.run("systemctl", "--user", *arguments)

    def told(self, name: str) -> str:
        return self.systemctl("show", "--value", f"--property={name}", UNIT)

    def ask(self, text: str) -> str:
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        answer = httpx.post(url, json=chat(text), headers={"X-Conversation-ID": "mine"}, timeout=60)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])


@pytest.fixture(scope="module")
def developer(system: Booted, served_model: Model) -> Iterator[Developer]:
    port = free_port()
    system.run("useradd", "--create-home", "--home-dir", HOME, "--uid", str(UID), "dev")
    system.run("install", "-d", "-m", "700", "-o", "dev", "-g", "dev", RUNTIME)
    developer = Developer(system, port)
    developer.run("mkdir", "-p", f"{HOME}/.local/bin", f"{HOME}/.config/claude-coded", f"{HOME}/project")
    developer.run("ln", "-s", f"{PREFIX}/bin/claude-coded", f"{HOME}/.local/bin/claude-coded")
    settings = {
        "PORT": port,
        "WORKSPACE_DIR": f"{HOME}/project",
        "ANTHROPIC_BASE_URL": served_model.url,
        "ANTHROPIC_API_KEY": "sk-ant-test",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "POOL_SIZE": 2,
    }
    lines = "".join(f"{name}={value}\n" for name, value in settings.items())
    system.path(f"{HOME}/.config/claude-coded/environment").write_text(lines)
    properties = {
        "Type": "notify",
        "User": "dev",
        "Delegate": "yes",
        "Environment": f"XDG_RUNTIME_DIR={RUNTIME}",
    }
    given = [f"--property={name}={value}" for name, value in properties.items()]
    system.run("systemd-run", f"--unit={MANAGER}", *given, "/lib/systemd/systemd", "--user")
    yield developer
    system.systemctl("stop", MANAGER)


def test_claude_works_in_the_developers_repository(developer: Developer, system: Booted) -> None:
    developer.systemctl("start", UNIT)
    assert developer.told("ActiveState") == "active"
    eventually(lambda: developer.told("StatusText") == "1 of 2 workers: 1 spare; 0 queued")
    developer.run("git", "init", "-q", f"{HOME}/project")
    developer.run("git", "config", "--global", "user.name", "Dev")
    developer.run("git", "config", "--global", "user.email", "dev@example.org")
    wanted = "echo x > file && git add file && git commit -q -m made && git log --format=%an:%s && umask"
    assert developer.ask(bash(wanted)).split() == ["Dev:made", "0022"]
    assert "Operation not permitted" in developer.ask(bash("su -c id 2>&1; chmod u+s file 2>&1"))
    groups = system.path(f"/sys/fs/cgroup/system.slice/{MANAGER}/app.slice/{UNIT}")
    assert {"daemon", "worker-1"} <= {path.name for path in groups.iterdir() if path.is_dir()}
    # The control socket is the developer's alone, and the client finds it.
    assert developer.run("stat", "-c", "%a %U", f"{RUNTIME}/claude-coded") == "700 dev"
    status = developer.run(f"{PREFIX}/bin/claude-codectl", "--json", "status")
    main = json.loads(status)["pid"]
    assert str(main) == developer.told("MainPID")
    process = psutil.Process(system.outer_pid(main))
    developer.systemctl("reload", UNIT)
    eventually(lambda: developer.told("SubState") == "running")
    left = [process, *process.children(recursive=True)]
    developer.systemctl("stop", UNIT)
    assert developer.told("Result") == "success"
    assert not any(it.is_running() for it in left)
    assert not groups.exists()
    developer.systemctl("start", UNIT)
    assert "made" in developer.ask("next [[recall]]")


def test_systemd_finds_nothing_wrong_with_the_unit(developer: Developer) -> None:
    """An unknown key is only said on stderr."""
    verify = f"systemd-analyze --user --man=no verify /etc/systemd/user/{UNIT} 2>&1"
    assert developer.run("sh", "-c", verify) == ""
