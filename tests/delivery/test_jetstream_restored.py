"""A stream gets the events of a ledger that was restored from a backup and lacks events of the stream."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from uuid import UUID

import pytest

from headgate_server.core import ledger
from headgate_server.core.errors import Unavailable
from headgate_server.core.model import StoredEvent
from headgate_server.core.types import EventId
from headgate_server.delivery.attempt import Verdict
from tests.support.delivering import CREATED, stored
from tests.support.jetstream import EVENTS, Make, client, content, delivered, messages
from tests.support.nats import NatsServer


class Ledger:
    """What a restored ledger has, and how often it was asked."""

    def __init__(self, events: Sequence[StoredEvent]):
        self.events = events
        self.asked = 0

    async def known(self, ids: Sequence[EventId]) -> set[EventId]:
        """Return which of these it has."""
        self.asked += 1
        return {event.id for event in self.events} & set(ids)


def after_a_restore(kept: int, count: int, behind: int) -> list[StoredEvent]:
    """Return events that follow the first ones in a restored ledger. The clock is so many events behind the last one
    that was lost, so their ids are older than its.
    """
    made = [stored(kept + number, type="order.placed") for number in range(1, count + 1)]
    last = CREATED + len(EVENTS) - behind
    return [event._replace(id=ledger.event_id(last + event.sequence - kept, b"restored")) for event in made]


@pytest.mark.parametrize("kept", [1_990, 1_700, 0], ids=["few were lost", "many were lost", "all were lost"])
async def test_events_of_a_restored_ledger_are_published_though_the_clock_was_set_back(
    server: NatsServer, jetstream: Make, kept: int
) -> None:
    assert delivered(await jetstream(server.url).send(EVENTS, 1))
    new = after_a_restore(kept, 4, behind=3)
    ledger_now = Ledger([*EVENTS[:kept], *new])
    sender = jetstream(server.url, known=ledger_now.known)
    # The cursor of the backup is behind the end of its ledger.
    assert delivered(await sender.send([*EVENTS[max(0, kept - 5) : kept], *new[:2]], 1))
    assert delivered(await sender.send(new[2:], 1))
    asked = ledger_now.asked
    assert delivered(await sender.send(new, 1))
    assert ledger_now.asked == asked, "what this sender published is in the ledger"
    assert [message.headers["Nats-Msg-Id"] for message in (await messages(server))[2000:]] == [  # type: ignore[index]
        str(UUID(bytes=event.id)) for event in new
    ]
    assert delivered(await jetstream(server.url, known=ledger_now.known).send(new, 1))
    assert len(await messages(server)) == 2_004


async def test_messages_that_were_deleted_do_not_hide_what_the_ledger_has(server: NatsServer, jetstream: Make) -> None:
    assert delivered(await jetstream(server.url).send(EVENTS[:100], 1))
    async with AsyncExitStack() as closing:
        stream = (await client(server, closing)).jetstream()
        for number in (60, 80):
            await stream.delete_msg("ORDERS", number)
    new = [event._replace(id=ledger.event_id(CREATED + 90, b"restored")) for event in [stored(71)]]
    sender = jetstream(server.url, known=Ledger([*EVENTS[:70], *new]).known)
    assert delivered(await sender.send([*EVENTS[60:70], *new], 1))
    async with AsyncExitStack() as closing:
        stream = (await client(server, closing)).jetstream()
        assert (await stream.stream_info("ORDERS")).state.last_seq == 101


async def test_a_ledger_that_has_the_streams_end_is_asked_once(server: NatsServer, jetstream: Make) -> None:
    assert delivered(await jetstream(server.url).send(EVENTS[:10], 1))
    ledger_now = Ledger(EVENTS)
    sender = jetstream(server.url, known=ledger_now.known)
    assert delivered(await sender.send(EVENTS[10:20], 1))
    assert ledger_now.asked == 0, "nothing counts as delivered that was not"
    again = jetstream(server.url, known=ledger_now.known)
    assert delivered(await again.send(EVENTS[:5], 1))
    assert delivered(await again.send(EVENTS[5:30], 1))
    assert ledger_now.asked == 1
    assert await content(server) == list(range(1, 31))


async def test_nothing_counts_as_delivered_while_the_ledger_cannot_be_read(server: NatsServer, jetstream: Make) -> None:
    async def unreadable(_: Sequence[EventId]) -> Sequence[EventId]:
        raise Unavailable("The store's database cannot be reached.")

    assert delivered(await jetstream(server.url).send(EVENTS[:10], 1))
    attempt = await jetstream(server.url, known=unreadable).send(EVENTS[:5], 1)
    assert attempt.verdict is Verdict.FAILED
    assert attempt.detail == "the ledger cannot be read: The store's database cannot be reached."
