"""Draws the measurements as one picture: the ratios, and the events a second of each load."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.measured import Compared, Played, Rounds, rate, rates
from bench.suite import By

_COLOURS = dict(zip(By, ("#8a8f98", "#2f6fab", "#7fb2dd", "#3f9b6c", "#8fc9a9", "#b9bec6", "#c77b30"), strict=True))
_VERDICTS = {"reached": "#3f9b6c", "short": "#b8433a", "": "#8a8f98"}
_INCHES_A_BAR = 0.28
_CROWDED = 24
"""Bars of a scenario beyond which only its table is readable."""


def draw(all_played: Sequence[Played], path: Path) -> None:
    """Write the picture as SVG. The same figures make the same file."""
    mpl.rcParams.update({"svg.hashsalt": "headgate", "font.size": 9, "svg.fonttype": "none"})
    shown = [played for played in all_played if len(played.rounds) <= _CROWDED]
    ratios = [ratio for played in all_played for ratio in played.compared()]
    rows = [len(ratios), *(len(played.rounds) for played in shown)]
    figure = Figure(figsize=(11, _INCHES_A_BAR * (sum(rows) + 4 * len(rows))), layout="constrained")
    axes = figure.subplots(len(rows), 1, height_ratios=[count + 2 for count in rows], squeeze=False)[:, 0]
    _draw_ratios(axes[0], ratios)
    for panel, played in zip(axes[1:], shown, strict=True):
        _draw_rates(panel, f"{played.scenario.name} (events/s)", played.rounds)
    figure.savefig(path, format="svg", metadata={"Date": None})


def _draw_ratios(axes: Axes, ratios: Sequence[Compared]) -> None:
    """Draw each ratio as a share of its target, or of 1 without a target. Two may have one name, in two scenarios."""
    shares = [median(one.by_round) / (one.ratio.target or 1) for one in ratios]
    labels = [f"{median(one.by_round):.2f}" + (f" ({one.ratio.said})" if one.ratio.said else "") for one in ratios]
    colours = [_VERDICTS[one.verdict] for one in ratios]
    bars = axes.barh(range(len(ratios)), shares, tick_label=[one.ratio.name for one in ratios], color=colours)
    axes.bar_label(bars, labels, padding=3)
    axes.axvline(1, color="black", linewidth=0.8)
    _finish(axes, "Ratios; the line is the target of each", shares)


def _draw_rates(axes: Axes, title: str, rounds: Rounds) -> None:
    """Draw the median of each load's rounds, with the slowest and the fastest."""
    names = [", ".join([f"{load.by}: {load.batch:,} x {load.callers}", *load.particulars()]) for load in rounds]
    medians, by_round = list(map(rate, rounds.values())), list(map(rates, rounds.values()))
    spread = [[median(one) - min(one) for one in by_round], [max(one) - median(one) for one in by_round]]
    colours = [_COLOURS[load.by] for load in rounds]
    bars = axes.barh(names, medians, xerr=spread, color=colours, error_kw={"linewidth": 0.8})
    axes.bar_label(bars, [f"{value:,.0f}" for value in medians], padding=6)
    _finish(axes, title, medians)


def _finish(axes: Axes, title: str, values: Sequence[float]) -> None:
    axes.set_title(title, loc="left", fontweight="bold")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max(values, default=1))
    axes.spines[["top", "right"]].set_visible(False)
