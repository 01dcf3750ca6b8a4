"""The retries of set-aside events, beside a destination's cursor."""

from collections.abc import Callable, Sequence

from headgate_server.core.destinations import Failure, SetAside
from headgate_server.core.model import StoredEvent
from headgate_server.delivery.attempt import Attempt, Verdict
from headgate_server.delivery.channel import Channel
from headgate_server.store import Deliveries, Ledgers

_AT_ONCE = 32
"""Events of one look: they are read with their content."""
_LONGEST_REST = 60.0
"""Seconds between two looks at what is due: a clock may be set."""


class Retries:
    """Tries set-aside events again when they are due, each in a request of its own: one that can never be delivered
    holds up no other.
    """

    def __init__(self, channel: Channel, deliveries: Deliveries, ledgers: Ledgers, through: Callable[[], int]):
        """`through` returns the cursor: what lies beyond it is not set aside but waited for."""
        self._channel = channel
        self._deliveries = deliveries
        self._ledgers = ledgers
        self._through = through

    async def __call__(self) -> None:
        """Retry until the channel is stopped. Raises what the store raises, and what `Channel.record` raises."""
        channel = self._channel
        while not channel.stopping:
            if (pause := channel.pause()) > 0:
                await channel.rest_aside(pause)
                continue
            due, following = await self._deliveries.due(channel.destination, self._through(), _AT_ONCE)
            if due:
                await self._retry(due)
            else:
                await channel.rest_aside(_LONGEST_REST if following is None else min(following, _LONGEST_REST))

    async def _retry(self, due: Sequence[Failure]) -> None:
        channel = self._channel
        workspace_id = channel.destination.workspace_id
        found = {event.id: event for event in await self._ledgers.fetch(workspace_id, [one.event_id for one in due])}
        missing = [_missing(one) for one in due if one.event_id not in found]
        tried = [(found[one.event_id], one) for one in due if one.event_id in found]
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
