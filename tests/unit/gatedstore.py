"""A store whose appends end when and how a test decides. tests/contract tests the real stores."""

import asyncio
from collections.abc import Callable, Container, Sequence
from typing import TypeVar, cast

from headgate_server.core.model import Decision, Outcome, Settled, Status, Submission
from headgate_server.store import Database
from headgate_server.store.phases import Phases

_Result = TypeVar("_Result")

_DEADLINE = 10.0
"""Seconds after which a test fails; no test waits so long for a state."""


class Append:
    """One call of `append`, which waits for the test."""

    def __init__(self, submissions: Sequence[Submission], wait: bool, begin: Callable[[], None]):
        self.submissions = submissions
        """They may grow until `begin` is called."""
        self.wait = wait
        self.begin = begin
        self.ended: asyncio.Future[list[Decision | None]] = asyncio.get_running_loop().create_future()

    @property
    def workspaces(self) -> list[int]:
        """The workspaces of its submissions, in order."""
        return [submission.workspace_id for submission in self.submissions]

    def finish(self, skipping: Container[int] = ()) -> None:
        """End it: submissions of the workspaces in `skipping` are skipped, the others are stored."""
        self.ended.set_result(
            [None if submission.workspace_id in skipping else decision(submission) for submission in self.submissions]
        )

    def fail(self, error: Exception) -> None:
        """End it with an error: nothing was stored."""
        self.ended.set_exception(error)


def decision(submission: Submission) -> Settled:
    """Return the store's decision on a submission that is stored."""
    return Settled([Outcome(Status.ACCEPTED) for _ in submission.slots])


class GatedStore:
    """Gives every append to the test."""

    def __init__(self, *, waits: bool = False, one_workspace_per_group: bool = False, others_join: bool = True) -> None:
        """With `waits` the store waits for its turn until the test calls an append's `begin`. Without `others_join`
        only calls of a group's workspaces may join it meanwhile.
        """
        self._waits = waits
        self.one_workspace_per_group = one_workspace_per_group
        self.others_join = others_join
        self.appends: asyncio.Queue[Append] = asyncio.Queue()

    async def append(
        self,
        submissions: Sequence[Submission],
        *,
        wait: bool = True,
        begin: Callable[[], None] = lambda: None,
        phases: Phases | None = None,
    ) -> list[Decision | None]:
        """Wait until the test ends this append."""
        append = Append(submissions, wait, begin)
        if not self._waits:
            begin()
        self.appends.put_nowait(append)
        return await append.ended

    async def next(self) -> Append:
        """Return the next append, once there is one."""
        return await asyncio.wait_for(self.appends.get(), _DEADLINE)

    async def quiet(self) -> bool:
        """Whether no append comes although all other tasks have run several times."""
        for _ in range(20):
            await asyncio.sleep(0)  # not a wait: every ready task runs once
        return self.appends.empty()

    def as_store(self) -> Database:
        """Return it as a database; only this part of it is called here."""
        return cast(Database, self)


async def ends(future: "asyncio.Future[_Result]") -> _Result:
    """Return a future's result, once there is one."""
    return await asyncio.wait_for(asyncio.shield(future), _DEADLINE)
