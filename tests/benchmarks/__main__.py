"""`python -m tests.benchmarks [--quick] [--json FILE] [NAMES…]`: measure the daemon against its limits.

`python -m tests.benchmarks alternatives` sets it beside other servers; see tests.benchmarks.alternatives.
"""

import argparse
import sys
from pathlib import Path

from tests.benchmarks.alternatives.__main__ import main as alternatives
from tests.benchmarks.harness import BenchmarkError
from tests.benchmarks.report import document, table
from tests.benchmarks.suite import BENCHMARKS, run


def main() -> int:
    """Return the exit status: 1 when a limit is broken (not with --quick), 2 when something failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; none: all")
    parser.add_argument(
        "--quick", action="store_true", help="fewer repetitions; broken limits are no failure"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    try:
        outcome = run(options.names or list(BENCHMARKS), quick=options.quick)
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    print(table(outcome.figures))
    if options.json:
        options.json.write_bytes(document(outcome.figures, outcome.claude))
    return 0 if outcome.holds or options.quick else 1


if __name__ == "__main__":
    sys.exit(alternatives(sys.argv[2:]) if sys.argv[1:2] == ["alternatives"] else main())
