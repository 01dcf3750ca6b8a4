"""The statements of one append on Citus. Each names its workspace by equality, so Citus sends it to one node. Each is
planned for its values: Citus cannot plan all of them without.

An append of one workspace takes ten round trips at most, between the coordinator and its client: BEGIN with its
settings, the lock, the clock, the identities, the request keys, two for COPY, the answers, the head, and COMMIT. It
takes one more if events are superseded.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from asyncpg.pgproto.pgproto import UUID

from headgate_server.core.model import Decision, Head, Link, StoredAnswer, Submission, Usage
from headgate_server.core.settle import Settlement
from headgate_server.core.types import Dedupe, WorkspaceId
from headgate_server.store.answers import ANSWER_LIFETIME
from headgate_server.store.database import DataRefused
from headgate_server.store.group import answer_key, identities, request_keys
from headgate_server.store.phases import Phase, Phases
from headgate_server.store.postgres.append import (
    BOUNDS,
    SILENCE,
    CommitMarker,
    Decided,
    copy_events,
    transposed,
)

BOUNDED = "".join(f"SET LOCAL {name} = '{value}';" for name, value in BOUNDS.items())
"""The settings of every transaction that locks rows."""

# The first setting lets Citus apply those after it to the nodes' transactions, too: there the locks are waited for.
_BEGIN = f"""
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL citus.propagate_set_commands = 'local';
{BOUNDED}
SET LOCAL synchronous_commit = {{level}};
SET LOCAL plan_cache_mode = force_custom_plan;
SET LOCAL enable_seqscan = off;
SET LOCAL jit = off
"""

_LOCK = """
SELECT sequence, hash, created_at, quota, month, month_events FROM heads
WHERE workspace_id = $1::bigint FOR NO KEY UPDATE
"""

# The coordinator's clock, as everywhere else: the nodes' may differ, and a shard can move between two events.
_NOW = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

_IDENTITIES = """
SELECT dedupe, id, sequence, created_at, event_hash, salt, commitment, occurred_at FROM events
WHERE workspace_id = $1::bigint AND dedupe = ANY($2::bytea[]) AND dedupe IS NOT NULL
"""

_ANSWERS = """
SELECT a.scope, a.key, a.created_at, a.fingerprint, a.answer
FROM unnest($2::text[], $3::bytea[]) AS wanted (scope, key)
JOIN answers AS a ON a.scope = wanted.scope AND a.key = wanted.key AND a.workspace_id = $1::bigint
"""

_SUPERSEDE = """
UPDATE events SET dedupe = NULL
WHERE workspace_id = $1::bigint AND dedupe = ANY($2::bytea[]) AND dedupe IS NOT NULL
"""

_ANSWER = """
INSERT INTO answers (workspace_id, scope, key, fingerprint, answer, created_at)
SELECT $1::bigint, new.scope, new.key, new.fingerprint, new.answer, $2::bigint
FROM unnest($3::text[], $4::bytea[], $5::bytea[], $6::bytea[]) AS new (scope, key, fingerprint, answer)
ON CONFLICT (workspace_id, scope, key)
DO UPDATE SET fingerprint = excluded.fingerprint, answer = excluded.answer, created_at = excluded.created_at
"""

_MOVE = """
UPDATE heads SET sequence = $2, hash = $3, created_at = $4, month = $5, month_events = $6
WHERE workspace_id = $1::bigint
"""

_HAS_EVENT = "SELECT EXISTS (SELECT FROM events WHERE workspace_id = $1::bigint AND id = $2)"

_HAS_ANSWER = """
SELECT EXISTS (
    SELECT FROM answers WHERE workspace_id = $1::bigint AND scope = $2 AND key = $3 AND created_at = $4
)
"""

STATEMENTS = {
    "lock": _LOCK,
    "identities": _IDENTITIES,
    "answers": _ANSWERS,
    "supersede": _SUPERSEDE,
    "answer": _ANSWER,
    "move": _MOVE,
    "has_event": _HAS_EVENT,
    "has_answer": _HAS_ANSWER,
}
"""All statements of this module that touch distributed tables, except the COPY of one workspace's events."""


async def decide_and_write(
    connection: Any,
    submissions: Sequence[Submission],
    wait: bool,
    begin: Callable[[], None],
    level: str,
    phases: Phases,
) -> Decided:
    """As `postgres/append.py`. The workspaces of a group come one after the other, in one transaction. `begin` is
    called when the first one is locked.

    Raises `DataRefused` and what asyncpg raises; the caller rolls back.
    """
    async with asyncio.timeout(SILENCE):
        await connection.execute(_BEGIN.format(level=level))
    # In the order of their ids, as on PostgreSQL: no two transactions wait for each other.
    first, *others = sorted({submission.workspace_id for submission in submissions})
    locked = await _lock(connection, first, wait)
    begin()
    groups: dict[WorkspaceId, list[int]] = {}
    for index, submission in enumerate(submissions):
        groups.setdefault(submission.workspace_id, []).append(index)
    decisions: list[Decision | None] = [None] * len(submissions)
    marker: CommitMarker | None = None
    for workspace in (first, *others):
        group = [submissions[index] for index in groups[workspace]]
        if workspace != first:
            locked = await _lock(connection, workspace, wait)
        phases.ended(Phase.LOCK)
        if locked is None:
            if wait:
                raise DataRefused(f"there is no workspace {workspace}")
            continue
        now, settlement = await _settlement(connection, workspace, group, locked)
        phases.ended(Phase.LOOK_UP)
        for index in groups[workspace]:
            decisions[index] = settlement.decide(submissions[index])
        phases.ended(Phase.SETTLE)
        marker = await _write(connection, workspace, settlement, now) or marker
        phases.ended(Phase.WRITE)
    return Decided(decisions, marker)


async def _lock(connection: Any, workspace: WorkspaceId, wait: bool) -> tuple[Head, Usage] | None:
    row = await connection.fetchrow(_LOCK if wait else _LOCK + " SKIP LOCKED", workspace)
    return None if row is None else (Head(*row[:3]), Usage(*row[3:]))


async def _settlement(
    connection: Any, workspace: WorkspaceId, group: Sequence[Submission], locked: tuple[Head, Usage]
) -> tuple[int, Settlement]:
    """Read the clock, and the rows that have the group's identities and request keys. These statements come after the
    lock, so they see everything that was committed during the wait.
    """
    head, usage = locked
    now: int = await connection.fetchval(_NOW)
    known: dict[Dedupe, Link] = {}
    if dedupes := identities(group):
        for dedupe, event_id, *link in await connection.fetch(_IDENTITIES, workspace, dedupes):
            known[dedupe] = Link(event_id.bytes, *link)
    answers: dict[tuple[str, str], StoredAnswer] = {}
    requests = {(scope, answer_key(key)): key for scope, key in request_keys(group)}
    if requests:
        for scope, key, created_at, *answer in await connection.fetch(_ANSWERS, workspace, *transposed(requests, 2)):
            if created_at > now - ANSWER_LIFETIME:
                answers[scope, requests[scope, key]] = StoredAnswer(*answer)
    return now, Settlement(workspace, head, known, answers, now, usage)


async def _write(connection: Any, workspace: WorkspaceId, settled: Settlement, now: int) -> CommitMarker | None:
    rows = settled.rows
    answers = [
        (request.scope, answer_key(request.key), request.fingerprint, answer) for request, answer in settled.new_answers
    ]
    if settled.superseded:
        await connection.execute(_SUPERSEDE, workspace, list(settled.superseded))
    if rows:
        await copy_events(connection, rows)
    if answers:
        await connection.execute(_ANSWER, workspace, now, *transposed(answers, 4))
    if rows:
        await connection.execute(_MOVE, workspace, *settled.head, *settled.usage[1:])
        return CommitMarker(workspace, rows[-1].id, None)
    return CommitMarker(workspace, None, (answers[-1][0], answers[-1][1], now)) if answers else None


async def was_committed(connection: Any, marker: CommitMarker) -> bool:
    """Return whether a transaction was committed whose COMMIT failed.

    The lock waits for a transaction that is prepared on the workspace's node until Citus has finished it. Raises
    asyncpg's errors.
    """
    async with connection.transaction(isolation="read_committed"):
        await connection.execute("SET LOCAL citus.propagate_set_commands = 'local'")
        await connection.execute(BOUNDED)
        await connection.fetch(_LOCK, marker.workspace_id)
        if marker.event_id is not None:
            return bool(await connection.fetchval(_HAS_EVENT, marker.workspace_id, UUID(marker.event_id)))
        return bool(await connection.fetchval(_HAS_ANSWER, marker.workspace_id, *(marker.answer or ())))
