"""Plays a scenario: its loads take turns, and everything that a turn costs is taken down."""

import math
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

from bench import cpu, memory, parts
from bench.ledger_ends import Ledgers
from bench.lockstep import Assignment, Timing
from bench.measured import Series, highest_rate
from bench.stage import Role, Stage, set_up
from bench.suite import Load, Scenario

_WARM_UP_EVENTS = 2_000
"""What is sent before anything counts: enough to say about how fast it is."""
_CALLS_EACH = 3
"""Calls that each caller makes at least, so that beginning and end of a turn weigh little."""


async def play(scenario: Scenario, database: parts.Database | None, folder: Path) -> list[Series]:
    """Return what each of the scenario's loads came to. Raises `RuntimeError` if the store does not hold exactly what
    was answered.
    """
    async with set_up(scenario, database, folder) as stage, Ledgers(stage.url) as ledgers:
        _say(scenario, "all parts are running")
        turns = [_Turn(load, stage, scenario, ledgers) for load in scenario.loads]
        for turn in turns:
            await turn.warm_up()
        latest = time.monotonic() + scenario.patience
        for number in range(scenario.rounds):
            if time.monotonic() > latest:
                break
            for turn in reversed(turns) if number % 2 else turns:
                await turn.take([other.series for other in turns])
                _say(scenario, _turn_said(number, turn.series))
    return [turn.series for turn in turns]


class _Turn:
    """One load, turn after turn."""

    def __init__(self, load: Load, stage: Stage, scenario: Scenario, ledgers: Ledgers):
        self.series = Series(load)
        self._load = load
        self._role: Role = stage.roles[load.by]
        self._seconds = scenario.seconds
        self._ledgers = ledgers
        self._rate = 0.0
        """What to expect, in events per second."""

    async def warm_up(self) -> None:
        """Find out how fast it is, about."""
        if self._role.counted:
            timing, _ = await self._send(self._assignment(_WARM_UP_EVENTS), [])
            self._rate = timing.rate

    async def take(self, others: Sequence[Series]) -> None:
        """Send for about as long as a turn takes."""
        rate = self._load.pace * highest_rate(self._load, others) if self._load.pace else 0.0
        assignment = self._assignment((rate or self._rate) * self._seconds, rate)
        for pid in self._role.servers:
            memory.reset_peak(pid)
        timing, spent = await self._send(assignment, others)
        largest = max(map(memory.peak_mib, self._role.servers), default=None)
        self.series.add(timing, spent, largest)

    def _assignment(self, events: float, rate: float = 0.0) -> Assignment:
        """Return an assignment of about so many events: whole calls, and several for every caller."""
        load = self._load
        calls = max(math.ceil(events / load.batch), 1 if rate else _CALLS_EACH * load.callers)
        return Assignment(
            events=calls * load.batch,
            group=load.batch,
            callers=load.callers,
            duplicates=load.duplicates,
            workspaces=load.workspaces,
            rate=rate,
            patient=load.patient,
        )

    def _enough_seconds(self, others: Sequence[Series]) -> float:
        """Return how long a tool that cannot count has to send for the calls that each caller should make."""
        load = self._load
        rates = (median(one.rates) for one in others if one.timings and one.load.batch == load.batch)
        fastest = max(rates, default=0.0)
        return max(self._seconds, _CALLS_EACH * load.callers * load.batch / fastest) if fastest else self._seconds

    async def _send(self, assignment: Assignment, others: Sequence[Series]) -> tuple[Timing, dict[str, float]]:
        """Return what it came to, and the CPU seconds by part."""
        role = self._role
        player = role.player(assignment, self._enough_seconds(others))
        stored = await self._ledgers.settled()
        await player.prepare()
        before = _seconds(role.spenders)
        timing = await player.go()
        spent = {part: seconds - before[part] for part, seconds in _seconds(role.spenders).items()}
        await self._check(timing, await self._ledgers.settled() - stored)
        return timing, {"generator": timing.cpu_seconds, **spent}

    async def _check(self, timing: Timing, grown: int) -> None:
        """Raise `RuntimeError` unless the ledgers have grown by what was answered."""
        if not self._role.stores:
            least = most = 0
        elif self._role.counted:
            least = most = timing.stored
        else:
            # A tool that stops at a time leaves at most a call of each caller unanswered.
            least, most = timing.events, timing.events + self._load.callers * self._load.batch
        if not least <= grown <= most:
            raise RuntimeError(f"{self._load}: {least:,} to {most:,} events were to be stored, and {grown:,} were")


def _seconds(spenders: Mapping[str, Iterable[int]]) -> dict[str, float]:
    return {part: sum(map(cpu.tree_seconds, pids)) for part, pids in spenders.items()}


def _turn_said(number: int, series: Series) -> str:
    load, rate = series.load, series.rates[-1]
    return f"round {number + 1}: {load.by}, {load.batch:,} x {load.callers}: {rate:,.0f} events/s"


def _say(scenario: Scenario, what: str) -> None:
    print(f"{scenario.name}, {what}", file=sys.stderr, flush=True)
