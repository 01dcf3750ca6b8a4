"""What was measured: the rounds of each load, and the ratios between them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.lockstep import Timing
from bench.suite import Load, Ratio


@dataclass(slots=True)
class Series:
    """All rounds of one load; entries of the lists belong to one round each."""

    load: Load
    timings: list[Timing] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """CPU seconds of all rounds, by part: generator, Envoy, server, database; none of a part that is not there."""
    memory: list[float] = field(default_factory=list)
    """MiB that the largest of the server's processes had resident at most."""

    def add(self, timing: Timing, spent: Mapping[str, float], memory: float | None) -> None:
        """Add a round."""
        self.timings.append(timing)
        for part, seconds in spent.items():
            self.spent[part] += seconds
        if memory is not None:
            self.memory.append(memory)

    @property
    def rates(self) -> list[float]:
        """Events per second, by round."""
        return [timing.rate for timing in self.timings]

    @property
    def p50s(self) -> list[float]:
        """Milliseconds, by round."""
        return [timing.p50 for timing in self.timings]

    @property
    def p99s(self) -> list[float]:
        """Milliseconds, by round."""
        return [timing.p99 for timing in self.timings]


@dataclass(frozen=True, slots=True)
class Compared:
    """A ratio, and what it came to."""

    ratio: Ratio
    over: Series
    """The fastest of those that the ratio names, and likewise `under`."""
    under: Series

    @property
    def by_round(self) -> list[float]:
        """The ratio in each round."""
        return [over / under for over, under in zip(self.over.rates, self.under.rates, strict=True)]

    @property
    def value(self) -> float:
        """The median over the rounds."""
        return median(self.by_round)

    @property
    def verdict(self) -> str:
        """Whether it is enough; empty where nothing is asked."""
        if self.ratio.target is None:
            return ""
        return "reached" if self.value >= self.ratio.target else "short"


def compare(ratio: Ratio, all_series: Mapping[Load, Series]) -> Compared:
    """Pick the fastest loads on either side of a ratio."""
    return Compared(ratio, _fastest(ratio.over, all_series), _fastest(ratio.under, all_series))


def _fastest(loads: Sequence[Load], all_series: Mapping[Load, Series]) -> Series:
    return max((all_series[load] for load in loads), key=lambda series: median(series.rates))


def highest_rate(load: Load, all_series: Iterable[Series]) -> float:
    """Return the highest rate that was seen so far of this sender with this batch, sent without a pause.

    Raises `ValueError` if there is none.
    """
    return max(
        median(series.rates)
        for series in all_series
        if series.timings and (series.load.by, series.load.batch, series.load.pace) == (load.by, load.batch, 0.0)
    )
