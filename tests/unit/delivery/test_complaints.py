"""A complaint of the NATS server is shown to the destination that it concerns, and to no other workspace."""

import asyncio
from collections.abc import Sequence

import pytest
from nats.aio.client import Client

from headgate_server.core.types import EventId
from headgate_server.delivery.jetstream import JetStream
from headgate_server.delivery.nats_connection import Connection, Nats, NatsConfig
from tests.support.delivering import stored


class Silent(Nats):
    """A connection that all destinations share. It gives no answer, but has complained."""

    def __init__(self, complaint: str):
        super().__init__(NatsConfig())
        self._connection = Connection(Client())
        self._connection.complaint = complaint

    async def connection(self) -> Connection:
        """Wait without end."""
        await asyncio.Event().wait()
        raise AssertionError

    async def told(self, stream: str, prefix: str) -> str:
        """Return the error of a destination whose message is not confirmed."""
        sender = JetStream(
            self, stream=stream, subject_prefix=prefix, owner="dst_1", render=lambda _: b"", known=_known, timeout=0.01
        )
        return (await sender.send([stored(1)], 1)).detail


async def _known(ids: Sequence[EventId]) -> Sequence[EventId]:
    return ids


FORBIDDEN = 'nats: permissions violation for publish to "{}"'


async def test_what_names_a_subject_of_another_destination_is_kept_for_that_one() -> None:
    shared = Silent(FORBIDDEN.format("theirs.order.secret"))
    assert await shared.told("ORDERS", "their") == "no confirmation within 0.01 s"
    assert (await shared.told("THEIRS", "Theirs")).endswith('to "theirs.order.secret"')
    assert await shared.told("THEIRS", "Theirs") == "no confirmation within 0.01 s"


@pytest.mark.parametrize(
    ("complaint", "shown"),
    [
        pytest.param("nats: maximum connections exceeded", True, id="no subject"),
        pytest.param(FORBIDDEN.format("$js.api.stream.info.orders"), True, id="its stream"),
        pytest.param(FORBIDDEN.format("$js.api.stream.info.theirs"), False, id="the stream of another one"),
        pytest.param('nats: permissions violation for subscription to "_inbox.a.*"', True, id="the confirmations"),
    ],
)
async def test_what_names_no_other_destination_is_shown(complaint: str, shown: bool) -> None:
    assert (complaint in await Silent(complaint).told("ORDERS", "orders")) is shown
