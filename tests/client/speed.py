"""Measures the client beside gRPC itself: `make speed-client`, or `python -m tests.client.speed ROUNDS SECONDS`.

Five programs take turns, round by round, at one server on SQLite. Each stores orders of the benchmark's workload:

    calls      single events, 64 callers: the benchmark's lean driver, which sends bytes that it prepared
    stream     the same over StreamIngest, with 64 events unanswered
    stub       one thread that makes events, and sends batches of 100 with the stub
    buffer     one thread that makes events, and emits them into the client's buffer
    aio        the same in an event loop

It prints events a second, the CPU seconds of program and server for 100,000 events, and the two ratios that count. A
program is a process of its own, a contender of the benchmark (`bench/contender.py`).
"""

import asyncio
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from statistics import median
from typing import Any

import grpc
import grpc.aio

from bench import calls, workload
from bench.contender import Assignment, Child, Timing, child, contend
from bench.suite import By, Load
from headgate.v1.bridge_view_pb2 import RawStreamIngestRequest
from headgate.v1.ingest_service_pb2 import StreamIngestResponse
from headgate_client import AsyncClient, Client
from tests.support import cost
from tests.support.service import ServerProcess, make_key

UNANSWERED = 64
BATCH = 100
METHODS = "/headgate.v1.IngestService/"
WARM_UP = 3_000
"""Events of the turn that estimates each program's rate."""
RATIOS = (("stream", "calls", 2.0), ("buffer", "stub", 0.7), ("aio", "stub", None))


class Program:
    """Orders to store, and the way to do it."""

    def __init__(self, way: str, address: str, key: str, assignment: Assignment):
        self._address, self._key = address, key
        self._metadata = (("x-api-key", key),)
        self._orders = workload.orders(assignment.events)
        self._prepared = [RawStreamIngestRequest(events=[workload.protobuf(order)]) for order in self._orders]
        self._statuses: list[str] = []
        self._way: Callable[[], Any] = getattr(self, f"_by_{way}")

    async def run(self) -> None:
        """Store all orders."""
        await self._way()

    async def check(self) -> Timing:
        """Return what is stored. Raises `RuntimeError` if it is not everything."""
        if self._statuses != ["accepted"] * len(self._orders):
            raise RuntimeError(f"{self._statuses.count('accepted')} of {len(self._orders)} events were accepted")
        return Timing(len(self._orders), len(self._orders))

    async def _by_stream(self) -> None:
        free = asyncio.Semaphore(UNANSWERED)
        async with grpc.aio.insecure_channel(self._address) as channel:
            method: Any = channel.stream_stream(
                f"{METHODS}StreamIngest", response_deserializer=StreamIngestResponse.FromString
            )
            call = method(metadata=self._metadata)

            async def write() -> None:
                for request in self._prepared:
                    await free.acquire()
                    await call.write(request.SerializeToString())
                await call.done_writing()

            writing = asyncio.create_task(write())
            async for answer in call:
                if answer.HasField("error"):
                    raise RuntimeError(f"a request was refused: {answer.error}")
                self._statuses += [result.status for result in answer.results]
                for _ in range(answer.requests):
                    free.release()
            await writing

    async def _by_stub(self) -> None:
        await asyncio.to_thread(self._with_stub)

    def _with_stub(self) -> None:
        with grpc.insecure_channel(self._address) as channel:
            method: Any = channel.unary_unary(f"{METHODS}BatchIngest")
            for start in range(0, len(self._orders), BATCH):
                events = [workload.protobuf(order) for order in self._orders[start : start + BATCH]]
                answer = method(calls.BATCH.request(events), metadata=self._metadata)
                self._statuses += calls.BATCH.statuses(answer)

    async def _by_buffer(self) -> None:
        await asyncio.to_thread(self._with_buffer)

    def _with_buffer(self) -> None:
        with Client(self._address, api_key=self._key) as client:
            with client.buffered(max_size=BATCH, when_full="block", close_timeout=60.0) as buffer:
                tickets = [buffer.emit(**_emitted(order)) for order in self._orders]
            self._statuses = [ticket.result().status for ticket in tickets]

    async def _by_aio(self) -> None:
        async with AsyncClient(self._address, api_key=self._key) as client:
            async with client.buffered(max_size=BATCH, when_full="block", close_timeout=60.0) as buffer:
                tickets = [await buffer.emit_wait(**_emitted(order)) for order in self._orders]
            self._statuses = [ticket.result(0).status for ticket in tickets]


def _emitted(order: workload.Order) -> dict[str, Any]:
    return {"key" if name == "idempotency_key" else name: value for name, value in order.items()}


async def measure(rounds: int, seconds: float) -> None:
    """Run all programs, and print what they did."""
    found: defaultdict[str, list[tuple[float, float, float]]] = defaultdict(list)
    loads = {way: Load(By.GRPC, 1, UNANSWERED) for way in ("calls", "stream")}
    loads |= {way: Load(By.GRPC, BATCH) for way in ("stub", "buffer", "aio")}
    async with AsyncExitStack() as stack:
        url = f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/headgate.db"
        key = await make_key(url)
        server = await stack.enter_async_context(ServerProcess(url))
        programs = {"calls": await stack.enter_async_context(_program("bench.driver", "grpc", server, key))}
        for way in loads.keys() - programs.keys():
            programs[way] = await stack.enter_async_context(_program("tests.client.speed", way, server, key))
        events = {}
        for way, load in loads.items():
            rate, *_ = await _turn(programs[way], Assignment(load, WARM_UP), server.pid)
            events[way] = max(1, round(rate * seconds / BATCH)) * BATCH
        for number in range(rounds):
            for way in list(loads)[:: -1 if number % 2 else 1]:
                found[way].append(await _turn(programs[way], Assignment(loads[way], events[way]), server.pid))
    for way, turns in found.items():
        rate, spent, served = (median(figures) for figures in zip(*turns, strict=True))
        print(f"{way:7} {rate:9,.0f} events/s   CPU s per 100,000: program {spent:5.2f}, server {served:5.2f}")
    for over, under, target in RATIOS:
        by_round = [one[0] / other[0] for one, other in zip(found[over], found[under], strict=True)]
        wanted = f", at least {target}" if target else ""
        print(f"{over} ÷ {under}: {median(by_round):.2f} ({min(by_round):.2f} to {max(by_round):.2f}{wanted})")


def _program(module: str, way: str, server: ServerProcess, key: str) -> Any:
    return child(module, way, str(server.port), HEADGATE_KEYS=key)


async def _turn(program: Child, assignment: Assignment, server: int) -> tuple[float, float, float]:
    """Return events a second, and the CPU seconds of program and server for 100,000 events."""
    await program.prepare(assignment)
    before = cost.cpu_seconds([server])
    timing = await program.go()
    served = cost.cpu_seconds([server]) - before
    return timing.events / timing.seconds, *(spent / timing.events * 1e5 for spent in (timing.cpu_seconds, served))


def main() -> None:
    """Measure, or be one of the programs."""
    first, second = sys.argv[1:]
    if first.isdigit():
        asyncio.run(measure(int(first), float(second)))
        return

    async def prepare(assignment: Assignment) -> Program:
        return Program(first, f"127.0.0.1:{second}", os.environ["HEADGATE_KEYS"], assignment)

    contend(prepare)


if __name__ == "__main__":
    main()
