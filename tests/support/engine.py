"""A real Docker engine, Debian's, in namespaces and a network of its own.

Its root directory is made by debootstrap once and kept, and so is what the engine stores. So is the base that
images are built upon: no registry is asked. Run as a program, this module turns the first process of the new
namespaces into the engine.
"""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tests.support.kept import CACHES, kept
from tests.support.namespaces import (
    PROJECT,
    Bind,
    Hierarchy,
    bind,
    change_root,
    hierarchies,
    in_network,
    joining,
    make_devices,
    mount,
    remove_groups,
)

CACHE: Final = "claude-coded-image"
SUITE: Final = "trixie"
MIRROR: Final = "http://deb.debian.org/debian"
SECURITY: Final = "http://deb.debian.org/debian-security"
PACKAGES: Final = (
    *("docker.io", "docker-cli", "docker-buildx", "docker-compose"),
    *("runc", "iptables", "iproute2", "tini"),
)
BASE: Final = f"debian:{SUITE}-debootstrap"
TOOLS: Final = ("debootstrap", "setpriv", "unshare", "nsenter", "mount", "umount", "tar", "ip")
CACHE_SIZE: Final = "3GB"
"""Of what builds leave behind to be quicker the next time."""

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 60.0
ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
NO_NETWORK: Final = ("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false")
"""For an engine in the machine's network, where nothing is to be changed."""

SLIM: Final = "".join(
    f"path-exclude /usr/share/{name}/*\n" for name in ("doc", "groff", "info", "lintian", "locale", "man")
)
"""What the slim images of Debian leave out."""

SOURCES: Final = (
    f"deb {MIRROR} {SUITE} main\ndeb {MIRROR} {SUITE}-updates main\ndeb {SECURITY} {SUITE}-security main\n"
)
RECIPE: Final = (SUITE, SLIM, SOURCES)


def missing() -> str:
    """Return why no engine can run here; empty when one can."""
    if os.geteuid() != 0:
        return "only root can run a Docker engine"
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if lacking:
        return f"not on this machine: {', '.join(lacking)}"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "the kernel has no overlay file system"
    if not hierarchies():
        return "no control groups are mounted"
    tried = subprocess.run(
        [
            "unshare",
            "--net",
            "sh",
            "-c",
            "ip link add br0 type bridge && ip link add ve0 type veth peer name ve1",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"the kernel has no bridges: {tried.stderr.strip()}" if tried.returncode else ""


# Roots -------------------------------------------------------------------------------------------------


class UnavailableError(Exception):
    """Debian's packages could not be had."""


def base_root() -> Path:
    """Return the root directory that Debian's slim image has, nearly."""
    return kept(CACHE, "base", RECIPE, _bootstrap)


def engine_root() -> Path:
    """Return a root directory that has an engine."""

    def fill(directory: Path) -> None:
        _bootstrap(directory)
        policy = directory / "usr/sbin/policy-rc.d"  # nothing is to be started now
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        shutil.copyfile("/etc/resolv.conf", directory / "etc/resolv.conf")
        inside = ["chroot", str(directory), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]
        _made([*inside, "update"])
        _made([*inside, "install", "-y", "--no-install-recommends", *PACKAGES])

    return kept(CACHE, "engine", (*RECIPE, *PACKAGES), fill)


def _bootstrap(directory: Path) -> None:
    _made(["debootstrap", "--variant=minbase", SUITE, str(directory), MIRROR])
    (directory / "etc/dpkg/dpkg.cfg.d/slim").write_text(SLIM)
    (directory / "etc/apt/sources.list").write_text(SOURCES)
    for line in SLIM.splitlines():
        left_out = directory / line.split()[1].removesuffix("*").lstrip("/")
        shutil.rmtree(left_out, ignore_errors=True)
        left_out.mkdir()
    for place in ("var/cache/apt/archives", "var/lib/apt/lists"):
        for file in (directory / place).glob("*_*"):
            file.unlink()


def _made(command: Sequence[str]) -> None:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        raise UnavailableError(f"{' '.join(command)}: {done.stdout[-2000:]}")


# The engine --------------------------------------------------------------------------------------------


class Engine:
    """A running engine."""

    def __init__(self, lead: "subprocess.Popen[bytes]", pid: int) -> None:
        self.pid = pid
        self._lead = lead

    def enter(self, *command: str, directory: Path = Path("/")) -> list[str]:
        """Return the command that runs a command where the engine is."""
        pairs = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        into = ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-p", "-C", "-n", "-r", "-w"]
        return [*into, "--", "env", "-i", "-C", str(directory), *pairs, *command]

    def run(
        self, *command: str, directory: Path = Path("/"), check: bool = True, **more: Any
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command where the engine is."""
        done = subprocess.run(
            self.enter(*command, directory=directory), capture_output=True, text=True, check=False, **more
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def docker(self, *arguments: str) -> str:
        """Return what a docker command prints."""
        return self.run("docker", *arguments).stdout.strip()

    def inspect(self, name: str) -> dict[str, Any]:
        """Return what there is to know of an image, a container, a volume."""
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", name))
        return found[0]

    def has_image(self, name: str) -> bool:
        return self.run("docker", "image", "inspect", name, check=False).returncode == 0

    def network(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which ports that the engine publishes are this thread's loopback's."""
        return in_network(self.pid)

    def remove_containers(self) -> None:
        """Remove all containers, and the volumes and networks that are left."""
        if names := self.docker("ps", "--all", "--quiet").split():
            self.docker("rm", "--force", "--volumes", *names)
        self.docker("volume", "prune", "--force", "--all")
        self.docker("network", "prune", "--force")

    def stop(self) -> None:
        """End the engine and everything in it."""
        try:
            self.remove_containers()
            os.kill(self.pid, 15)
            self._lead.wait(STOP_SECONDS)
        finally:
            self._lead.kill()
            self._lead.wait(STOP_SECONDS)


@contextlib.contextmanager
def serving(binds: Sequence[Bind] = (), *, isolated: bool) -> Iterator[Engine]:
    """Run an engine for as long as the context lasts; one of all on this machine at a time.

    Its containers have a network of their own where it is isolated, so nothing beyond it can be reached. Else
    there are none but those that build, and they have the machine's. Raises UnavailableError.
    """
    root, base = engine_root(), base_root()
    store = CACHES / CACHE / "store"
    store.mkdir(exist_ok=True)
    with (
        (CACHES / CACHE / "store.lock").open("w") as lock,
        tempfile.TemporaryDirectory(prefix="engine-") as directory,
        _groups() as groups,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        plan = {"root": str(root), "store": str(store), "isolated": isolated}
        plan["binds"] = [[str(it.source), str(it.place)] for it in binds]
        engine = _start(Path(directory), groups, plan)
        try:
            engine.remove_containers()  # of a run that was killed
            if not engine.has_image(BASE):
                _import(engine, base)
            yield engine
            engine.docker("image", "prune", "--force")
            engine.docker("builder", "prune", "--force", f"--keep-storage={CACHE_SIZE}")
        finally:
            engine.stop()


@contextlib.contextmanager
def _groups() -> Iterator[list[Path]]:
    """Make a control group in each tree while the context lasts."""
    made = [tree.place / f"engine-{os.getpid()}" for tree in hierarchies()]
    for group in made:
        group.mkdir()
        for name in ("cpuset.cpus", "cpuset.mems"):  # of version 1, where they are empty at first
            if (file := group.parent / name).exists() and (group / "tasks").exists():
                (group / name).write_text(file.read_text())
    try:
        yield made
    finally:
        remove_groups(*made)


def _start(work: Path, groups: list[Path], plan: dict[str, Any]) -> Engine:
    from tests.support.daemon import eventually  # noqa: PLC0415 - the program that becomes it needs none of it

    console = work / "console"
    command = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "--",
        "unshare",
        "--fork",
        "--pid",
        "--mount",
        "--uts",
        "--ipc",
        "--cgroup",
        "--kill-child",
    ]
    command += ["--net"] if plan["isolated"] else []
    command += [sys.executable, "-m", "tests.support.engine", json.dumps({**plan, "console": str(console)})]
    with console.open("ab") as output:
        lead = subprocess.Popen(
            joining(groups, *command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=PROJECT
        )

    def started() -> Engine | None:
        assert lead.poll() is None, console.read_text(errors="replace")
        children = Path(f"/proc/{lead.pid}/task/{lead.pid}/children").read_text().split()
        if not children or b"dockerd" not in Path(f"/proc/{children[0]}/cmdline").read_bytes().split(b"\0"):
            return None
        engine = Engine(lead, int(children[0]))
        asked = engine.run("docker", "version", "--format", "{{.Server.Version}}", check=False)
        return engine if asked.returncode == 0 else None

    try:
        engine = eventually(started, START_SECONDS, every=0.1)
    except AssertionError as error:
        lead.kill()
        lead.wait(STOP_SECONDS)
        raise AssertionError(f"{error}\n{console.read_text(errors='replace')}") from None
    assert engine is not None
    return engine


def _import(engine: Engine, base: Path) -> None:
    """Make the base's root directory an image."""
    pack = ["tar", "-C", str(base), "--one-file-system", "--exclude=./.complete", "-c", "."]
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as packing:
        engine.run("docker", "import", "-", BASE, stdin=packing.stdout)
    assert packing.returncode == 0


# Becoming the engine -----------------------------------------------------------------------------------


def _become_engine(plan: dict[str, Any]) -> None:
    mount("--make-rprivate", "/")
    root = Path(plan["root"])
    mount("--bind", str(root), str(root))
    mount("-t", "proc", "proc", f"{root}/proc")
    mount("-t", "sysfs", "sysfs", f"{root}/sys")
    _mount_groups(root / "sys/fs/cgroup")
    make_devices(root / "dev", Path(plan["console"]))
    for place in ("run", "tmp"):
        mount("-t", "tmpfs", "-o", "mode=1777" if place == "tmp" else "mode=755", "tmpfs", f"{root}/{place}")
    bind(Path(plan["store"]), root / "var/lib/docker")
    bind(Path("/etc/resolv.conf").resolve(), root / "etc/resolv.conf")
    for source, place in plan["binds"]:
        bind(Path(source), root / place.lstrip("/"))
    change_root(root)
    if plan["isolated"]:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    arguments = () if plan["isolated"] else NO_NETWORK
    os.execve("/usr/bin/tini", ["tini", "--", "dockerd", *arguments], ENVIRONMENT)


def _mount_groups(place: Path) -> None:
    """Mount the trees of control groups as seen from the group that this process is in."""
    trees = hierarchies()
    first = [tree for tree in trees if tree.kind == "cgroup"]
    if not first:
        mount("-t", "cgroup2", "cgroup2", str(place))
        leaf = place / "init"  # a group with processes of its own cannot share out to groups inside
        leaf.mkdir()
        (leaf / "cgroup.procs").write_text(str(os.getpid()))
        return
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(place))
    for tree in first:
        _mount_group(tree, place / tree.place.name)


def _mount_group(tree: Hierarchy, place: Path) -> None:
    place.mkdir()
    mount("-t", "cgroup", "-o", tree.options, "cgroup", str(place))


if __name__ == "__main__":
    _become_engine(json.loads(sys.argv[1]))
