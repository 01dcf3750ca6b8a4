"""The directory of workspaces and their API keys."""

import json
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update
from sqlalchemy.dialects import postgresql

from headgate_server.core import ledger
from headgate_server.core.errors import NotFound
from headgate_server.core.model import ApiKey, RateLimit, Workspace
from headgate_server.core.types import KeyDigest, WorkspaceId
from headgate_server.store.database import Database
from headgate_server.store.schema import api_keys, heads, workspaces

_SETTINGS = (workspaces.c.rates, workspaces.c.types_revision, workspaces.c.unknown_types)
_WORKSPACES = select(workspaces.c.id, workspaces.c.name, *_SETTINGS)

_KEYS = select(api_keys, workspaces.c.name, *_SETTINGS).join(workspaces, workspaces.c.id == api_keys.c.workspace_id)


class Directory:
    """Workspaces and API keys.

    When a method returns, its changes MUST be on disk and visible to every process. A name and a key's digest are
    unique. Only the SHA-256 of a key is stored, never the key itself.
    """

    def __init__(self, database: Database):
        self._database = database

    async def create_workspace(self, name: str) -> Workspace:
        """Return the workspace of this name. It is created if there is none, with an empty ledger."""
        return await self._database.write(lambda connection: self._create_workspace(connection, name))

    def _create_workspace(self, connection: Connection, name: str) -> Workspace:
        # This waits for another process that creates the same workspace.
        made = postgresql.insert(workspaces).values(name=name, created_at=self._database.now(connection))
        made_id = connection.execute(made.on_conflict_do_nothing().returning(workspaces.c.id)).scalar_one_or_none()
        if made_id is None:
            found = _workspace_of(connection, name)
            if found is None:
                raise NotFound(f"The workspace {name!r} was removed while it was looked up.")
            return found
        genesis = ledger.genesis(name)
        head = {"sequence": genesis.sequence, "hash": genesis.hash, "created_at": genesis.created_at}
        connection.execute(insert(heads).values(workspace_id=made_id, **head))
        return Workspace(made_id, name)

    async def workspace(self, name: str) -> Workspace | None:
        """Return the workspace of this name, None if there is none."""
        return await self._database.read(lambda connection: _workspace_of(connection, name))

    async def workspaces(self) -> list[Workspace]:
        """Return all workspaces, sorted by name."""
        found = await self._database.read(
            lambda connection: [_workspace(*row) for row in connection.execute(_WORKSPACES)]
        )
        # Sorted here, because databases differ in their collation.
        return sorted(found, key=lambda workspace: workspace.name)

    async def add_key(self, key: ApiKey) -> None:
        """Store an API key."""
        row = key._asdict() | {"scopes": " ".join(sorted(key.scopes)), "workspace_id": key.workspace.id}
        del row["workspace"]
        await self._database.write(lambda connection: connection.execute(insert(api_keys).values(row)).close())

    async def find_key(self, digest: KeyDigest) -> ApiKey | None:
        """Return the key with this SHA-256, even if it is revoked or expired; None if there is none."""
        statement = _KEYS.where(api_keys.c.digest == digest)
        row = await self._database.read(lambda connection: connection.execute(statement).first())
        return None if row is None else _key(row)

    async def list_keys(self, workspace_id: WorkspaceId | None = None) -> list[ApiKey]:
        """Return the keys of one workspace, or of all, oldest first."""
        statement = _KEYS.order_by(api_keys.c.created_at, api_keys.c.id)
        if workspace_id is not None:
            statement = statement.where(api_keys.c.workspace_id == workspace_id)
        return await self._database.read(lambda connection: [_key(row) for row in connection.execute(statement)])

    async def revoke_key(self, key_id: str, at: int) -> bool:
        """Revoke a key. Return False if no key has that id. A key that is already revoked keeps its time of
        revocation.
        """
        revoked = (
            update(api_keys).where(api_keys.c.id == key_id).values(revoked_at=func.coalesce(api_keys.c.revoked_at, at))
        )
        return await self._database.write(lambda connection: connection.execute(revoked).rowcount > 0)


def _workspace_of(connection: Connection, name: str) -> Workspace | None:
    row = connection.execute(_WORKSPACES.where(workspaces.c.name == name)).first()
    return None if row is None else _workspace(*row)


def _workspace(
    workspace_id: WorkspaceId, name: str, rates: str | None, types_revision: int, unknown_types: str
) -> Workspace:
    own = {receiver: None if rate is None else RateLimit(*rate) for receiver, rate in json.loads(rates or "{}").items()}
    return Workspace(workspace_id, name, own, types_revision, unknown_types)


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        digest=row.digest,
        prefix=row.prefix,
        workspace=_workspace(row.workspace_id, row.name, row.rates, row.types_revision, row.unknown_types),
        scopes=frozenset(row.scopes.split()),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
