"""Runs the benchmark: `python -m bench.run --quick`, or `--all`; `--only NAME` for some of its scenarios.

All parts are started here and share this machine; their stores lie in the folder for temporary files (TMPDIR),
several GB of them with `--all`. The table and the picture go to `bench/results/`, unless only some scenarios are run:
their table is printed.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from bench import parts, suite, tool
from bench.play import play
from bench.report import Played, Report
from bench.suite import By, Scenario, Store

_RESULTS = Path(__file__).with_name("results")


def main() -> None:
    """Run it. What falls short of its target is said; only what is wrong makes it fail."""
    options = _options()
    scenarios = suite.quick() if options.quick else suite.everything()
    names = [scenario.name for scenario in scenarios]
    if unknown := set(options.only or names) - set(names):
        sys.exit(f"there is no scenario {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    report = Report("quick" if options.quick else "all")
    missing = _missing_tools(report)
    # So that a run which is told to end takes its parts along and leaves nothing in the temporary folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for scenario in scenarios:
        if not options.only or scenario.name in options.only:
            report.add(_play(scenario.without(missing)))
            if not options.only:
                # After each, so that a long run that is broken off has something to show.
                report.write(_RESULTS)
    print(report.markdown() if options.only else report.ratios())


def _missing_tools(report: Report) -> set[By]:
    """Install the load tools that are not there; return whose loads have to be left out, and say so."""
    missing = set()
    for by, find in ((By.REST, tool.wrk), (By.GHZ, tool.ghz)):
        try:
            report.add_tool(find())
        except tool.ToolMissing as error:
            print(f"bench: {error}; its rows are left out", file=sys.stderr)
            missing.add(by)
    return missing


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__.partition("\n")[0])
    extent = parser.add_mutually_exclusive_group(required=True)
    extent.add_argument("--quick", action="store_true", help="what the ratios need, in less than two minutes")
    extent.add_argument("--all", action="store_true", help="everything; an hour or more")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some scenarios of these; their table is printed")
    return parser.parse_args()


def _play(scenario: Scenario) -> Played:
    started = time.monotonic()
    database = parts.database() if scenario.store is Store.POSTGRESQL else nullcontext()
    with tempfile.TemporaryDirectory(prefix="headgate-bench-") as own, database as opened:
        series = asyncio.run(play(scenario, opened, Path(own)))
        version = opened.version if opened else ""
    return Played(scenario, series, version, time.monotonic() - started)


if __name__ == "__main__":
    main()
