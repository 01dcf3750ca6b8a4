"""How a run and its contenders talk: one contender at a time works, in a process of its own, and only work is timed.

The run writes an assignment to the contender's standard input, as one line of JSON. The contender prepares all that
is not to be timed and answers "ready"; told "go" it works, and answers with one line of JSON, a `Timing`.
"""

import asyncio
import dataclasses
import gc
import json
import math
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, Self

import uvloop

_PATIENCE = 180.0
"""Seconds for one assignment: several times what the slowest needs. After that a hanging part ends the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What a contender is to store."""

    events: int
    group: int
    """Events of one transaction, or of one batch; it divides `events`."""
    callers: int = 1
    """Calls that are outstanding at once, of contenders that call somebody."""
    duplicates: float = 0.0
    """The share of the events that were stored before, with the same content under the same key."""
    workspaces: int = 1
    """Workspaces that the calls are spread over."""
    rate: float = 0.0
    """Events per second that are sent whether or not earlier ones are answered; 0: a caller sends when answered."""
    patient: bool = False
    """Whether callers that are refused wait for as long as the refusal says and send again."""
    seconds: float = 0.0
    """With `patient`, when to stop if there is still something to send; 0: not before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a contender has found when it looked at what its work came to."""

    events: int
    """Events that were answered as they had to be while the clock ran."""
    stored: int
    """Events that the store holds more than before the assignment, those of its preparation included."""
    refused: int = 0
    """Calls that were refused for want of room, each time counted."""
    latencies: Sequence[float] = ()
    """Seconds of each call, in no order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long one assignment took."""

    events: int
    """As in `Findings`."""
    seconds: float
    cpu_seconds: float
    """Of the contender's own process."""
    p50: float = 0.0
    """Milliseconds from when a call was to be sent to its answer, the median; 0 of a contender that calls nobody."""
    p99: float = 0.0
    """The same, exceeded by one call in a hundred."""
    refused: int = 0
    """As in `Findings`."""
    stored: int = 0
    """As in `Findings`."""

    @property
    def rate(self) -> float:
        """Events per second; of patient callers, those that were stored in the end."""
        return self.events / self.seconds


class Work(Protocol):
    """An assignment, prepared."""

    async def run(self) -> None:
        """Do it. This is what is timed."""

    async def check(self) -> Findings:
        """Say what it came to. Raises `RuntimeError` if that is not what was assigned."""


def contend(prepare: Callable[[Assignment], Awaitable[Work]]) -> None:
    """Be a contender: take assignments from standard input until it is closed."""
    uvloop.run(_contend(prepare))


async def _contend(prepare: Callable[[Assignment], Awaitable[Work]]) -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        assignment = Assignment(**json.loads(line))
        work = await prepare(assignment)
        # What was prepared would otherwise be walked again and again by the collector, on the work's time.
        gc.collect()
        gc.freeze()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        cpu, started = time.process_time(), time.perf_counter()
        await work.run()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        found = await work.check()
        gc.unfreeze()
        latencies = sorted(found.latencies)
        timing = Timing(
            events=found.events,
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            stored=found.stored,
            refused=found.refused,
            p50=_milliseconds(latencies, 0.50),
            p99=_milliseconds(latencies, 0.99),
        )
        print(json.dumps(dataclasses.asdict(timing)), flush=True)


def _milliseconds(ordered: Sequence[float], share: float) -> float:
    """Return the time within which this share of the calls was answered; 0 if there is no call."""
    return ordered[math.ceil(share * len(ordered)) - 1] * 1000 if ordered else 0.0


class Contender:
    """A contender, `python -m MODULE ARGUMENTS`, as the run sees it. Use as `with`: it is gone afterwards."""

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str]):
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(environment),
            cwd=Path(__file__).parents[1],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # It ends by itself when its input is closed, unless it hangs.
        self._input.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()

    async def prepare(self, assignment: Assignment) -> None:
        """Return once all is ready for `go`. Raises `RuntimeError` if the contender failed; it has said why."""
        await self._ask(json.dumps(dataclasses.asdict(assignment)))

    async def go(self) -> Timing:
        """Let it work, and return how long that took. Raises `RuntimeError` if it failed; it has said why."""
        return Timing(**json.loads(await self._ask("go")))

    async def _ask(self, line: str) -> str:
        print(line, file=self._input, flush=True)
        try:
            async with asyncio.timeout(_PATIENCE):
                answer = await asyncio.to_thread(self._output.readline)
        except TimeoutError:
            # Ends the thread's reading as well.
            self._process.kill()
            raise RuntimeError(f"{self._module} did not answer within {_PATIENCE:g} s") from None
        if not answer:
            raise RuntimeError(f"{self._module} failed")
        return answer

    @property
    def _input(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _output(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout
