"""An event's key, for ever: the same content in any spelling is a duplicate, other content a conflict."""

import asyncio
from collections import Counter
from itertools import permutations

import pytest

from tests.support.calls import Caller, event, statuses
from tests.support.inprocess import Service, serving
from tests.support.marks import on_sqlite

ONE = {
    "a Struct": event("k", {"a": 1}),
    "1": event("k", b'{"a":1}'),
    "1.0": event("k", b'{"a":1.0}'),
    "1.00": event("k", b'{ "a" : 1.00 }'),
    "10e-1": event("k", b'{"a":10e-1}'),
    "1.00000000000000000000": event("k", b'{"a":1.00000000000000000000}'),
}


async def test_one_number_however_it_is_written(caller: Caller) -> None:
    response = await caller.batch(*ONE.values())
    assert statuses(response) == ["accepted"] + ["duplicate"] * (len(ONE) - 1)
    assert len({result.id for result in response.results}) == 1
    in_json = await caller.json(
        b'{"events":[%s]}'
        % b",".join(
            b'{"type":"order.completed","source":"shop","idempotency_key":"k","data":{"a":%s}}' % number
            for number in (b"1", b"1.0", b"1.00", b"0.1e1", b"1.000000000000000000000000000001")
        )
    )
    assert [result["status"] for result in in_json["results"]] == ["duplicate"] * 4 + ["conflict"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(b'{"a":9007199254740993}', b'{"a":9007199254740992}', id="integers past 2^53"),
        pytest.param(b'{"a":18446744073709551617}', b'{"a":18446744073709551616}', id="integers past 2^64"),
        pytest.param(b'{"a":%s1}' % (b"9" * 300), b'{"a":%s2}' % (b"9" * 300), id="integers of 301 digits"),
        pytest.param(b'{"a":0.1}', b'{"a":0.1000000000000000055511151231257827}', id="decimals of one double"),
        pytest.param(b'{"a":1e999}', b'{"a":1e998}', id="beyond a double"),
        pytest.param(b'{"a":1}', b'{"a":"1"}', id="a number and its text"),
        pytest.param(b'{"a":1}', b'{"a":true}', id="a number and a boolean"),
        pytest.param(b'{"a":null}', b"{}", id="null and nothing"),
        pytest.param(b'{"a":[1,2]}', b'{"a":[2,1]}', id="the order of a list"),
    ],
)
@on_sqlite
async def test_what_is_not_the_same_never_is(caller: Caller, first: bytes, second: bytes) -> None:
    assert statuses(await caller.batch(event("k", first), event("k", second))) == ["accepted", "conflict"]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"type": "order.cancelled"}, id="type"),
        pytest.param({"subject": "user"}, id="subject"),
        pytest.param({"occurred_at": {"seconds": 1}}, id="occurred_at"),
        pytest.param({"data": {"seen": 1}}, id="data"),
        pytest.param({"data": {}}, id="an empty object and none"),
    ],
)
@on_sqlite
async def test_all_that_was_sent_counts(caller: Caller, other: dict[str, object]) -> None:
    response = await caller.batch(event("k"), event("k", **other))
    assert statuses(response) == ["accepted", "conflict"]


async def test_a_key_belongs_to_its_source_and_workspace(service: Service) -> None:
    async with service.caller(workspace="acme") as acme, service.caller(workspace="other") as other:
        sources = [event("k", {"n": n}, source=source) for n, source in enumerate(("shop", "Shop", ""))]
        assert statuses(await acme.batch(*sources)) == ["accepted"] * 3
        assert statuses(await other.batch(*sources)) == ["accepted"] * 3
        # Without a key nothing is ever a duplicate.
        assert statuses(await acme.batch(event(), event())) == ["accepted"] * 2


async def test_a_rejected_event_does_not_burn_its_key(caller: Caller) -> None:
    assert statuses(await caller.batch(event("k", type=""))) == ["rejected"]
    assert statuses(await caller.batch(event("k"))) == ["accepted"]


async def test_the_same_key_in_concurrent_batches(caller: Caller) -> None:
    """Sixteen batches of ten keys in different orders: every key is accepted once, and all callers get the same id."""
    keys = [f"k{n}" for n in range(10)]
    orders = [order for order, _ in zip(permutations(keys), range(16), strict=False)]
    responses = await asyncio.gather(*(caller.batch(*(event(key) for key in order)) for order in orders))
    seen = Counter(
        (key, result.status)
        for order, response in zip(orders, responses, strict=True)
        for key, result in zip(order, response.results, strict=True)
    )
    assert seen == Counter({(key, "accepted"): 1 for key in keys} | {(key, "duplicate"): 15 for key in keys})
    ids = {
        (key, result.id)
        for order, response in zip(orders, responses, strict=True)
        for key, result in zip(order, response.results, strict=True)
    }
    assert len(ids) == len(keys)
    assert await caller.stored() == len(keys)


async def test_permanent_across_restarts(store_url: str) -> None:
    same, other = event("k", {"n": 1}), event("k", {"n": 2})
    async with serving(store_url) as service, service.caller() as caller:
        (original,) = (await caller.batch(same)).results
    async with serving(store_url) as service, service.caller() as caller:
        duplicate, conflict = (await caller.batch(same, other)).results
    assert (duplicate.status, conflict.status) == ("duplicate", "conflict")
    for result in (duplicate, conflict):
        assert (result.id, result.sequence, result.event_hash, result.created_at) == (
            original.id,
            original.sequence,
            original.event_hash,
            original.created_at,
        )
