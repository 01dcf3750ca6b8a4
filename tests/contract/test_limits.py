"""Rate limits, monthly quotas, and reads that run beside appends, on both stores."""

import asyncio
from collections import Counter

import pytest

from headgate_server.access.limits import RateLimiter
from headgate_server.core import ledger, timestamps
from headgate_server.core.errors import RateLimited
from headgate_server.core.model import EventQuery, Mismatch, Outcome, RateLimit, Replayed, Settled, Status, Workspace
from headgate_server.process.clock import system_clock
from headgate_server.store import Store
from headgate_server.store.opening import open_store
from tests.support.database import execute
from tests.support.drafts import BAD, append, draft, request, submission

HOUR = 3600 * 1_000_000
SLOW = RateLimit(5, HOUR, 5)
"""So slow that no request becomes free within a test."""


def _statuses(outcomes: list[Outcome]) -> list[str]:
    return [outcome.problem.reason if outcome.problem else outcome.status for outcome in outcomes]


async def test_a_burst_is_let_in_and_no_more(store: Store, workspace: int) -> None:
    admissions = [await store.limits.admit(workspace, "flokit", SLOW) for _ in range(6)]
    assert [admission.allowed for admission in admissions] == [True] * 5 + [False]
    assert [admission.remaining for admission in admissions] == [4, 3, 2, 1, 0, 0]
    assert 0 < admissions[-1].retry_after <= HOUR // 5
    assert HOUR * 4 // 5 < admissions[-1].reset_after <= HOUR


async def test_requests_come_back_evenly(store: Store, store_url: str, workspace: int) -> None:
    for _ in range(6):
        await store.limits.admit(workspace, "flokit", SLOW)
    await execute(store_url, f"UPDATE rates SET arrival = arrival - {2 * HOUR // 5}")  # two fifths of an hour pass
    assert [(await store.limits.admit(workspace, "flokit", SLOW)).allowed for _ in range(3)] == [True, True, False]
    await execute(store_url, "UPDATE rates SET arrival = 0")  # a long time passes: the burst is full, and not exceeded
    assert sum([(await store.limits.admit(workspace, "flokit", SLOW)).allowed for _ in range(9)]) == 5


async def test_another_limit_holds_at_once(store: Store, workspace: int) -> None:
    daily, quick = RateLimit(1, 24 * HOUR, 1), RateLimit(100, HOUR // 60, 100)
    assert [(await store.limits.admit(workspace, "flokit", daily)).allowed for _ in range(2)] == [True, False]
    # A faster limit does not wait for the day to pass, and is exact from then on.
    admissions = [await store.limits.admit(workspace, "flokit", quick) for _ in range(3)]
    assert [(admission.allowed, admission.remaining) for admission in admissions] == [
        (True, 99),
        (True, 98),
        (True, 97),
    ]
    assert [(await store.limits.admit(workspace, "flokit", daily)).allowed for _ in range(2)] == [False, False]


async def test_limits_are_exact_over_stores_and_apart_by_workspace_and_receiver(
    store: Store, store_url: str, workspace: int
) -> None:
    other = await open_store(store_url)
    try:
        neighbour = (await store.directory.create_workspace("neighbour")).id
        asked = [(workspace, "flokit"), (workspace, "scrip"), (neighbour, "flokit")] * 12
        admissions = await asyncio.gather(
            *((store, other)[number % 2].limits.admit(*one, SLOW) for number, one in enumerate(asked))
        )
        allowed = Counter(one for one, admission in zip(asked, admissions, strict=True) if admission.allowed)
        assert allowed == {(workspace, "flokit"): 5, (workspace, "scrip"): 5, (neighbour, "flokit"): 5}
    finally:
        await other.close()


async def test_who_is_refused_costs_the_database_nothing(store: Store, store_url: str, workspace: int) -> None:
    now = system_clock()
    limiter = RateLimiter(store.limits, clock=lambda: now)
    acme = Workspace(workspace, "acme")
    for _ in range(5):
        await limiter.admit(acme, "flokit", SLOW)
    with pytest.raises(RateLimited) as first:
        await limiter.admit(acme, "flokit", SLOW)
    await execute(store_url, "DELETE FROM rates")
    now += 1_000_000
    with pytest.raises(RateLimited) as second:
        await limiter.admit(acme, "flokit", SLOW)
    assert first.value.retry_after is not None
    assert second.value.retry_after == pytest.approx(first.value.retry_after - 1)
    now += HOUR
    assert (await limiter.admit(acme, "flokit", SLOW)).allowed


async def test_a_clock_that_is_set_back_keeps_nobody_out(store: Store, store_url: str, workspace: int) -> None:
    now = system_clock()
    limiter = RateLimiter(store.limits, clock=lambda: now)
    acme = Workspace(workspace, "acme")
    for _ in range(5):
        await limiter.admit(acme, "flokit", SLOW)
    with pytest.raises(RateLimited):
        await limiter.admit(acme, "flokit", SLOW)
    await execute(store_url, "UPDATE rates SET arrival = 0")
    now -= 24 * HOUR
    assert (await limiter.admit(acme, "flokit", SLOW)).allowed


async def test_a_workspace_may_have_limits_of_its_own(store: Store, workspace: int) -> None:
    await store.limits.set_rate(workspace, "flokit", RateLimit(7, HOUR, 7))
    await store.limits.set_rate(workspace, "scrip", None)
    await store.limits.set_rate(workspace, "flokit", RateLimit(8, HOUR, 8))
    acme = await store.directory.workspace("acme")
    assert acme is not None
    assert acme.rates == {"flokit": RateLimit(8, HOUR, 8), "scrip": None}
    await store.limits.set_rate(workspace, "scrip", ...)
    acme = await store.directory.workspace("acme")
    assert acme is not None
    assert acme.rates == {"flokit": RateLimit(8, HOUR, 8)}


async def test_a_quota_is_filled_in_order_and_not_passed(store: Store, workspace: int) -> None:
    await store.limits.set_quota(workspace, 3)
    outcomes = await append(
        store, workspace, draft("a"), BAD, draft("a"), draft("b"), draft("c"), draft("d"), draft("b")
    )
    assert _statuses(list(outcomes)) == [
        "accepted", "MISSING_FIELD", "duplicate", "accepted", "accepted", "QUOTA_EXCEEDED", "duplicate",
    ]  # fmt: skip
    usage = await store.limits.usage(workspace)
    assert usage == (3, timestamps.month(system_clock())[0], 3)
    (again,) = await append(store, workspace, draft("d"))
    assert again.status is Status.REJECTED
    await store.limits.set_quota(workspace, None)
    (again,) = await append(store, workspace, draft("d"))
    assert again.status is Status.ACCEPTED


async def test_an_atomic_submission_over_the_quota_stores_nothing(store: Store, workspace: int) -> None:
    await store.limits.set_quota(workspace, 2)
    outcomes = await append(store, workspace, draft("a"), draft("b"), draft("c"), atomic=True)
    assert _statuses(list(outcomes)) == ["ABORTED", "ABORTED", "QUOTA_EXCEEDED"]
    assert (await store.limits.usage(workspace)).events == 0
    assert (await store.ledgers.head(workspace)).sequence == 0


async def test_a_new_month_begins_at_nothing(store: Store, store_url: str, workspace: int) -> None:
    await store.limits.set_quota(workspace, 1)
    await append(store, workspace, draft())
    await execute(store_url, "UPDATE heads SET month = 200001")
    (outcome,) = await append(store, workspace, draft())
    assert outcome.status is Status.ACCEPTED


async def test_usage_says_what_the_next_append_would_decide(store: Store, store_url: str, workspace: int) -> None:
    """Also after the clock jumped into another month and back: events stay there, and so does their count."""
    await store.limits.set_quota(workspace, 2)
    await append(store, workspace, draft(), draft())
    leap = 400 * 24 * 3600 * 1_000_000
    ahead = timestamps.month(system_clock() + leap)[0]
    await execute(store_url, f"UPDATE heads SET created_at = created_at + {leap}, month = {ahead}")
    assert await store.limits.usage(workspace) == (2, ahead, 2)
    (outcome,) = await append(store, workspace, draft())
    assert _statuses([outcome]) == ["QUOTA_EXCEEDED"]
    # The last counted month is over at the next event: the new month has no count yet.
    await execute(store_url, "UPDATE heads SET month = 200001")
    assert await store.limits.usage(workspace) == (2, ahead, 0)
    (outcome,) = await append(store, workspace, draft())
    assert outcome.status is Status.ACCEPTED
    assert await store.limits.usage(workspace) == (2, ahead, 1)


async def test_a_quota_is_exact_under_concurrency(store: Store, store_url: str, workspace: int) -> None:
    await store.limits.set_quota(workspace, 50)
    other = await open_store(store_url)
    try:
        decisions = await asyncio.gather(
            *(
                (store, other)[n % 2].database.append([submission(workspace, *(draft() for _ in range(9)))])
                for n in range(12)
            )
        )
        outcomes = [outcome for (decision,) in decisions for outcome in decision.outcomes]  # type: ignore[union-attr]
        assert Counter(outcome.status for outcome in outcomes) == {Status.ACCEPTED: 50, Status.REJECTED: 58}
        assert (await store.limits.usage(workspace)).events == 50
    finally:
        await other.close()


async def test_the_hash_before_each_event(store: Store, workspace: int) -> None:
    links = [outcome.link for outcome in await append(store, workspace, draft(), draft(), draft()) if outcome.link]
    found = await store.ledgers.hashes_before(Workspace(workspace, "acme"), [links[2].id, links[0].id])
    assert found == {links[2].id: links[1].event_hash, links[0].id: ledger.genesis("acme").hash}


async def test_only_the_newest_revision_is_current(store: Store, workspace: int) -> None:
    await append(store, workspace, draft("a", {"n": 1}), draft("b"), draft())
    (replaced,) = await append(store, workspace, draft("a", {"n": 2}, on_mismatch=Mismatch.REPLACE))
    page = await store.ledgers.events(EventQuery(workspace_id=workspace, limit=10, current_only=True))
    assert replaced.status is Status.REPLACED
    assert [event.sequence for event in page.events] == [2, 4]
    every = await store.ledgers.events(EventQuery(workspace_id=workspace, limit=10))
    assert [event.sequence for event in every.events] == [1, 2, 3, 4]


async def test_a_request_that_the_quota_keeps_out_whole_may_come_again(store: Store, workspace: int) -> None:
    await store.limits.set_quota(workspace, 0)
    for slots in ((draft("a"),), (draft("a"), BAD)):
        (refused,) = await store.database.append([request(workspace, "r", *slots)])
        assert isinstance(refused, Settled)
    await store.limits.set_quota(workspace, 1)
    # With the same key: the events are stored now, and this answer is repeated, although the quota is used up again.
    partly = request(workspace, "r", draft("a"), draft("b"))
    (settled,) = await store.database.append([partly])
    assert isinstance(settled, Settled)
    assert _statuses(list(settled.outcomes)) == ["accepted", "QUOTA_EXCEEDED"]
    await store.limits.set_quota(workspace, None)
    assert await store.database.append([partly]) == [Replayed(b"accepted,rejected")]
