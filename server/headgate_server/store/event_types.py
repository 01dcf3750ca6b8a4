"""The event types of workspaces, and what each workspace does with unknown ones."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.dialects import postgresql

from headgate_server.core.audit import Act, event_type_facts
from headgate_server.core.errors import InvalidRequest, NotFound
from headgate_server.core.event_types import MOST_TYPES, EventType, Mode, TypeIndex, Unknown
from headgate_server.core.reasons import Reason
from headgate_server.core.types import WorkspaceId
from headgate_server.store.audit import Audited
from headgate_server.store.database import Database
from headgate_server.store.schema import event_types, workspaces

PAGE_BYTES = 4 * 1024 * 1024
"""The most bytes of schemas in a page, as in pages of events and of rejections."""

_ROW = select(*(event_types.c[name] for name in EventType._fields))


class EventTypes(Audited):
    """Keeps event types. Every change MUST increase the workspace's revision in the same transaction: servers keep what
    they have read until they see another revision. Changes of one workspace come one after the other.
    """

    def __init__(self, database: Database, most: int = MOST_TYPES):
        """`most` is the number of event types that a workspace may have."""
        super().__init__(database)
        self._most = most

    async def put(self, workspace_id: WorkspaceId, type_: str, schema: bytes, mode: Mode) -> EventType:
        """Create or replace an event type. If it has this schema and mode already, nothing changes.

        Raises `InvalidRequest` if the workspace has too many, and `NotFound` if there is no such workspace.
        """
        return await self._database.write(
            lambda connection: self._put(connection, workspace_id, type_, schema, mode, self._database.now(connection))
        )

    async def delete(self, workspace_id: WorkspaceId, type_: str) -> int:
        """Remove an event type, and return the new revision. Raises `NotFound`."""
        return await self._database.write(lambda connection: self._delete(connection, workspace_id, type_))

    async def set_unknown(self, workspace_id: WorkspaceId, unknown: Unknown) -> int:
        """Set what is done with events of unknown types, and return the revision. Raises `NotFound`."""
        return await self._database.write(lambda connection: self.set_unknown_in(connection, workspace_id, unknown))

    async def get(self, workspace_id: WorkspaceId, type_: str) -> EventType | None:
        """Return an event type, None if the workspace has none of this name."""
        return await self._database.read(lambda connection: _get(connection, workspace_id, type_))

    async def several(self, workspace_id: WorkspaceId, types: Sequence[str]) -> Sequence[EventType]:
        """Return those of these event types that the workspace has."""
        here = (event_types.c.workspace_id == workspace_id, event_types.c.type.in_(types))
        statement = _ROW.where(*here)
        return await self._database.read(
            lambda connection: [_event_type(*row) for row in connection.execute(statement)]
        )

    async def list(self, workspace_id: WorkspaceId, limit: int, after: str = "") -> tuple[Sequence[EventType], bool]:
        """Return event types in the order of their code points, those after a name, and whether there are more.

        A page has at most about `PAGE_BYTES` of schemas, and at least one event type if there is any.
        """
        return await self._database.read(lambda connection: _list(connection, workspace_id, limit, after))

    async def index(self, workspace_id: WorkspaceId) -> TypeIndex:
        """Return which event types there are, and the revision of that state. Raises `NotFound`."""
        return await self._database.read(lambda connection: _index(connection, workspace_id), snapshot=True)

    def _put(
        self, connection: Connection, workspace_id: WorkspaceId, type_: str, schema: bytes, mode: Mode, now: int
    ) -> EventType:
        revision, _ = _locked(connection, workspace_id)
        old = _get(connection, workspace_id, type_)
        if old is not None and (old.schema, old.mode) == (schema, mode):
            return old
        if old is None:
            count = select(func.count()).where(event_types.c.workspace_id == workspace_id)
            if connection.execute(count).scalar_one() >= self._most:
                raise InvalidRequest(
                    f"A workspace has at most {self._most} event types.", reason=Reason.TOO_MANY, field="event_type"
                )
        _set_revision(connection, workspace_id, revision + 1)
        new = EventType(type_, schema, mode, revision + 1, now if old is None else old.created_at, now)
        row = postgresql.insert(event_types).values(workspace_id=workspace_id, **new._asdict())
        changed = {name: row.excluded[name] for name in ("schema", "mode", "revision", "updated_at")}
        key = [event_types.c.workspace_id, event_types.c.type]
        connection.execute(row.on_conflict_do_update(index_elements=key, set_=changed))
        before = None if old is None else event_type_facts(old)
        self._audit.record(connection, workspace_id, Act("event_type.put", type_, before, event_type_facts(new)))
        return new

    def _delete(self, connection: Connection, workspace_id: WorkspaceId, type_: str) -> int:
        revision, _ = _locked(connection, workspace_id)
        old = _get(connection, workspace_id, type_)
        if old is None:
            raise absent(type_)
        here = (event_types.c.workspace_id == workspace_id, event_types.c.type == type_)
        connection.execute(delete(event_types).where(*here))
        _set_revision(connection, workspace_id, revision + 1)
        self._audit.record(connection, workspace_id, Act("event_type.deleted", type_, event_type_facts(old)))
        return revision + 1

    def set_unknown_in(self, connection: Connection, workspace_id: WorkspaceId, unknown: Unknown) -> int:
        """Do the same as `set_unknown` in the caller's transaction."""
        revision, old = _locked(connection, workspace_id)
        if old is unknown:
            return revision
        here = workspaces.c.id == workspace_id
        connection.execute(update(workspaces).where(here).values(unknown_types=unknown, types_revision=revision + 1))
        facts = ({"unknown_event_types": old.value}, {"unknown_event_types": unknown.value})
        self._audit.record(connection, workspace_id, Act("workspace.settings_changed", "unknown_event_types", *facts))
        return revision + 1


def _locked(connection: Connection, workspace_id: WorkspaceId) -> tuple[int, Unknown]:
    """Lock the workspace's row, and return its revision and setting. Raises `NotFound`."""
    statement = select(workspaces.c.types_revision, workspaces.c.unknown_types).where(workspaces.c.id == workspace_id)
    row = connection.execute(statement.with_for_update()).first()
    if row is None:
        raise NotFound("There is no such workspace.")
    return row.types_revision, Unknown(row.unknown_types)


def _set_revision(connection: Connection, workspace_id: WorkspaceId, revision: int) -> None:
    connection.execute(update(workspaces).where(workspaces.c.id == workspace_id).values(types_revision=revision))


def _get(connection: Connection, workspace_id: WorkspaceId, type_: str) -> EventType | None:
    here = (event_types.c.workspace_id == workspace_id, event_types.c.type == type_)
    row = connection.execute(_ROW.where(*here)).first()
    return None if row is None else _event_type(*row)


def _event_type(type_: str, schema: bytes, mode: str, revision: int, created_at: int, updated_at: int) -> EventType:
    return EventType(type_, schema, Mode(mode), revision, created_at, updated_at)


def absent(type_: str) -> NotFound:
    """Return the error for an event type that the workspace does not have."""
    return NotFound(f'The workspace has no event type "{type_}".', field="event_type")


def _list(
    connection: Connection, workspace_id: WorkspaceId, limit: int, after: str
) -> tuple[Sequence[EventType], bool]:
    """Return one page. Read the names and sizes first, then the rows that fit."""
    here = (event_types.c.workspace_id == workspace_id, event_types.c.type > after)
    size = func.octet_length(event_types.c.schema).label("size")
    hits = connection.execute(
        select(event_types.c.type, size).where(*here).order_by(event_types.c.type).limit(limit + 1)
    ).all()
    count, content = 0, 0
    for hit in hits[:limit]:
        content += hit.size
        if content > PAGE_BYTES and count:
            break
        count += 1
    if not count:
        return [], False
    rows = _ROW.where(*here, event_types.c.type <= hits[count - 1].type).order_by(event_types.c.type)
    return [_event_type(*row) for row in connection.execute(rows)], count < len(hits)


def _index(connection: Connection, workspace_id: WorkspaceId) -> TypeIndex:
    row = connection.execute(
        select(workspaces.c.types_revision, workspaces.c.unknown_types).where(workspaces.c.id == workspace_id)
    ).first()
    if row is None:
        raise NotFound("There is no such workspace.")
    types = select(event_types.c.type, event_types.c.revision).where(event_types.c.workspace_id == workspace_id)
    revisions = {each.type: each.revision for each in connection.execute(types)}
    return TypeIndex(row.types_revision, Unknown(row.unknown_types), revisions)
