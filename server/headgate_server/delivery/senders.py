"""Creates the sender of a destination."""

from collections.abc import Callable, Collection, Sequence
from functools import partial

from headgate_server.core.destinations import Assignment, Secrets, Webhook
from headgate_server.core.model import StoredEvent
from headgate_server.core.types import EventId, WorkspaceId
from headgate_server.delivery import payload, signing
from headgate_server.delivery import webhook as sending
from headgate_server.delivery.attempt import Attempt, Sender, Verdict, printable
from headgate_server.delivery.channel import ChannelConfig
from headgate_server.delivery.jetstream import JetStream
from headgate_server.delivery.nats_connection import Nats
from headgate_server.delivery.networks import Networks
from headgate_server.delivery.resolver import Resolver
from headgate_server.delivery.url import check_url
from headgate_server.process.clock import Clock, system_clock
from headgate_server.store import Ledgers


class Senders:
    """Creates senders. They share the resolver and the connection to NATS."""

    def __init__(
        self,
        networks: Networks,
        render: payload.Render,
        resolver: Resolver,
        nats: Nats,
        ledgers: Ledgers,
        *,
        connections: int = ChannelConfig().requests,
        clock: Clock = system_clock,
    ):
        """`connections` are those to one receiver: as many as requests at once. `render` makes JSON of a stored
        event, as REST's reads give it.
        """
        self._networks = networks
        self._render = render
        self._resolver = resolver
        self._nats = nats
        self._ledgers = ledgers
        self._connections = connections
        self._clock = clock

    async def __call__(self, assignment: Assignment) -> Sender:
        """Return the sender of a destination. If its settings are not valid, return a sender that always fails."""
        target = assignment.destination.target
        if not isinstance(target, Webhook):
            return JetStream(
                self._nats,
                stream=target.stream,
                subject_prefix=target.subject_prefix,
                owner=assignment.destination.id,
                render=self._render,
                known=partial(_known, self._ledgers, assignment.destination.workspace_id),
            )
        try:
            return self._webhook(target, assignment.secrets)
        except ValueError as error:
            return Unable(str(error))

    def _webhook(self, target: Webhook, secrets: Secrets) -> Sender:
        config = sending.WebhookConfig(
            url=check_url(target.url, self._networks),
            keys=_keys(secrets, self._clock),
            format=payload.Format(target.format.value),
            several=target.max_events > 1,
            timeout=target.timeout,
            headers=secrets.headers,
            connections=self._connections,
        )
        return sending.Webhook(
            config, render=self._render, networks=self._networks, resolver=self._resolver, clock=self._clock
        )


class Unable:
    """A sender for a destination whose settings are not valid. Every attempt fails with the reason."""

    def __init__(self, why: str):
        self._why = printable(why)

    async def send(self, events: Sequence[StoredEvent], attempt: int) -> Attempt:
        """Return the failure."""
        return Attempt(Verdict.FAILED, None, self._why, None, 0.0)

    async def close(self) -> None:
        """Do nothing."""


async def _known(ledgers: Ledgers, workspace_id: WorkspaceId, ids: Sequence[EventId]) -> Collection[EventId]:
    return {event.id for event in await ledgers.fetch(workspace_id, ids)}


def _keys(secrets: Secrets, clock: Clock) -> Callable[[], Sequence[signing.Key]]:
    """Return a function that returns the current keys. The previous key is one of them as long as it is valid."""
    current = signing.read_key(secrets.current)
    previous = signing.read_key(secrets.previous) if secrets.previous else None

    def keys() -> Sequence[signing.Key]:
        return (current,) if previous is None or clock() >= secrets.previous_until else (current, previous)

    return keys
