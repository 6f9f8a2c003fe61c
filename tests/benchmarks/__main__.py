"""`python -m tests.benchmarks [--quick] [--output DIR] [--rival] [NAMES…]`: the daemon against its limits.

`python -m tests.benchmarks alternatives` sets it beside other servers; see tests.benchmarks.alternatives.
"""

import argparse
import sys
from pathlib import Path
from typing import Final

from tests.benchmarks.alternatives.__main__ import main as alternatives
from tests.benchmarks.harness import BenchmarkError
from tests.benchmarks.plot import draw
from tests.benchmarks.report import document, markdown
from tests.benchmarks.suite import BENCHMARKS, Outcome, run

OUTPUT: Final = Path("benchmark-results")


def main() -> int:
    """Return the exit status: 1 when a limit is broken (not with --quick), 2 when something failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; none: all")
    parser.add_argument(
        "--quick", action="store_true", help="fewer repetitions; broken limits are no failure"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="DIR", help="where the results go")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    try:
        outcome = run(options.names or list(BENCHMARKS), quick=options.quick)
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    _write(outcome, options.output)
    return 0 if outcome.holds or options.quick else 1


def _write(outcome: Outcome, folder: Path) -> None:
    """Write results.md, results.json, and sweeps.svg where something was swept; print the first."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(outcome.figures, outcome.charts)
    (folder / "results.md").write_text(text)
    (folder / "results.json").write_bytes(document(outcome.figures, outcome.charts, outcome.claude))
    if outcome.charts:
        (folder / "sweeps.svg").write_text(draw(outcome.charts))
    print(text, end="")


if __name__ == "__main__":
    sys.exit(alternatives(sys.argv[2:]) if sys.argv[1:2] == ["alternatives"] else main())
