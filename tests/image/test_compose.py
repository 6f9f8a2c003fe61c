"""What a newcomer does with the compose file, and what comes of it, with real Claude Code processes."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.support.composed import IMAGE, Composed
from tests.support.daemon import CHAT, Model, chat, eventually
from tests.support.engine import Engine
from tests.support.terminal import TMUX, Terminal

HOST_USER = (4321, 8765)
"""Somebody whom the image does not know."""

KEY = "sk-ant-of-the-tests"
WORDS = [f"w{index}" for index in range(40)]
SLOW = "[[delay 100]] [[words 40]]"
LONG = "[[delay 1000]] [[words 40]]"
SETTLE = f"""
import json, pathlib
file = pathlib.Path.home() / ".claude.json"
known = json.loads(file.read_text()) if file.exists() else {{}}
known["hasCompletedOnboarding"] = True
known["projects"] = {{"/workspace": {{"hasTrustDialogAccepted": True}}}}
known["customApiKeyResponses"] = {{"approved": ["{KEY[-20:]}"]}}
file.write_text(json.dumps(known))
"""
"""Answers ahead what the CLI asks at the first start of its terminal."""


def bash(command: str) -> str:
    """Return a question to which Claude runs a command, and says what comes of it."""
    return f"[[tool Bash {json.dumps({'command': command})}]] [[result]]"


@pytest.fixture(scope="module")
def workspace(ground: Path) -> Path:
    """A directory of that user's."""
    place = ground / "workspace"
    place.mkdir()
    os.chown(place, *HOST_USER)
    return place


@pytest.fixture(scope="module")
def service(engine: Engine, checkout: Path, model: Model, workspace: Path) -> Iterator[Composed]:
    """`cp .env.example .env`, a key, `docker compose up -d`; the workspace is the user's own."""
    settings = {
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": model.url.replace("0.0.0.0", "host.docker.internal"),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "WORKSPACE": str(workspace),
        "CLAUDE_UID": str(HOST_USER[0]),
        "CLAUDE_GID": str(HOST_USER[1]),
        "POOL_SIZE": "3",
    }
    with engine.network():
        service = Composed(checkout, settings, engine=engine)
        service.start()
        yield service
        service.close()


def test_it_is_healthy_and_answers_whoever_is_on_this_machine(service: Composed, name: str) -> None:
    assert service.health()["status"] == "ok"
    assert service.engine.inspect(service.container)["State"]["Health"]["Status"] == "healthy"
    assert "Authorization" not in service.headers
    assert service.ask("[[say hi]]", name).text == "hi"
    assert service.engine.docker("port", service.container) == "3000/tcp -> 127.0.0.1:3000"


def test_other_services_reach_it_by_its_name_and_web_pages_do_not(service: Composed) -> None:
    asked = "import urllib.request as r; print(r.urlopen('http://claude-coded:3000/health').status)"
    command = ["run", "--rm", "--network", "claude-coded_default", "--entrypoint", "python3", IMAGE]
    assert service.engine.docker(*command, "-c", asked) == "200"
    for header in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        assert service.request("POST", CHAT, json=chat("[[say hi]]"), headers=header).code == "forbidden"


def test_what_claude_writes_is_the_host_users(service: Composed, workspace: Path, name: str) -> None:
    wanted = "git init -q project && cd project && echo x >file && git add file"
    wanted += " && git -c user.name=c -c user.email=c@x commit -qm x && git log --oneline | wc -l; id -u; pwd"
    assert service.ask(bash(wanted), name).text == f"1\n{HOST_USER[0]}\n/workspace/project"
    owners = {(it.stat().st_uid, it.stat().st_gid) for it in (workspace / "project").rglob("*")}
    assert owners == {HOST_USER}


def test_the_operators_client_works_inside_with_no_flags(service: Composed, name: str) -> None:
    service.ask("[[say hi]]", name)
    assert service.within("claude-codectl", "ready") == "ready"
    assert name in service.within("claude-codectl", "workers")
    told = json.loads(service.within("claude-codectl", "--json", "status"))
    assert told["socket"] == "/run/claude-coded/control.sock"
    assert "needs a terminal" in service.within("claude-codectl", "attach", name, check=False)


def test_a_wall_is_around_it(service: Composed, name: str) -> None:
    told = service.within("sh", "-c", "cat /proc/1/status; touch /etc/x /usr/x; cat /proc/1/comm")
    lines = told.splitlines()
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"):
        assert line in lines
    assert "tini" in lines
    assert told.count("Read-only file system") == 2
    written = "touch /tmp/x ~/x && cp /bin/true /tmp/t && /tmp/t && rm /tmp/t && echo could; touch /x"
    told = service.ask(bash(written), name).text
    assert "could" in told
    assert "Read-only file system" in told


def test_what_claude_leaves_behind_is_reaped(service: Composed, name: str) -> None:
    service.ask(bash("for i in 1 2 3; do setsid sh -c 'sleep 0.2 & exec true' & done; wait; echo done"), name)
    eventually(lambda: all(state != "Z" and "sleep" not in command for state, command in service.running()))


def test_a_stop_lets_a_turn_end_and_all_goes_on_after_down_and_up(service: Composed, name: str) -> None:
    service.ask("one [[say 1]]", name)
    with ThreadPoolExecutor() as threads, service.stream(SLOW, name) as stream:
        stream.until("w3 ")
        stopped = threads.submit(service.stop)
        stream.rest()
        assert stream.text.split() == WORDS
        assert stopped.result() == 0
    service.compose("down")
    service.start()
    assert service.ask("three [[recall]]", name).said == ["one [[say 1]]", SLOW, "three [[recall]]"]


def test_a_turn_longer_than_the_drain_is_interrupted_and_the_conversation_goes_on(
    service: Composed, name: str
) -> None:
    service.configure(CLAUDE_CODED_DRAIN_TIMEOUT_MS="300")
    service.start()
    service.ask("one [[say 1]]", name)
    with ThreadPoolExecutor() as threads, service.stream(LONG, name) as stream:
        stream.until("w0 ")
        stopped = threads.submit(service.stop)
        assert "error" in stream.rest()[-1]
        assert stopped.result() == 0
    service.start()
    assert service.ask("three [[recall]]", name).said == ["one [[say 1]]", LONG, "three [[recall]]"]


def test_check_knows_that_it_is_in_a_container(service: Composed) -> None:
    told = [line.split("  ") for line in service.within("claude-coded", "check").splitlines()]
    assert [line[0] for line in told].count("ok") == len(told) - 1
    (warning,) = [line for line in told if line[0] == "warning"]
    assert "in this container -> publish it for 127.0.0.1 alone, or set CLAUDE_CODED_API_KEYS" in warning[-1]
    alone = service.engine.run("docker", "run", "--rm", IMAGE, "check", check=False).stdout.splitlines()
    failed = [line.split()[1] for line in alone if line.startswith("failed")]
    assert failed == ["key", "api"]


def test_a_key_may_come_as_a_secret(service: Composed, checkout: Path, model: Model, name: str) -> None:
    file = checkout / "anthropic-api-key"
    file.write_text("sk-ant-refused\n")
    file.chmod(0o600)
    os.chown(file, *HOST_USER)
    settings = {**service.settings, "ANTHROPIC_API_KEY": "", "PORT": "3002"}
    files = ("compose.yaml", "compose.secret.yaml")
    secret = Composed(checkout, settings, port=3002, engine=service.engine, files=files).start()
    try:
        assert secret.ask("[[say hi]]", name).code == "upstream_authentication"
        file.write_text("sk-ant-stored\n")
        secret.compose("restart")
        eventually(lambda: secret.within("claude-codectl", "ready", check=False) == "ready", 20)
        assert secret.ask(bash("echo $ANTHROPIC_API_KEY"), name).text == "sk-ant-stored"
        assert "sk-ant-stored" not in json.dumps(secret.engine.inspect(secret.container))
    finally:
        secret.http.close()
        service.configure()
        service.start()


def test_without_a_key_it_can_be_tried_offline(service: Composed) -> None:
    command = ["--detach", "--rm", "--publish", "127.0.0.1:3001:3000", IMAGE, "serve", "--offline"]
    container = service.compose("run", *command).splitlines()[-1]
    try:
        assert service.engine.docker("exec", container, "claude-codectl", "ready", "--wait", "20") == "ready"
        with httpx.Client(timeout=30, trust_env=False) as http:
            asked = chat(bash("touch ~/x /tmp/x && echo could; cat /proc/1/comm"))
            answer = http.post(f"http://127.0.0.1:3001{CHAT}", json=asked).raise_for_status().json()
        assert answer["choices"][0]["message"]["content"] == "could\ntini"
    finally:
        service.engine.docker("stop", container)


@pytest.mark.skipif(TMUX is None, reason="tmux is not on this machine")
def test_a_person_goes_on_at_claudes_own_terminal(service: Composed, tmp_path: Path, name: str) -> None:
    service.within("python3", "-c", SETTLE)
    service.ask("one [[say the first answer]]", name)
    command = ["docker", "exec", "-it", "-e", "TERM=xterm-256color", service.container]
    screen = Terminal(tmp_path, service.engine.enter(*command, "claude-codectl", "attach", name), {})
    try:
        screen.shows("the first answer")
        screen.type("two [[say typed and answered]]")
        screen.shows("two [[say typed and answered]]")
        screen.press("Enter")
        screen.shows("● typed and answered")
        screen.type("/exit")
        screen.shows("/exit")
        screen.press("Enter")
        assert f"{name}: it is the API's again" in screen.shows("ended 0")
    finally:
        screen.close()
    said = service.ask("three [[recall]]", name).said
    assert said == ["one [[say the first answer]]", "two [[say typed and answered]]", "three [[recall]]"]
