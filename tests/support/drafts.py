"""Makes drafts and submissions for tests, like the ingest."""

from collections.abc import Sequence
from typing import Any

from headgate_server.core import validate
from headgate_server.core.model import (
    NATIVE,
    Answer,
    Draft,
    Mismatch,
    Outcome,
    Problem,
    RequestKey,
    Settled,
    Submission,
)
from headgate_server.store import Store

BAD = Problem("MISSING_FIELD", "type", "The event has no type.")


def draft(
    key: str | None = None,
    data: Any = None,
    *,
    type: str = "document.created",  # noqa: A002 - the event's word
    source: str = "test",
    subject: str = "",
    occurred_at: int | None = None,
    receiver: str = NATIVE,
    on_mismatch: Mismatch = Mismatch.CONFLICT,
    attributes: bytes | None = None,
) -> Draft:
    """Return a draft; without a key it is not deduplicated."""
    identity = None if key is None else (source, key)
    sealed = validate.seal(
        receiver, type, source, subject, occurred_at, data, identity, on_mismatch=on_mismatch, attributes=attributes
    )
    assert isinstance(sealed, Draft)
    return sealed


def submission(workspace_id: int, *slots: Draft | Problem, atomic: bool = False) -> Submission:
    """Return a submission without a request key."""
    return Submission(workspace_id=workspace_id, slots=slots, atomic=atomic)


def request(
    workspace_id: int, key: str, *slots: Draft | Problem, body: bytes = b"", scope: str = "batch"
) -> Submission:
    """Return a submission with a request key; its answer lists the statuses. `body` becomes the fingerprint."""
    return Submission(
        workspace_id=workspace_id,
        slots=slots,
        answer=Answer(encode=_listed, request_key=RequestKey(scope=scope, key=key, fingerprint=body.ljust(32, b"\0"))),
    )


def _listed(outcomes: Sequence[Outcome]) -> bytes:
    return ",".join(outcome.status for outcome in outcomes).encode()


async def append(store: Store, workspace_id: int, *slots: Draft | Problem, atomic: bool = False) -> Sequence[Outcome]:
    """Append one submission and return its outcomes."""
    (decision,) = await store.database.append([submission(workspace_id, *slots, atomic=atomic)])
    assert isinstance(decision, Settled)
    return decision.outcomes
