"""The project as `docker compose` runs it from a checkout, by the compose file as it is."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from tests.support.daemon import REQUEST_SECONDS, Daemon
from tests.support.engine import BASE, Engine
from tests.support.namespaces import PROJECT

PARTS: Final = ("pyproject.toml", "README.md", "LICENSE", "claude_coded", "contrib")
PLACE: Final = Path("contrib/docker")
IMAGE: Final = "claude-coded"
CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
PROCESSES: Final = """
import glob, json
found = []
for place in glob.glob("/proc/[0-9]*"):
    try:
        fields = open(place + "/stat").read().rsplit(")", 1)[1].split()
        command = open(place + "/cmdline").read().split(chr(0))[:-1]
    except OSError:
        continue
    found.append([fields[0], command])
print(json.dumps(found))
"""
"""What runs where there is no `ps`: its state and its command."""


def check_out(directory: Path) -> Path:
    """Make a checkout, with what this machine needs to build it; return where its compose file is."""
    directory.mkdir()
    for name in PARTS:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__", ".env"))
        else:
            shutil.copy(source, directory / name)
    place = directory / PLACE
    (place / "pip.conf").write_text("[global]\ncert = /run/secrets/ca-certificates\n")
    shutil.copyfile(CERTIFICATES, place / "ca-certificates.crt")
    (place / "here.yaml").write_text(json.dumps(_here()))
    return place


def _here() -> dict[str, Any]:
    """Return the compose file that says how this machine builds, and where the scripted model is."""
    build = {"network": "host", "args": {"BASE": BASE}, "secrets": ["pip.conf", "ca-certificates"]}
    hosts = ["host.docker.internal:host-gateway"]
    return {
        "services": {"claude-coded": {"build": build, "extra_hosts": hosts}},
        "secrets": {"pip.conf": {"file": "pip.conf"}, "ca-certificates": {"file": "ca-certificates.crt"}},
    }


def compose(engine: Engine, place: Path, *arguments: str, files: tuple[str, ...] = ("compose.yaml",)) -> str:
    """Run docker compose where the compose file is; return what it prints."""
    chosen = [part for file in (*files, "here.yaml") for part in ("--file", file)]
    return engine.run("docker", "compose", *chosen, *arguments, directory=place).stdout.strip()


@dataclass
class Composed(Daemon):
    """The compose file's service; `settings` are what its .env says beside the example's lines."""

    port: int = 3000
    engine: Engine = field(kw_only=True)
    files: tuple[str, ...] = ("compose.yaml",)

    def __post_init__(self) -> None:
        self.http = httpx.Client(timeout=REQUEST_SECONDS, trust_env=False)
        self.configure()

    @property
    def container(self) -> str:
        """Return the service's container, not one of `docker compose run`."""
        labels = {"service": IMAGE, "oneoff": "False"}
        filters = [f"--filter=label=com.docker.compose.{name}={value}" for name, value in labels.items()]
        return self.engine.docker("ps", "--all", "--quiet", *filters)

    def compose(self, *arguments: str) -> str:
        return compose(self.engine, self.directory, *arguments, files=self.files)

    def configure(self, **settings: str) -> None:
        """Write .env: the example, with these lines in it."""
        self.settings = {**self.settings, **settings}
        lines = (self.directory / ".env.example").read_text().splitlines()
        kept = [line for line in lines if line.split("=")[0] not in self.settings]
        given = [f"{name}={value}" for name, value in self.settings.items()]
        (self.directory / ".env").write_text("\n".join([*kept, *given, ""]))

    def start(self) -> "Composed":
        """Bring it up; it is healthy then."""
        self.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "60")
        return self

    def stop(self) -> int:
        """Stop it; return its exit status."""
        self.compose("stop")
        return int(self.engine.inspect(self.container)["State"]["ExitCode"])

    def close(self) -> None:
        """Remove the container; the volumes stay."""
        self.http.close()
        self.compose("down")

    def within(self, *command: str, check: bool = True, **variables: str) -> str:
        """Return what a command prints in the container."""
        given = [part for name, value in variables.items() for part in ("--env", f"{name}={value}")]
        done = self.engine.run("docker", "exec", *given, self.container, *command, check=check)
        return (done.stdout + done.stderr).strip()

    def running(self) -> list[tuple[str, list[str]]]:
        """Return state and command of the container's processes, but the one that looks."""
        told = json.loads(self.within("python3", "-c", PROCESSES))
        return [(state, command) for state, command in told if "-c" not in command]
