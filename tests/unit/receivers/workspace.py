"""One workspace in memory, for tests of receivers. It does the core's work between `read` and `reply`."""

from typing import Any

import orjson

from headgate_server.core import ledger, timestamps
from headgate_server.core.destinations import Fate
from headgate_server.core.errors import HeadgateError
from headgate_server.core.model import UNLIMITED, Link, Settled, StoredEvent, Submission, Usage
from headgate_server.core.settle import Settlement
from headgate_server.receivers import Endpoint, Find, Get, HttpRequest, Page, Receiver, Reply, Search, Take
from tests.unit.receivers.answering import refused

NOW = 1_771_200_000_000_000  # 2026-02-16T00:00:00Z
UNTIL_MARCH = str(13 * 86_400)


class Workspace:
    """Takes requests of one receiver and settles them like a store, in memory."""

    def __init__(self, receiver: Receiver):
        self.receiver = receiver
        self.rows: list[StoredEvent] = []
        self._head = ledger.genesis("test")

    def post(self, path: str, body: Any, *, quota_left: int | None = None) -> Reply:
        """Send a body, bytes or a JSON value, and return the answer as a client reads it.

        With `quota_left` the workspace may store that many more events this month.
        """
        sent = body if isinstance(body, bytes) else orjson.dumps(body)
        endpoint = self.receiver.routes()["POST", path]
        assert isinstance(endpoint, Take)
        request = HttpRequest("POST", path, {}, sent, NOW)
        try:
            intake = endpoint.read(request)
        except HeadgateError as error:
            return _as_read(refused(self.receiver, error))
        known = {
            row.dedupe: Link(
                row.id, row.sequence, row.created_at, row.event_hash, row.salt, row.commitment, row.occurred_at
            )
            for row in self.rows
            if row.dedupe is not None
        }
        usage = UNLIMITED if quota_left is None else Usage(quota_left, timestamps.month(NOW)[0], 0)
        settlement = Settlement(1, self._head, known, {}, NOW, usage)
        decision = settlement.decide(Submission(workspace_id=1, slots=intake.slots, atomic=intake.atomic))
        assert isinstance(decision, Settled)
        assert len(decision.outcomes) == len(intake.slots)
        self._head = settlement.head
        self.rows += settlement.rows
        try:
            return _as_read(endpoint.reply(request, intake, decision.outcomes))
        except HeadgateError as error:
            return _as_read(refused(self.receiver, error))

    def search(self, path: str, /, **query: str) -> Search:
        """Return the search that a list makes."""
        endpoint = self.receiver.routes()["GET", path]
        assert isinstance(endpoint, Find)
        return endpoint.read(HttpRequest("GET", path, query, b"", NOW))

    def show(self, path: str, cursor: str | None = None) -> Reply:
        """Return how a list or a single read shows all that is stored, newest first."""
        endpoint: Endpoint = self.receiver.routes()["GET", path]
        assert isinstance(endpoint, Find | Get)
        previous = [ledger.genesis("test").hash, *(row.event_hash for row in self.rows)]
        return _as_read(
            endpoint.reply(
                HttpRequest("GET", path, {}, b"", NOW),
                Page(self.rows[::-1], cursor, previous[-2::-1], [Fate.NONE] * len(self.rows)),
            )
        )


def _as_read(reply: Reply) -> Reply:
    return reply._replace(body=orjson.loads(orjson.dumps(reply.body)))
