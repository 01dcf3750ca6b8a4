"""What a topic rests on: a database that reads, writes and appends. `sqlite/` and `postgres/` are the two there are."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import Connection

from headgate_server.core.errors import Unavailable
from headgate_server.core.model import Decision, Submission
from headgate_server.core.reasons import Reason

T = TypeVar("T")


def not_durable(message: str) -> Unavailable:
    """Return what to raise where the database would not keep what it acknowledges."""
    return Unavailable(f"{message}: it would lose acknowledged events.", reason=Reason.STORE_NOT_DURABLE)


class DataRefused(Exception):
    """The database refused a value of the group, and nothing of the group was stored. The caller tries each
    submission alone.
    """


class Database(ABC):
    """One database of ledgers, whichever dialect it speaks.

    Every method may raise `errors.Unavailable`: the database could not be reached or did not answer in time, and
    nothing was changed. No other exception of a driver leaves a database. Methods are safe to call concurrently from
    one event loop. Each ends within 20 seconds, whatever the database does.
    """

    @abstractmethod
    async def read(self, work: Callable[[Connection], T], *, as_stored: bool = False) -> T:
        """Return what `work` read. It may run twice, and MUST NOT write. Raises what `work` raises.

        With `as_stored` a stored text that is no UTF-8 is read too: each byte that is none comes as a lone surrogate.
        Without it such a text may end the read.
        """

    @abstractmethod
    async def write(self, work: Callable[[Connection], T], *, durable: bool = True) -> T:
        """Return what `work` did in one transaction, once that is committed. It may run twice: the first was undone.

        When it returns, what was written MUST be visible to every reader, and on disk unless `durable` is false. Raises
        `errors.OutcomeUnknown` if the connection was lost during COMMIT, but for what need not be durable, and what
        `work` raises, with nothing written.
        """

    @abstractmethod
    async def append(self, submissions: Sequence[Submission], *, wait: bool = True) -> list[Decision | None]:
        """Decide and store submissions, in order, in one transaction; one decision each.

        When it returns, all that is `accepted` or `replaced` MUST be on disk, linked into its workspace's ledger,
        and visible to every reader, and every stored answer with it. Submissions are decided under the lock of their
        workspace's head, so concurrent calls, also of other processes, MUST behave as if they came one after the
        other: sequences have no gap, an identity is accepted once, and a request key answers once.

        With `wait=False` a workspace whose head is locked by somebody else is skipped: its submissions get None, and
        nothing of theirs is stored.

        Raises `DataRefused` (nothing stored, try each submission alone), `errors.Unavailable` (nothing stored),
        `errors.OutcomeUnknown` (the connection was lost during COMMIT and it could not be found out what became of
        it).
        """

    @abstractmethod
    def now(self, connection: Connection) -> int:
        """Return the database's clock, in microseconds since the epoch. For `work`."""

    @abstractmethod
    def check_durable(self, connection: Connection) -> None:
        """Raise `errors.Unavailable` (`STORE_NOT_DURABLE`) if the database is set to lose, in a power cut, what it
        acknowledges. For `work`.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish what is under way and let go of every connection."""
