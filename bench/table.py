"""What was measured, as Markdown."""

from collections.abc import Iterable, Sequence
from statistics import median

from bench.measured import Compared, Series

_PARTS = ("generator", "Envoy", "server", "database")
_HEADINGS = (
    "who stores",
    "events a call",
    "callers",
    "",
    "events/s",
    "min",
    "max",
    "p50 ms",
    "p99 ms",
    *(f"CPU s: {part}" for part in _PARTS),
    "peak MiB",
)


def comparison(one: Compared) -> list[str]:
    """Return the row of a ratio: what was to be reached, what was seen, and whether it was enough."""
    target = "" if one.ratio.target is None else f"{one.ratio.target:g}"
    ratios = [f"{value:.2f}" for value in (one.value, min(one.by_round), max(one.by_round))]
    return [one.ratio.name, target, *ratios, one.verdict, f"{_short(one.over)} ÷ {_short(one.under)}"]


def comparisons(rows: Iterable[Sequence[str]]) -> str:
    """Return the rows of ratios under their headings."""
    return markdown([["what", "at least", "seen", "min", "max", "", "loads"], *rows], left=(0, 5, 6))


def figures(series: Iterable[Series]) -> str:
    """Return a row for each load."""
    return markdown([_HEADINGS, *map(_cells, series)], left=(0, 3))


def _cells(series: Series) -> list[str]:
    load = series.load
    rates = [f"{value:,.0f}" for value in (median(series.rates), min(series.rates), max(series.rates))]
    events = sum(timing.events for timing in series.timings)
    spent = [_per_100_000(series.spent[part], events) if part in series.spent else "-" for part in _PARTS]
    return [
        load.by.value,
        f"{load.batch:,}",
        str(load.callers),
        _particulars(series),
        *rates,
        *(f"{median(values):.1f}" if any(values) else "-" for values in (series.p50s, series.p99s)),
        *spent,
        f"{max(series.memory):.0f}" if series.memory else "-",
    ]


def _per_100_000(seconds: float, events: int) -> str:
    # Of nothing stored, as where a tool that does not wait is refused all along, there is nothing to say.
    return f"{seconds / events * 100_000:.2f}" if events else "-"


def _particulars(series: Series) -> str:
    """Return in what a load differs from fresh events of one workspace, sent as fast as they are answered."""
    load, refused = series.load, sum(timing.refused for timing in series.timings)
    said = [
        f"{load.duplicates:.0%} duplicates" if load.duplicates else "",
        f"{load.workspaces:,} workspaces" if load.workspaces > 1 else "",
        f"at {load.pace:.0%} of the peak" if load.pace else "",
        "honouring RetryInfo" if load.patient else "",
        f"{refused:,} refusals" if refused or load.patient else "",
    ]
    return ", ".join(filter(None, said))


def _short(series: Series) -> str:
    return f"{series.load.batch:,} x {series.load.callers}"


def markdown(rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """Lay rows out in columns, the first row as headings. `left` are the columns of text; the others hold numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width if index in left else "-" * (width - 1) + ":" for index, width in enumerate(widths)]
    return "\n".join(f"| {' | '.join(_line(row, widths, left))} |" for row in (rows[0], rule, *rows[1:]))


def _line(row: Sequence[str], widths: Sequence[int], left: Sequence[int]) -> list[str]:
    cells = zip(row, widths, strict=True)
    return [cell.ljust(width) if index in left else cell.rjust(width) for index, (cell, width) in enumerate(cells)]
