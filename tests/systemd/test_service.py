"""The system service under a real systemd, with real Claude Code processes."""

import time

from tests.support.booted import Booted
from tests.support.installed import UNIT
from tests.systemd.conftest import Make


def test_a_start_is_over_when_it_serves(make: Make, system: Booted, name: str) -> None:
    service = make()
    before = time.monotonic()
    service.start()
    print("started in", time.monotonic() - before)
    assert service.health()["status"] == "ok"
    assert service.told("ActiveState") == "active"
    assert service.ask("[[say hi]]", name).text == "hi"
    print(service.told("StatusText"))
    print(system.systemctl("status", "--no-pager", UNIT))
