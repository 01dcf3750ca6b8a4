"""What was measured, as one picture: how many events a second each of the main ways stores, and the ratios."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.measured import Compared, Series
from bench.suite import By, Scenario

_COLOURS = {
    By.LIMIT: "#8a8f98",
    By.GRPC: "#2f6fab",
    By.GHZ: "#7fb2dd",
    By.REST: "#3f9b6c",
    By.HTTP: "#8fc9a9",
    By.EMPTY: "#b9bec6",
    By.PEER: "#c77b30",
}
_REACHED, _SHORT, _UNASKED = "#3f9b6c", "#b8433a", "#8a8f98"
_INCHES_A_BAR = 0.28
_CROWDED = 24
"""Bars of a scenario beyond which only its table is readable."""


def draw(played: Sequence[tuple[Scenario, Sequence[Series], Sequence[Compared]]], path: Path) -> None:
    """Write the picture as SVG. The same figures make the same file."""
    mpl.rcParams.update({"svg.hashsalt": "headgate", "font.size": 9, "svg.fonttype": "none"})
    panels = [(scenario, series) for scenario, series, _ in played if len(series) <= _CROWDED]
    ratios = [one for _, _, compared in played for one in compared]
    rows = [len(ratios), *(len(series) for _, series in panels)]
    figure = Figure(figsize=(11, _INCHES_A_BAR * (sum(rows) + 4 * len(rows))), layout="constrained")
    axes = figure.subplots(len(rows), 1, height_ratios=[count + 2 for count in rows], squeeze=False)[:, 0]
    _draw_ratios(axes[0], ratios)
    for panel, (scenario, series) in zip(axes[1:], panels, strict=True):
        _draw_rates(panel, scenario, series)
    figure.savefig(path, format="svg", metadata={"Date": None})


def _draw_ratios(axes: Axes, ratios: Sequence[Compared]) -> None:
    """Each ratio as a share of its target; one that has none, of 1."""
    names = [one.ratio.name for one in ratios]
    shares = [one.value / (one.ratio.target or 1) for one in ratios]
    colours = [{"reached": _REACHED, "short": _SHORT}.get(one.verdict, _UNASKED) for one in ratios]
    bars = axes.barh(names, shares, color=colours)
    labels = [f"{one.value:.2f}" + (f" (at least {one.ratio.target:g})" if one.ratio.target else "") for one in ratios]
    axes.bar_label(bars, labels=labels, padding=3)
    axes.axvline(1, color="black", linewidth=0.8)
    _finish(axes, "Ratios; the line is what each must reach", shares)


def _draw_rates(axes: Axes, scenario: Scenario, all_series: Sequence[Series]) -> None:
    medians = [median(series.rates) for series in all_series]
    spread = [
        [middle - min(series.rates) for middle, series in zip(medians, all_series, strict=True)],
        [max(series.rates) - middle for middle, series in zip(medians, all_series, strict=True)],
    ]
    bars = axes.barh(
        list(map(_name, all_series)),
        medians,
        xerr=spread,
        color=[_COLOURS[series.load.by] for series in all_series],
        error_kw={"linewidth": 0.8},
    )
    axes.bar_label(bars, labels=[f"{value:,.0f}" for value in medians], padding=6)
    _finish(axes, f"{scenario.title} (events/s)", medians)


def _finish(axes: Axes, title: str, values: Sequence[float]) -> None:
    axes.set_title(title, loc="left", fontweight="bold")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max(values))
    axes.spines[["top", "right"]].set_visible(False)


def _name(series: Series) -> str:
    load = series.load
    extra = [
        f"{load.duplicates:.0%} duplicates" if load.duplicates else "",
        f"{load.workspaces:,} workspaces" if load.workspaces > 1 else "",
        f"at {load.pace:.0%}" if load.pace else "",
    ]
    return ", ".join(filter(None, [f"{load.by}: {load.batch:,} x {load.callers}", *extra]))
