"""More callers than the server takes in, who come back when they are told to."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence

from bench.calls import Call, Plan
from bench.lockstep import Findings
from bench.loops import Loop, Refused, Send
from bench.wires import Wire


class Overload(Loop):
    """Callers that insist: who is refused waits as long as it is asked to, and up to as long again by chance, so that
    they do not come back all at once.

    They stop after so many `seconds` (0: never), or when the first of them finds nothing left to send: later there are
    fewer callers than there are to be. What was answered by then counts, neither what was refused nor what came later.
    """

    def __init__(self, plan: Plan, wire: Wire, senders: Sequence[Send], callers: int, seconds: float):
        super().__init__(plan, wire, senders)
        self._callers = callers
        self._seconds = seconds
        self._refused = 0
        self._in_time = 0
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Insist until it is time to stop."""
        waiting = iter(self._calls)
        self._tasks = [
            asyncio.create_task(self._call(waiting, self._senders[caller % len(self._senders)]))
            for caller in range(self._callers)
        ]
        await asyncio.wait(self._tasks, timeout=self._seconds or None, return_when=asyncio.FIRST_COMPLETED)
        self._in_time = len(self._answers)
        self._over.set()

    async def check(self) -> Findings:
        """Wait for what is still in progress, and read all answers.

        Raises `RuntimeError` if one says what it must not, and what a caller failed with.
        """
        await asyncio.gather(*self._tasks)
        found = self._findings()
        return Findings(
            events=sum(len(call.statuses) for call, _ in self._answers[: self._in_time]),
            stored=found.stored,
            refused=self._refused,
            latencies=found.latencies,
        )

    async def _call(self, waiting: Iterator[Call], send: Send) -> None:
        for call in waiting:
            started = time.perf_counter()
            answer = await self._insist(call, send)
            if answer is not None:
                self._latencies.append(time.perf_counter() - started)
                self._answers.append((call, answer))
            if self._over.is_set():
                return

    async def _insist(self, call: Call, send: Send) -> bytes | None:
        """Make a call until it is answered; None if the time is over before."""
        while True:
            try:
                return await send(call)
            except Refused as refusal:
                self._refused += 1
                delay = refusal.delay * (1 + random.random())
            try:
                async with asyncio.timeout(delay):
                    await self._over.wait()
            except TimeoutError:
                continue
            return None
