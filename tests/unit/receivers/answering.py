"""Receivers' endpoints without a network: a request goes in, the core decides, and the answer comes out as JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from hypothesis import strategies as st

from headgate_server.core import ledger
from headgate_server.core.errors import HeadgateError, QuotaExceeded
from headgate_server.core.model import Draft, Outcome, Problem, Settled, Status, StoredEvent, Submission
from headgate_server.core.settle import Settlement
from headgate_server.receivers import Find, HttpRequest, Intake, Page, Receiver, Reply, Search, Take
from headgate_server.rpc import status

NOW = 1_705_314_600_000_000
"""2024-01-15T10:30:00Z."""

OVER_QUOTA = Outcome(
    Status.REJECTED, problem=Problem("QUOTA_EXCEEDED", "", "The monthly quota of 5 events is used up.")
)

POISON: Mapping[str, bytes] = {
    "a number": b"5",
    "null": b"null",
    "a list": b"[]",
    "a lone surrogate": rb'{"comment": "\ud800"}',
    "a name twice": b'{"a": 1, "a": 2}',
    "deep nesting": b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
}
"""Invalid events and values. Each must affect only its own position."""

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def events_like(valid: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Return valid events, events with some wrong members, and values that are no events."""
    changed = st.dictionaries(st.sampled_from([*valid, "x"]), _JSON, max_size=3)
    return changed.map(lambda changes: dict(valid) | changes) | _JSON


class Answer(NamedTuple):
    """An answer as a client sees it."""

    status: int
    body: Any
    headers: tuple[tuple[str, str], ...]


class Served:
    """A receiver with a ledger of its own, which lasts from request to request."""

    def __init__(self, receiver: Receiver):
        self._receiver = receiver
        self._routes = receiver.routes()
        self._settlement = Settlement(1, ledger.genesis("acme"), {}, {}, NOW)

    @property
    def rows(self) -> Sequence[StoredEvent]:
        """The ledger, oldest first; replaced events have no `dedupe` any more."""
        return self._settlement.rows

    def read(self, path: str, body: Any) -> Intake:
        """Return what an endpoint reads from a body, which is bytes or a JSON value."""
        endpoint = self._routes["POST", path]
        assert isinstance(endpoint, Take)
        return endpoint.read(request(path, body))

    def post(self, path: str, body: Any) -> Answer:
        """Send a body and return the answer of an endpoint that takes events."""
        intake = self.read(path, body)
        decision = self._settlement.decide(Submission(workspace_id=1, slots=intake.slots, atomic=intake.atomic))
        assert isinstance(decision, Settled)
        return self.answer(path, intake, decision.outcomes)

    def answer(self, path: str, intake: Intake, outcomes: Sequence[Outcome]) -> Answer:
        """Return the answer to given outcomes."""
        endpoint = self._routes["POST", path]
        assert isinstance(endpoint, Take)
        try:
            reply = endpoint.reply(request(path, b""), intake, outcomes)
        except QuotaExceeded as error:
            reply = refused(self._receiver, error)
        return Answer(reply.status, json.loads(orjson.dumps(reply.body)), reply.headers)

    def search(self, path: str, body: Any) -> Search:
        """Return the search that a query makes."""
        endpoint = self._routes["POST", path]
        assert isinstance(endpoint, Find)
        return endpoint.read(request(path, body))

    def found(self, path: str, body: Any, cursor: str | None = None) -> Answer:
        """Return the answer to a query, from the rows that match its search."""
        search = self.search(path, body)
        rows = [
            row
            for row in reversed(self.rows)
            if (search.type is None or row.type == search.type)
            and (search.source is None or row.source == search.source)
            and (row.dedupe is not None or not search.current_only)
            and (search.match is None or search.match(row))
        ]
        endpoint = self._routes["POST", path]
        assert isinstance(endpoint, Find)
        reply = endpoint.reply(request(path, body), Page(rows[: search.limit], cursor))
        return Answer(reply.status, json.loads(orjson.dumps(reply.body)), reply.headers)


def refused(receiver: Receiver, error: HeadgateError) -> Reply:
    """Return a refusal in the receiver's words, with the time to retry, which is added in the same way for all
    receivers.
    """
    reply = receiver.refusal(status.http_of(error), error)
    seconds = status.retry_after(error)
    return reply if seconds is None else reply._replace(headers=(*reply.headers, ("retry-after", seconds)))


def request(path: str, body: Any) -> HttpRequest:
    return HttpRequest("POST", path, {}, body if isinstance(body, bytes) else json.dumps(body).encode(), NOW)


def batch_of(*events: bytes) -> bytes:
    """Return a batch of events from JSON texts that Python itself might not write."""
    return b'{"events": [' + b",".join(events) + b"]}"


def drafts(intake: Intake) -> list[Draft]:
    """Return the slots, none of which may be a problem."""
    assert all(isinstance(slot, Draft) for slot in intake.slots), intake.slots
    return [slot for slot in intake.slots if isinstance(slot, Draft)]
