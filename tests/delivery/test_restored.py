"""What is delivered after a restore: what again, what at last, and what never. The clock of the restored machine is
behind that of the lost one, though not behind the backup.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import pytest

from headgate_server.access import backup
from headgate_server.delivery.config import DeliveryConfig
from headgate_server.delivery.nats_connection import NatsConfig
from headgate_server.store.sqlite import database as sqlite
from tests.delivery.test_delivery import arrived, hook, sequences, shows
from tests.delivery.test_streams import BUS, in_stream
from tests.support.calls import Caller, event
from tests.support.destinations import Operator
from tests.support.inprocess import serving
from tests.support.nats import NatsServer
from tests.support.receivers import answers, receiver

HOUR = 3_600_000_000


@asynccontextmanager
async def operating(
    location: Path, server: NatsServer, *, deliver: str = "on"
) -> AsyncIterator[tuple[Caller, Operator]]:
    """Run the service on a file, and return a client."""
    config = DeliveryConfig(deliver=deliver, nats=NatsConfig(url=server.url), allowed=(ip_network("127.0.0.0/8"),))
    async with serving(f"sqlite:///{location}", delivery=config) as running, running.caller() as caller:
        yield caller, Operator.of(caller)


async def send(caller: Caller, *keys: str) -> list[str]:
    """Store events, and return their ids."""
    return [result.id for result in (await caller.batch(*map(event, keys))).results]


async def test_what_is_delivered_after_a_restore(
    tmp_path: Path, server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    location, folder = tmp_path / "data" / "headgate.db", tmp_path / "backup"
    async with receiver(answers()) as one:
        async with operating(location, server) as (caller, operator):
            kept = await send(caller, "a", "b")
            crm, bus = await operator.create(hook(one)), await operator.create(BUS)
            for each in (crm, bus):
                await shows(operator, each["id"], cursor=2, delivered=2)
        async with operating(location, server, deliver="off") as (caller, _):
            kept += await send(caller, "c", "d")
        await backup.make(location, folder)
        with monkeypatch.context() as ahead:
            ahead.setattr(sqlite, "_system_clock", lambda: time.time_ns() // 1000 + HOUR)
            async with operating(location, server) as (caller, operator):
                lost = await send(caller, "e", "f", "g")
                for each in (crm, bus):
                    await shows(operator, each["id"], cursor=7)
        location.parent.rename(tmp_path / "lost")
        await backup.restore(folder, location)
        one.requests.clear()
        async with operating(location, server) as (caller, operator):
            new = await send(caller, "e", "h")
            await arrived(one, 3, 4, 5, 6)
            for each in (crm, bus):
                await shows(operator, each["id"], cursor=6, lag_events=0)
    assert max(new) < min(lost), "the clock was set back"
    # The webhook: what came after the backup's cursor again, with its id; new events at last; no other.
    assert sorted(sequences(one)) == [3, 4, 5, 6]
    assert {request.headers["webhook-id"] for request in one.requests} == {*kept[2:], *new}
    # The stream: each once, the lost ones too, in the order in which they were published.
    assert [name for _, name in await in_stream(server)] == [*kept, *lost, *new]
