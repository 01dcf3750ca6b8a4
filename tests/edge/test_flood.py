"""Callers without a key that flood the service, beside callers that have one."""

import asyncio
from collections import Counter

import httpx

from tests.support.edge import Edge
from tests.support.http2 import Connection, call_headers, reset

FLOODS = 3
RESETS = 4_000


async def _reset_flood(host: str, port: int) -> None:
    """Begin calls without a key on one connection, and cancel each at once."""
    async with Connection(host, port) as connection:
        streams = [2 * index + 1 for index in range(RESETS)]
        for at in range(0, RESETS, 100):
            begun = (call_headers(stream, "/headgate.v1.LedgerService/GetHead") for stream in streams[at : at + 100])
            try:
                await connection.send(b"".join(map(bytes.__add__, begun, map(reset, streams[at : at + 100]))))
            except ConnectionError:
                return  # refused, as it should be


async def test_rapid_resets_on_the_grpc_port_harm_no_caller_of_rest(edge: Edge) -> None:
    host, _, port = edge.up.grpc.partition(":")
    answers: Counter[int] = Counter()
    async with httpx.AsyncClient(base_url=edge.http.base_url, headers=edge.http.headers, timeout=60) as http:
        floods = asyncio.gather(*(_reset_flood(host, int(port)) for _ in range(FLOODS)))

        async def call() -> None:
            while True:
                answers[(await http.post("/v1/events", json={"type": "t"})).status_code] += 1
                if floods.done():
                    return

        await asyncio.gather(*(call() for _ in range(16)))
        await floods
    assert answers.keys() == {200}
