"""Checks events against the event types of their workspace.

A workspace that never had an event type costs one comparison a batch. The workspace's revision comes with the API key,
which is looked up again every few seconds. So a change is effective in every process within five seconds, and needs no
statement of its own while nothing changes.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from cachetools import LRUCache

from headgate_server.core import schemas, validator
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.event_types import CHECKED_RECEIVERS, EventType, Mode, TypeIndex, Unknown
from headgate_server.core.model import Draft, Problem, Workspace
from headgate_server.core.reasons import Reason
from headgate_server.core.types import WorkspaceId
from headgate_server.core.validator import Validator, Violation
from headgate_server.ingest.checker import Checker, TooCostly
from headgate_server.store import EventTypes

log = structlog.get_logger(__name__)

_INLINE_STEPS = 2_000_000
"""The most steps of a check that is made here, some 30 ms in the worst case that was found."""
_INLINE_STEPS_A_BYTE = 1_000
"""A schema with more is compiled in the other process only: compiled it may take a lot of memory."""
_SLOW_SECONDS = 0.005
"""After a check that took longer, the schema's checks with at least half its steps are made in the other process."""
_CALL_SECONDS = 5.0
"""The most time that the costly checks of one call may take. A call is answered within 20 seconds."""
_INDEXED_TYPES = 200_000
"""The most event types, of all workspaces, that are kept in memory by name."""
_COMPILED_BYTES = 64 * 1024 * 1024
"""About how much memory compiled schemas may take."""
_KNOWN_REVISIONS = 10_000
_LOADED_AT_ONCE = 50
"""The most schemas that one statement reads, 3 MiB of them."""


@dataclass(slots=True)
class _Compiled:
    """An event type that is ready to check events."""

    event_type: EventType
    steps: int
    """As `schemas.Examined.steps`; 0 if the schema is checked in the other process."""
    validator: Validator | None
    """None if the schema is checked in the other process, or if this version cannot read it."""
    unreadable: bool = False
    inline_steps: int = _INLINE_STEPS
    """The most steps of a check that is made here."""

    @property
    def weight(self) -> int:
        """About how many bytes it takes."""
        compiled = 0 if self.validator is None else 15 * len(self.event_type.schema) + 10_000 * self.steps
        return len(self.event_type.schema) + compiled + 1_000


class EventTypeChecks:
    """Checks the drafts of a call. A process has one."""

    def __init__(self, event_types: EventTypes, checker: Checker):
        self._event_types = event_types
        self._checker = checker
        self._revisions: LRUCache[WorkspaceId, int] = LRUCache(_KNOWN_REVISIONS)
        self._indexes: LRUCache[WorkspaceId, TypeIndex] = LRUCache(
            _INDEXED_TYPES, getsizeof=lambda index: 1 + len(index.revisions)
        )
        self._compiled: LRUCache[tuple[WorkspaceId, str, int], _Compiled] = LRUCache(
            _COMPILED_BYTES, getsizeof=lambda compiled: compiled.weight
        )

    def changed(self, workspace_id: WorkspaceId, revision: int) -> None:
        """Note a change that this process made, so that it is effective here at once."""
        self._revisions[workspace_id] = max(revision, self._revisions.get(workspace_id, 0))

    def revision_of(self, workspace: Workspace) -> int:
        """Return the newest revision of a workspace's event types that this process knows."""
        return max(workspace.types_revision, self._revisions.get(workspace.id, 0))

    async def check(self, workspace: Workspace, slots: Sequence[Draft | Problem]) -> Sequence[Draft | Problem]:
        """Return the slots after the check of their event types. Raises `Unavailable` if they cannot be checked.

        A draft that must not be stored becomes a problem. One with an idempotency key stays a draft that is `refused`,
        because it may be stored already.
        """
        if not self.revision_of(workspace):
            return slots
        index = await self._index(workspace)
        if not index.revisions and index.unknown is Unknown.ACCEPT:
            return slots
        return await _Call(self, workspace, index, self._checker).check(slots)

    async def _index(self, workspace: Workspace) -> TypeIndex:
        index = self._indexes.get(workspace.id)
        if index is None or index.revision < self.revision_of(workspace):
            index = await self._event_types.index(workspace.id)
            if 1 + len(index.revisions) <= _INDEXED_TYPES:
                self._indexes[workspace.id] = index
        return index

    def compiled(self, workspace_id: WorkspaceId, type_: str, revision: int) -> _Compiled | None:
        """Return an event type that is ready to use, None if it must be loaded."""
        return self._compiled.get((workspace_id, type_, revision))

    async def load(self, workspace_id: WorkspaceId, types: Sequence[str]) -> Mapping[str, _Compiled]:
        """Read event types from the store and make them ready. One that was deleted is left out."""
        loaded = {}
        for event_type in await self._event_types.several(workspace_id, types):
            loaded[event_type.type] = compiled = _compile(event_type)
            self._compiled[workspace_id, event_type.type, event_type.revision] = compiled
        return loaded


def _compile(event_type: EventType) -> _Compiled:
    """Compile a schema if it surely makes little work. It was accepted before, so it is compiled in milliseconds."""
    try:
        steps = schemas.examine(validator.plain(event_type.schema)).steps
        if steps is None or steps > _INLINE_STEPS_A_BYTE:
            return _Compiled(event_type, 0, None)
        return _Compiled(event_type, steps, Validator(event_type.schema))
    except InvalidRequest as error:
        # Another version accepted it. Its events must not be lost.
        log.error("schema_not_read", type=event_type.type, error=error.message)
        return _Compiled(event_type, 0, None, unreadable=True)


class _Call:
    """The checks of one call."""

    def __init__(self, checks: EventTypeChecks, workspace: Workspace, index: TypeIndex, checker: Checker):
        self._checks = checks
        self._workspace = workspace
        self._index = index
        self._checker = checker
        self._deadline = time.monotonic() + _CALL_SECONDS
        self._steps = 0

    async def check(self, slots: Sequence[Draft | Problem]) -> Sequence[Draft | Problem]:
        """Return the slots after the check."""
        checked = list(slots)
        for position, slot in enumerate(slots):
            if isinstance(slot, Draft) and slot.receiver in CHECKED_RECEIVERS:
                checked[position] = await self._one(slot, await self._compiled(slots, position))
        return checked

    async def _compiled(self, slots: Sequence[Draft | Problem], position: int) -> _Compiled | None:
        """Return the event type of the draft at a position. If it must be loaded, so are those of the next drafts."""
        first = slots[position]
        found = self._ready(first)
        if found is not None or not isinstance(first, Draft) or first.type not in self._index.revisions:
            return found
        missing: dict[str, None] = {}
        for slot in slots[position:]:
            if isinstance(slot, Draft) and slot.type in self._index.revisions and self._ready(slot) is None:
                missing[slot.type] = None
                if len(missing) == _LOADED_AT_ONCE:
                    break
        return (await self._checks.load(self._workspace.id, list(missing))).get(first.type)

    def _ready(self, slot: Draft | Problem) -> _Compiled | None:
        revision = self._index.revisions.get(slot.type) if isinstance(slot, Draft) else None
        if revision is None or not isinstance(slot, Draft):
            return None
        return self._checks.compiled(self._workspace.id, slot.type, revision)

    async def _one(self, draft: Draft, compiled: _Compiled | None) -> Draft | Problem:
        if compiled is None:
            return self._unknown(draft)
        permissive = compiled.event_type.mode is Mode.PERMISSIVE
        if compiled.unreadable:
            return _warned(draft, f"The schema of {_quoted(draft.type)} cannot be read; the event was not checked.")
        try:
            violation = await self._violation(compiled, b"{}" if draft.data is None else draft.data)
        except TooCostly:
            message = f"The check against the schema of {_quoted(draft.type)} takes too long"
            return _refused(draft, _too_costly(message, retryable=False), permissive=permissive)
        except TimeoutError:
            message = f"The checks of this batch against the schema of {_quoted(draft.type)} take too long"
            return _refused(draft, _too_costly(message, retryable=True), permissive=permissive)
        if violation is None:
            return draft
        return _refused(draft, _mismatch(draft.type, violation), permissive=permissive)

    def _unknown(self, draft: Draft) -> Draft | Problem:
        if self._index.unknown is Unknown.ACCEPT:
            return draft
        message = f"The workspace has no event type {_quoted(draft.type)}."
        problem = Problem(Reason.UNKNOWN_EVENT_TYPE, "type", message)
        return _refused(draft, problem, permissive=self._index.unknown is Unknown.WARN)

    async def _violation(self, compiled: _Compiled, data: bytes) -> Violation | None:
        """Return the first violation. Raises `TooCostly`, and `TimeoutError` after the call's time."""
        steps = compiled.steps * len(data)
        if compiled.validator is None or steps > compiled.inline_steps:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            try:
                async with asyncio.timeout(left):
                    return await self._checker.check(compiled.event_type.schema, data)
            except InvalidRequest:
                raise TooCostly from None
        self._steps += steps
        if self._steps > _INLINE_STEPS:
            self._steps = steps
            await asyncio.sleep(0)  # other calls continue between the checks
        started = time.thread_time()
        violation = compiled.validator.check(data)
        if time.thread_time() - started > _SLOW_SECONDS:
            compiled.inline_steps = min(compiled.inline_steps, steps // 2)
        return violation


def _mismatch(type_: str, violation: Violation) -> Problem:
    field = f"data.{violation.path}" if violation.path else "data"
    message = f"The data does not match the schema of {_quoted(type_)}: {violation.message}"
    return Problem(Reason.SCHEMA_MISMATCH, field, message)


def _too_costly(message: str, *, retryable: bool) -> Problem:
    return Problem(Reason.SCHEMA_TOO_COSTLY, "data", f"{message}.", retryable)


def _refused(draft: Draft, problem: Problem, *, permissive: bool) -> Draft | Problem:
    if permissive:
        place = "" if problem.field in ("type", "data") else f"{problem.field}: "
        return _warned(draft, f"{place}{problem.message}")
    return problem if draft.dedupe is None else draft._replace(refused=problem)


def _warned(draft: Draft, warning: str) -> Draft:
    return draft._replace(warnings=(*draft.warnings, warning))


def _quoted(type_: str) -> str:
    """Return an event's type for a message: bounded, and quoted."""
    return f'"{type_}"' if len(type_) <= 80 else f'"{type_[:79]}…"'
