"""The benchmark's peer keeps the promises for which it is compared: per-event idempotency and results."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from bench import parts

pytest.importorskip("fastapi", reason="the benchmark's own packages are not installed; `make lint` installs them")

_FIRST = {"type": "order.completed", "source": "check", "idempotency_key": "check-1", "data": {"amount": 49.99}}
_CHANGED = {**_FIRST, "data": {"amount": 50}}
_UNKEYED = {"type": "ping"}
_INVALID = {"source": "check"}
_SECOND = {**_FIRST, "idempotency_key": "check-2"}

_CASES: list[tuple[list[Any], list[str]]] = [
    ([_FIRST, _INVALID, _FIRST, _CHANGED, _UNKEYED], ["accepted", "rejected", "duplicate", "conflict", "accepted"]),
    ([_UNKEYED, _SECOND, _FIRST, "no event", _CHANGED], ["accepted", "accepted", "duplicate", "rejected", "conflict"]),
]
"""Batches in the order in which they are sent, each with the outcomes of its events."""


@pytest.fixture
async def peer(postgres_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with parts.peer(postgres_url, 2) as servers:
        headers = {"X-Api-Key": servers.keys[0]}
        # The second process stores in the table that the first one made.
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{servers.ports[1]}", headers=headers) as client:
            yield client
    await parts.execute(postgres_url, "DROP DATABASE peer WITH (FORCE)")


async def _results(client: httpx.AsyncClient, events: list[Any]) -> list[dict[str, Any]]:
    response = await client.post("/events/batch", json={"events": events})
    assert response.status_code == 200
    results: list[dict[str, Any]] = response.json()["results"]
    assert [result["index"] for result in results] == list(range(len(events)))
    return results


async def test_the_peer_keeps_the_promises_that_it_is_compared_for(peer: httpx.AsyncClient) -> None:
    ids = set()
    for events, wanted in _CASES:
        results = await _results(peer, events)
        assert [result["status"] for result in results] == wanted
        ids |= {result["id"] for event, result in zip(events, results, strict=True) if event == _FIRST}
    assert len(ids) == 1
    refused = await peer.post("/events/batch", json={"events": [_UNKEYED]}, headers={"X-Api-Key": "wrong"})
    assert refused.status_code == httpx.codes.UNAUTHORIZED

    # A key that two requests send at once is stored once.
    third = {**_FIRST, "idempotency_key": "check-3"}
    both = await asyncio.gather(*(_results(peer, [third] * 2) for _ in range(8)))
    statuses = [result["status"] for results in both for result in results]
    assert sorted(statuses) == ["accepted"] + ["duplicate"] * 15
