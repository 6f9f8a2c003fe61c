"""What systemd itself thinks of the units."""

import re

import pytest

from tests.support.booted import Booted
from tests.support.installed import PLACES, SOCKET, UNIT


@pytest.mark.parametrize("name", [UNIT, SOCKET])
def test_systemd_finds_nothing_wrong_with_a_unit(system: Booted, name: str) -> None:
    """An unknown key is only said on stderr."""
    done = system.run("systemd-analyze", "--man=no", "verify", PLACES[name])
    assert (done.stdout, done.stderr) == ("", "")


def test_the_system_service_is_hardly_exposed(system: Booted) -> None:
    path = PLACES[UNIT]
    told = system.run("systemd-analyze", "security", "--offline=yes", "--no-pager", path).stdout
    exposure = re.search(r"Overall exposure level for .*: (\d+\.\d)", told)
    assert exposure is not None
    assert float(exposure[1]) <= 2.5
    done = system.run("systemd-analyze", "security", "--offline=yes", "--threshold=40", path, check=False)
    assert done.returncode == 0
