"""Look-ups of keys: those that wait at the same time share a statement, and each caller gets the result of its own."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from headgate_server.access import look_ups
from headgate_server.access.look_ups import KeyLookUps
from headgate_server.core.errors import Unavailable
from headgate_server.core.model import ApiKey
from headgate_server.core.types import KeyDigest
from tests.support.waiting import until
from tests.unit.keystore import KeyStore

_FIND = Coroutine[Any, Any, ApiKey | None]


class Told:
    """Remembers what the look-ups found."""

    def __init__(self) -> None:
        self.keys: dict[KeyDigest, ApiKey | None] = {}

    def __call__(self, digest: KeyDigest, key: ApiKey | None) -> None:
        self.keys[digest] = key


@pytest.fixture
def store() -> KeyStore:
    return KeyStore()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def looking(store: KeyStore, told: Told) -> KeyLookUps:
    return KeyLookUps(store.as_store(), told)


def _records(store: KeyStore, count: int) -> list[ApiKey]:
    return [store.add()[1] for _ in range(count)]


async def _begun(store: KeyStore, *finds: _FIND) -> list[asyncio.Task[ApiKey | None]]:
    """Start a look-up of the first key that does not end, then those of the others."""
    store.open.clear()
    tasks = [asyncio.create_task(finds[0])]
    await store.entered.wait()
    tasks += [asyncio.create_task(find) for find in finds[1:]]
    await asyncio.sleep(0)  # each of them asks
    return tasks


async def test_keys_that_wait_for_a_look_up_share_the_next(store: KeyStore, told: Told, looking: KeyLookUps) -> None:
    records = _records(store, 20)
    tasks = await _begun(store, *(looking.find(record.digest) for record in records))
    assert store.batches == [1]
    store.open.set()
    assert await asyncio.gather(*tasks) == records
    assert store.batches == [1, 19]
    assert told.keys == {record.digest: record for record in records}
    await _ended(looking)


async def test_keys_that_come_together_share_the_first(store: KeyStore, looking: KeyLookUps) -> None:
    records = _records(store, 20)
    assert await asyncio.gather(*(looking.find(record.digest) for record in records)) == records
    assert store.batches == [20]
    await _ended(looking)


async def test_a_look_up_has_a_bound(store: KeyStore, looking: KeyLookUps) -> None:
    most = look_ups._AT_ONCE
    records = _records(store, 2 * most + 2)
    tasks = await _begun(store, *(looking.find(record.digest) for record in records))
    store.open.set()
    assert await asyncio.gather(*tasks) == records
    assert store.batches == [1, most, most, 1]


async def test_an_unknown_key_among_known_ones_is_none(store: KeyStore, told: Told, looking: KeyLookUps) -> None:
    first, last = _records(store, 2)
    unknown = KeyDigest(bytes(32))
    found = await asyncio.gather(*(looking.find(digest) for digest in (first.digest, unknown, last.digest)))
    assert found == [first, None, last]
    assert store.batches == [3]
    assert told.keys[unknown] is None


async def test_callers_that_give_up_take_nothing_from_the_others(store: KeyStore, looking: KeyLookUps) -> None:
    first, second, third = _records(store, 3)
    tasks = await _begun(store, *(looking.find(record.digest) for record in (first, second, third)))
    tasks[0].cancel()
    tasks[1].cancel()
    store.open.set()
    assert await tasks[2] == third
    assert (tasks[0].cancelled(), tasks[1].cancelled()) == (True, True)
    await _ended(looking)


async def test_every_caller_gets_the_error_of_a_store_that_fails(store: KeyStore, looking: KeyLookUps) -> None:
    records = _records(store, 3)
    store.error = Unavailable("The store cannot be reached.")
    tasks = await _begun(store, *(looking.find(record.digest) for record in records))
    store.open.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(error) for error in errors] == ["The store cannot be reached."] * 3
    store.error = None
    assert await looking.find(records[0].digest) == records[0]
    await _ended(looking)


async def test_a_row_that_cannot_be_read_fails_only_its_own_callers(store: KeyStore, looking: KeyLookUps) -> None:
    good, bad, other = _records(store, 3)
    store.broken.add(bad.digest)
    found = await asyncio.gather(
        *(looking.find(record.digest) for record in (good, bad, other)), return_exceptions=True
    )
    assert (found[0], found[2]) == (good, other)
    assert isinstance(found[1], Unavailable)
    assert store.batches == [3, 1, 1, 1]


async def test_a_failure_that_took_long_is_not_waited_for_twice(
    store: KeyStore, looking: KeyLookUps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_ups, "_QUICKLY", 0.0)
    store.error = Unavailable("The store did not answer in time.")
    finds = (looking.find(record.digest) for record in _records(store, 3))
    assert all(isinstance(error, Unavailable) for error in await asyncio.gather(*finds, return_exceptions=True))
    assert store.batches == [3]


async def test_no_key_waits_long_for_a_look_up_that_hangs(
    store: KeyStore, looking: KeyLookUps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_ups, "_PATIENCE", 0.001)
    first, second = _records(store, 2)
    tasks = await _begun(store, looking.find(first.digest))
    store.entered.clear()
    tasks.append(asyncio.create_task(looking.find(second.digest)))
    async with asyncio.timeout(10):
        await store.entered.wait()
    assert store.batches == [1, 1]
    store.open.set()
    assert await asyncio.gather(*tasks) == [first, second]
    await _ended(looking)


async def _ended(looking: KeyLookUps) -> None:
    """Wait until no look-up and no timer is left."""

    async def idle() -> bool:
        return looking.idle

    await until(idle)
