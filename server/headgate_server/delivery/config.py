"""The settings of delivery."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from headgate_server.delivery.nats_connection import NatsConfig
from headgate_server.delivery.networks import Network, Networks, network_of
from headgate_server.process.setting import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryConfig:
    """Whether this process delivers, and which networks it may reach."""

    deliver: str = setting(
        "on",
        "deliver",
        "Whether the server delivers to destinations. Set it to off if `headgate deliver` runs.",
        choices=("on", "off"),
    )
    """On, so that one command runs the whole service. Of all processes that share a store, one delivers at a time."""
    allowed: Sequence[Network] = setting(
        (),
        "webhook-allow",
        "A network that webhooks may reach although it is private, loopback or link-local. Several may be given.",
        metavar="CIDR",
        multiple=True,
        read=network_of,
    )
    """No network is allowed, because a user who may create destinations must not reach the server's private network."""
    nats: NatsConfig = field(default_factory=NatsConfig)

    @property
    def networks(self) -> Networks:
        """The networks that webhooks may reach."""
        return Networks(tuple(self.allowed))
