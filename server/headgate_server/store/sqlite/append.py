"""The statements of one append on SQLite, on the driver's own cursor. `database` does the transaction and the
errors.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from typing import Any

from sqlalchemy import Connection

from headgate_server.core.model import Decision, Head, Link, StoredAnswer, StoredEvent, Submission, Usage
from headgate_server.core.settle import Settlement
from headgate_server.core.types import Dedupe, WorkspaceId
from headgate_server.store.answers import ANSWER_LIFETIME
from headgate_server.store.database import DataRefused
from headgate_server.store.group import answer_key, identities, request_keys
from headgate_server.store.phases import Phase, Phases
from headgate_server.store.sqlite.connection import raw_cursor

_READ_HEAD = "SELECT sequence, hash, created_at, quota, month, month_events FROM heads WHERE workspace_id = ?"

# After each statement the writer thread waits for the interpreter's lock, up to milliseconds if the event loop is busy.
# So one statement inserts many rows. There are only four statements, because the driver caches each of them with its
# last values. OR FAIL is right because the transaction is rolled back in any case: without it SQLite keeps a copy of
# every page that a statement of several rows changes.
_COLUMNS = ", ".join(StoredEvent._fields)
_ROW = f"({', '.join('?' * len(StoredEvent._fields))})"
_INSERTS = {
    rows: f"INSERT OR FAIL INTO events ({_COLUMNS}) VALUES {', '.join([_ROW] * rows)}"  # noqa: S608 - question marks alone
    for rows in (256, 32, 4, 1)
}

# All identities are one parameter, 16 bytes each, and SQLite splits it. So there is one statement and one step for any
# number of identities. The statement names the index so that no plan can scan a ledger under the lock.
_PROBE = (
    "WITH RECURSIVE slices (start) AS (SELECT 1 UNION ALL SELECT start + 16 FROM slices LIMIT length(?2) / 16)"
    " SELECT dedupe, id, sequence, created_at, event_hash, salt, commitment, occurred_at"
    " FROM events INDEXED BY events_dedupe_key"
    " WHERE workspace_id = ?1 AND dedupe IN (SELECT substr(?2, start, 16) FROM slices)"
)

_FIND_ANSWER = (
    "SELECT fingerprint, answer FROM answers WHERE workspace_id = ? AND scope = ? AND key = ? AND created_at > ?"
)

_MOVE_HEAD = (
    "UPDATE heads SET sequence = ?, hash = ?, created_at = ?, month = ?, month_events = ? WHERE workspace_id = ?"
)

_STORE_ANSWER = (
    "INSERT OR REPLACE INTO answers (workspace_id, scope, key, fingerprint, answer, created_at)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)


def decide_and_write(
    connection: Connection, submissions: Sequence[Submission], now: int, phases: Phases
) -> list[Decision]:
    """Decide submissions, in order, and write the result. The caller's transaction holds the write lock.

    Raises `DataRefused` and what the driver raises; the caller rolls back.
    """
    decisions: dict[int, Decision] = {}
    # Sorting is stable, so submissions of one workspace keep their order.
    order = sorted(range(len(submissions)), key=lambda index: submissions[index].workspace_id)
    for workspace_id, group in groupby(order, key=lambda index: submissions[index].workspace_id):
        indexes = list(group)
        settlement = _settle(connection, workspace_id, [submissions[i] for i in indexes], now)
        phases.ended(Phase.LOOK_UP)
        for index in indexes:
            decisions[index] = settlement.decide(submissions[index])
        phases.ended(Phase.SETTLE)
        with raw_cursor(connection) as cursor:
            _store(cursor, workspace_id, settlement, now)
        phases.ended(Phase.WRITE)
    return [decisions[index] for index in range(len(submissions))]


def _settle(connection: Connection, workspace_id: WorkspaceId, group: list[Submission], now: int) -> Settlement:
    with raw_cursor(connection) as cursor:
        row = cursor.execute(_READ_HEAD, (workspace_id,)).fetchone()
        if row is None:
            raise DataRefused(f"there is no workspace {workspace_id}")
        head, usage = Head(*row[:3]), Usage(*row[3:])
        return Settlement(workspace_id, head, *_probe(cursor, workspace_id, group, now), now, usage)


def _holders(cursor: Any, workspace_id: WorkspaceId, dedupes: Sequence[Dedupe]) -> dict[Dedupe, Link]:
    """Return the links of the events that have these identities, of 16 bytes each."""
    rows = cursor.execute(_PROBE, (workspace_id, b"".join(dedupes)))
    return {dedupe: Link(*link) for dedupe, *link in rows}


def _probe(
    cursor: Any, workspace_id: WorkspaceId, group: list[Submission], now: int
) -> tuple[dict[Dedupe, Link], dict[tuple[str, str], StoredAnswer]]:
    """Read, under the lock, which identities and request keys of the group are already used."""
    known = _holders(cursor, workspace_id, identities(group))
    answers: dict[tuple[str, str], StoredAnswer] = {}
    for scope, key in request_keys(group):
        parameters = (workspace_id, scope, answer_key(key), now - ANSWER_LIFETIME)
        found = cursor.execute(_FIND_ANSWER, parameters).fetchone()
        if found is not None:
            answers[scope, key] = StoredAnswer(*found)
    return known, answers


def _store(cursor: Any, workspace_id: WorkspaceId, settlement: Settlement, now: int) -> None:
    if settlement.superseded:
        cursor.executemany(
            "UPDATE events SET dedupe = NULL WHERE workspace_id = ? AND dedupe = ?",
            [(workspace_id, dedupe) for dedupe in settlement.superseded],
        )
    if settlement.rows:
        for statement, values in insertions(settlement.rows):
            cursor.execute(statement, values)
        cursor.execute(_MOVE_HEAD, (*settlement.head, *settlement.usage[1:], workspace_id))
    for request, answer in settlement.new_answers:
        key = answer_key(request.key)
        cursor.execute(_STORE_ANSWER, (workspace_id, request.scope, key, request.fingerprint, answer, now))


def insertions(rows: Sequence[tuple[Any, ...]]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the statements that insert these rows, each with its values."""
    first = 0
    for size, statement in _INSERTS.items():
        while len(rows) - first >= size:
            yield statement, [*chain.from_iterable(rows[first : first + size])]
            first += size
