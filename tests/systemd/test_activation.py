"""The TCP port in systemd's hands."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.support.booted import Booted
from tests.support.daemon import chat, eventually
from tests.support.installed import SOCKET, UNIT, Service
from tests.systemd.conftest import Make


def activated(make: Make, system: Booted) -> Service:
    service = make(PORT=1)  # counts for nothing
    service.drop_in("port", "Socket", unit=SOCKET, ListenStream=["", f"127.0.0.1:{service.port}"])
    system.systemctl("start", SOCKET)
    return service


def test_the_first_request_starts_the_service(make: Make, system: Booted, name: str) -> None:
    service = activated(make, system)
    assert service.told("ActiveState") == "inactive"
    assert service.ask("[[say hi]]", name).text == "hi"
    assert service.told("ActiveState") == "active"
    assert system.shown(SOCKET, "SubState") == "running"


def test_a_reload_takes_new_settings(make: Make, system: Booted) -> None:
    file = system.path("/etc/claude-coded/config.toml")
    file.write_text("queue_size = 2\n")
    file.chmod(0o644)
    try:
        service = activated(make, system)
        assert service.ask("[[say hi]]").text == "hi"
        file.write_text("queue_size = 3\n")
        system.systemctl("reload", UNIT)
        (entry,) = eventually(lambda: system.journal("EVENT=reloaded", f"_PID={service.told('MainPID')}"))
        assert "CLAUDE_CODED_QUEUE_SIZE" in entry["MESSAGE"]
    finally:
        file.unlink()


def test_restarts_refuse_no_request(make: Make, system: Booted, name: str) -> None:
    service = activated(make, system)
    assert service.ask("[[say hi]]", name).text == "hi"
    over = threading.Event()

    def ask(number: int) -> Counter[object]:
        """Ask again and again, each time over a new connection, and count what comes of it."""
        told: Counter[object] = Counter()
        while not over.is_set():
            try:
                answer = ask_once(service, f"{name}-{number}" if number else "")
                told[number > 0, answer.status_code, "" if answer.is_success else answer.text] += 1
            except httpx.HTTPError as error:
                told[repr(error)] += 1
        return told

    with ThreadPoolExecutor() as threads:
        asking = [threads.submit(ask, number) for number in (0, 0, 1, 2)]
        for _ in range(3):
            main = service.told("MainPID")
            service.restart()
            assert service.told("MainPID") != main
        over.set()
        told = sum((it.result() for it in asking), Counter())
    assert set(told) == {(False, 200, ""), (True, 200, "")}


def ask_once(service: Service, conversation: str) -> httpx.Response:
    with httpx.Client(base_url=service.base_url, timeout=60, trust_env=False) as client:
        if not conversation:
            return client.get("/health")
        headers = {"X-Conversation-ID": conversation}
        return client.post("/v1/chat/completions", json=chat("[[say hi]]"), headers=headers)


def test_a_turn_goes_on_to_its_end_while_others_wait_for_the_next_daemon(
    make: Make, system: Booted, name: str
) -> None:
    service = activated(make, system)
    with ThreadPoolExecutor() as threads, service.stream("[[delay 50]] [[words 40]]", name) as stream:
        stream.until("w3 ")
        restarting = threads.submit(service.restart)
        eventually(lambda: service.told("ActiveState") == "deactivating")
        asked = threads.submit(httpx.post, f"{service.base_url}/v1/chat/completions", json=chat("[[say hi]]"))
        stream.rest()
        assert stream.text.split()[-1] == "w39"
        restarting.result()
        assert asked.result().json()["choices"][0]["message"]["content"] == "hi"
