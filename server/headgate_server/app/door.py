"""What every call passes first."""

from dataclasses import dataclass

from headgate_server.access.auth import Authenticator
from headgate_server.config import Settings
from headgate_server.process.metrics import Metrics
from headgate_server.rpc.pipeline.load import Load
from headgate_server.rpc.pipeline.streams import Streams
from headgate_server.rpc.pipeline.trust import Trust
from headgate_server.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What every call passes first."""

    authenticator: Authenticator
    load: Load
    trust: Trust
    streams: Streams


def make_door(settings: Settings, store: Store, metrics: Metrics) -> Door:
    """Return what every call passes first, and show its numbers."""
    door = Door(
        authenticator=Authenticator(store.directory),
        load=Load(settings.server),
        trust=Trust(settings.server.bridge_token),
        streams=Streams(metrics, settings.server.streams_of_one, settings.server.ingest_streams_of_one),
    )
    metrics.add_source(door.load.readings)
    metrics.add_source(door.authenticator.readings)
    return door
