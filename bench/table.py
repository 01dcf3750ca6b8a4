"""What was measured, as a Markdown table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.lockstep import Timing


@dataclass(slots=True)
class Series:
    """All rounds of one contender at one group size; entries of the lists belong to one round each."""

    name: str
    timings: list[Timing] = field(default_factory=list)
    server_seconds: list[float] = field(default_factory=list)
    """CPU of the server's processes; empty where there is none."""
    database_seconds: list[float] = field(default_factory=list)
    """CPU of the database's processes."""

    @property
    def rates(self) -> list[float]:
        """Events per second, by round."""
        return [timing.rate for timing in self.timings]

    def cells(self) -> list[str]:
        """Return this series as a row: its name, events/s, and CPU seconds per 100,000 events."""
        events = sum(timing.events for timing in self.timings)
        client = [timing.cpu_seconds for timing in self.timings]
        return [
            self.name,
            *(f"{value:,.0f}" for value in (median(self.rates), min(self.rates), max(self.rates))),
            *(_per_100_000(spent, events) for spent in (client, self.server_seconds, self.database_seconds)),
        ]


def figures(series: Iterable[Series]) -> list[list[str]]:
    """Return the rows of several series under their headings."""
    headings = ["", "events/s, median", "min", "max", "CPU s per 100,000 events: client", "server", "database"]
    return [headings, *(one.cells() for one in series)]


def ratio(name: str, product: Series, limit: Series) -> list[str]:
    """Return a row of the ratios between the two, round by round."""
    ratios = [over / under for over, under in zip(product.rates, limit.rates, strict=True)]
    return [name, *(f"{value:.2f}" for value in (median(ratios), min(ratios), max(ratios))), "", "", ""]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out in columns, the first of them as headings; all but the first column are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (rows[0], rule, *rows[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _per_100_000(seconds: Sequence[float], events: int) -> str:
    return f"{sum(seconds) / events * 100_000:.2f}" if seconds else "-"
