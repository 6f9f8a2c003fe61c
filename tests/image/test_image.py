"""The image as it was built: what is in it, and what is not."""

import json
import subprocess
import tarfile
import tomllib
from pathlib import Path
from typing import IO

from claude_coded import __version__
from tests.support.composed import IMAGE
from tests.support.engine import Engine
from tests.support.namespaces import PROJECT

MEGABYTE = 1_000_000
BESIDE_CLAUDE = 300 * MEGABYTE
"""Python, git with its Perl, the daemon and the base: some 240 MB."""


def test_it_says_what_it_is_and_how_it_runs(engine: Engine) -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    config = engine.inspect(IMAGE)["Config"]
    labels = {name.removeprefix("org.opencontainers.image."): it for name, it in config["Labels"].items()}
    assert (labels["title"], labels["version"]) == (project["name"], __version__)
    assert (labels["description"], labels["licenses"]) == (project["description"], project["license"])
    assert (config["User"], config["WorkingDir"]) == ("1000:1000", "/workspace")
    assert (config["Entrypoint"], config["Cmd"]) == (["tini", "--", "claude-coded"], ["serve"])
    assert config["Healthcheck"]["Test"] == ["CMD", "claude-codectl", "ready"]
    assert (list(config["ExposedPorts"]), config["StopSignal"]) == (["3000/tcp"], "SIGTERM")


def test_its_size_is_claudes_and_little_more(engine: Engine) -> None:
    command = ["docker", "run", "--rm", "--entrypoint", "stat", IMAGE, "-c", "%s", "/usr/local/bin/claude"]
    claude = int(engine.run(*command).stdout)
    assert engine.inspect(IMAGE)["Size"] - claude < BESIDE_CLAUDE


def test_what_built_it_is_not_in_it(engine: Engine) -> None:
    tools = "pip pip3 gcc cc make node npm uv curl"
    look = (
        f"command -v {tools}; ls -d /build /requirements /source /wheels /sdk; python3 -m pip; "
        "find / -xdev -name 'claude_agent_sdk*' -o -xdev -name pip"
    )
    command = ["docker", "run", "--rm", "--user", "0", "--entrypoint", "sh", IMAGE, "-c", look]
    told = engine.run(*command, check=False)
    assert not told.stdout
    assert "No module named pip" in told.stderr


def test_no_layer_has_a_secret_or_what_this_machine_added(engine: Engine, ground: Path) -> None:
    kept = f"{engine.inspect(IMAGE)['Config']}{engine.docker('history', '--no-trunc', IMAGE)}"
    assert not [word for word in ("KEY=", "TOKEN", "sk-ant", "cert =") if word in kept]
    with tarfile.open(saved(engine, ground / "image.tar")) as image:
        manifest = json.loads(content(image, "manifest.json").read())
        names = [name for layer in manifest[0]["Layers"] for name in layer_names(image, layer)]
    assert "usr/local/bin/claude" in names
    assert not [it for it in names if Path(it).name in {"pip.conf", "secrets", ".env"}]
    assert not [it for it in names if it.startswith(("run/", "root/", "tmp/")) and it != "run/claude-coded"]
    # The bundle is what its package makes: nothing of this machine's is in it.
    look = "ls /usr/share/ca-certificates/mozilla | wc -l; grep -c BEGIN /etc/ssl/certs/ca-certificates.crt"
    made, there = engine.docker("run", "--rm", "--entrypoint", "sh", IMAGE, "-c", look).split()
    assert made == there


def saved(engine: Engine, file: Path) -> Path:
    """Save the image; return where."""
    with file.open("wb") as output:
        subprocess.run(engine.enter("docker", "save", IMAGE), stdout=output, check=True)
    return file


def layer_names(image: tarfile.TarFile, layer: str) -> list[str]:
    with tarfile.open(fileobj=content(image, layer)) as files:
        return files.getnames()


def content(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    opened = archive.extractfile(name)
    assert opened is not None
    return opened


def test_a_user_without_a_name_can_work_in_it(engine: Engine) -> None:
    """As `docker run` has it with nothing said of volumes."""
    look = "touch ~/x /workspace/y && git init -q /workspace/z && claude --version && claude-coded --version"
    command = ["docker", "run", "--rm", "--user", "12345:54321", "--entrypoint", "sh", IMAGE, "-c", look]
    assert __version__ in engine.run(*command).stdout
