"""Windows as a table."""

from collections.abc import Mapping, Sequence
from statistics import median

from bench import table
from bench.growth.measure import Window

_HEADINGS = (
    "",
    "events/s, median",
    "min",
    "max",
    "to the first",
    "WAL bytes an event",
    "page images an event",
    "index pages read an event",
    "index MB",
    "database CPU µs an event",
)


def windows(rounds: Mapping[str, Sequence[Window]]) -> str:
    """Return Markdown: a row for each name, all of its rounds taken together."""
    first = next(iter(rounds.values()))
    return table.markdown([_HEADINGS, *(_cells(name, found, first) for name, found in rounds.items())], left=(0,))


def _cells(name: str, found: Sequence[Window], first: Sequence[Window]) -> list[str]:
    rates = [window.rate for window in found]
    ratios = [window.rate / other.rate for window, other in zip(found, first, strict=True)]
    events = sum(window.events for window in found)
    return [
        name,
        *(f"{value:,.0f}" for value in (median(rates), min(rates), max(rates))),
        f"{median(ratios):.2f}",
        f"{sum(window.wal for window in found) / events:,.0f}",
        f"{sum(window.pages for window in found) / events:.3f}",
        f"{sum(window.reads for window in found) / events:.2f}",
        f"{found[-1].size / 1e6:,.0f}",
        f"{sum(window.database_seconds for window in found) / events * 1e6:.1f}",
    ]
