"""The statements of one append on PostgreSQL, on asyncpg's own connection. `database` provides the connection, the
deadline and the errors.

An append of few events takes five round trips: BEGIN with its settings, the lock, the probe, the new rows with heads
and answers, and COMMIT. More events are copied, which takes two more. If events are superseded, it takes one more.
While another process holds the locks, most identities are looked up already (`_look_up_early`).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from asyncpg.pgproto.pgproto import UUID
from sqlalchemy.dialects import postgresql

from headgate_server.core import compiled
from headgate_server.core.model import Decision, Draft, Head, Link, StoredAnswer, StoredEvent, Submission, Usage
from headgate_server.core.settle import Settlement
from headgate_server.core.types import Dedupe, EventId, WorkspaceId
from headgate_server.store.answers import ANSWER_LIFETIME
from headgate_server.store.database import DataRefused
from headgate_server.store.group import answer_key, request_keys
from headgate_server.store.phases import Phase, Phases
from headgate_server.store.schema import events

SILENCE = 2.0
"""Seconds in which a server answers a statement that waits for no lock. Otherwise the server or the network is down."""

LOCK_TIMEOUT = 5
"""Seconds to wait for a head. A transaction that holds one commits within milliseconds, or is stuck."""

IDLE_TIMEOUT = 3
"""Seconds after which the server ends a transaction whose client sends nothing, and so frees its heads: a process that
is cut off from the database. It is less than LOCK_TIMEOUT, so that other processes wait for the heads and get them.
"""

FEW_EVENTS = 16
"""The most events that are inserted by the statement that also moves the heads. COPY takes two more round trips, but
less time for each event: with about 24 events both cost the same (docs/design/performance.md, A single event).
"""

FEW_BYTES = 256 * 1024
"""The most bytes of content of such events. COPY sends more than that in pieces, as fast as the server takes them."""

EARLY_EVENTS = 500
"""The fewest events whose identities are looked up before the lock. For fewer it takes more time than it saves."""

BOUNDS = {
    "lock_timeout": f"{LOCK_TIMEOUT}s",
    "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT}s",
    "tcp_keepalives_idle": "1",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "3",
}
"""The server's settings of every transaction that locks rows. Without them the rows of a process that is cut off from
the database, or of a machine that lost its power, could stay locked for hours. The keepalives find it after 4 seconds
during a COPY; no timeout of the server covers that case.
"""

# Without statistics (in a new database), or with those of an average workspace, the planner would find identities by
# reading the workspace's whole ledger through the primary key. These settings leave one plan: the statements below use
# an expression that only the index of identities has.
_PLANNER = """
SET LOCAL enable_sort = off;
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off;
SET LOCAL plan_cache_mode = force_generic_plan;
SET LOCAL jit = off
"""

# This is one simple query. The isolation is READ COMMITTED, because the probe must see what was committed during the
# wait for the lock. The settings are local to the transaction, so they work behind a pooler that shares connections.
# synchronous_commit has the value that the store last read, and never `off`, even if the database's setting changes.
# There is no statement_timeout: it would end a commit's wait for a synchronous replica, and the commit would succeed
# without the replica.
_BEGIN = f"""
BEGIN ISOLATION LEVEL READ COMMITTED;
{"".join(f"SET LOCAL {name} = '{value}';" for name, value in BOUNDS.items())}
SET LOCAL synchronous_commit = {{level}};
{_PLANNER}
"""

# The clock is read for each row, when it is locked. In a statement without the WITH it could be read before the wait.
_LOCK = """
WITH locked AS MATERIALIZED (
    SELECT workspace_id, sequence, hash, created_at, quota, month, month_events FROM heads
    WHERE workspace_id = ANY($1::bigint[]) ORDER BY workspace_id FOR NO KEY UPDATE {how}
)
SELECT *, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM locked
"""

# The eight bytes of the workspace stand before each identity, as in the index. OFFSET makes the planner look up the
# identities one by one, so the look-up of one reads no row of another.
_IDENTITIES = """
unnest($1::bytea[]) AS wanted (holder)
CROSS JOIN LATERAL (
    SELECT ctid, * FROM events
    WHERE int8send(events.workspace_id) || events.dedupe = wanted.holder AND events.dedupe IS NOT NULL
    OFFSET 0
) AS e
"""

# One row for each event that has an identity, one for each answer. Each kind has its own columns.
_PROBE_EVENTS = f"""
SELECT 'event' AS kind, e.workspace_id, e.dedupe, e.id, e.sequence, e.created_at, e.event_hash, e.salt, e.commitment,
       e.occurred_at, NULL::text AS scope, NULL::bytea AS key, NULL::bigint AS answered_at, NULL::bytea AS fingerprint,
       NULL::bytea AS answer
FROM {_IDENTITIES}
"""  # noqa: S608 - of constants alone, as those below

# Most groups have no request key. For them the shorter statement takes less time, here and in the database.
_PROBE = f"""
{_PROBE_EVENTS}
UNION ALL
SELECT 'answer', a.workspace_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       a.scope, a.key, a.created_at, a.fingerprint, a.answer
FROM unnest($2::bigint[], $3::text[], $4::bytea[]) AS wanted (workspace_id, scope, key)
JOIN answers AS a USING (workspace_id, scope, key)
"""  # noqa: S608

_HELD = f"SELECT wanted.holder FROM {_IDENTITIES}"  # noqa: S608

# The condition is the row's place (ctid), which cannot change under the lock. With any other condition the planner
# could choose another plan.
_SUPERSEDE = f"""
UPDATE events SET dedupe = NULL FROM (SELECT e.ctid FROM {_IDENTITIES}) AS gone WHERE events.ctid = gone.ctid
"""  # noqa: S608

_FINISH = """
WITH stored AS (
    INSERT INTO answers (workspace_id, scope, key, fingerprint, answer, created_at)
    SELECT *, $6::bigint FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::bytea[], $5::bytea[])
    ON CONFLICT (workspace_id, scope, key)
    DO UPDATE SET fingerprint = excluded.fingerprint, answer = excluded.answer, created_at = excluded.created_at
)
UPDATE heads
SET sequence = new.sequence, hash = new.hash, created_at = new.created_at, month = new.month, month_events = new.events
FROM unnest($7::bigint[], $8::bigint[], $9::bytea[], $10::bigint[], $11::int[], $12::bigint[])
    AS new (workspace_id, sequence, hash, created_at, month, events)
WHERE heads.workspace_id = new.workspace_id
"""


_TYPES = [column.type.compile(dialect=postgresql.dialect()) for column in events.columns]  # type: ignore[no-untyped-call]

# Its first parameters are those of `_FINISH`, then comes each column of the new rows.
_INSERT_AND_FINISH = f"""
WITH inserted AS (
    INSERT INTO events ({", ".join(StoredEvent._fields)})
    SELECT * FROM unnest({", ".join(f"${number}::{name}[]" for number, name in enumerate(_TYPES, 13))})
), {_FINISH.strip().removeprefix("WITH ")}
"""  # noqa: S608


class CommitMarker(NamedTuple):
    """Shows, later and on another connection, whether a transaction was committed."""

    workspace_id: WorkspaceId
    event_id: EventId | None
    """An event that the transaction wrote. If it wrote none, `answer` is set."""
    answer: tuple[str, bytes, int] | None
    """The scope, key and created_at of an answer that the transaction wrote."""


class Early(NamedTuple):
    """What was looked up before the lock: how many of the group's submissions, and which of their identities events
    had, as parameters of `_IDENTITIES`.

    Only what was found free is relied on. If another process has stored such an identity meanwhile, the exclusion
    constraint refuses the new event, and the group is tried again without an early look-up.
    """

    submissions: int
    held: Sequence[bytes]


class Decided(NamedTuple):
    """The result of one append before its COMMIT. Without a marker it wrote nothing, and there is nothing to commit."""

    decisions: list[Decision | None]
    marker: CommitMarker | None


async def decide_and_write(
    connection: Any,
    submissions: Sequence[Submission],
    wait: bool,
    begin: Callable[[], None],
    level: str,
    phases: Phases,
    early: bool,
) -> Decided:
    """Begin a transaction, decide the submissions under their heads' locks, and write the results. The caller sends
    COMMIT; `level` is its synchronous_commit. `begin` is called when the locks are held: until then submissions of the
    same workspaces may be added. With `early` the identities of a large group that waits are looked up before the lock.

    Raises `DataRefused` and what asyncpg raises; the caller rolls back.
    """
    # BEGIN waits for no lock, so a server that does not answer is down.
    async with asyncio.timeout(SILENCE):
        await connection.execute(_BEGIN.format(level=level))
    looked_up = await _look_up_early(connection, submissions, phases) if wait and early else Early(0, ())
    now, heads = await _lock(connection, sorted({submission.workspace_id for submission in submissions}), wait)
    phases.ended(Phase.LOCK)
    begin()
    groups: dict[WorkspaceId, list[int]] = {}
    for index, submission in enumerate(submissions):
        if submission.workspace_id in heads:
            groups.setdefault(submission.workspace_id, []).append(index)
        elif wait:
            raise DataRefused(f"there is no workspace {submission.workspace_id}")
    decisions: list[Decision | None] = [None] * len(submissions)
    if not groups:
        return Decided(decisions, None)
    late = (submission for submission in submissions[looked_up.submissions :] if submission.workspace_id in heads)
    settlements = await _settlements(
        connection,
        heads,
        {workspace: [submissions[index] for index in indexes] for workspace, indexes in groups.items()},
        [*looked_up.held, *_claimed(late)],
        now,
    )
    phases.ended(Phase.LOOK_UP)
    for workspace, indexes in groups.items():
        for index in indexes:
            decisions[index] = settlements[workspace].decide(submissions[index])
    phases.ended(Phase.SETTLE)
    marker = await _write(connection, settlements, now)
    phases.ended(Phase.WRITE)
    return Decided(decisions, marker)


async def _look_up_early(connection: Any, submissions: Sequence[Submission], phases: Phases) -> Early:
    """Look up identities while another process may hold the locks, for as long as many submissions join."""
    count, held = 0, list[bytes]()
    phases.ended(Phase.LOCK)
    while sum(len(submission.slots) for submission in submissions[count:]) >= EARLY_EVENTS:
        joined = submissions[count:]
        count += len(joined)
        held += [row[0] for row in await connection.fetch(_HELD, _claimed(joined))]
    phases.ended(Phase.LOOK_UP)
    return Early(count, held)


async def _lock(
    connection: Any, workspaces: list[WorkspaceId], wait: bool
) -> tuple[int, dict[WorkspaceId, tuple[Head, Usage]]]:
    """Lock the heads. Return the server's time when they are locked, and what they contain."""
    rows = await connection.fetch(_LOCK.format(how="" if wait else "SKIP LOCKED"), workspaces)
    now = max((row[7] for row in rows), default=0)
    return now, {row[0]: (Head(*row[1:4]), Usage(*row[4:7])) for row in rows}


async def _settlements(
    connection: Any,
    heads: Mapping[WorkspaceId, tuple[Head, Usage]],
    groups: Mapping[WorkspaceId, list[Submission]],
    claimed: list[bytes],
    now: int,
) -> dict[WorkspaceId, Settlement]:
    """Read the rows that have the claimed identities and the groups' request keys. This statement comes after the lock,
    so it sees everything that was committed during the wait.
    """
    requests = {
        (workspace, scope, answer_key(key)): key
        for workspace, group in groups.items()
        for scope, key in request_keys(group)
    }
    known: dict[WorkspaceId, dict[Dedupe, Link]] = {workspace: {} for workspace in groups}
    answers: dict[WorkspaceId, dict[tuple[str, str], StoredAnswer]] = {workspace: {} for workspace in groups}
    if claimed or requests:
        if requests:
            rows = await connection.fetch(_PROBE, claimed, *transposed(requests, 3))
        else:
            rows = await connection.fetch(_PROBE_EVENTS, claimed)
        for kind, workspace, dedupe, event_id, *link, scope, key, answered_at, fingerprint, answer in rows:
            if kind == "event":
                known[workspace][dedupe] = Link(event_id.bytes, *link)
            elif answered_at > now - ANSWER_LIFETIME:
                answers[workspace][scope, requests[workspace, scope, key]] = StoredAnswer(fingerprint, answer)
    return {
        workspace: Settlement(workspace, head, known[workspace], answers[workspace], now, usage)
        for workspace, (head, usage) in heads.items()
    }


async def _write(connection: Any, settlements: Mapping[WorkspaceId, Settlement], now: int) -> CommitMarker | None:
    superseded = {workspace: settled.superseded for workspace, settled in settlements.items() if settled.superseded}
    rows = [row for settled in settlements.values() for row in settled.rows]
    answers = [
        (workspace, request.scope, answer_key(request.key), request.fingerprint, answer)
        for workspace, settled in settlements.items()
        for request, answer in settled.new_answers
    ]
    moved = [
        (workspace, *settled.head, *settled.usage[1:]) for workspace, settled in settlements.items() if settled.rows
    ]
    if not rows and not answers:
        return None
    if superseded:
        await connection.execute(_SUPERSEDE, _holders(superseded))
    finish = (*transposed(answers, 5), now, *transposed(moved, 6))
    if rows and _are_few(rows):
        await connection.execute(_INSERT_AND_FINISH, *finish, *_columns(rows))
    else:
        if rows:
            await copy_events(connection, rows)
        await connection.execute(_FINISH, *finish)
    if rows:
        return CommitMarker(rows[-1].workspace_id, rows[-1].id, None)
    return CommitMarker(answers[-1][0], None, (answers[-1][1], answers[-1][2], now))


def _are_few(rows: Sequence[StoredEvent]) -> bool:
    if len(rows) > FEW_EVENTS:
        return False
    return sum(len(row.data or b"") + len(row.attributes or b"") for row in rows) <= FEW_BYTES


def _columns(rows: Sequence[StoredEvent]) -> list[list[Any]]:
    columns = transposed(rows, len(StoredEvent._fields))
    columns[_ID] = [UUID(event_id) for event_id in columns[_ID]]
    return columns


_ID = StoredEvent._fields.index("id")


async def copy_events(connection: Any, rows: Sequence[StoredEvent]) -> None:
    """Insert new rows of `events` by COPY. Raises asyncpg's errors."""
    pieces = compiled.copy_rows(rows)
    if pieces is not None:
        source = _one_by_one(pieces)
        await connection.copy_to_table("events", source=source, columns=StoredEvent._fields, format="binary")
        return
    records = [(row[0], UUID(row[1]), *row[2:]) for row in rows]
    await connection.copy_records_to_table("events", columns=StoredEvent._fields, records=records)


async def _one_by_one(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    # asyncpg waits before each piece until the connection takes more.
    for piece in pieces:
        yield piece


async def was_committed(connection: Any, marker: CommitMarker) -> bool:
    """Return whether a transaction was committed whose connection was lost during COMMIT.

    The lock waits for the old server process, which may not have committed yet, or not have noticed yet that its client
    is gone. Raises asyncpg's errors.
    """
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'")
        await _lock(connection, [marker.workspace_id], wait=True)
        if marker.event_id is not None:
            statement = "SELECT EXISTS (SELECT FROM events WHERE workspace_id = $1 AND id = $2)"
            return bool(await connection.fetchval(statement, marker.workspace_id, UUID(marker.event_id)))
        statement = """
            SELECT EXISTS (SELECT FROM answers WHERE workspace_id = $1 AND scope = $2 AND key = $3 AND created_at = $4)
        """
        return bool(await connection.fetchval(statement, marker.workspace_id, *(marker.answer or ())))


def _claimed(submissions: Iterable[Submission]) -> list[bytes]:
    """Return the parameter of `_IDENTITIES` for all drafts, in one pass. An identity that two drafts have is in it
    twice: to look it up again costs less than to look for it here. The order has no meaning for the hash index.
    """
    return [
        holder + slot.dedupe
        for submission in submissions
        for holder in [submission.workspace_id.to_bytes(8, "big")]
        for slot in submission.slots
        if isinstance(slot, Draft) and slot.dedupe is not None
    ]


def _holders(groups: Mapping[WorkspaceId, Sequence[Dedupe]]) -> list[bytes]:
    """Return the parameter of `_IDENTITIES`."""
    return [
        holder + dedupe
        for workspace, dedupes in groups.items()
        for holder in [workspace.to_bytes(8, "big")]
        for dedupe in dedupes
    ]


def transposed(rows: Iterable[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Turn rows into columns, as unnest takes them. There are `width` columns even without any row."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    return columns or [[] for _ in range(width)]
