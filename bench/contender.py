"""Contenders: processes that prepare a turn of a load, print "ready", work on command, and are timed.

The run writes an `Assignment` to a contender's standard input, as one line of JSON, and then "go"; the contender
answers with one line of JSON, a `Timing`. Other children of the run are servers, which print their port.
"""

import asyncio
import gc
import json
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import uvloop

from bench.suite import Load

_PATIENCE = 180.0
"""Seconds for one assignment, several times what the slowest takes. A part that takes longer ends the run."""


class Assignment(NamedTuple):
    """A contender's task: the number of events, and events a second; 0: a caller sends again when it is answered."""

    load: Load
    events: int
    rate: float = 0.0


@dataclass(slots=True)
class Timing:
    """The result of one turn.

    `events` were answered correctly while the clock ran, `seconds`, and `answered` in the whole turn. `stored` are the
    events that a contender added, also in its preparation. `refused` counts every refusal of a call. Latencies are
    milliseconds of a call, 0 without calls. `cpu_seconds` are the sender's own in the whole turn, `spent` those of all
    parts (generator, Envoy, server, database). `peak_mib` is the largest resident memory of one server process.
    """

    events: int
    stored: int = 0
    refused: int = 0
    p50: float = 0.0
    p99: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    spent: dict[str, float] = field(default_factory=dict)
    peak_mib: float = 0.0
    answered: int = 0

    def __post_init__(self) -> None:
        self.answered = self.answered or self.events


class Work(Protocol):
    """A prepared assignment. `run` is timed, if the result of `check` has no time. `check` raises `RuntimeError`."""

    async def run(self) -> None: ...
    async def check(self) -> Timing: ...


def contend(prepare: Callable[[Assignment], Awaitable[Work]]) -> None:
    """Work as a contender: read assignments from standard input until it is closed."""
    uvloop.run(_contend(prepare))


async def _contend(prepare: Callable[[Assignment], Awaitable[Work]]) -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        load, events, rate = json.loads(line)
        work = await prepare(Assignment(Load(**load), events, rate))
        # Otherwise the collector would examine the prepared objects repeatedly while the clock runs.
        gc.collect()
        gc.freeze()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        cpu, started = time.process_time(), time.perf_counter()
        await work.run()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        timing = await work.check()
        gc.unfreeze()
        seconds = timing.seconds or seconds
        print(json.dumps({**asdict(timing), "seconds": seconds, "cpu_seconds": cpu_seconds}), flush=True)


class Child:
    """A process, `python -m MODULE`, that answers lines with lines."""

    def __init__(self, module: str, process: Process):
        self._module, self._process, self.pid = module, process, process.pid

    async def prepare(self, assignment: Assignment, seconds: float = 0) -> None:
        """Return once a contender is ready for `go`. It counts the assignment's events, not the seconds."""
        await self._ask(json.dumps([asdict(assignment.load), assignment.events, assignment.rate]))

    async def go(self) -> Timing:
        """Let a contender work, and return its result."""
        return Timing(**json.loads(await self._ask("go")))

    async def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        return await self.line()

    async def line(self) -> str:
        """Return the next line of its output. Raises `TimeoutError`, and `RuntimeError` if the process ends."""
        assert self._process.stdout is not None
        async with asyncio.timeout(_PATIENCE):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._module} failed")
        return line.decode()


@asynccontextmanager
async def child(module: str, *arguments: str, **environment: str) -> AsyncIterator[Child]:
    """Run `python -m MODULE ARGUMENTS` until the block ends. It ends when its input is closed."""
    environment, root = {**os.environ, **environment}, Path(__file__).parents[1]
    command = (sys.executable, "-m", module, *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=environment, cwd=root)
    assert process.stdin is not None
    try:
        yield Child(module, process)
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()
