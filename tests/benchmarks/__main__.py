"""`python -m tests.benchmarks [--quick] [--output DIR] [NAMES…] [--rival [SERVER]]`.

Measures the daemon against its floors and limits, and writes tables in markdown and JSON, and plots.
`python -m tests.benchmarks alternatives` sets it beside other servers; see tests.benchmarks.alternatives.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.benchmarks.alternatives.__main__ import main as alternatives
from tests.benchmarks.beside import RIVALS, STRONGEST, beside
from tests.benchmarks.harness import BenchmarkError
from tests.benchmarks.plot import draw
from tests.benchmarks.report import document, markdown
from tests.benchmarks.suite import BENCHMARKS, Outcome, run
from tests.support.install import InstallError

OUTPUT: Final = Path("benchmark-results")


def main() -> int:
    """Return the exit status: 1 when a limit is broken (not with --quick), 2 when something failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; none: all")
    parser.add_argument(
        "--quick", action="store_true", help="fewer repetitions; broken limits are no failure"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="DIR", help="where the results go")
    parser.add_argument(
        "--rival",
        nargs="?",
        const=STRONGEST,
        choices=RIVALS,
        help=f"run another server beside ours, and install it if need be; the strongest is {STRONGEST}",
    )
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    try:
        outcome = run(options.names or list(BENCHMARKS), quick=options.quick)
        outcome = _rivalled(outcome, options.rival, quick=options.quick) if options.rival else outcome
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    _write(outcome, options.output)
    return 0 if outcome.holds or options.quick else 1


def _rivalled(outcome: Outcome, rival: str, *, quick: bool) -> Outcome:
    """Add the figures of a rival; one that cannot be had is left out."""
    try:
        results = list(beside(rival, quick=quick))
    except InstallError as error:
        print(f"benchmarks: {rival} is left out: {error}", file=sys.stderr)
        return outcome
    return replace(outcome, results=[*outcome.results, *results], rival=RIVALS[rival].package)


def _write(outcome: Outcome, folder: Path) -> None:
    """Write results.md, results.json, and sweeps.svg where something was swept; print the first."""
    folder.mkdir(parents=True, exist_ok=True)
    figures, charts = outcome.figures, outcome.charts
    text = markdown(figures, charts, outcome.rival)
    (folder / "results.md").write_text(text)
    (folder / "results.json").write_bytes(document(figures, charts, outcome.claude, outcome.rival))
    if charts:
        (folder / "sweeps.svg").write_text(draw(charts))
    print(text, end="")


if __name__ == "__main__":
    sys.exit(alternatives(sys.argv[2:]) if sys.argv[1:2] == ["alternatives"] else main())
