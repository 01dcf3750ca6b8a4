"""Runs the benchmark: `python -m bench.run quick`, or `all`; `--only NAME` for some of its scenarios.

It starts all parts on this machine. Their stores are in the folder for temporary files (TMPDIR); with `all` they take
several GB. Table and picture are written to `bench/results/`; with `--only` the table is printed instead.
"""

import asyncio
import math
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import click
from pysqlite3 import dbapi2 as sqlite

from bench import parts, report, suite
from bench.contender import Assignment, Child, Timing
from bench.measured import Played, Rounds, rate
from bench.stage import Role, set_up
from bench.suite import By, Load, Scenario, Store
from tests.support import cost

_RESULTS = Path(__file__).with_name("results")
_WARM_UP_EVENTS = 500
"""The fewest events that are sent before the measurement, to estimate the rate."""
_CALLS_EACH = 4
"""The fewest calls of each caller. The lean driver counts those between the first and the last one."""
_LONGEST = 15.0
"""The longest turn, in seconds, that is repeated with twice the time if a tool had too few answers."""


@click.command(help=__doc__)
@click.argument("extent", type=click.Choice(["quick", "all"]))
@click.option("--only", multiple=True, metavar="NAME", help="A scenario of these; can be given several times.")
def main(extent: str, only: tuple[str, ...]) -> None:
    """Run the benchmark. A missed target is reported; only an error makes the run fail."""
    scenarios = {one.name: one for one in (suite.quick() if extent == "quick" else suite.everything())}
    known = scenarios | {one.name: one for one in suite.by_request()}
    if not set(only) <= set(known):
        raise click.UsageError(f"The scenarios are {', '.join(known)}.")
    # At SIGTERM the run ends its parts, too, and removes its files from the temporary folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    command, played, left_out = "make bench-quick" if extent == "quick" else "make bench", list[Played](), ""
    if left := [name for name in only or scenarios if known[name].left_out]:
        left_out = f"Left out, because the compiled core is not in use: {', '.join(left)}."
        print(left_out, file=sys.stderr, flush=True)
    for name in (name for name in only or scenarios if name not in left):
        played.append(_played(known[name]))
        if not only:
            # Written after each scenario, so that a long run that is stopped has results.
            report.write(command, played, _RESULTS, left_out)
    print(report.markdown(command, played, left_out) if only else report.ratios(played))


def _played(scenario: Scenario) -> Played:
    started = time.monotonic()
    database = parts.database() if scenario.store is Store.POSTGRESQL else nullcontext()
    with tempfile.TemporaryDirectory(prefix="headgate-bench-") as folder, database as opened:
        url, pid, version = opened or (f"sqlite:///{folder}/headgate.db", None, sqlite.sqlite_version)
        rounds = asyncio.run(_play(scenario, url, [pid] if pid else [], Path(folder)))
        return Played(scenario, rounds, f"{scenario.store} {version}", time.monotonic() - started)


async def _play(scenario: Scenario, url: str, database: Sequence[int], folder: Path) -> Rounds:
    """Return the result of each load. Raises `RuntimeError` if the store's events differ from the answers."""
    rounds: Rounds = {load: [] for load in scenario.loads}
    async with set_up(scenario, url, database, folder) as roles:
        warm = {}
        for load in scenario.loads:
            if isinstance(roles[load].sender, Child):
                warm[load] = rate([await _turn(url, roles[load], _assignment(load, _WARM_UP_EVENTS), 0)])
        latest = time.monotonic() + scenario.patience
        for number in range(scenario.rounds):
            if time.monotonic() > latest:
                break
            for load in scenario.loads[::-1] if number % 2 else scenario.loads:
                pace = load.pace * highest_rate(load, rounds, by=load.rate_of or load.by)
                assignment = _assignment(load, (pace or warm.get(load, 0.0)) * scenario.seconds, pace)
                # A tool that cannot count calls gets the time that its callers' calls will take.
                least = _CALLS_EACH * load.callers * load.batch / (highest_rate(load, rounds) or math.inf)
                turn = await _turn(url, roles[load], assignment, max(scenario.seconds, least))
                rounds[load].append(turn)
                said = f"{load.by}, {load.batch:,} x {load.callers}: {rate([turn]):,.0f} events/s"
                print(f"{scenario.name}, round {number + 1}: {said}", file=sys.stderr, flush=True)
    return rounds


def highest_rate(load: Load, rounds: Rounds, *, by: By | None = None) -> float:
    """Return the highest rate so far with this batch, sent without a pause, of one sender or of all."""
    same = (turns for one, turns in rounds.items() if one.batch == load.batch and not one.pace and by in (one.by, None))
    return max(map(rate, same), default=0.0)


def _assignment(load: Load, events: float, pace: float = 0.0) -> Assignment:
    """Return an assignment of about this many events: whole calls, and several, equally many, for every caller."""
    least, of = (1, 1) if pace else (_CALLS_EACH, load.callers)
    return Assignment(load, max(math.ceil(events / load.batch / of), least) * of * load.batch, pace)


async def _turn(url: str, role: Role, assignment: Assignment, seconds: float) -> Timing:
    """Run one turn of a load. Raises `RuntimeError` if the ledgers have not grown by the number of answered events."""
    load, servers, before = assignment.load, role.spenders.get("server", ()), await parts.stored(url)
    await role.sender.prepare(assignment, seconds)
    cost.reset_peaks(servers)
    idle = {part: cost.cpu_seconds(pids) for part, pids in role.spenders.items()}
    try:
        timing = await role.sender.go()
    except TimeoutError:
        if seconds > _LONGEST:
            raise
        return await _turn(url, role, assignment, 2 * max(seconds, 1.0))
    spent = {part: cost.cpu_seconds(pids) - idle[part] for part, pids in role.spenders.items()}
    peak = cost.peak_mib(servers) if servers else 0.0
    grown = await parts.stored(url) - before
    # A tool stops at a fixed time, and leaves at most one call of each caller unanswered.
    unanswered = 0 if isinstance(role.sender, Child) else load.callers * load.batch
    least = (timing.stored or timing.events) if role.stores else 0
    if not least <= grown <= least + unanswered:
        raise RuntimeError(f"{load}: about {least:,} events were to be stored, and {grown:,} were")
    return replace(timing, spent={"generator": timing.cpu_seconds, **spent}, peak_mib=peak)


if __name__ == "__main__":
    main()
