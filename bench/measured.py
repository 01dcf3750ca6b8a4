"""The measurements: the turns of each load, round by round, and the ratios between loads."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.contender import Timing
from bench.suite import Load, Ratio, Scenario

Rounds = dict[Load, list[Timing]]


def rates(turns: Sequence[Timing]) -> list[float]:
    """Return events per second, by round."""
    return [turn.events / turn.seconds for turn in turns]


def rate(turns: Sequence[Timing]) -> float:
    """Return the median of the rates, 0 without turns."""
    return median(rates(turns) or [0.0])


@dataclass(frozen=True, slots=True)
class Played:
    """A scenario and its measurements."""

    scenario: Scenario
    rounds: Rounds
    database: str
    seconds: float

    def compared(self) -> list["Compared"]:
        """Return the values of the scenario's ratios, each between the fastest loads of both sides."""
        found = []
        for ratio in self.scenario.ratios:
            over, under = (max(side, key=lambda load: rate(self.rounds[load])) for side in (ratio.over, ratio.under))
            sides = [self.rounds[over], self.rounds[under]]
            values = [[turn.p99 for turn in turns] if ratio.of_p99 else rates(turns) for turns in sides]
            found.append(Compared(ratio, over, under, [one / other for one, other in zip(*values, strict=True)]))
        return found


@dataclass(frozen=True, slots=True)
class Compared:
    """A ratio, and its value in each round. The median counts."""

    ratio: Ratio
    over: Load
    under: Load
    by_round: list[float]

    @property
    def verdict(self) -> str:
        """Whether the target is reached; empty without a target."""
        if self.ratio.target is None:
            return ""
        seen, target = median(self.by_round), self.ratio.target
        return "reached" if (seen <= target if self.ratio.of_p99 else seen >= target) else "short"
