"""Writes the table of docs/metrics.md from the catalogue: `python -m tests.support.metrics_page`."""

from pathlib import Path

from headgate_server.process.metrics.catalogue import CATALOGUE, Kind, Metric

PAGE = Path(__file__).parent.parent.parent / "docs" / "metrics.md"

_BEGIN = "<!-- The table is written by `python -m tests.support.metrics_page`. -->\n"
_END = "<!-- end of the table -->\n"


def page() -> str:
    """Return the page, with its table as the catalogue says."""
    head, _, rest = PAGE.read_text().partition(_BEGIN)
    return f"{head}{_BEGIN}\n{table()}\n{_END}{rest.partition(_END)[2]}"


def table() -> str:
    """Return the table."""
    return "| metric | type | labels | meaning |\n|---|---|---|---|\n" + "".join(map(_row, CATALOGUE))


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{name}`" for name in metric.labels)
    merge = f" ({metric.merge} of the workers)" if metric.kind is Kind.GAUGE and metric.merge != "sum" else ""
    return f"| `{metric.shown}` | {metric.kind} | {labels} | {metric.means}{merge} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
