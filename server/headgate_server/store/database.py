"""The base of every topic: a database that reads, writes and appends. `sqlite/` and `postgres/` implement it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from sqlalchemy import Connection, func, select

from headgate_server.core.errors import Unavailable
from headgate_server.core.model import Decision, StoredEvent, Submission
from headgate_server.core.reasons import Reason
from headgate_server.core.types import WorkspaceId
from headgate_server.store.phases import Phases
from headgate_server.store.schema import events

T = TypeVar("T")


def not_durable(message: str) -> Unavailable:
    """Return the error to raise if the database would not keep what it acknowledges."""
    return Unavailable(f"{message}: it would lose acknowledged events.", reason=Reason.STORE_NOT_DURABLE)


class DataRefused(Exception):
    """The database refused a value of the group, and nothing of the group was stored. The caller tries each
    submission alone.
    """


class Pool(NamedTuple):
    """The use of a pool of connections at one moment."""

    in_use: int
    open: int
    most: int


class Database(ABC):
    """One database of ledgers, in either dialect.

    Every method may raise `errors.Unavailable`: the database could not be reached or did not answer in time, and
    nothing was changed. A database raises no exceptions of its driver. Methods may be called concurrently from one
    event loop. Each ends within 20 seconds, whatever the database does.
    """

    one_workspace_per_group = False
    """Whether a group for `append` should have one workspace only, and several groups should be stored at a time: each
    workspace is on one of many servers. A group of several workspaces is stored nevertheless.
    """

    others_join = True
    """Whether calls of any workspace may join a group until `begin` is called. Otherwise only calls of workspaces that
    the group has already may: `append` begins when it has the locks of these heads.
    """

    @abstractmethod
    async def read(self, work: Callable[[Connection], T], *, as_stored: bool = False, snapshot: bool = False) -> T:
        """Return the result of `work`, which reads. It may run twice, and MUST NOT write. Raises what `work` raises.

        With `snapshot`, all statements of `work` MUST see the same state. Without it each may see a later one.

        With `as_stored`, a stored text that is not UTF-8 can be read: each invalid byte becomes a lone surrogate.
        Without it such a text may make the read fail.
        """

    @abstractmethod
    async def write(self, work: Callable[[Connection], T], *, durable: bool = True) -> T:
        """Run `work` in one transaction and return its result after the commit. `work` may run twice; the first run is
        rolled back then.

        When it returns, everything that was written MUST be visible to every reader, and on disk unless `durable` is
        false. Raises `errors.OutcomeUnknown` if the connection was lost during COMMIT and `durable` is true. If `work`
        raises, nothing is written and the same exception is raised.
        """

    @abstractmethod
    async def append(
        self,
        submissions: Sequence[Submission],
        *,
        wait: bool = True,
        begin: Callable[[], None] = lambda: None,
        phases: Phases | None = None,
    ) -> list[Decision | None]:
        """Decide and store submissions, in order, in one transaction. Return one decision for each.

        `begin` is called right before the submissions are read, perhaps in another thread, and again if the
        transaction is tried again. Until the first time the caller may add some at the end, so that a group grows while
        other processes write. Without `others_join` their workspaces MUST be among those of the first submissions.

        When it returns, every event that is `accepted` or `replaced` MUST be on disk, linked into its workspace's
        ledger, and visible to every reader. The same applies to every stored answer. Submissions are decided under the
        lock of their workspace's head. So concurrent calls, also those of other processes, MUST behave as if they came
        one after the other: sequences have no gap, an identity is accepted once, and a request key is used once.

        With `wait=False` a workspace whose head is locked by another transaction is skipped: its submissions get None,
        and none of their events is stored. `phases` records the time of each phase.

        Raises `DataRefused` (nothing stored, try each submission alone), `errors.Unavailable` (nothing stored) or
        `errors.OutcomeUnknown` (the connection was lost during COMMIT, and the result could not be determined).
        """

    @abstractmethod
    def now(self, connection: Connection) -> int:
        """Return the database's time, in microseconds since the epoch. For use in `work`."""

    @abstractmethod
    def check_durable(self, connection: Connection) -> None:
        """Raise `errors.Unavailable` (`STORE_NOT_DURABLE`) if the database, with its settings, would lose acknowledged
        events in a power cut. For use in `work`.
        """

    @abstractmethod
    def size(self, connection: Connection) -> int:
        """Return the bytes that the database takes on its disk. For use in `work`."""

    @abstractmethod
    def free(self) -> int | None:
        """Return the bytes that are free on the database's disk, None if this process does not see it."""

    @abstractmethod
    def pools(self) -> Mapping[str, Pool]:
        """Return the use of each pool of connections. Any thread may call it."""

    @abstractmethod
    def describe(self, connection: Connection) -> Mapping[str, str]:
        """Return the settings that an operator should see, by the dialect's own names, and the `version`. For use in
        `work`.
        """

    @abstractmethod
    def guards_identities(self, connection: Connection) -> bool:
        """Return whether the database itself refuses a second event of an identity, whoever writes it. For use in
        `work`.
        """

    def workspaces_of_events(self, connection: Connection) -> Sequence[WorkspaceId]:
        """Return the ids in `events.workspace_id`, each once. It reads one row of `events` for each. For use in
        `work`.
        """
        # A recursive query, because DISTINCT would read every event.
        lowest = select(func.min(events.c.workspace_id).label("id")).cte("ids", recursive=True)
        above = select(func.min(events.c.workspace_id)).where(events.c.workspace_id > lowest.c.id).scalar_subquery()
        ids = lowest.union_all(select(above).where(lowest.c.id.is_not(None)))
        return connection.execute(select(ids.c.id).where(ids.c.id.is_not(None))).scalars().all()

    @abstractmethod
    def load(self, connection: Connection, rows: Sequence[StoredEvent]) -> None:
        """Insert rows of `events` as they are, as fast as the dialect can. For use in `work` that has executed a
        statement before. The caller moves the head. Raises what `work` may raise.
        """

    @abstractmethod
    def continue_ids(self, connection: Connection, last: int) -> None:
        """Let the next workspace get an id after `last`. For use in `work`."""

    @abstractmethod
    async def close(self) -> None:
        """Finish the operations in progress and close every connection."""
