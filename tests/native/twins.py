"""Runs the same work with the compiled core and without it, and compares what comes of it."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import shake_128
from typing import Any
from unittest import mock

import pytest
from google.api.httpbody_pb2 import HttpBody

from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest, RawIngestRequest
from headgate.v1.ingest_service_pb2 import StreamIngestResponse
from headgate_server.core import compiled, ledger, randomness
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.model import Draft, Link, Outcome, Problem, Settled, StoredEvent, Submission, Usage
from headgate_server.core.settle import Settlement
from headgate_server.core.types import Dedupe
from headgate_server.rpc import decode, wire
from tests.native.found import Found

FOUND = compiled.find({})
"""The core, also where this run does not use it."""
LIMIT = 1_000
NOW = 1_705_314_600_000_000

needs_core = pytest.mark.skipif(FOUND.core is None, reason=f"{FOUND.said} (make native)")


def core() -> Any:
    """Return the core."""
    return FOUND.core


class Different(AssertionError):
    """The two do not the same."""


@contextmanager
def fixed_randomness() -> Iterator[None]:
    """Draw the same bytes in the same order every time."""
    drawn = 0

    def urandom(size: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return shake_128(drawn.to_bytes(8)).digest(size)

    # Pieces that were drawn before, or in this block, must not be used in another one.
    with mock.patch.object(os, "urandom", urandom), mock.patch.object(randomness, "_pieces", deque()):
        yield


def both(work: Callable[[], Any]) -> Any:
    """Return what `work` returns, an error too. Raises `Different` if the compiled core makes a difference, or
    fails.
    """
    before = compiled.failures
    results = []
    for core in (FOUND.core, None):
        with compiled.using(core), fixed_randomness():
            try:
                results.append(work())
            except InvalidRequest as error:
                results.append((error.reason, error.field, error.message))
    if compiled.failures != before:
        raise Different("the compiled core failed")
    # By their texts, which also tell 1 from True, and a draft from a plain tuple.
    if repr(results[0]) != repr(results[1]):
        raise Different(f"compiled: {results[0]!r}\nPython:   {results[1]!r}")
    return results[1]


def json_request(body: bytes, content_type: str = "application/json") -> RawBatchIngestRequest:
    """Return a JSON batch as the bridge sends it."""
    return RawBatchIngestRequest(json=HttpBody(data=body, content_type=content_type))


def decoded_events(events: Sequence[bytes]) -> Any:
    """Decode serialized events, as a batch and each alone."""
    batch = both(lambda: decode.batch(RawBatchIngestRequest(events=events), LIMIT))
    for event in events[:2]:
        both(lambda event=event: decode.single(RawIngestRequest(event=event)))  # type: ignore[misc]
    return batch


def decoded_body(body: bytes, limit: int = LIMIT) -> Any:
    """Decode a JSON body, as a batch, one event a line, and a single event."""
    both(lambda: decode.batch(json_request(body, "application/x-ndjson"), limit))
    both(lambda: decode.single(RawIngestRequest(json=HttpBody(data=body))))
    return both(lambda: decode.batch(json_request(body), limit))


def compare(found: Found) -> None:
    """Compare an input that once showed a difference. Raises `Different`."""
    if found.events:
        decoded_events(found.events)
    if found.body:
        decoded_body(found.body)


def slots_of(batch: Any) -> Sequence[Draft | Problem]:
    """Return the slots of a batch that was decoded; none if it was refused."""
    return batch.slots if isinstance(batch, decode.DecodedBatch) else ()


def settled(
    groups: Sequence[Sequence[Draft | Problem]],
    earlier: Sequence[Draft | Problem] = (),
    *,
    quota: int | None = None,
    atomic: bool = False,
    now: int = NOW,
) -> Sequence[StoredEvent]:
    """Settle groups of slots after a ledger that holds some drafts, and write the answers. Return the new rows."""
    before = Settlement(1, ledger.genesis("acme"), {}, {}, now - 100)
    with compiled.using(None), fixed_randomness():
        before.decide(Submission(workspace_id=1, slots=earlier))
    known: dict[Dedupe, Link] = {
        row.dedupe: Link(
            row.id, row.sequence, row.created_at, row.event_hash, row.salt, row.commitment, row.occurred_at
        )
        for row in before.rows
        if row.dedupe is not None
    }

    def settle() -> Any:
        settlement = Settlement(1, before.head, known, {}, now, Usage(quota, 0, 0))
        decisions = [
            settlement.decide(Submission(workspace_id=1, slots=slots, atomic=atomic and not at % 2))
            for at, slots in enumerate(groups)
        ]
        outcomes = [decision.outcomes for decision in decisions if isinstance(decision, Settled)]
        known_now = sorted(settlement._known.items())
        return outcomes, settlement.rows, settlement.head, settlement.usage, settlement.superseded, known_now

    outcomes, rows, *_ = both(settle)
    for each in outcomes:
        answered(each)
    return list(rows)


def answered(outcomes: Sequence[Outcome], lines: Sequence[int] = ()) -> None:
    """Write the answer to a batch in every encoding."""

    def write() -> Any:
        streamed = StreamIngestResponse(id="before")
        wire.add_results(streamed, outcomes)
        return (
            wire.batch_bytes(outcomes, lines),
            wire.batch_answer(outcomes, lines).data,
            streamed.SerializeToString(),
            [wire.single_bytes(outcome) for outcome in outcomes],
        )

    both(write)
