"""Callers with as little work as Python allows, so that the server's work dominates. A contender.

`HEADGATE_KEYS=hg_...,hg_... python -m bench.driver grpc PORT,PORT`, or `empty PORT,PORT` for `bench.empty`, or
`http ADDRESS`. Requests are encoded beforehand and sent as bytes, gRPC's over one connection to each port; answers are
kept as bytes and read when the clock has stopped.
"""

import asyncio
import itertools
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
import httpx
from google.rpc import error_details_pb2, status_pb2

from bench import calls, empty
from bench.calls import Call, Plan
from bench.contender import Assignment, Timing, contend

Send = Callable[[Call], Awaitable[bytes]]
"""Makes a call and returns its answer. Raises `Refused` if the call may be made again later."""


class Refused(Exception):
    """The server refuses more calls at the moment. The argument is the number of seconds to wait."""


class Loop:
    """Callers that make their next call as soon as the last one is answered. At a fixed rate, each call has its own
    caller, which makes it when it is due. The senders take turns.

    The clock runs from the first answer after as many as there are callers, to the answer after which a caller has
    nothing left to send. Both are the first of a round of answers, so whole rounds count, and every caller has a call
    outstanding. With `overload` callers stop then. At a fixed rate the clock runs from the beginning to the end.

    A call's latency counts from the time it was due, so a stall of the server counts for every call that it delays. A
    refused caller waits the requested time and up to as long again at random, so that not all retry at the same moment.
    """

    def __init__(self, plan: Plan, senders: Sequence[Send], assignment: Assignment):
        self._plan, self._senders, (self._load, _, self._rate) = plan, senders, assignment
        self._answers: list[tuple[Call, bytes]] = []
        self._latencies: list[float] = []
        self._refused, self._over = 0, asyncio.Event()
        self._begun = self._ended = (0.0, 0)
        """When the clock started and stopped, and the number of answers then."""

    async def run(self) -> None:
        self._begun, interval, waiting = self._now(), 0.0, iter(self._plan.calls)
        callers: list[Iterable[Call]] = [waiting] * self._load.callers
        if self._rate:
            interval, callers = self._load.batch / self._rate, [[call] for call in waiting]
        due = itertools.count(self._begun[0], interval)
        await asyncio.gather(*map(self._call, callers, itertools.cycle(self._senders), due))
        if self._rate:
            self._ended = self._now()

    async def check(self) -> Timing:
        if not self._load.overload and len(self._answers) != len(self._plan.calls):
            raise RuntimeError(f"{len(self._answers)} answers to {len(self._plan.calls)} calls")
        stored = sum(self._plan.encoding.check(call, answer) for call, answer in self._answers)
        stored += sum(len(call.statuses) for call in self._plan.originals)
        ordered = sorted(self._latencies)
        p50, p99 = (ordered[int(share * (len(ordered) - 1))] * 1000 for share in (0.50, 0.99))
        (begun, before), (ended, after) = self._begun, self._ended
        counted, answered = (number * self._load.batch for number in (after - before, len(self._answers)))
        return Timing(counted, stored, self._refused, p50, p99, ended - begun, answered=answered)

    def _now(self) -> tuple[float, int]:
        return time.perf_counter(), len(self._answers)

    async def _call(self, calls: Iterable[Call], send: Send, due: float) -> None:
        # The event loop wakes up once a millisecond, so a call may be sent up to a millisecond late.
        await asyncio.sleep(due - time.perf_counter())
        for call in calls:
            await self._insist(call, send, due)
            if self._over.is_set():
                return
            due = time.perf_counter()
        if not (self._rate or self._ended[1]):
            self._ended = self._now()
            if self._load.overload:
                self._over.set()

    async def _insist(self, call: Call, send: Send, due: float) -> None:
        while not self._over.is_set():
            try:
                answer = await send(call)
            except Refused as refusal:
                self._refused += 1
                with suppress(TimeoutError):
                    async with asyncio.timeout(refusal.args[0] * (1 + random.random())):
                        await self._over.wait()
            else:
                self._latencies.append(time.perf_counter() - due)
                self._answers.append((call, answer))
                if len(self._answers) == self._load.callers + 1 and not self._rate:
                    self._begun = self._now()
                return


def _by_grpc(method: Any, keys: Sequence[str]) -> Send:
    metadata = [(("x-api-key", key),) for key in keys]

    async def send(call: Call) -> bytes:
        try:
            return bytes(await method(call.body, metadata=metadata[call.workspace]))
        except grpc.aio.AioRpcError as error:
            raise _refusal(error) from error

    return send


def _refusal(error: grpc.aio.AioRpcError) -> Exception:
    """Return the wait before the refused call may be repeated, or the error itself if it is no such refusal."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and isinstance(details, bytes):
        info = error_details_pb2.RetryInfo()
        if any(detail.Unpack(info) for detail in status_pb2.Status.FromString(details).details):
            return Refused(info.retry_delay.ToTimedelta().total_seconds())
    return RuntimeError(f"a call failed: {error}")


def _by_http(client: httpx.AsyncClient, address: str, keys: Sequence[str]) -> Send:
    headers = [{"X-Api-Key": key, "Content-Type": "application/json"} for key in keys]

    async def send(call: Call) -> bytes:
        response = await client.post(address, content=call.body, headers=headers[call.workspace])
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise Refused(float(response.headers["Retry-After"]))
        return response.raise_for_status().content

    return send


if __name__ == "__main__":
    way, target = sys.argv[1:]
    keys = os.environ["HEADGATE_KEYS"].split(",")
    # Connections outlive the pause between a load's turns, and end before Envoy closes idle ones, after 300 s.
    http = httpx.AsyncClient(limits=httpx.Limits(max_connections=None, keepalive_expiry=250), timeout=60)
    # The first assignment makes them, because only then is there an event loop.
    channels: list[grpc.aio.Channel] = []

    async def prepare(assignment: Assignment) -> Loop:
        single = assignment.load.batch == 1
        if way == "http":
            encoding, senders = calls.JSON_BATCH, [_by_http(http, target, keys)]
        else:
            channels[:] = channels or [grpc.aio.insecure_channel(f"127.0.0.1:{port}") for port in target.split(",")]
            for channel in channels:
                await channel.channel_ready()
            encoding = calls.SINGLE if single else calls.BATCH
            method = f"/headgate.v1.IngestService/{'Ingest' if single else 'BatchIngest'}"
            method = empty.METHOD if way == "empty" else method
            senders = [_by_grpc(channel.unary_unary(method), keys) for channel in channels]
        plan = calls.plan(assignment, encoding)
        for call in plan.originals:
            plan.encoding.check(call, await senders[0](call))
        return Loop(plan, senders, assignment)

    contend(prepare)
