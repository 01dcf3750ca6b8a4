"""Workspaces as operators manage them: created and changed with their limits and settings, all or nothing."""

import json
from collections.abc import Mapping
from types import EllipsisType, MappingProxyType
from typing import NamedTuple, Self

from sqlalchemy import Connection, select

from headgate_server.core.audit import Actor
from headgate_server.core.errors import AlreadyExists, NotFound
from headgate_server.core.event_types import Unknown
from headgate_server.core.model import RateLimit, Workspace
from headgate_server.core.types import WorkspaceId
from headgate_server.store.database import Database
from headgate_server.store.directory import Directory, workspace_of
from headgate_server.store.event_types import EventTypes
from headgate_server.store.limits import Limits
from headgate_server.store.schema import workspaces


class WorkspaceChange(NamedTuple):
    """What is set in a workspace. What is left out stays as it is."""

    quota: int | EllipsisType | None = ...
    """The most events a month; None: no quota."""
    rates: Mapping[str, RateLimit | EllipsisType | None] = MappingProxyType({})
    """Limits by receiver. None means no limit; `...` means the receiver's default."""
    only_rates: bool = False
    """Whether all receivers that `rates` does not name get their defaults."""
    unknown: Unknown | None = None
    """What is done with events of unknown types."""


class ManagedWorkspaces:
    """Creates and changes workspaces. A call is one transaction: when it returns, all of it and the acts in the audit's
    ledger MUST be on disk; when it raises, nothing of it.
    """

    def __init__(self, database: Database, directory: Directory, limits: Limits, event_types: EventTypes):
        self._database = database
        self._directory = directory
        self._limits = limits
        self._event_types = event_types

    def by(self, actor: Actor) -> Self:
        """Return the same topic, for the acts of an actor."""
        parts = (self._directory.by(actor), self._limits.by(actor), self._event_types.by(actor))
        return type(self)(self._database, *parts)

    async def create(self, name: str, change: WorkspaceChange) -> Workspace:
        """Create a workspace. Raises `AlreadyExists` if there is one of this name."""

        def work(connection: Connection) -> Workspace:
            made = self._directory.create_workspace_in(connection, name)
            if made is None:
                raise AlreadyExists(f"There is a workspace {name!r}.", field="name")
            return self._applied(connection, made.id, name, change)

        return await self._database.write(work)

    async def update(self, name: str, change: WorkspaceChange) -> Workspace:
        """Change a workspace. Raises `NotFound` if there is none of this name."""

        def work(connection: Connection) -> Workspace:
            # The audit's head is locked last, so the row is locked before the first act.
            row = select(workspaces.c.id).where(workspaces.c.name == name).with_for_update()
            found = connection.execute(row).scalar_one_or_none()
            if found is None:
                raise NotFound(f"there is no workspace {name!r}")
            return self._applied(connection, WorkspaceId(found), name, change)

        return await self._database.write(work)

    def _applied(
        self, connection: Connection, workspace_id: WorkspaceId, name: str, change: WorkspaceChange
    ) -> Workspace:
        rates = dict(change.rates)
        if change.only_rates:
            own = connection.execute(select(workspaces.c.rates).where(workspaces.c.id == workspace_id)).scalar_one()
            rates = {**dict.fromkeys(json.loads(own or "{}"), ...), **rates}
        if rates or change.quota is not ...:
            self._limits.change_in(connection, workspace_id, change.quota, rates)
        if change.unknown is not None:
            self._event_types.set_unknown_in(connection, workspace_id, change.unknown)
        changed = workspace_of(connection, name)
        if changed is None:
            raise NotFound(f"there is no workspace {name!r}")
        return changed
