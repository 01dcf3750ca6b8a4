"""A bad event affects only its own position: not the rest of its batch, not other callers of its group commit."""

import asyncio

import pytest

from headgate.v1.event_pb2 import Event
from headgate.v1.event_service_pb2 import GetEventRequest
from tests.support import poison
from tests.support.calls import Caller, event, refused, statuses
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite


@pytest.mark.parametrize(
    ("bad", "rejection"), [pytest.param(*value, id=name) for name, value in poison.PROTO_REJECTED.items()]
)
@on_sqlite
async def test_rejected_alone(caller: Caller, bad: Event | bytes, rejection: poison.Rejection) -> None:
    response = await caller.batch(event("before"), bad, event("after"))
    assert statuses(response) == ["accepted", "rejected", "accepted"]
    assert [result.sequence for result in response.results] == [1, 0, 2]
    error = response.results[1].error
    assert (error.reason, error.field) == rejection
    assert error.message
    assert len(error.message) < 400
    assert not error.retryable


@pytest.mark.parametrize(("text", "rejection"), [pytest.param(*value, id=name) for name, value in poison.JSON.items()])
@on_sqlite
async def test_json_touches_its_own_position(caller: Caller, text: bytes, rejection: poison.Rejection | None) -> None:
    response = await caller.json(poison.json_batch(b'{"type":"before"}', text, b'{"type":"after"}'))
    before, result, after = response["results"]
    assert (before["status"], after["status"]) == ("accepted", "accepted")
    assert result["status"] == ("accepted" if rejection is None else "rejected")
    if rejection is not None:
        assert (result["error"]["reason"], result["error"]["field"]) == rejection


@pytest.mark.parametrize("payload", [pytest.param(text, id=name) for name, text in poison.TAKEN.items()])
async def test_taken_and_kept_exactly(caller: Caller, payload: bytes) -> None:
    """Both stores hold it, the same text again is a duplicate, and it reads back unchanged."""
    first, again = (await caller.batch(event("k", payload), event("k", payload))).results
    assert (first.status, again.status) == ("accepted", "duplicate")
    stored = await caller.events.GetEvent(GetEventRequest(id=first.id), metadata=caller.metadata)
    resent = await caller.batch(_copy(stored.event))
    assert statuses(resent) == ["duplicate"]


async def test_other_callers_of_the_group(service: Service) -> None:
    """Eight callers of two workspaces at once; half of them send every poison."""
    bad = [value for value, _ in poison.PROTO_REJECTED.values()]
    good = [event(data=payload) for payload in list(poison.TAKEN.values())[:5]]
    async with service.caller(workspace="acme") as acme, service.caller(workspace="other") as other:
        poisoned = [caller.batch(*bad, *good) for caller in (acme, other) for _ in range(2)]
        clean = [caller.batch(*(event() for _ in range(20))) for caller in (acme, other) for _ in range(2)]
        responses = await asyncio.gather(*(call for pair in zip(poisoned, clean, strict=True) for call in pair))
        for mixed, whole in zip(responses[::2], responses[1::2], strict=True):
            assert statuses(mixed) == ["rejected"] * len(bad) + ["accepted"] * len(good)
            assert statuses(whole) == ["accepted"] * 20
        for caller in (acme, other):
            assert [one.sequence for one in await caller.all_events()] == list(range(1, 2 * (20 + len(good)) + 1))


@on_sqlite
async def test_a_single_event_says_the_same(caller: Caller) -> None:
    refusal = await refused(caller.single(event(data=b'{"a":1,"a":1}')))
    assert refusal.code.name == "INVALID_ARGUMENT"
    assert (refusal.reason, refusal.fields) == ("DUPLICATE_FIELD", ["data_json"])


def _copy(stored: Event) -> Event:
    """Return the sent event of a stored event."""
    made = event(stored.idempotency_key)
    if stored.HasField("data"):
        made.data.CopyFrom(stored.data)
    else:
        made.data_json = stored.data_json
    return made
