"""`python -m tests.benchmarks alternatives [--quick] [--server NAME]… [--out DIRECTORY]`."""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from claude_coded.claude.launch import find_binary
from tests.benchmarks.alternatives.behaviours import watch
from tests.benchmarks.alternatives.running import adopt_orphans, install_all
from tests.benchmarks.alternatives.servers import ALTERNATIVES, OURS, OURS_AS_CHAT, Server
from tests.benchmarks.alternatives.speed import ROUNDS, Speed, contenders, race
from tests.benchmarks.alternatives.tables import Outcome, document, markdown
from tests.benchmarks.alternatives.trial import Seen
from tests.benchmarks.harness import BenchmarkError
from tests.support.daemon import Model
from tests.support.install import InstallError

SERVERS: Final = (OURS, OURS_AS_CHAT, *ALTERNATIVES)
OUT: Final = Path("benchmark-results")


def main(arguments: Sequence[str]) -> int:
    """Return the exit status: 2 when something failed."""
    names = [server.name for server in SERVERS]
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks alternatives", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of the speed")
    parser.add_argument("--server", action="append", choices=names, help="only these; may be repeated")
    parser.add_argument("--only", choices=("speed", "behaviour"), help="half of it")
    parser.add_argument("--out", type=Path, default=OUT, help="where the results go")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what runs is ended on the way out
    chosen = [it for it in SERVERS if not options.server or it.name in options.server]
    try:
        outcome = compare(chosen, rounds=1 if options.quick else ROUNDS, only=options.only)
    except (BenchmarkError, InstallError) as error:
        print(f"alternatives: {error}", file=sys.stderr)
        return 2
    text = markdown(outcome)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "alternatives.md").write_text(text)
    (options.out / "alternatives.json").write_bytes(document(outcome))
    print(text)
    return 0


def compare(servers: Sequence[Server], *, rounds: int, only: str | None = None) -> Outcome:
    """Measure and watch servers. Raises BenchmarkError and InstallError."""
    tell = _narrator()
    places = install_all(servers, tell)
    adopt_orphans()
    claude = find_binary(None, shutil.which)
    version = subprocess.run([claude, "--version"], capture_output=True, text=True, check=True).stdout
    speeds, seen = dict[str, Speed](), dict[str, dict[str, Seen]]()
    with tempfile.TemporaryDirectory(prefix="claude-coded-") as folder, ExitStack() as stack:
        directory = Path(folder)
        model = Model()
        stack.callback(model.stop)
        if only != "behaviour":
            speeds = race(contenders(servers, places, model.url), directory / "speed", rounds, tell)
        if only != "speed":
            for server in [it for it in servers if it is not OURS_AS_CHAT]:
                place = directory / "behaviour" / server.name
                seen[server.name] = watch(server, places[server.name], place, model, tell)
    tell("done")
    return Outcome(servers, speeds, seen, version.split()[0])


def _narrator() -> Callable[[str], None]:
    """Return a function that prints what is done, with the seconds since now."""
    started = time.monotonic()
    return lambda what: print(f"{time.monotonic() - started:6.1f} s  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
