"""The settings of delivery."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from headgate_server.delivery.nats_connection import NatsConfig
from headgate_server.delivery.networks import Network, Networks, network_of
from headgate_server.process.setting import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryConfig:
    """Whether this process delivers, and where it may."""

    deliver: str = setting(
        "on",
        "deliver",
        "Whether the server delivers to destinations; off where `headgate deliver` does.",
        choices=("on", "off"),
    )
    """On: a service is one command. One of all processes that share a store does it at a time."""
    allowed: Sequence[Network] = setting(
        (),
        "webhook-allow",
        "A network that webhooks may reach although it is private, loopback or link-local. Several may be given.",
        metavar="CIDR",
        multiple=True,
        read=network_of,
    )
    """None: whoever may make a destination must not reach what only the server reaches."""
    nats: NatsConfig = field(default_factory=NatsConfig)

    @property
    def networks(self) -> Networks:
        """What webhooks may reach."""
        return Networks(tuple(self.allowed))
