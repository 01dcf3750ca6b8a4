"""The use case everything serves: take a caller's events, and say of each what became of it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from headgate_server.core.differ import differing_paths
from headgate_server.core.errors import InvalidRequest, RequestKeyReused
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
)
from headgate_server.core.settle import Settlement
from headgate_server.ingest.committer import Committer
from headgate_server.process.aside import aside
from headgate_server.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """How a receiver's outcomes become the bytes that are stored under a request key, and outcomes again."""

    encode: Callable[[Sequence[Outcome]], bytes]
    decode: Callable[[bytes], Sequence[Outcome]]


def request_key(scope: str, key: str, content: bytes) -> RequestKey:
    """Return an `Idempotency-Key` as the store knows it; `content` is all that a second request must have the same.

    Raises `InvalidRequest` if the key is empty or too long.
    """
    if not 1 <= len(key) <= 255:
        raise InvalidRequest("An Idempotency-Key has 1 to 255 characters.", reason="INVALID_IDEMPOTENCY_KEY")
    return RequestKey(scope=scope, key=key, fingerprint=sha256(content).digest())


class Ingested(NamedTuple):
    """One outcome per slot, in order; `replayed` if they are those of an earlier request under the same request key."""

    outcomes: Sequence[Outcome]
    replayed: bool = False


class Ingest:
    """Takes slots, each a draft or the problem that makes it none, to outcomes."""

    def __init__(self, store: Store, committer: Committer):
        self._store = store
        self._committer = committer

    def check_room(self, workspace_id: int, events: int, size: int) -> None:
        """Raise `Overloaded` if so many events, of so many bytes, could not wait to be stored now.

        For those who have not read the request yet: `events` may be too low, since the call itself is exact.
        """
        self._committer.check_room(workspace_id, events, size)

    async def __call__(
        self,
        workspace_id: int,
        slots: Sequence[Draft | Problem],
        *,
        atomic: bool = False,
        validate_only: bool = False,
        request_key: RequestKey | None = None,
        codec: Codec | None = None,
        explain: bool = False,
    ) -> Ingested:
        """Store the drafts and return once what is `accepted`, `replaced` or `duplicate` is durable.

        With `validate_only` nothing is stored and the outcomes are advisory. With `request_key` there must be a
        `codec`. With `explain` a conflict names the paths that differ: only for callers that may read events. Raises
        `RequestKeyReused`, and what `Committer.submit` raises.
        """
        submission = Submission(
            workspace_id=workspace_id,
            slots=slots,
            atomic=atomic,
            request_key=None if validate_only else request_key,
            encode=None if codec is None or request_key is None else codec.encode,
        )
        if validate_only:
            ingested = Ingested(await self._predict(submission))
        else:
            ingested = await self._store_all(submission, codec)
        if explain:
            return ingested._replace(outcomes=await self._explain(workspace_id, slots, ingested.outcomes))
        return ingested

    async def store(self, submission: Submission) -> Settled | Replayed:
        """Store a submission, or find the answer to it that was stored before. Raises as a call does."""
        if submission.request_key is None and not any(isinstance(slot, Draft) for slot in submission.slots):
            return Settled(
                [Outcome(Status.REJECTED, problem=slot) for slot in submission.slots if isinstance(slot, Problem)]
            )
        decision = await self._committer.submit(submission)
        if isinstance(decision, KeyReused):
            raise RequestKeyReused("This Idempotency-Key was used for another request; a new request needs a new key.")
        return decision

    async def _store_all(self, submission: Submission, codec: Codec | None) -> Ingested:
        decision = await self.store(submission)
        if isinstance(decision, Settled):
            return Ingested(decision.outcomes)
        assert codec is not None  # noqa: S101 - the call's promise: where there is a request key there is a codec
        return Ingested(codec.decode(decision.answer), replayed=True)

    async def _predict(self, submission: Submission) -> list[Outcome]:
        """Decide as the store would, on what it holds now and without its lock, and forget what would be linked."""
        workspace = submission.workspace_id
        head, usage = await self._store.head(workspace), await self._store.usage(workspace)
        dedupes = [slot.dedupe for slot in submission.slots if isinstance(slot, Draft) and slot.dedupe is not None]
        known = await self._store.lookup(workspace, dedupes) if dedupes else {}
        # What was stored between these reads is older than anything that would be linked now.
        newest = max((link.sequence for link in known.values()), default=0)
        settlement = Settlement(
            workspace, head._replace(sequence=max(head.sequence, newest)), known, {}, await self._store.now(), usage
        )
        decision = settlement.decide(submission)
        assert isinstance(decision, Settled)  # noqa: S101 - there is no request key, so nothing to replay
        stored = {link.id for link in known.values()}
        return [
            outcome if outcome.link is None or outcome.link.id in stored else outcome._replace(link=None)
            for outcome in decision.outcomes
        ]

    async def _explain(
        self, workspace_id: int, slots: Sequence[Draft | Problem], outcomes: Sequence[Outcome]
    ) -> Sequence[Outcome]:
        """Add to conflicts where they differ. Read after the commit: the lock was not held for it."""
        conflicts = {
            index: outcome.link.id
            for index, outcome in enumerate(outcomes)
            if outcome.status is Status.CONFLICT and outcome.link is not None
        }
        if not conflicts:
            return outcomes
        with aside("explain"):  # what is stored is stored: that must be said, if not all that could be
            return await self._explained(workspace_id, slots, outcomes, conflicts)
        return outcomes

    async def _explained(
        self,
        workspace_id: int,
        slots: Sequence[Draft | Problem],
        outcomes: Sequence[Outcome],
        conflicts: Mapping[int, bytes],
    ) -> Sequence[Outcome]:
        stored = {event.id: event for event in await self._store.fetch(workspace_id, list(set(conflicts.values())))}

        def explain() -> list[Outcome]:
            explained = list(outcomes)
            for index, event_id in conflicts.items():
                slot, problem, event = slots[index], outcomes[index].problem, stored.get(event_id)
                if isinstance(slot, Draft) and problem is not None and event is not None:
                    problem = problem._replace(differing_fields=differing_paths(slot, event))
                    explained[index] = outcomes[index]._replace(problem=problem)
            return explained

        return await asyncio.to_thread(explain)
