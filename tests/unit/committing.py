"""A committer on a gated store, and its callers: for the tests of group commits."""

import asyncio

from headgate_server.core.model import Decision, Submission
from headgate_server.ingest.committer import Committer, CommitterConfig
from tests.support.drafts import draft, submission
from tests.unit.gatedstore import GatedStore


def events(workspace: int, count: int, data: str = "") -> Submission:
    """Return a submission of `count` events."""
    return submission(workspace, *(draft(data={"n": n, "d": data}) for n in range(count)))


class Bench:
    """A committer on a gated store, and its callers."""

    def __init__(
        self, *, config: CommitterConfig | None = None, waits: bool = False, nodes: bool = False, others: bool = True
    ):
        self.store = GatedStore(waits=waits, one_workspace_per_group=nodes, others_join=others)
        self.committer = Committer(self.store.as_store(), config)

    def call(self, submitted: Submission) -> "asyncio.Task[Decision]":
        """Submit as a caller does."""
        return asyncio.create_task(self.committer.submit(submitted))

    async def calls(self, *submitted: Submission) -> "list[asyncio.Task[Decision]]":
        """Submit several, and let all of them enter the queue."""
        tasks = [self.call(one) for one in submitted]
        for _ in tasks:
            await asyncio.sleep(0)
        return tasks

    async def drain(self) -> None:
        """Finish every append until the committer is closed."""
        closing = asyncio.create_task(self.committer.close())
        while not closing.done():
            getting = asyncio.create_task(self.store.next())
            await asyncio.wait({closing, getting}, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                getting.result().finish()
            else:
                getting.cancel()
        await closing
        assert self.committer._lanes.idle, "an idle committer holds nothing"
