"""The ledger of administrative acts. Topics record an act in the transaction that does it."""

from copy import copy
from typing import Self

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.dialects import postgresql

from headgate_server.core import ledger
from headgate_server.core.audit import RESERVED, Act, Actor, draft_of
from headgate_server.core.errors import NotFound
from headgate_server.core.model import Head, Submission, Usage
from headgate_server.core.settle import Settlement
from headgate_server.core.types import WorkspaceId
from headgate_server.store.database import Database
from headgate_server.store.schema import events, heads, workspaces


class Audit:
    """Writes acts into the ledger of the reserved workspace, in the name of an actor.

    An act and its event MUST be in one transaction. The head of the reserved workspace MUST be the last lock that the
    transaction takes: then no two transactions wait for each other.

    Without an actor nothing is recorded: a program that opens a store for itself is no administrator.
    """

    def __init__(self, database: Database, actor: Actor | None = None):
        self._database = database
        self._actor = actor

    def by(self, actor: Actor) -> "Audit":
        """Return the same ledger, for the acts of an actor."""
        return Audit(self._database, actor)

    async def note(self, workspace_id: WorkspaceId, act: Act) -> None:
        """Record an act that is done after this, in other transactions."""
        await self._database.write(lambda connection: self.record(connection, workspace_id, act))

    def record(self, connection: Connection, workspace_id: WorkspaceId, act: Act) -> None:
        """Record an act in the caller's transaction. Raises `NotFound` if there is no such workspace."""
        if self._actor is None:
            return
        name = connection.execute(select(workspaces.c.name).where(workspaces.c.id == workspace_id)).scalar_one_or_none()
        if name is None:
            raise NotFound("There is no such workspace.")
        draft = draft_of(self._actor, name, act)
        reserved, settlement = self._settlement(connection)
        settlement.decide(Submission(workspace_id=reserved, slots=[draft]))
        connection.execute(insert(events), [row._asdict() for row in settlement.rows])
        sequence, hash_, created_at = settlement.head
        _, month, month_events = settlement.usage
        moved = {"sequence": sequence, "hash": hash_, "created_at": created_at}
        counted = {"month": month, "month_events": month_events}
        connection.execute(update(heads).where(heads.c.workspace_id == reserved).values(moved | counted))

    def _settlement(self, connection: Connection) -> tuple[WorkspaceId, Settlement]:
        """Lock the head of the reserved workspace, and return what links events to it. It has no quota."""
        named = select(workspaces.c.id).where(workspaces.c.name == RESERVED)
        reserved = connection.execute(named).scalar_one_or_none()
        if reserved is None:
            create_workspace(connection, RESERVED, self._database.now(connection))
            reserved = connection.execute(named).scalar_one()
        row = connection.execute(select(heads).where(heads.c.workspace_id == reserved).with_for_update()).one()
        usage = Usage(None, row.month, row.month_events)
        last = Head(row.sequence, row.hash, row.created_at)
        return row.workspace_id, Settlement(row.workspace_id, last, {}, {}, self._database.now(connection), usage)


class Audited:
    """The base of the topics whose changes are administrative acts."""

    def __init__(self, database: Database):
        self._database = database
        self._audit = Audit(database)

    def by(self, actor: Actor) -> Self:
        """Return the same topic, for the acts of an actor."""
        acting = copy(self)
        acting._audit = self._audit.by(actor)
        return acting


def create_workspace(connection: Connection, name: str, now: int) -> WorkspaceId | None:
    """Create a workspace with an empty ledger. Return None if there is one of this name.

    This waits for another process that creates the same workspace.
    """
    made = postgresql.insert(workspaces).values(name=name, created_at=now)
    statement = made.on_conflict_do_nothing().returning(workspaces.c.id)
    made_id = connection.execute(statement).scalar_one_or_none()
    if made_id is None:
        return None
    genesis = ledger.genesis(name)
    head = {"sequence": genesis.sequence, "hash": genesis.hash, "created_at": genesis.created_at}
    connection.execute(insert(heads).values(workspace_id=made_id, **head))
    return WorkspaceId(made_id)
