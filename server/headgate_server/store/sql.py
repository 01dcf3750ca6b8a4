"""The statements that both dialects share, each a function of an open connection; the stores bring the connection
and its errors.

The append is not here: it is the hot path, and each dialect has its own.
"""

import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from types import EllipsisType
from typing import Any

from sqlalchemy import (
    ColumnCollection,
    ColumnElement,
    Connection,
    Row,
    case,
    delete,
    func,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from headgate_server.core import ledger
from headgate_server.core.model import (
    Admission,
    ApiKey,
    Draft,
    EventPage,
    EventQuery,
    Head,
    RateLimit,
    StoredEvent,
    Submission,
    Usage,
    Workspace,
)
from headgate_server.core.settle import current_usage, next_created_at
from headgate_server.store import ANSWER_LIFETIME, PAGE_BYTES, SCAN_LIMIT
from headgate_server.store.schema import answers, api_keys, events, heads, workspaces
from headgate_server.store.schema import rates as rates_table

_FETCH_CHUNK = 1_000


def answer_key(key: str) -> bytes:
    """Return what stands for a request key in the table of answers: 16 bytes."""
    return sha256(key.encode()).digest()[:16]


def head(connection: Connection, workspace_id: int) -> Head | None:
    """Return the last link of the workspace's ledger, None if there is no such workspace."""
    statement = select(heads.c.sequence, heads.c.hash, heads.c.created_at).where(heads.c.workspace_id == workspace_id)
    row = connection.execute(statement).first()
    return None if row is None else Head(*row)


def fetch(connection: Connection, workspace_id: int, ids: Sequence[bytes]) -> list[StoredEvent]:
    """Return those of the workspace's events that have one of these ids, in the order of their ids."""
    found: list[StoredEvent] = []
    ordered = sorted(set(ids))
    for start in range(0, len(ordered), _FETCH_CHUNK):
        chunk = ordered[start : start + _FETCH_CHUNK]
        statement = select(events).where(events.c.workspace_id == workspace_id, events.c.id.in_(chunk))
        found += map(StoredEvent._make, connection.execute(statement.order_by(events.c.id)))
    return found


def page(connection: Connection, query: EventQuery) -> EventPage:
    """Return one page of events: first the ids and sizes of what matches, then as many rows as a page may hold."""
    if query.limit < 1:
        raise ValueError("a page holds at least one event")
    hits, end = _hits(connection, query)
    count = _fitting(hits[: query.limit])
    resume = hits[count - 1].id if count < len(hits) else end
    return EventPage(_rows(connection, query, hits[:count]), resume)


def matching(connection: Connection, query: EventQuery, event_id: bytes) -> EventPage:
    """Return the event of this id as the only one that can match the query, if it does."""
    found = connection.execute(
        select(events).where(events.c.id == event_id, *_bounds(query), *_filters(events.c, query))
    )
    return EventPage([StoredEvent._make(row) for row in found], None)


def _hits(connection: Connection, query: EventQuery) -> tuple[Sequence[Row[Any, Any]], bytes | None]:
    """Return (id, size) of the events that match among the next `SCAN_LIMIT`, at most one more than asked for.

    Also the id at which the scan stopped short of the ledger's end, None if it came to it.
    """
    limit = min(query.limit + 1, SCAN_LIMIT)
    size = func.coalesce(func.octet_length(events.c.data), 0).label("size")
    scan = select(events.c.id, size).where(*_bounds(query)).order_by(_direction(events.c.id, query))
    if not _filters(events.c, query):
        hits = connection.execute(scan.limit(limit)).all()
        return hits, hits[-1].id if len(hits) == SCAN_LIMIT else None
    window = (
        scan.add_columns(events.c.receiver, events.c.type, events.c.source, events.c.subject, events.c.dedupe)
        .limit(SCAN_LIMIT)
        .subquery()
    )
    matching = select(window.c.id, window.c.size).where(*_filters(window.c, query))
    hits = connection.execute(matching.order_by(_direction(window.c.id, query)).limit(limit)).all()
    if len(hits) > query.limit:
        return hits, hits[-1].id
    return hits, connection.execute(
        scan.with_only_columns(events.c.id).offset(SCAN_LIMIT - 1).limit(1)
    ).scalar_one_or_none()


def _fitting(hits: Sequence[Row[Any, Any]]) -> int:
    """Return how many of these events fit into one page; the first always does."""
    content = 0
    for count, hit in enumerate(hits):
        content += hit.size
        if content > PAGE_BYTES and count:
            return count
    return len(hits)


def _rows(connection: Connection, query: EventQuery, hits: Sequence[Row[Any, Any]]) -> list[StoredEvent]:
    if not hits:
        return []
    # The same filter between the same ids yields the same events: they never change, and none is ever put between
    # old ones.
    first, last = sorted((hits[0].id, hits[-1].id))
    statement = (
        select(events)
        .where(
            events.c.workspace_id == query.workspace_id, events.c.id.between(first, last), *_filters(events.c, query)
        )
        .order_by(_direction(events.c.id, query))
    )
    return [StoredEvent._make(row) for row in connection.execute(statement)]


def _direction(column: ColumnElement[bytes], query: EventQuery) -> ColumnElement[bytes]:
    return column.desc() if query.newest_first else column.asc()


def _bounds(query: EventQuery) -> list[ColumnElement[bool]]:
    """Return what the primary key answers: the workspace, and a range of ids."""
    bounds = [events.c.workspace_id == query.workspace_id]
    if query.after is not None:
        bounds.append(events.c.id < query.after if query.newest_first else events.c.id > query.after)
    if query.created_from is not None:
        bounds.append(events.c.id >= ledger.first_id(query.created_from))
    if query.created_to is not None:
        bounds.append(events.c.id < ledger.first_id(query.created_to))
    return bounds


def _filters(columns: ColumnCollection[str, Any], query: EventQuery) -> list[ColumnElement[bool]]:
    """Return what has to be looked at row by row."""
    wanted = {"receiver": query.receiver, "type": query.type, "source": query.source, "subject": query.subject}
    filters: list[ColumnElement[bool]] = [columns[name] == value for name, value in wanted.items() if value is not None]
    if query.current_only:
        filters.append(columns["dedupe"].is_not(None))
    if query.type_prefix:
        # No LIKE: the prefix is the caller's, and SQLite's LIKE ignores case.
        filters.append(func.substr(columns["type"], 1, len(query.type_prefix)) == query.type_prefix)
    return filters


def hashes_before(connection: Connection, workspace: Workspace, ids: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return, for each of these events, the event_hash of the one before it; for the first event the genesis hash."""
    found: dict[bytes, bytes] = {}
    for event_id in ids:
        before = (
            select(events.c.event_hash)
            .where(events.c.workspace_id == workspace.id, events.c.id < event_id)
            .order_by(events.c.id.desc())
            .limit(1)
        )
        found[event_id] = connection.execute(before).scalar_one_or_none() or ledger.genesis(workspace.name).hash
    return found


def usage(connection: Connection, workspace_id: int, now: int) -> Usage | None:
    """Return what the workspace may store a month, and has stored in that of an event that is appended at `now`; None
    if there is no such workspace.
    """
    statement = select(heads.c.created_at, heads.c.quota, heads.c.month, heads.c.month_events)
    row = connection.execute(statement.where(heads.c.workspace_id == workspace_id)).first()
    if row is None:
        return None
    created_at, *counted = row
    return current_usage(next_created_at(created_at, now), Usage(*counted))


def try_out(connection: Connection, key: bytes, now: int, filling: bytes) -> None:
    """Write what an append writes and take it back, then leave one row, of `key`, to be committed.

    The row is an answer of no workspace: what is no longer written is deleted like other answers, a day later.
    """
    trial = connection.begin_nested()
    texts = {"receiver": "probe", "type": "probe", "source": "", "subject": ""}
    digests = {"salt": key, "commitment": bytes(32), "event_hash": bytes(32)}
    row = {"workspace_id": _NO_WORKSPACE, "id": key, "sequence": 0, "created_at": now, "data": filling}
    connection.execute(insert(events).values({**row, **texts, **digests}))
    # No row, but the right to write them is checked all the same.
    here = heads.c.workspace_id == _NO_WORKSPACE
    connection.execute(update(heads).where(here).values(sequence=heads.c.sequence))
    trial.rollback()
    new = _INSERTS[connection.dialect.name](answers).values(
        workspace_id=_NO_WORKSPACE, scope="probe", key=key, fingerprint=bytes(32), answer=filling, created_at=now
    )
    columns = [answers.c.workspace_id, answers.c.scope, answers.c.key]
    changed = {"answer": new.excluded.answer, "created_at": new.excluded.created_at}
    connection.execute(new.on_conflict_do_update(index_elements=columns, set_=changed))


_NO_WORKSPACE = 0
"""Ids of workspaces begin with 1."""


def set_quota(connection: Connection, workspace_id: int, quota: int | None) -> None:
    """Set how many events the workspace may store a month."""
    connection.execute(update(heads).where(heads.c.workspace_id == workspace_id).values(quota=quota))


def set_rate(connection: Connection, workspace_id: int, receiver: str, rate: RateLimit | EllipsisType | None) -> None:
    """Set the workspace's own limit for a receiver, beside those for others."""
    here = workspaces.c.id == workspace_id
    row = select(workspaces.c.rates).where(here).with_for_update()
    rates = json.loads(connection.execute(row).scalar_one() or "{}")
    rates.pop(receiver, None)
    if not isinstance(rate, EllipsisType):
        rates[receiver] = rate
    connection.execute(update(workspaces).where(here).values(rates=json.dumps(rates)))


def admit(connection: Connection, workspace_id: int, receiver: str, rate: RateLimit, now: int) -> Admission:
    """Count one request by GCRA (ITU-T I.371, Annex A): one statement that moves the arrival time, or moves nothing.

    A request may arrive `slack` before the time at which an even stream would bring it; that makes the burst.
    """
    step = -(-rate.period // rate.requests)
    slack = step * (rate.burst - 1)
    new = _INSERTS[connection.dialect.name](rates_table).values(
        workspace_id=workspace_id, receiver=receiver, arrival=now + step
    )
    # What lies further ahead than this rate ever puts it was put there by a slower one: it begins anew.
    foreign = rates_table.c.arrival > now + slack + step + _CLOCK_SKEW
    due = case((foreign, now), (rates_table.c.arrival > now, rates_table.c.arrival), else_=now)
    moved = new.on_conflict_do_update(
        index_elements=[rates_table.c.workspace_id, rates_table.c.receiver],
        set_={"arrival": due + step},
        where=due - now <= slack,
    ).returning(rates_table.c.arrival)
    arrival = connection.execute(moved).scalar_one_or_none()
    if arrival is not None:
        return Admission(True, (slack + step - (arrival - now)) // step, 0, arrival - now)
    here = (rates_table.c.workspace_id == workspace_id, rates_table.c.receiver == receiver)
    arrival = connection.execute(select(rates_table.c.arrival).where(*here)).scalar_one()
    return Admission(False, 0, max(1, arrival - slack - now), max(1, arrival - now))


_CLOCK_SKEW = 2_000_000
"""Microseconds by which a request may have read the clock before the one whose arrival it finds."""
_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def workspace(connection: Connection, name: str) -> Workspace | None:
    """Return the workspace of this name."""
    row = connection.execute(_WORKSPACES.where(workspaces.c.name == name)).first()
    return None if row is None else _workspace(*row)


def _workspace(workspace_id: int, name: str, rates: str | None) -> Workspace:
    own = {receiver: None if rate is None else RateLimit(*rate) for receiver, rate in json.loads(rates or "{}").items()}
    return Workspace(workspace_id, name, own)


_WORKSPACES = select(workspaces.c.id, workspaces.c.name, workspaces.c.rates)


def all_workspaces(connection: Connection) -> list[Workspace]:
    """Return all workspaces by name."""
    # Sorted here: databases differ in how they collate.
    return sorted((_workspace(*row) for row in connection.execute(_WORKSPACES)), key=lambda found: found.name)


def add_workspace(connection: Connection, workspace_id: int, name: str) -> Workspace:
    """Give a workspace that was just made its head: its ledger is empty, not absent."""
    genesis = ledger.genesis(name)
    connection.execute(
        insert(heads).values(
            workspace_id=workspace_id, sequence=genesis.sequence, hash=genesis.hash, created_at=genesis.created_at
        )
    )
    return Workspace(workspace_id, name)


def add_key(connection: Connection, key: ApiKey) -> None:
    """Store an API key."""
    connection.execute(
        insert(api_keys).values(
            id=key.id,
            digest=key.digest,
            prefix=key.prefix,
            workspace_id=key.workspace.id,
            scopes=" ".join(sorted(key.scopes)),
            created_at=key.created_at,
            expires_at=key.expires_at,
            revoked_at=key.revoked_at,
        )
    )


_KEYS = select(api_keys, workspaces.c.name, workspaces.c.rates).join(
    workspaces, workspaces.c.id == api_keys.c.workspace_id
)


def find_key(connection: Connection, digest: bytes) -> ApiKey | None:
    """Return the key with this SHA-256."""
    row = connection.execute(_KEYS.where(api_keys.c.digest == digest)).first()
    return None if row is None else _key(row)


def list_keys(connection: Connection, workspace_id: int | None) -> list[ApiKey]:
    """Return the keys of one workspace, or of all, oldest first."""
    statement = _KEYS.order_by(api_keys.c.created_at, api_keys.c.id)
    if workspace_id is not None:
        statement = statement.where(api_keys.c.workspace_id == workspace_id)
    return [_key(row) for row in connection.execute(statement)]


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        digest=row.digest,
        prefix=row.prefix,
        workspace=_workspace(row.workspace_id, row.name, row.rates),
        scopes=frozenset(row.scopes.split()),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )


def revoke_key(connection: Connection, key_id: str, at: int) -> bool:
    """Revoke a key, unless it was before; False if there is none of that id."""
    revoked = (
        update(api_keys).where(api_keys.c.id == key_id).values(revoked_at=func.coalesce(api_keys.c.revoked_at, at))
    )
    return connection.execute(revoked).rowcount > 0


PURGE_CHUNK = 500
"""Answers that one transaction deletes: each may be large, and on SQLite every append waits behind it."""


def purge_answers(connection: Connection, now: int) -> int:
    """Delete some of the stored answers whose time was over at `now`, at most `PURGE_CHUNK`; return how many."""
    key = tuple_(answers.c.workspace_id, answers.c.scope, answers.c.key)
    over = (
        select(answers.c.workspace_id, answers.c.scope, answers.c.key)
        .where(answers.c.created_at <= now - ANSWER_LIFETIME)
        .limit(PURGE_CHUNK)
    )
    return connection.execute(delete(answers).where(key.in_(over))).rowcount


def identities(group: Iterable[Submission]) -> list[bytes]:
    """Return the identities that a group's drafts claim, each once, in the order of the index."""
    claimed = {slot.dedupe for submission in group for slot in submission.slots if isinstance(slot, Draft)}
    return sorted(dedupe for dedupe in claimed if dedupe is not None)


def request_keys(group: Iterable[Submission]) -> set[tuple[str, str]]:
    """Return the (scope, key) of the group's requests, each once."""
    return {(request.scope, request.key) for submission in group if (request := submission.request_key) is not None}
