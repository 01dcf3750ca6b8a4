"""The directory of workspaces and their API keys."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, delete, insert, or_, select, update
from sqlalchemy.dialects import postgresql

from headgate_server.core.audit import Act, changes, key_facts
from headgate_server.core.errors import AlreadyExists, NotFound
from headgate_server.core.model import NO_LIMITS, ApiKey, KeyLimits, RateLimit, Workspace
from headgate_server.core.types import KeyDigest, WorkspaceId
from headgate_server.store.audit import Audited, create_workspace
from headgate_server.store.schema import api_keys, rates, workspaces

_MINUTE = 60_000_000
_CHUNK = 500
"""Keys of one statement."""

_SETTINGS = (workspaces.c.rates, workspaces.c.types_revision, workspaces.c.unknown_types)
_WORKSPACES = select(workspaces.c.id, workspaces.c.name, *_SETTINGS)

_KEYS = select(api_keys, workspaces.c.name.label("workspace"), *_SETTINGS).join(
    workspaces, workspaces.c.id == api_keys.c.workspace_id
)
_LOOK_UPS = {
    count: _KEYS.where(api_keys.c.digest.in_([bindparam(f"digest{number}") for number in range(count)]))
    for count in (1, 4, 16, 64)
}
"""The statements that find keys by their digests, each for so many. They are made once, because with many workspaces
most calls look up a key, and there are few, because a database keeps the plan of each.
"""
_MOST_LOOKED_UP = max(_LOOK_UPS)


class Directory(Audited):
    """Workspaces and API keys.

    When a method returns, its changes MUST be on disk and visible to every process. A name and a key's digest are
    unique. Only the SHA-256 of a key is stored, never the key itself. Every change is an act in the audit's ledger.
    """

    async def create_workspace(self, name: str) -> Workspace:
        """Return the workspace of this name. It is created if there is none, with an empty ledger."""

        def work(connection: Connection) -> Workspace:
            found = self.create_workspace_in(connection, name) or workspace_of(connection, name)
            if found is None:
                raise NotFound(f"The workspace {name!r} was removed while it was looked up.")
            return found

        return await self._database.write(work)

    def create_workspace_in(self, connection: Connection, name: str) -> Workspace | None:
        """Create a workspace in the caller's transaction. Return None if there is one of this name, also if another
        process created it meanwhile.
        """
        made_id = create_workspace(connection, name, self._database.now(connection))
        if made_id is None:
            return None
        self._audit.record(connection, made_id, Act("workspace.created", name, after={"name": name}))
        return Workspace(made_id, name)

    async def workspace(self, name: str) -> Workspace | None:
        """Return the workspace of this name, None if there is none."""
        return await self._database.read(lambda connection: workspace_of(connection, name))

    async def workspaces(self) -> list[Workspace]:
        """Return all workspaces, sorted by name."""
        found = await self._database.read(
            lambda connection: [_workspace(*row) for row in connection.execute(_WORKSPACES)]
        )
        # Sorted here, because databases differ in their collation.
        return sorted(found, key=lambda workspace: workspace.name)

    async def add_key(self, key: ApiKey) -> None:
        """Store an API key. Raises `AlreadyExists` if there is one with its id."""

        def work(connection: Connection) -> None:
            new = postgresql.insert(api_keys).values(_row(key))
            unique = new.on_conflict_do_nothing(index_elements=[api_keys.c.id]).returning(api_keys.c.id)
            if connection.execute(unique).first() is None:
                message = f"A key was created for this request before: {key.id}."
                raise AlreadyExists(message, field="request_id", metadata={"key_id": key.id})
            self._audit.record(connection, key.workspace.id, Act("key.created", key.id, after=key_facts(key)))

        await self._database.write(work)

    async def get_key(self, key_id: str) -> ApiKey | None:
        """Return the key with this id, None if there is none."""
        statement = _KEYS.where(api_keys.c.id == key_id)
        row = await self._database.read(lambda connection: connection.execute(statement).first())
        return None if row is None else _key(row)

    async def find_key(self, digest: KeyDigest) -> ApiKey | None:
        """Return the key with this SHA-256, even if it is revoked or expired; None if there is none."""
        return (await self.find_keys([digest])).get(digest)

    async def find_keys(self, digests: Sequence[KeyDigest]) -> dict[KeyDigest, ApiKey]:
        """Return the keys with these SHA-256, even if they are revoked or expired. Those that there are not are left
        out.
        """
        return await self._database.read(lambda connection: _found(connection, digests))

    async def list_keys(self, workspace_id: WorkspaceId | None = None) -> list[ApiKey]:
        """Return the keys of one workspace, or of all, oldest first."""
        statement = _KEYS.order_by(api_keys.c.created_at, api_keys.c.id)
        if workspace_id is not None:
            statement = statement.where(api_keys.c.workspace_id == workspace_id)
        return await self._database.read(lambda connection: [_key(row) for row in connection.execute(statement)])

    async def page_keys(
        self, workspace_id: WorkspaceId | None, limit: int, after: tuple[int, str] | None = None
    ) -> list[ApiKey]:
        """Return at most `limit` keys of one workspace, or of all, oldest first: those after a (created_at, id)."""
        created_at, key_id = api_keys.c.created_at, api_keys.c.id
        statement = _KEYS.order_by(created_at, key_id).limit(limit)
        if workspace_id is not None:
            statement = statement.where(api_keys.c.workspace_id == workspace_id)
        if after is not None:
            statement = statement.where(or_(created_at > after[0], and_(created_at == after[0], key_id > after[1])))
        return await self._database.read(lambda connection: [_key(row) for row in connection.execute(statement)])

    async def rotate_key(
        self, key_id: str, make: Callable[[ApiKey, ApiKey | None], tuple[ApiKey, int]]
    ) -> ApiKey | None:
        """Store a key that replaces another one. Return it, None if there is no key with this id.

        `make` gets the old key and its successor, if it has one already. It returns the new key, and the time at which
        the old one expires. Raises what `make` raises.
        """

        def work(connection: Connection) -> ApiKey | None:
            old = _locked(connection, key_id)
            if old is None:
                return None
            row = connection.execute(_KEYS.where(api_keys.c.id == old.successor)).first()
            new, until = make(old, None if row is None else _key(row))
            connection.execute(insert(api_keys).values(_row(new)))
            self._audit.record(connection, new.workspace.id, Act("key.created", new.id, after=key_facts(new)))
            self._replace(connection, "key.rotated", old, old._replace(expires_at=until, successor=new.id))
            return new

        return await self._database.write(work)

    async def update_key(self, key_id: str, change: Callable[[ApiKey], ApiKey]) -> ApiKey | None:
        """Change the name and the limits of a key to those that `change` returns. Return None if there is no key with
        this id.
        """

        def work(connection: Connection) -> ApiKey | None:
            old = _locked(connection, key_id)
            if old is None:
                return None
            changed = change(old)
            new = old._replace(name=changed.name, limits=changed.limits)
            if new != old:
                self._replace(connection, "key.updated", old, new)
            return new

        return await self._database.write(work)

    def _replace(self, connection: Connection, act: str, old: ApiKey, new: ApiKey) -> None:
        """Store a changed key. The counts of limits that it has no more are deleted."""
        row = _row(new)
        values = {name: row[name] for name in ("name", "limits", "expires_at", "revoked_at", "successor")}
        connection.execute(update(api_keys).where(api_keys.c.id == old.id).values(values))
        if new.limits != old.limits or new.revoked_at != old.revoked_at:
            counts = rates.c.receiver.startswith(f"{limit_name(old.id)}:", autoescape=True)
            connection.execute(delete(rates).where(rates.c.workspace_id == old.workspace.id, counts))
        self._audit.record(connection, old.workspace.id, Act(act, old.id, *changes(key_facts(old), key_facts(new))))

    async def mark_used(self, used: Mapping[str, int]) -> None:
        """Store when keys were last used, by their ids. A later time that is stored already stays. It need not survive
        a power cut.
        """
        minutes = [{"key_id": key_id, "at": used[key_id] - used[key_id] % _MINUTE} for key_id in sorted(used)]
        last = api_keys.c.last_used_at
        statement = update(api_keys).where(
            api_keys.c.id == bindparam("key_id"), or_(last.is_(None), last < bindparam("at"))
        )

        def work(connection: Connection) -> None:
            for start in range(0, len(minutes), _CHUNK):
                connection.execute(statement.values(last_used_at=bindparam("at")), minutes[start : start + _CHUNK])

        if minutes:
            await self._database.write(work, durable=False)

    async def revoke_key(self, key_id: str, at: int) -> bool:
        """Revoke a key. Return False if no key has that id. A key that is already revoked keeps its time of
        revocation.
        """

        def work(connection: Connection) -> bool:
            old = _locked(connection, key_id)
            if old is not None and old.revoked_at is None:
                self._replace(connection, "key.revoked", old, old._replace(revoked_at=at))
            return old is not None

        return await self._database.write(work)


def limit_name(key_id: str) -> str:
    """Return the beginning of the names under which the limits of a key are counted."""
    return f"key:{key_id}"


def _found(connection: Connection, digests: Sequence[KeyDigest]) -> dict[KeyDigest, ApiKey]:
    found: dict[KeyDigest, ApiKey] = {}
    for start in range(0, len(digests), _MOST_LOOKED_UP):
        chunk = digests[start : start + _MOST_LOOKED_UP]
        size = next(size for size in _LOOK_UPS if size >= len(chunk))
        # The last digest fills the places that are left.
        values = {f"digest{number}": chunk[min(number, len(chunk) - 1)] for number in range(size)}
        for key in map(_key, connection.execute(_LOOK_UPS[size], values)):
            found[key.digest] = key
    return found


def _locked(connection: Connection, key_id: str) -> ApiKey | None:
    row = connection.execute(_KEYS.where(api_keys.c.id == key_id).with_for_update(of=api_keys)).first()
    return None if row is None else _key(row)


def workspace_of(connection: Connection, name: str) -> Workspace | None:
    """Return the workspace of this name, None if there is none."""
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
        workspace=_workspace(row.workspace_id, row.workspace, row.rates, row.types_revision, row.unknown_types),
        scopes=frozenset(row.scopes.split()),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        name=row.name,
        limits=_limits_of(row.limits),
        last_used_at=row.last_used_at,
        successor=row.successor,
    )


def _row(key: ApiKey) -> dict[str, Any]:
    """Return the row of a key."""
    row = key._asdict() | {"scopes": " ".join(sorted(key.scopes)), "workspace_id": key.workspace.id}
    del row["workspace"]
    return row | {"limits": None if key.limits == NO_LIMITS else json.dumps(key.limits._asdict())}


def _limits_of(text: str | None) -> KeyLimits:
    stored = json.loads(text or "{}")
    return KeyLimits(**{name: None if rate is None else RateLimit(*rate) for name, rate in stored.items()})
