"""The retries of set-aside events. They do not move the destination's cursor."""

from collections.abc import Callable, Sequence

from headgate_server.core.destinations import Failure, SetAside
from headgate_server.core.model import StoredEvent
from headgate_server.delivery.attempt import Attempt, Verdict
from headgate_server.delivery.channel import Channel
from headgate_server.store import Deliveries, Ledgers

_MOST_EVENTS = 32
"""The most events that are read at once, because they are read with their content."""
_LONGEST_WAIT = 60.0
"""The most seconds between two checks for due events, because a clock may be set."""


class Retries:
    """Tries set-aside events again when they are due. Each has a request of its own, so that an event that can never be
    delivered does not delay the others.
    """

    def __init__(self, channel: Channel, deliveries: Deliveries, ledgers: Ledgers, through: Callable[[], int]):
        """`through` returns the cursor. A failure beyond it is not retried here: the walk waits for it."""
        self._channel = channel
        self._deliveries = deliveries
        self._ledgers = ledgers
        self._through = through

    async def __call__(self) -> None:
        """Retry until the channel is stopped. Raises the errors of the store and of `Channel.record`."""
        channel = self._channel
        while not channel.stopping:
            if (pause := channel.pause()) > 0:
                await channel.rest_aside(pause)
                continue
            due, following = await self._deliveries.due(channel.destination, self._through(), _MOST_EVENTS)
            if due:
                await self._retry(due)
            else:
                await channel.rest_aside(_LONGEST_WAIT if following is None else min(following, _LONGEST_WAIT))

    async def _retry(self, due: Sequence[Failure]) -> None:
        channel = self._channel
        workspace_id = channel.destination.workspace_id
        events = {event.id: event for event in await self._ledgers.fetch(workspace_id, [one.event_id for one in due])}
        missing = [_missing(one) for one in due if one.event_id not in events]
        tried = [(events[one.event_id], one) for one in due if one.event_id in events]
        attempts = await channel.attempts((([event], one.attempts + 1) for event, one in tried), retries=True)
        if not attempts and not missing:
            return
        settled, failed = self._results(tried, attempts)
        report = channel.report(*attempts)._replace(
            set_aside=[*missing, *failed], settled=settled, delivered=len(settled)
        )
        await channel.record(report)
        channel.retrying = await self._deliveries.retrying(channel.destination)
        channel.ring()

    def _results(
        self, tried: Sequence[tuple[StoredEvent, Failure]], attempts: Sequence[Attempt | None]
    ) -> tuple[list[int], list[SetAside]]:
        settled, failed = [], []
        for (event, one), attempt in zip(tried, attempts, strict=False):
            if attempt is not None and attempt.verdict is Verdict.DELIVERED:
                settled.append(event.sequence)
            elif attempt is not None:
                failed.append(self._channel.set_aside(event, one.attempts + 1, attempt))
        return settled, failed


def _missing(one: Failure) -> SetAside:
    return SetAside(one.sequence, one.event_id, one.attempts, None, None, "The event is not in the ledger any more.")
