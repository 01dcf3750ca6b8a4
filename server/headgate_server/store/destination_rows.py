"""Converts the rows of destinations and failures to values, and back."""

import dataclasses
import json
from typing import Any

from sqlalchemy import Row, select

from headgate_server.core.destinations import (
    Destination,
    EventFilter,
    Failure,
    FailureState,
    Format,
    JetStream,
    Ordering,
    Replay,
    Secrets,
    Signature,
    State,
    Target,
    Webhook,
)
from headgate_server.core.model import Position
from headgate_server.store.schema import destinations, failures

DESTINATIONS = select(*(column for column in destinations.c if column is not destinations.c.secrets))
"""Every column except the secrets, which only the code that signs requests reads."""

FAILURES = select(
    *(failures.c[name] for name in Failure._fields),
)


def settings_of(filter: EventFilter, ordering: Ordering, target: Target) -> str:  # noqa: A002 - the destination's word
    """Return the stored form of a destination's settings."""
    kind = "webhook" if isinstance(target, Webhook) else "jetstream"
    return json.dumps({"filter": filter._asdict(), "ordering": ordering, kind: dataclasses.asdict(target)})


def secrets_text(secrets: Secrets) -> str:
    """Return the stored form of a destination's secrets."""
    return json.dumps(dataclasses.asdict(secrets))


def secrets_of(text: str) -> Secrets:
    """Return the secrets that were stored as this text."""
    stored = json.loads(text)
    return Secrets(**{**stored, "headers": tuple((name, value) for name, value in stored["headers"])})


def destination_of(row: Row[Any]) -> Destination:
    """Return the destination of a row of `DESTINATIONS`."""
    settings = json.loads(row.settings)
    return Destination(
        workspace_id=row.workspace_id,
        id=row.id,
        name=row.name,
        filter=EventFilter(**{kind: tuple(values) for kind, values in settings["filter"].items()}),
        ordering=Ordering(settings["ordering"]),
        target=_target(settings),
        state=State(row.state),
        why=row.why,
        start=row.start,
        cursor=Position(row.cursor, row.cursor_id),
        replay=None if row.replay is None else Replay(Position(row.replay, row.replay_id), row.replay_until),
        delivered=row.delivered,
        failed_attempts=row.failed_attempts,
        failing_since=row.failing_since,
        last_error=row.last_error,
        last_error_at=row.last_error_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        revision=row.revision,
    )


def failure_of(row: Row[Any]) -> Failure:
    """Return the failure of a row of `FAILURES`."""
    return Failure._make(row)._replace(state=FailureState(row.state))


def _target(settings: dict[str, Any]) -> Target:
    if "jetstream" in settings:
        return JetStream(**settings["jetstream"])
    stored = settings["webhook"]
    return Webhook(**{**stored, "format": Format(stored["format"]), "signature": Signature(stored["signature"])})
