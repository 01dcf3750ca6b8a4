"""Callers of the product, as lean as Python allows, so that their work is not taken for the server's.

`HEADGATE_KEY=hg_... python -m bench.driver PORT CALLERS`, a contender: requests are encoded beforehand and sent as
bytes over one channel; answers are kept as bytes and read when the clock has stopped.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any

import grpc.aio

from bench import workload
from bench.lockstep import Assignment, Work, contend
from headgate.v1.ingest_service_pb2 import BatchIngestResponse

_METHOD = "/headgate.v1.IngestService/BatchIngest"


class _Calls:
    """An assignment of the driver: each caller sends the next batch as soon as its last one is answered."""

    def __init__(self, send: Any, callers: int, batches: Sequence[bytes], size: int):
        self._send = send
        self._callers = callers
        self._batches = batches
        self._size = size
        self._answers: list[bytes] = []

    async def run(self) -> None:
        batches = iter(self._batches)
        async with asyncio.TaskGroup() as callers:
            for _ in range(self._callers):
                callers.create_task(self._call(batches))

    async def _call(self, batches: Any) -> None:
        for batch in batches:
            self._answers.append(await self._send(batch))

    async def check(self) -> None:
        if len(self._answers) != len(self._batches):
            raise RuntimeError(f"{len(self._answers)} answers to {len(self._batches)} batches")
        for answer in self._answers:
            results = BatchIngestResponse.FromString(answer).results
            statuses = {result.status for result in results}
            if len(results) != self._size or statuses != {"accepted"}:
                raise RuntimeError(f"a batch of {self._size} fresh events was answered by {len(results)} of {statuses}")


def main() -> None:
    """Be the contender."""
    port, callers = int(sys.argv[1]), int(sys.argv[2])
    metadata = (("x-api-key", os.environ["HEADGATE_KEY"]),)
    channel: grpc.aio.Channel | None = None

    async def prepare(assignment: Assignment) -> Work:
        nonlocal channel
        # Made by the first assignment, which brings the event loop; without serializers, bytes go in and come out.
        channel = channel or grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        await channel.channel_ready()
        method = channel.unary_unary(_METHOD)
        orders = workload.orders(assignment.events)
        batches = [
            workload.batch(orders[first : first + assignment.group])
            for first in range(0, assignment.events, assignment.group)
        ]
        return _Calls(lambda batch: method(batch, metadata=metadata), callers, batches, assignment.group)

    contend(prepare)


if __name__ == "__main__":
    main()
