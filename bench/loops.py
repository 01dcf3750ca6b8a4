"""How calls are made: by callers that wait for their answers, or at a fixed rate. `overload` has a third way."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from bench import calls
from bench.calls import Call, Plan
from bench.lockstep import Findings
from bench.wires import Wire

Send = Callable[[Call], Awaitable[bytes]]
"""Makes a call and returns its answer. Raises whatever its client raises; `Refused` if it may be made again later."""


class Refused(Exception):
    """The server takes no more at the moment. `delay` is how many seconds it asks to wait."""

    def __init__(self, delay: float):
        super().__init__(f"refused: come back in {delay:g} s")
        self.delay = delay


class Loop:
    """Calls and what became of them. The senders, of which there may be several, take turns."""

    def __init__(self, plan: Plan, wire: Wire, senders: Sequence[Send]):
        self._calls = plan.calls
        self._wire = wire
        self._senders = senders
        self._prepared = sum(len(call.statuses) for call in plan.originals)
        self._answers: list[tuple[Call, bytes]] = []
        self._latencies: list[float] = []

    async def check(self) -> Findings:
        """Read all answers. Raises `RuntimeError` if one is missing or says what it must not."""
        if len(self._answers) != len(self._calls):
            raise RuntimeError(f"{len(self._answers)} answers to {len(self._calls)} calls")
        return self._findings()

    def _findings(self) -> Findings:
        accepted = sum(calls.check(call, answer, self._wire) for call, answer in self._answers)
        events = sum(len(call.statuses) for call, _ in self._answers)
        return Findings(events=events, stored=self._prepared + accepted, latencies=self._latencies)


class ClosedLoop(Loop):
    """Callers that make their next call as soon as the last one is answered; each has one sender."""

    def __init__(self, plan: Plan, wire: Wire, senders: Sequence[Send], callers: int):
        super().__init__(plan, wire, senders)
        self._callers = callers

    async def run(self) -> None:
        """Make all calls."""
        waiting = iter(self._calls)
        async with asyncio.TaskGroup() as callers:
            for caller in range(self._callers):
                callers.create_task(self._call(waiting, self._senders[caller % len(self._senders)]))

    async def _call(self, waiting: Iterator[Call], send: Send) -> None:
        clock = time.perf_counter
        for call in waiting:
            started = clock()
            answer = await send(call)
            self._latencies.append(clock() - started)
            self._answers.append((call, answer))


class OpenLoop(Loop):
    """Calls at a fixed rate. A call's latency counts from when it was due, so that a server that stalls is charged for
    all that it kept waiting, also for what could not even be sent.

    The event loop wakes up once a millisecond: at more calls than that a second some are sent up to a millisecond
    late, and that millisecond is in their latency.
    """

    def __init__(self, plan: Plan, wire: Wire, senders: Sequence[Send], calls_per_second: float):
        super().__init__(plan, wire, senders)
        self._interval = 1 / calls_per_second

    async def run(self) -> None:
        """Make all calls, each at its time."""
        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number, call in enumerate(self._calls):
                due = started + number * self._interval
                ahead = due - time.perf_counter()
                if ahead > 0:
                    await asyncio.sleep(ahead)
                tasks.create_task(self._call(call, self._senders[number % len(self._senders)], due))

    async def _call(self, call: Call, send: Send, due: float) -> None:
        answer = await send(call)
        self._latencies.append(time.perf_counter() - due)
        self._answers.append((call, answer))
