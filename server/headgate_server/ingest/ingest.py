"""The main use case: store a caller's events and return the outcome of each."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

from headgate_server.core.audit import RESERVED
from headgate_server.core.differ import differing_paths
from headgate_server.core.errors import InvalidRequest, PermissionDenied, RequestKeyReused
from headgate_server.core.model import (
    Draft,
    KeyReused,
    Outcome,
    Problem,
    Replayed,
    RequestKey,
    Settled,
    Status,
    Submission,
    Workspace,
)
from headgate_server.core.reasons import Reason
from headgate_server.core.settle import Settlement
from headgate_server.core.types import EventId, Fingerprint, WorkspaceId
from headgate_server.ingest.committer import Committer
from headgate_server.ingest.decoding import Decoding
from headgate_server.ingest.event_types import EventTypeChecks
from headgate_server.process.aside import aside
from headgate_server.store import Ledgers, Limits


def request_key(scope: str, key: str, content: bytes) -> RequestKey:
    """Return the store's form of an `Idempotency-Key`. A second request under the key must have the same `content`.

    Raises `InvalidRequest` if the key is empty or too long.
    """
    if not 1 <= len(key) <= 255:
        raise InvalidRequest("An Idempotency-Key has 1 to 255 characters.", reason=Reason.INVALID_IDEMPOTENCY_KEY)
    return RequestKey(scope=scope, key=key, fingerprint=Fingerprint(sha256(content).digest()))


class Ingest:
    """Turns slots into outcomes. Each slot is a draft, or the problem with which there is no draft."""

    def __init__(self, ledgers: Ledgers, limits: Limits, committer: Committer, checks: EventTypeChecks):
        self._checks = checks
        self._ledgers = ledgers
        self._limits = limits
        self._committer = committer
        self.decoded = Decoding()
        """Reads bodies."""

    def check_room(self, workspace_id: WorkspaceId, events: int, size: int) -> None:
        """Raise `Overloaded` if this many events, with this many bytes, could not wait to be stored now.

        A caller uses this before it reads the request. `events` may be too low, since `take` checks the exact number.
        """
        self._committer.check_room(workspace_id, events, size)

    async def take(
        self, workspace: Workspace, submission: Submission, *, validate_only: bool = False
    ) -> Settled | Replayed:
        """Check the drafts against the event types of their workspace, and store them. Return when every `accepted`,
        `replaced` or `duplicate` event is durable. If the same request was stored before, return its stored answer.

        With `validate_only` nothing is stored, the outcomes are advisory, and a request key is not used. Raises
        `PermissionDenied` for the reserved workspace, `RequestKeyReused`, and what `Committer.submit` and
        `EventTypeChecks.check` raise.
        """
        if workspace.name == RESERVED:
            raise PermissionDenied(f"Only the service itself writes events of the workspace {RESERVED}.")
        slots = await self._checks.check(workspace, submission.slots)
        if slots is not submission.slots:
            submission = replace(submission, slots=slots)
        if validate_only:
            return await self._predict(replace(submission, answer=None))
        if submission.request_key is None and not any(isinstance(slot, Draft) for slot in submission.slots):
            return Settled(
                [Outcome(Status.REJECTED, problem=slot) for slot in submission.slots if isinstance(slot, Problem)]
            )
        decision = await self._committer.submit(submission)
        if isinstance(decision, KeyReused):
            raise RequestKeyReused("This Idempotency-Key was used for another request; a new request needs a new key.")
        return decision

    async def _predict(self, submission: Submission) -> Settled:
        """Decide like the store, from its present content and without a lock. New links are left out of the
        outcomes.
        """
        workspace = submission.workspace_id
        head, usage = await self._ledgers.head(workspace), await self._limits.usage(workspace)
        dedupes = [slot.dedupe for slot in submission.slots if isinstance(slot, Draft) and slot.dedupe is not None]
        known = await self._ledgers.lookup(workspace, dedupes) if dedupes else {}
        # Events that were stored between these reads come before any event that would be linked now.
        newest = max((link.sequence for link in known.values()), default=0)
        settlement = Settlement(
            workspace, head._replace(sequence=max(head.sequence, newest)), known, {}, await self._ledgers.now(), usage
        )
        decision = settlement.decide(submission)
        assert isinstance(decision, Settled)  # noqa: S101 - there is no request key, so nothing to replay
        stored = {link.id for link in known.values()}
        return Settled(
            [
                outcome if outcome.link is None or outcome.link.id in stored else outcome._replace(link=None)
                for outcome in decision.outcomes
            ]
        )

    async def differences(
        self, workspace_id: WorkspaceId, slots: Sequence[Draft | Problem], conflicts: Mapping[int, EventId]
    ) -> Mapping[int, tuple[str, ...]]:
        """Return, by position, where drafts differ from the stored events that they conflict with. `conflicts` has the
        ids of those events. This is only for callers that may read events.

        The events are read after the commit, so the lock is not held for this. If the read fails, the result is empty.
        """
        if not conflicts:
            return {}
        with aside("explain"):  # the events are stored, so the call must succeed even if this fails
            return await self._differing(workspace_id, slots, conflicts)
        return {}

    async def _differing(
        self, workspace_id: WorkspaceId, slots: Sequence[Draft | Problem], conflicts: Mapping[int, EventId]
    ) -> Mapping[int, tuple[str, ...]]:
        stored = {event.id: event for event in await self._ledgers.fetch(workspace_id, list(set(conflicts.values())))}

        def differing() -> dict[int, tuple[str, ...]]:
            pairs = ((index, slots[index], stored.get(event_id)) for index, event_id in conflicts.items())
            return {
                index: differing_paths(slot, event)
                for index, slot, event in pairs
                if isinstance(slot, Draft) and event is not None
            }

        return await asyncio.to_thread(differing)
