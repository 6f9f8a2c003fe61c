"""Who may call: keys and tenants, Host and Origin; and what is refused at the start."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.acceptance.conftest import Start
from tests.support.daemon import CHAT, Daemon, Model, chat, command_line, eventually

SECRETS = ("sk-alice-7f3a", "sk-bob-91cc", "sk-ant-test")


@pytest.fixture(scope="module")
def alice(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with two tenants, as the first of them sees it."""
    settings = {
        "ANTHROPIC_BASE_URL": served_model.url,
        "POOL_SIZE": "3",
        "CLAUDE_CODED_API_KEYS": f"alice:{SECRETS[0]},bob:{SECRETS[1]}",
        "CLAUDE_CODED_ALLOWED_HOSTS": "coded.example",
        "CLAUDE_CODED_ALLOWED_ORIGINS": "https://app.example",
        "CLAUDE_CODED_LOG_LEVEL": "debug",
    }
    daemon = Daemon(tmp_path_factory.mktemp("tenants"), settings, key=SECRETS[0])
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture
def bob() -> dict[str, str]:
    return {"Authorization": f"Bearer {SECRETS[1]}"}


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", f"Basic {SECRETS[0]}", SECRETS[0]])
@pytest.mark.parametrize("path", ["/v1/models", "/conversations", "/v1/nothing"])
def test_without_a_valid_key_nothing_is_told(alice: Daemon, path: str, given: str) -> None:
    answer = alice.request("GET", path, headers={"Authorization": given})
    assert (answer.status, answer.code) == (401, "invalid_api_key")


def test_a_chat_without_a_key_is_refused_before_its_body_is_looked_at(alice: Daemon) -> None:
    headers = {"Authorization": "Bearer wrong", "Content-Type": "application/json"}
    answer = alice.request("POST", "/v1/chat/completions", content="{", headers=headers)
    assert (answer.status, answer.code) == (401, "invalid_api_key")


def test_without_a_key_nothing_of_a_body_is_kept(alice: Daemon) -> None:
    def most() -> int:
        """Return the most memory that the daemon has had, in bytes."""
        (line,) = [it for it in Path(f"/proc/{alice.pid}/status").read_text().splitlines() if "VmHWM" in it]
        return int(line.split()[1]) * 1024

    before = most()
    refused = httpx.post(
        f"{alice.base_url}{CHAT}",
        content=b" " * 30_000_000,
        headers={"Content-Type": "application/json"},
        trust_env=False,
    )
    assert refused.status_code == 401
    assert most() < before + 12_000_000


def test_health_is_open_but_tells_no_details(alice: Daemon) -> None:
    assert alice.request("GET", "/health", headers={"Authorization": ""}).body == {"status": "ok"}
    assert "pool" in alice.health()


def test_tenants_cannot_see_or_touch_each_others_conversations(
    alice: Daemon, bob: dict[str, str], name: str
) -> None:
    assert alice.ask("alice says [[recall]]", name).said == ["alice says [[recall]]"]
    assert alice.request("GET", f"/conversations/{name}", headers=bob).status == 404
    assert alice.request("DELETE", f"/conversations/{name}?purge=true", headers=bob).status == 404
    assert alice.request("GET", "/conversations?all=true", headers=bob).body["data"] == []
    # The same name is another conversation.
    assert alice.ask("bob says [[recall]]", name, headers=bob).said == ["bob says [[recall]]"]
    assert alice.ask("more [[recall]]", name).said == ["alice says [[recall]]", "more [[recall]]"]
    assert [item["id"] for item in alice.request("GET", "/conversations", headers=bob).body["data"]] == [name]
    assert alice.request("DELETE", f"/conversations/{name}?purge=true", headers=bob).ok
    assert alice.shown(name)["turns"] == 2


def test_keys_show_up_nowhere(alice: Daemon, bob: dict[str, str], name: str) -> None:
    answers = [
        alice.ask("[[say hi]]", name),
        alice.ask("[[error 401]]", name),
        alice.request("GET", "/v1/models", headers={"Authorization": f"Bearer x{SECRETS[0]}"}),
        alice.get("/health"),
        alice.get("/conversations?all=true"),
        alice.get(f"/conversations/{name}"),
    ]
    told = [str(answer.body) + str(answer.headers) for answer in answers]
    processes = [psutil.Process(alice.pid), *alice.processes()]
    assert len(processes) > 1
    told += [command_line(process) for process in processes]
    told.append(alice.log)
    assert alice.log.count("\n") > 1
    for secret in SECRETS:
        assert not any(secret in text for text in told)


def test_keys_given_as_flags_leave_the_process_list(make: Start) -> None:
    daemon = make("--api-keys", f"alice:{SECRETS[0]}", "--anthropic-api-key", "sk-ant-flag", key=SECRETS[0])
    daemon.start()
    assert daemon.ask("[[say hi]]").text == "hi"
    shown = [command_line(process) for process in daemon.processes()]
    assert any(shown)
    assert not any(secret in str(shown) for secret in (SECRETS[0], "sk-ant-flag"))
    assert {worker.environ()["ANTHROPIC_API_KEY"] for worker in eventually(daemon.workers)} == {"sk-ant-flag"}


def test_a_worker_never_gets_the_clients_keys(alice: Daemon) -> None:
    alice.ask("[[say hi]]")
    workers = eventually(alice.workers)
    for worker in workers:
        environment = worker.environ()
        assert not any(name.startswith("CLAUDE_CODED_") for name in environment)
        assert not any(secret in str(environment) for secret in SECRETS[:2])
        assert environment["ANTHROPIC_API_KEY"] == "sk-ant-test"


def test_errors_of_settings_never_quote_a_key(make: Start) -> None:
    daemon = make(CLAUDE_CODED_API_KEYS=SECRETS[0])
    assert daemon.spawn().wait(20) == 1
    assert "CLAUDE_CODED_API_KEYS" in daemon.log
    assert SECRETS[0] not in daemon.log


# Host and Origin ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:3000"])
def test_a_foreign_host_is_refused(daemon: Daemon, host: str) -> None:
    answer = daemon.request("GET", "/health", headers={"Host": host})
    assert (answer.status, answer.code) == (403, "forbidden")


@pytest.mark.parametrize("host", ["localhost", "localhost:3000", "127.0.0.1", "[::1]:3000", "192.0.2.7:80"])
def test_our_own_names_are_let_in(daemon: Daemon, host: str) -> None:
    assert daemon.request("GET", "/health", headers={"Host": host}).ok


def test_an_allowed_host_is_let_in(alice: Daemon) -> None:
    assert alice.request("GET", "/health", headers={"Host": "coded.example:3000"}).ok
    assert alice.request("GET", "/health", headers={"Host": "other.example"}).status == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000"])
def test_a_web_page_of_somebody_else_is_refused(daemon: Daemon, model: Model, origin: str) -> None:
    answer = daemon.ask("[[say hi]]", headers={"Origin": origin})
    assert (answer.status, answer.code) == (403, "forbidden")
    assert not model.requests()


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_a_page_sends_without_an_origin_is_refused(daemon: Daemon, model: Model, site: str) -> None:
    image = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    for path in ("/health", "/conversations?all=true", "/v1/models"):
        answer = daemon.request("GET", path, headers=image)
        assert (answer.status, answer.code) == (403, "forbidden")
    assert daemon.request("GET", "/health", headers={"Sec-Fetch-Site": "none"}).ok  # typed by a person
    assert not model.requests()


@pytest.mark.parametrize("kind", ["text/plain", "text/plain;json", "application/x-www-form-urlencoded"])
def test_what_a_page_may_send_with_no_leave_is_no_request(daemon: Daemon, model: Model, kind: str) -> None:
    for path in ("/v1/chat/completions", "/v1/responses"):
        answer = daemon.request("POST", path, content=json.dumps(chat("hi")), headers={"Content-Type": kind})
        assert (answer.status, answer.code) == (415, "unsupported_media_type")
    assert not model.requests()


def test_an_allowed_origin_is_let_in(alice: Daemon) -> None:
    origin = {"Origin": "https://app.example"}
    answer = alice.request("GET", "/v1/models", headers=origin)
    assert answer.ok
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
    asked = {**origin, "Authorization": "", "Access-Control-Request-Method": "POST"}
    preflight = alice.http.options(f"{alice.base_url}/v1/chat/completions", headers=asked)
    assert preflight.status_code == 204
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]


# Refused at the start ----------------------------------------------------------------------------------


def test_it_does_not_listen_beyond_loopback_without_keys(make: Start) -> None:
    daemon = make(HOST="0.0.0.0")
    assert daemon.spawn().wait(20) == 1
    assert "CLAUDE_CODED_API_KEYS" in daemon.log
    assert "Traceback" not in daemon.log
    assert not daemon.state.exists()
    assert not list(daemon.home.iterdir())


def test_it_listens_beyond_loopback_with_keys(start: Start) -> None:
    daemon = start(HOST="0.0.0.0", CLAUDE_CODED_API_KEYS="me:sk-me", CLAUDE_CODED_SPARE_WORKERS=0)
    assert daemon.request("GET", "/v1/models", headers={"Authorization": "Bearer sk-me"}).ok


def test_it_listens_beyond_loopback_when_told_that_no_keys_are_meant(start: Start) -> None:
    daemon = start(HOST="0.0.0.0", CLAUDE_CODED_ALLOW_NO_KEYS=1, CLAUDE_CODED_SPARE_WORKERS=0)
    assert daemon.get("/v1/models").ok


@pytest.mark.skipif(os.geteuid() != 0, reason="the CLI minds only root")
def test_as_root_it_says_at_once_what_the_cli_would_refuse(make: Start) -> None:
    daemon = make(IS_SANDBOX="")
    assert daemon.spawn().wait(20) == 1
    assert "IS_SANDBOX=1" in daemon.log
    assert not daemon.state.exists()


def test_a_workspace_that_is_not_there_is_said_at_the_start(make: Start) -> None:
    daemon = make(WORKSPACE_DIR="/nowhere/at/all")
    assert daemon.spawn().wait(20) == 1
    assert "/nowhere/at/all" in daemon.log
    assert not daemon.state.exists()


def test_a_port_that_is_taken_is_said_at_the_start(make: Start, daemon: Daemon) -> None:
    second = make(PORT=daemon.port)
    assert second.spawn().wait(20) == 1
    assert str(daemon.port) in second.log
    assert "Traceback" not in second.log
    assert daemon.get("/health").ok


def test_a_state_directory_in_use_is_said_at_the_start(make: Start, daemon: Daemon) -> None:
    second = make(CLAUDE_CODED_STATE_DIR=daemon.state)
    assert second.spawn().wait(20) == 1
    assert str(daemon.state) in second.log
    assert "Traceback" not in second.log
    assert daemon.get("/health").ok


@pytest.mark.parametrize(
    ("variable", "value"),
    [("POOL_SIZE", "0"), ("POOL_SIZE", "many"), ("PORT", "-1"), ("CLAUDE_CODED_TOOL_ACTIVITY", "loud")],
)
def test_a_setting_that_cannot_be_used_is_named(make: Start, variable: str, value: str) -> None:
    daemon = make(**{variable: value})
    assert daemon.spawn().wait(20) == 1
    assert variable in daemon.log
    assert value in daemon.log
    assert "Traceback" not in daemon.log
