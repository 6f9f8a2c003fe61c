"""The files of contrib/docker fit the package, and each other."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from claude_coded import __version__
from claude_coded.daemon import CLOSING, STOP_GRACE
from claude_coded.settings import TurnSettings, specs

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "contrib/docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMPOSE = (PLACE / "compose.yaml").read_text()
EXAMPLE = (PLACE / ".env.example").read_text()
DOCKERFILE = (PLACE / "Dockerfile").read_text()


def locked(name: str) -> dict[str, str]:
    """Return the versions in a lock; each has hashes."""
    text = (PLACE / "requirements" / name).read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"\S+==\S+( +--hash=sha256:[0-9a-f]{64})+", line.strip()) for line in lines)
    return dict(line.split()[0].split("==") for line in lines)


def test_the_locks_satisfy_what_the_package_asks_for() -> None:
    wanted = {
        "daemon.txt": PROJECT["project"]["dependencies"],
        "build.txt": PROJECT["build-system"]["requires"],
        "claude.txt": PROJECT["project"]["optional-dependencies"]["claude"],
    }
    for name, requirements in wanted.items():
        versions = locked(name)
        for requirement in map(Requirement, requirements):
            version = versions[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), (name, requirement, version)


def test_only_claude_codes_program_is_taken_of_the_sdk() -> None:
    assert list(locked("claude.txt")) == ["claude-agent-sdk"]
    assert not {"claude-agent-sdk", "mcp"} & set(locked("daemon.txt"))


def test_the_label_has_the_packages_version() -> None:
    assert f"ARG VERSION={__version__}\n" in DOCKERFILE
    assert re.search(r"^ARG BASE=debian:\S+@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)


def test_a_stop_has_time_for_all_that_it_does() -> None:
    grace = re.search(r"stop_grace_period: \$\{STOP_GRACE:-(\d+)s\}", COMPOSE)
    assert grace is not None
    assert int(grace[1]) > TurnSettings().drain_timeout + STOP_GRACE + CLOSING


def test_the_example_has_settings_and_what_the_compose_files_ask_for() -> None:
    named = set(re.findall(r"^#?([A-Z_]+)=", EXAMPLE, re.MULTILINE))
    asked = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE))
    known = {spec.variable for spec in specs()}
    assert {name for name in named - known - asked if not name.startswith("GIT_")} == set()
    assert "ANTHROPIC_API_KEY=\n" in EXAMPLE
