"""The directory of workspaces and their API keys."""

import json
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from headgate_server.core.audit import Act, key_facts
from headgate_server.core.errors import NotFound
from headgate_server.core.model import ApiKey, RateLimit, Workspace
from headgate_server.core.types import KeyDigest, WorkspaceId
from headgate_server.store.audit import Audited, create_workspace
from headgate_server.store.schema import api_keys, workspaces

_SETTINGS = (workspaces.c.rates, workspaces.c.types_revision, workspaces.c.unknown_types)
_WORKSPACES = select(workspaces.c.id, workspaces.c.name, *_SETTINGS)

_KEYS = select(api_keys, workspaces.c.name, *_SETTINGS).join(workspaces, workspaces.c.id == api_keys.c.workspace_id)


class Directory(Audited):
    """Workspaces and API keys.

    When a method returns, its changes MUST be on disk and visible to every process. A name and a key's digest are
    unique. Only the SHA-256 of a key is stored, never the key itself. Every change is an act in the audit's ledger.
    """

    async def create_workspace(self, name: str) -> Workspace:
        """Return the workspace of this name. It is created if there is none, with an empty ledger."""
        return await self._database.write(lambda connection: self._create_workspace(connection, name))

    def _create_workspace(self, connection: Connection, name: str) -> Workspace:
        made_id = create_workspace(connection, name, self._database.now(connection))
        if made_id is None:
            found = _workspace_of(connection, name)
            if found is None:
                raise NotFound(f"The workspace {name!r} was removed while it was looked up.")
            return found
        self._audit.record(connection, made_id, Act("workspace.created", name, after={"name": name}))
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

        def work(connection: Connection) -> None:
            connection.execute(insert(api_keys).values(row))
            self._audit.record(connection, key.workspace.id, Act("key.created", key.id, after=key_facts(key)))

        await self._database.write(work)

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
        here = api_keys.c.id == key_id

        def work(connection: Connection) -> bool:
            row = connection.execute(_KEYS.where(here).with_for_update(of=api_keys)).first()
            if row is None:
                return False
            old = _key(row)
            if old.revoked_at is None:
                connection.execute(update(api_keys).where(here).values(revoked_at=at))
                facts = (key_facts(old), key_facts(old._replace(revoked_at=at)))
                self._audit.record(connection, old.workspace.id, Act("key.revoked", key_id, *facts))
            return True

        return await self._database.write(work)


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
