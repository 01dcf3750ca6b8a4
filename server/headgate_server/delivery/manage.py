"""The operator's use cases for destinations. The API and the command line share them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from headgate_server.core.destinations import (
    NO_SECRETS,
    NOW,
    Destination,
    EventFilter,
    JetStream,
    Ordering,
    Secrets,
    Signature,
    Status,
    Target,
    Webhook,
)
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.reasons import Reason
from headgate_server.core.types import WorkspaceId
from headgate_server.delivery import checked, signing
from headgate_server.store import Destinations
from headgate_server.store.destinations import NewDestination

ROTATION_MICROSECONDS = 24 * 3_600_000_000
"""The time for which the old secret stays valid after a rotation: a day to set the new one everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationSettings:
    """The checked fields of a destination that is created or changed."""

    name: str
    target: Target
    filter: EventFilter = field(default_factory=EventFilter)
    ordering: Ordering = Ordering.PARALLEL
    headers: tuple[tuple[str, str], ...] = ()
    start: int = NOW


@dataclass(frozen=True, slots=True)
class Shown:
    """A destination, and the key that its receiver verifies with. Only this shows it. Empty if nothing is signed."""

    status: Status
    key: str = ""


async def create(destinations: Destinations, workspace_id: WorkspaceId, settings: DestinationSettings) -> Shown:
    """Create a destination with a new key. Raises like `Destinations.create`."""
    secrets = NO_SECRETS
    if isinstance(settings.target, Webhook):
        secrets = Secrets(current=_new_key(settings.target.signature), headers=settings.headers)
    new = NewDestination(
        name=settings.name,
        filter=settings.filter,
        ordering=Ordering.ORDERED if isinstance(settings.target, JetStream) else settings.ordering,
        target=settings.target,
        secrets=secrets,
        start=settings.start,
    )
    return Shown(await destinations.create(workspace_id, new), _shown_key(secrets))


async def rotate(destinations: Destinations, workspace_id: WorkspaceId, destination_id: str) -> Shown:
    """Give a webhook a new key. Raises `NotFound`, and `InvalidRequest` if the destination is not a webhook."""
    new_secrets: list[Secrets] = []

    def change(old: Secrets, destination: Destination, now: int) -> Secrets:
        if not isinstance(destination.target, Webhook):
            raise InvalidRequest("Only a webhook has a secret.", reason=Reason.INVALID_FIELD, field="id")
        new = _new_key(destination.target.signature)
        new_secrets.append(replace(old, current=new, previous=old.current, previous_until=now + ROTATION_MICROSECONDS))
        return new_secrets[-1]

    status = await destinations.set_secrets(workspace_id, destination_id, change)
    return Shown(status, _shown_key(new_secrets[-1]))


async def set_headers(
    destinations: Destinations, workspace_id: WorkspaceId, destination_id: str, headers: Mapping[str, str]
) -> Status:
    """Replace the extra headers of a webhook."""
    extra = checked.headers_of(headers)
    return await destinations.set_secrets(workspace_id, destination_id, lambda old, *_: replace(old, headers=extra))


async def replay(
    destinations: Destinations,
    workspace_id: WorkspaceId,
    destination_id: str,
    *,
    set_aside: bool = False,
    after: int | None = None,
    since: int | None = None,
) -> Status:
    """Deliver again the set-aside events, the events after a sequence, or the events that were stored since a time.

    Raises `InvalidRequest` if not exactly one of them is requested, or if the destination is a stream, which has each
    event once.
    """
    if (set_aside, after is not None, since is not None).count(True) != 1:
        raise InvalidRequest(
            "Exactly one of set_aside, after_sequence and from is required.", reason=Reason.MISSING_FIELD
        )
    if after is not None and after < 0:
        raise InvalidRequest("after_sequence must not be negative.", reason=Reason.NEGATIVE, field="after_sequence")
    if set_aside:
        return await destinations.replay_set_aside(workspace_id, destination_id)
    status = await destinations.get(workspace_id, destination_id)
    if isinstance(status.destination.target, JetStream):
        raise InvalidRequest(
            "A stream has each event once, so it cannot be replayed.", reason=Reason.INVALID_FIELD, field="id"
        )
    return await destinations.replay(workspace_id, destination_id, after=after, since=since)


def _new_key(signature: Signature) -> str:
    return signing.new_shared_key() if signature is Signature.HMAC else signing.new_private_key()


def _shown_key(secrets: Secrets) -> str:
    return signing.read_key(secrets.current).shown if secrets.current else ""
