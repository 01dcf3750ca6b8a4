"""Cursors: the position of each follower in each ledger. `background/follower.py` says how they are used."""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, and_, func, insert, select, update

from headgate_server.core.errors import LeaseLost
from headgate_server.core.model import Lagging, Lease, Position
from headgate_server.core.types import WorkspaceId
from headgate_server.store.database import Database
from headgate_server.store.leases import fence
from headgate_server.store.schema import cursors, heads


class Cursors:
    """Keeps a position for each follower and workspace. A moved cursor MUST be on disk. A cursor MUST move only from
    the position that its holder read, and only under a lease of the holder's epoch.
    """

    def __init__(self, database: Database):
        self._database = database

    async def lagging(self, follower: str, limit: int, *, without: Collection[WorkspaceId] = ()) -> Sequence[Lagging]:
        """Return at most `limit` ledgers whose head is beyond the follower's cursor. Ledgers whose cursor moved longest
        ago come first. Ledgers of the workspaces `without` are left out.
        """
        here = and_(cursors.c.follower == follower, cursors.c.workspace_id == heads.c.workspace_id)
        position = func.coalesce(cursors.c.sequence, 0)
        statement = (
            select(heads.c.workspace_id, position, cursors.c.event_id, heads.c.sequence)
            .select_from(heads.outerjoin(cursors, here))
            .where(heads.c.sequence > position, heads.c.workspace_id.not_in(without))
            .order_by(func.coalesce(cursors.c.moved_at, 0), heads.c.workspace_id)
            .limit(limit)
        )
        rows = await self._database.read(lambda connection: connection.execute(statement).all())
        return [Lagging(workspace, Position(sequence, event), head) for workspace, sequence, event, head in rows]

    async def position(self, follower: str, workspace_id: WorkspaceId) -> Position:
        """Return the follower's position in a ledger."""
        statement = select(cursors.c.sequence, cursors.c.event_id).where(
            cursors.c.follower == follower, cursors.c.workspace_id == workspace_id
        )
        row = await self._database.read(lambda connection: connection.execute(statement).first())
        return Position() if row is None else Position(*row)

    async def move(self, follower: str, workspace_id: WorkspaceId, old: Position, new: Position, lease: Lease) -> None:
        """Move a cursor from `old` to `new`.

        Raises `LeaseLost` and changes nothing if the lease has another epoch now, or the cursor is not at `old` any
        more.
        """
        await self._database.write(lambda connection: self._move(connection, follower, workspace_id, old, new, lease))

    def _move(
        self,
        connection: Connection,
        follower: str,
        workspace_id: WorkspaceId,
        old: Position,
        new: Position,
        lease: Lease,
    ) -> None:
        fence(connection, lease)
        values = {"sequence": new.sequence, "event_id": new.id, "moved_at": self._database.now(connection)}
        here = (cursors.c.follower == follower, cursors.c.workspace_id == workspace_id)
        moved = connection.execute(update(cursors).where(*here, cursors.c.sequence == old.sequence).values(values))
        if moved.rowcount == 1:
            return
        if old.sequence or connection.execute(select(cursors.c.sequence).where(*here)).first() is not None:
            raise LeaseLost(f"The cursor of {follower} was moved by another process.")
        connection.execute(insert(cursors).values(follower=follower, workspace_id=workspace_id, **values))
