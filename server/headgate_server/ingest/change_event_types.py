"""Changes event types, and what is done with unknown ones. The API and the command line use it."""

from headgate_server.core import schemas
from headgate_server.core.audit import Actor
from headgate_server.core.event_types import EventType, Mode, Unknown
from headgate_server.core.schemas import invalid
from headgate_server.core.types import WorkspaceId
from headgate_server.core.validator import plain
from headgate_server.ingest.checker import Checker, TooCostly
from headgate_server.ingest.event_types import EventTypeChecks
from headgate_server.store import EventTypes


class ChangeEventTypes:
    """Changes event types. A schema is compiled before it is stored."""

    def __init__(self, event_types: EventTypes, checks: EventTypeChecks, checker: Checker):
        self._event_types = event_types
        self._checks = checks
        self._checker = checker

    async def put(self, workspace_id: WorkspaceId, type_: str, schema: bytes, mode: Mode, by: Actor) -> EventType:
        """Create or replace an event type. `schema` is canonical JSON. Raises `InvalidRequest` if it is not a schema,
        refers outside itself, or takes too long to compile, and what `EventTypes.put` raises.
        """
        schemas.examine(plain(schema))
        try:
            await self._checker.compile(schema)
        except TooCostly:
            raise invalid("The schema takes too much time or memory to compile: simplify it.") from None
        put = await self._event_types.by(by).put(workspace_id, type_, schema, mode)
        self._checks.changed(workspace_id, put.revision)
        return put

    async def delete(self, workspace_id: WorkspaceId, type_: str, by: Actor) -> None:
        """Remove an event type. Raises `NotFound`."""
        self._checks.changed(workspace_id, await self._event_types.by(by).delete(workspace_id, type_))

    async def set_unknown(self, workspace_id: WorkspaceId, unknown: Unknown, by: Actor) -> None:
        """Set what is done with events of unknown types."""
        self._checks.changed(workspace_id, await self._event_types.by(by).set_unknown(workspace_id, unknown))
