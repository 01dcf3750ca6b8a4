"""`atomic` and `validate_only`."""

from tests.support.calls import Caller, event, statuses
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite


async def test_atomic_all_or_nothing(caller: Caller) -> None:
    response = await caller.batch(event("a"), event(type=""), event("b"), atomic=True)
    assert statuses(response) == ["aborted", "rejected", "aborted"]
    assert (response.success_count, response.error_count) == (0, 3)
    aborted = response.results[0]
    assert (aborted.error.reason, aborted.error.retryable, aborted.id, aborted.sequence) == ("ABORTED", True, "", 0)
    assert await caller.stored() == 0
    # The key of an aborted event stays free.
    assert statuses(await caller.batch(event("a"), event("b"), atomic=True)) == ["accepted", "accepted"]


async def test_atomic_fails_on_conflict_not_on_duplicate(caller: Caller) -> None:
    await caller.batch(event("k", {"n": 1}))
    assert statuses(await caller.batch(event("k", {"n": 1}), event("new"), atomic=True)) == ["duplicate", "accepted"]
    assert statuses(await caller.batch(event("k", {"n": 2}), event("newer"), atomic=True)) == ["conflict", "aborted"]
    within = await caller.batch(event("x", {"n": 1}), event("x", {"n": 2}), atomic=True)
    assert statuses(within) == ["aborted", "conflict"]
    assert await caller.stored() == 2


async def test_validate_only_stores_nothing(caller: Caller) -> None:
    (taken,) = (await caller.batch(event("taken"))).results
    request = (event("new"), event("taken"), event("taken", {"n": 1}), event(type=""), event("new"))
    response = await caller.batch(*request, validate_only=True)
    assert statuses(response) == ["accepted", "duplicate", "conflict", "rejected", "duplicate"]
    assert [result.id for result in response.results] == ["", taken.id, taken.id, "", ""]
    assert await caller.stored() == 1
    assert statuses(await caller.batch(event("new"))) == ["accepted"]
    atomic = await caller.batch(event("newer"), event(type=""), validate_only=True, atomic=True)
    assert statuses(atomic) == ["aborted", "rejected"]


@on_sqlite
async def test_validate_only_neither_uses_nor_takes_a_request_key(caller: Caller) -> None:
    predicted, replayed = await caller.keyed("r", event("k"), validate_only=True)
    assert (statuses(predicted), replayed) == (["accepted"], False)
    stored, replayed = await caller.keyed("r", event("k"))
    assert (statuses(stored), replayed) == (["accepted"], False)


async def test_validate_only_says_what_the_call_would(service: Service, caller: Caller) -> None:
    """With all options: the same outcomes, and the same stored event of a conflict."""
    await caller.batch(event("k", {"n": 1}))
    request = (event("k", {"n": 2}), event("a"), event("b"), event("c"))
    workspace = await service.store.directory.workspace("acme")
    assert workspace is not None
    await service.store.limits.set_quota(workspace.id, 2)
    for atomic in (True, False):
        predicted = await caller.batch(*request, atomic=atomic, validate_only=True)
        real = await caller.batch(*request, atomic=atomic)
        assert statuses(predicted) == statuses(real)
        assert predicted.results[0] == real.results[0]
        assert predicted.results[0].id
    assert statuses(real) == ["conflict", "accepted", "rejected", "rejected"]
