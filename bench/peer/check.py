"""Whether the peer does what it is compared for: the product's promises of one event after the other."""

from typing import Any

import httpx

_FIRST = {"type": "order.completed", "source": "check", "idempotency_key": "check-1", "data": {"amount": 49.99}}
_CHANGED = {**_FIRST, "data": {"amount": 50}}
_UNKEYED = {"type": "ping"}
_INVALID = {"source": "check"}
_SECOND = {**_FIRST, "idempotency_key": "check-2"}

CASES = (
    ([_FIRST, _INVALID, _FIRST, _CHANGED, _UNKEYED], ["accepted", "rejected", "duplicate", "conflict", "accepted"]),
    ([_UNKEYED, _SECOND, _FIRST, "no event", _CHANGED], ["accepted", "accepted", "duplicate", "rejected", "conflict"]),
)
"""Batches in the order in which they are sent, each with what becomes of its events."""

ACCEPTED = sum(statuses.count("accepted") for _, statuses in CASES)
"""Events that are stored afterwards."""


async def check(port: int, key: str) -> None:
    """Send the cases. Raises `RuntimeError` for an answer that is not as it has to be."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers={"X-Api-Key": key}) as client:
        ids = set()
        for events, wanted in CASES:
            results = await _results(client, events)
            statuses = [result["status"] for result in results]
            if statuses != wanted or [result["index"] for result in results] != list(range(len(events))):
                raise RuntimeError(f"the peer answered {statuses}, not {wanted}")
            ids |= {result["id"] for event, result in zip(events, results, strict=True) if event == _FIRST}
        if len(ids) != 1:
            raise RuntimeError(f"the peer gave one event several ids: {ids}")
        refused = await client.post("/events/batch", json={"events": [_UNKEYED]}, headers={"X-Api-Key": "wrong"})
        if refused.status_code != httpx.codes.UNAUTHORIZED:
            raise RuntimeError(f"the peer answered a wrong key with {refused.status_code}")


async def _results(client: httpx.AsyncClient, events: list[Any]) -> list[dict[str, Any]]:
    response = await client.post("/events/batch", json={"events": events})
    if response.status_code != httpx.codes.OK:
        raise RuntimeError(f"the peer answered {response.status_code}: {response.text[:200]}")
    results: list[dict[str, Any]] = response.json()["results"]
    return results
