"""Callers over gRPC, as lean as Python allows, so that their work is not taken for the server's.

`HEADGATE_KEYS=hg_...,hg_... python -m bench.driver PORT[,PORT...] [empty]`, a contender: requests are encoded
beforehand and sent as bytes, over one connection to each port; answers are kept as bytes and read when the clock has
stopped. Single events go through Ingest, others through BatchIngest; with `empty` to `bench.empty`, in the same bytes.
"""

import sys
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from bench import driving, empty
from bench.calls import Call
from bench.lockstep import Assignment, Work, contend
from bench.loops import Refused, Send
from bench.wires import ProtoBatch, ProtoSingle, Wire

_SERVICE = "/headgate.v1.IngestService"
_STATUS = "grpc-status-details-bin"


class _GrpcClient:
    """One channel to each port, without serializers: bytes go in and come out."""

    def __init__(self, ports: Sequence[int], keys: Sequence[str]):
        self._metadata = [(("x-api-key", key),) for key in keys]
        self._channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}") for port in ports]

    async def ready(self) -> None:
        """Return once every port takes calls."""
        for channel in self._channels:
            await channel.channel_ready()

    def wire(self, single: bool) -> Wire:
        """Return the encoding of calls of one event, or of batches."""
        return ProtoSingle() if single else ProtoBatch()

    def senders(self, single: bool) -> Sequence[Send]:
        """Return what makes such calls, one for each port."""
        return self._senders(f"{_SERVICE}/{'Ingest' if single else 'BatchIngest'}")

    def _senders(self, method: str) -> Sequence[Send]:
        return [self._sender(channel.unary_unary(method)) for channel in self._channels]

    def _sender(self, method: Any) -> Send:
        metadata = self._metadata

        async def send(call: Call) -> bytes:
            try:
                answer: bytes = await method(call.body, metadata=metadata[call.workspace])
            except grpc.aio.AioRpcError as error:
                if (delay := _retry_delay(error)) is None:
                    raise
                raise Refused(delay) from error
            return answer

        return send


class _EmptyClient(_GrpcClient):
    """Calls of `bench.empty`, which has a method for every size of an answer."""

    def __init__(self, ports: Sequence[int], keys: Sequence[str], group: int):
        super().__init__(ports, keys)
        self._group = group

    def senders(self, single: bool) -> Sequence[Send]:
        """Return what makes such calls, one for each port."""
        return self._senders(empty.method(self._group))


def _retry_delay(error: grpc.aio.AioRpcError) -> float | None:
    """Return the seconds after which the refused call may be made again; None if it is no such refusal."""
    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return None
    for name, value in error.trailing_metadata() or ():
        if name == _STATUS:
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.RetryInfo()
                if detail.Unpack(info):
                    delay: float = info.retry_delay.ToTimedelta().total_seconds()
                    return delay
    return None


def main() -> None:
    """Be the contender."""
    ports = [int(port) for port in sys.argv[1].split(",")]
    is_empty = sys.argv[2:] == ["empty"]
    keys = driving.keys()
    # By the size of a call; made by the first assignment of that size, which brings the event loop.
    clients: dict[int, _GrpcClient] = {}

    async def prepare(assignment: Assignment) -> Work:
        size = assignment.group if is_empty else 0
        client = clients.get(size)
        if client is None:
            client = clients[size] = _EmptyClient(ports, keys, size) if is_empty else _GrpcClient(ports, keys)
        await client.ready()
        return await driving.prepare(assignment, client)

    contend(prepare)


if __name__ == "__main__":
    main()
