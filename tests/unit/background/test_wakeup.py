"""Wake-ups: each commit that adds to a ledger triggers all of them."""

import asyncio

import pytest

from headgate_server.background.wakeup import Wakeups
from headgate_server.core.model import Outcome, Settled, Status
from headgate_server.ingest.committer import Committer
from tests.support.drafts import draft, submission
from tests.unit.gatedstore import GatedStore, ends


async def test_a_ring_wakes_everyone_once() -> None:
    wakeups = Wakeups()
    bells = [wakeups.add() for _ in range(3)]
    wakeups.ring()
    wakeups.ring()
    assert [await bell.wait(60) for bell in bells] == [True] * 3
    assert [await bell.wait(0) for bell in bells] == [False] * 3


@pytest.mark.parametrize(
    ("status", "rings"), [(Status.ACCEPTED, 1), (Status.REPLACED, 1), (Status.DUPLICATE, 0), (Status.CONFLICT, 0)]
)
async def test_commits_that_add_to_a_ledger_ring(status: Status, rings: int) -> None:
    store, rung = GatedStore(), []
    committer = Committer(store.as_store(), stored=lambda: rung.append(status))
    call = asyncio.create_task(committer.submit(submission(1, draft())))
    (await store.next()).ended.set_result([Settled([Outcome(status)])])
    await ends(call)
    assert len(rung) == rings
