"""A stream of a real NATS server gets every event once and in order, even after kills and with two publishers."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import nats
import pytest
import trustme
from nats.aio.client import Client
from nats.js import api

from headgate_server.core import ledger
from headgate_server.core.errors import Unavailable
from headgate_server.core.model import StoredEvent
from headgate_server.core.types import EventId
from headgate_server.delivery.attempt import Attempt, Verdict
from headgate_server.delivery.jetstream import JetStream, Known
from headgate_server.delivery.nats_connection import Nats, NatsConfig
from tests.delivery.conftest import render
from tests.support.delivering import CREATED, stored
from tests.support.nats import NatsServer, nats_server
from tests.support.natsidentities import Identities
from tests.support.spans import Traced, identity
from tests.support.waiting import until

EVENTS = [stored(number, {"n": number}, type="order.placed") for number in range(1, 2001)]

Make = Callable[..., JetStream]


async def every(ids: Sequence[EventId]) -> Sequence[EventId]:
    """Return all ids: a ledger that has lost nothing."""
    return ids


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """Return a new server."""
    with nats_server(tmp_path / "nats") as running:
        yield running


@pytest.fixture
async def jetstream() -> AsyncIterator[Make]:
    """Return a function that creates a sender with a connection of its own, like that of another process."""
    async with AsyncExitStack() as closing:

        def make(
            url: str, owner: str = "dst_1", timeout: float = 5.0, known: Known = every, **config: object
        ) -> JetStream:
            shared = Nats(NatsConfig(url=url, **config))  # type: ignore[arg-type]
            closing.push_async_callback(shared.close)
            return JetStream(
                shared,
                stream="ORDERS",
                subject_prefix="orders",
                owner=owner,
                render=render,
                known=known,
                timeout=timeout,
            )

        yield make


async def client(server: NatsServer, closing: AsyncExitStack) -> Client:
    """Return a plain client."""
    one = await nats.connect(server.url)
    closing.push_async_callback(one.close)
    return one


async def messages(server: NatsServer) -> Sequence[api.RawStreamMsg]:
    """Return all messages of the stream."""
    async with AsyncExitStack() as closing:
        stream = (await client(server, closing)).jetstream()
        state = (await stream.stream_info("ORDERS")).state
        return [await stream.get_msg("ORDERS", seq=number) for number in range(state.first_seq, state.last_seq + 1)]


async def content(server: NatsServer) -> list[int]:
    """Return the sequences of the events in the stream."""
    return [int(str(UUID(message.headers["Nats-Msg-Id"]))[-4:], 16) for message in await messages(server)]  # type: ignore[index]


def delivered(attempt: Attempt) -> bool:
    """Return True if an attempt delivered. Otherwise fail with its detail."""
    assert attempt.verdict is Verdict.DELIVERED, attempt.detail
    return True


async def test_the_stream_is_created_and_gets_each_event_as_rest_returns_it(
    server: NatsServer, jetstream: Make
) -> None:
    events = [stored(1, {"n": 1}, type="order.placed"), stored(2, type="größe > *"), stored(3, type="a..b")]
    assert delivered(await jetstream(server.url).send(events, 1))
    found = await messages(server)
    assert [message.subject for message in found] == [
        "orders.order.placed",
        "orders.gr%C3%B6%C3%9Fe%20%3E%20%2A",
        "orders.a.%.b",
    ]
    for message, event, before in zip(found, events, [None, *events], strict=False):
        assert message.data == render(event)
        headers = message.headers or {}
        assert headers["Nats-Msg-Id"] == str(UUID(bytes=event.id))
        assert headers["Headgate-Destination"] == "dst_1"
        assert headers["Content-Type"] == "application/json"
        assert headers.get("Nats-Expected-Last-Msg-Id") == (before and str(UUID(bytes=before.id)))


async def test_each_message_goes_on_with_the_trace_of_its_delivery(server: NatsServer, jetstream: Make) -> None:
    traced, sender = Traced(), jetstream(server.url)
    with traced.tracing.delivery("jetstream", {}):
        assert delivered(await sender.send(EVENTS[:2], 1))
    assert delivered(await sender.send(EVENTS[2:3], 1))
    (span,) = traced.named("deliver jetstream")
    trace_id, span_id = identity(span)
    expected = f"00-{trace_id:032x}-{span_id:016x}-{span.context.trace_flags:02x}"
    assert [(one.headers or {}).get("traceparent") for one in await messages(server)] == [expected, expected, None]


async def test_many_events_and_later_ones_are_in_order(server: NatsServer, jetstream: Make) -> None:
    sender = jetstream(server.url)
    for start in range(0, 2000, 500):
        assert delivered(await sender.send(EVENTS[start : start + 500], 1))
    assert await content(server) == list(range(1, 2001))


async def test_sending_many_events_lets_the_event_loop_answer_others(server: NatsServer) -> None:
    in_a_row, longest = 0, 0

    def counted(event: StoredEvent) -> bytes:
        nonlocal in_a_row, longest
        in_a_row += 1
        longest = max(longest, in_a_row)
        return b"{}"

    async def other() -> None:
        nonlocal in_a_row
        while True:
            in_a_row = 0
            await asyncio.sleep(0)

    shared = Nats(NatsConfig(url=server.url))
    working = asyncio.create_task(other())
    sender = JetStream(shared, stream="ORDERS", subject_prefix="orders", owner="dst_1", render=counted, known=every)
    assert delivered(await sender.send(EVENTS[:500], 1))
    working.cancel()
    await shared.close()
    assert longest <= 16


async def test_events_in_the_stream_count_as_delivered(server: NatsServer, jetstream: Make) -> None:
    """A cursor moves after the delivery, so events that were delivered before a crash are sent again."""
    assert delivered(await jetstream(server.url).send(EVENTS[:10], 1))
    again = jetstream(server.url)
    assert delivered(await again.send(EVENTS[3:8], 1))
    assert delivered(await again.send(EVENTS[5:15], 1))
    assert delivered(await again.send(EVENTS[12:13], 1))
    assert await content(server) == list(range(1, 16))


async def test_events_that_a_filter_leaves_out_make_no_gap(server: NatsServer, jetstream: Make) -> None:
    for part in (EVENTS[:10:2], EVENTS[10:20:3]):
        assert delivered(await jetstream(server.url).send(part, 1))
    assert await content(server) == [1, 3, 5, 7, 9, 11, 14, 17, 20]


async def test_it_continues_after_a_restart_beyond_the_duplicate_window(server: NatsServer, jetstream: Make) -> None:
    """A server before 2.15 does not have the last id any more then, and refuses every message that expects it."""
    async with AsyncExitStack() as closing:
        stream = (await client(server, closing)).jetstream()
        config = api.StreamConfig(name="ORDERS", subjects=["orders.>"], duplicate_window=0.1)
        await stream.add_stream(config)
    sender = jetstream(server.url)
    assert delivered(await sender.send(EVENTS[:10], 1))
    server.stop()
    await asyncio.sleep(0.2)  # The window is a time by the server's clock, and the server does not show its end.
    server.start()
    assert delivered(await sender.send(EVENTS[8:20], 2))
    assert await content(server) == list(range(1, 21))


async def test_no_event_is_lost_or_repeated_while_the_server_is_killed(server: NatsServer, jetstream: Make) -> None:
    sender, chance = jetstream(server.url), random.Random(7)
    failures = 0
    for start in range(0, 2000, 50):
        # Send the same events again each time, like from a cursor that has not moved.
        offered = EVENTS[max(0, start - 20) : start + 50]
        if start % 200 == 0:
            sending = asyncio.create_task(sender.send(offered, 1))
            await asyncio.sleep(chance.uniform(0, 0.01))
            await asyncio.to_thread(server.stop)
            failures += (await sending).verdict is Verdict.FAILED
            await asyncio.to_thread(server.start)
        assert delivered(await sender.send(offered, 2))
    assert failures > 0
    assert await content(server) == list(range(1, 2001))


async def test_a_server_that_hangs_ends_the_attempt_and_its_events_are_not_repeated(
    server: NatsServer, jetstream: Make
) -> None:
    sender = jetstream(server.url, timeout=0.5)
    assert delivered(await sender.send(EVENTS[:5], 1))
    server.signal(signal.SIGSTOP)
    attempt = await sender.send(EVENTS[5:500], 1)
    assert (attempt.verdict, attempt.detail) == (Verdict.FAILED, "no confirmation within 0.5 s")
    server.signal(signal.SIGCONT)
    await until(lambda: _delivers(sender, EVENTS[5:500]))
    assert await content(server) == list(range(1, 501))


async def test_a_cancelled_attempt_is_continued_by_the_next(server: NatsServer, jetstream: Make) -> None:
    sender = jetstream(server.url)
    assert delivered(await sender.send(EVENTS[:1], 1))
    for start in range(0, 2000, 400):
        sending = asyncio.create_task(sender.send(EVENTS[start : start + 400], 1))
        await asyncio.sleep(0.005)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert delivered(await sender.send(EVENTS[start : start + 400], 2))
    assert await content(server) == list(range(1, 2001))


async def test_two_publishers_of_one_destination_together_store_each_event_once(
    server: NatsServer, jetstream: Make
) -> None:
    """One of them has lost its lease and does not know it yet."""
    one, other = jetstream(server.url), jetstream(server.url)

    async def deliver(sender: JetStream, step: int) -> None:
        for start in range(0, 2000, step):
            await until(lambda start=start: _delivers(sender, EVENTS[start : start + step]))  # type: ignore[misc]

    await asyncio.gather(deliver(one, 40), deliver(other, 50))
    assert await content(server) == list(range(1, 2001))


async def test_a_publisher_with_an_old_end_is_refused_and_continues_after_the_other(
    server: NatsServer, jetstream: Make
) -> None:
    old, new = jetstream(server.url), jetstream(server.url)
    assert delivered(await old.send(EVENTS[:5], 1))
    assert delivered(await new.send(EVENTS[:12], 1))
    # This sender expects the stream's end at 5, but the stream is longer.
    assert delivered(await old.send(EVENTS[5:10], 1))
    assert delivered(await old.send(EVENTS[10:15], 1))
    assert await content(server) == list(range(1, 16))


@pytest.mark.parametrize("headers", [None, {"Nats-Msg-Id": str(UUID(int=1))}, {"Headgate-Destination": "dst_2"}])
async def test_a_message_of_another_publisher_is_a_failure_with_a_reason(
    server: NatsServer, jetstream: Make, headers: dict[str, str] | None
) -> None:
    sender = jetstream(server.url)
    assert delivered(await sender.send(EVENTS[:5], 1))
    async with AsyncExitStack() as closing:
        stream = (await client(server, closing)).jetstream()
        await stream.publish("orders.mine", b"x", headers=headers)
        for one in (sender, jetstream(server.url)):
            attempt = await one.send(EVENTS[5:10], 1)
            assert attempt.verdict is Verdict.FAILED
            assert attempt.detail == (
                "the stream ORDERS was written to by another publisher: its message 6 on orders.mine is not of this "
                "destination"
            )
        # No message was stored after it. The destination works again after an operator deletes it.
        assert (await stream.stream_info("ORDERS")).state.last_seq == 6
        await stream.delete_msg("ORDERS", 6)
        assert delivered(await sender.send(EVENTS[3:10], 2))
        assert (await stream.stream_info("ORDERS")).state.messages == 10


async def test_another_destinations_stream_is_not_written_to(server: NatsServer, jetstream: Make) -> None:
    assert delivered(await jetstream(server.url).send(EVENTS[:5], 1))
    attempt = await jetstream(server.url, owner="dst_2").send(EVENTS[:10], 1)
    assert "is not of this destination" in attempt.detail
    assert await content(server) == list(range(1, 6))


async def test_an_emptied_stream_continues_its_sequences(server: NatsServer, jetstream: Make) -> None:
    sender = jetstream(server.url)
    assert delivered(await sender.send(EVENTS[:5], 1))
    async with AsyncExitStack() as closing:
        stream = (await client(server, closing)).jetstream()
        await stream.purge_stream("ORDERS")
    assert delivered(await jetstream(server.url).send(EVENTS[5:10], 1))
    assert [message.seq for message in await messages(server)] == [6, 7, 8, 9, 10]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"subjects": ["other.>"]}, "the stream ORDERS does not take the subjects orders.>"),
        ({"subjects": ["orders.*"]}, "the stream ORDERS does not take the subjects orders.>"),
        ({"subjects": ["orders.>"], "no_ack": True}, "the stream ORDERS confirms nothing (no_ack)"),
        ({"subjects": ["other.>", "orders.>"]}, ""),
    ],
)
async def test_an_existing_stream_must_have_the_subjects_and_confirm(
    server: NatsServer, jetstream: Make, config: dict[str, Any], words: str
) -> None:
    async with AsyncExitStack() as closing:
        await (await client(server, closing)).jetstream().add_stream(name="ORDERS", **config)
    attempt = await jetstream(server.url).send(EVENTS[:5], 1)
    assert (attempt.detail, attempt.verdict) == (words, Verdict.FAILED if words else Verdict.DELIVERED)


async def test_a_full_stream_is_a_failure_with_a_reason(server: NatsServer, jetstream: Make) -> None:
    async with AsyncExitStack() as closing:
        stream = (await client(server, closing)).jetstream()
        config = api.StreamConfig(name="ORDERS", subjects=["orders.>"], max_msgs=3, discard=api.DiscardPolicy.NEW)
        await stream.add_stream(config)
        sender = jetstream(server.url)
        attempt = await sender.send(EVENTS[:10], 1)
        assert (attempt.verdict, attempt.detail) == (
            Verdict.FAILED,
            "the stream ORDERS refused a message: maximum messages exceeded",
        )
        await stream.update_stream(config.evolve(max_msgs=100))
        assert delivered(await sender.send(EVENTS[:10], 2))
    assert await content(server) == list(range(1, 11))


async def test_an_event_larger_than_the_server_takes_stops_the_stream_before_it(
    server: NatsServer, jetstream: Make
) -> None:
    large = stored(3, {"text": "x" * 1_100_000})
    attempt = await jetstream(server.url).send([*EVENTS[:2], large, *EVENTS[3:5]], 1)
    assert attempt.verdict is Verdict.FAILED
    assert attempt.detail.startswith("event 3 has 1100")
    assert attempt.detail.endswith("more than NATS takes (max_payload)")
    assert max(await content(server), default=0) <= 2


async def test_large_events_are_sent_within_a_bound(server: NatsServer, jetstream: Make) -> None:
    events = [stored(number, {"text": "x" * 900_000}) for number in range(1, 21)]
    assert delivered(await jetstream(server.url).send(events, 1))
    assert await content(server) == list(range(1, 21))


async def test_without_a_server_it_fails_and_continues_when_there_is_one(server: NatsServer, jetstream: Make) -> None:
    sender = jetstream(server.url)
    server.stop()
    attempt = await sender.send(EVENTS[:5], 1)
    assert attempt.verdict is Verdict.FAILED
    assert attempt.detail.startswith("no connection to NATS: ")
    server.start()
    assert delivered(await sender.send(EVENTS[:5], 2))


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


async def test_without_jetstream_it_fails_with_a_reason(tmp_path: Path, jetstream: Make) -> None:
    with nats_server(tmp_path / "nats", jetstream=False) as server:
        attempt = await jetstream(server.url, timeout=1).send(EVENTS[:5], 1)
    assert attempt.verdict is Verdict.FAILED
    assert attempt.detail


async def test_without_a_url_the_reason_names_the_setting() -> None:
    sender = JetStream(Nats(NatsConfig()), stream="S", subject_prefix="s", owner="d", render=render, known=every)
    assert (await sender.send(EVENTS[:1], 1)).detail == "the service has no --nats-url"


async def test_tls_is_checked_against_the_operators_authority(tmp_path: Path, jetstream: Make) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    key, chain, ca = tmp_path / "key.pem", tmp_path / "chain.pem", tmp_path / "ca.pem"
    certificate.private_key_pem.write_to_path(key)
    certificate.cert_chain_pems[0].write_to_path(chain)
    authority.cert_pem.write_to_path(ca)
    with nats_server(tmp_path / "nats", f'tls {{ cert_file: "{chain}", key_file: "{key}" }}') as server:
        url = server.url.replace("nats:", "tls:")
        assert delivered(await jetstream(url, ca=ca).send(EVENTS[:5], 1))
        refused = await jetstream(url).send(EVENTS[:5], 1)
    assert refused.verdict is Verdict.FAILED
    assert "certificate" in refused.detail


async def test_a_wrong_password_is_a_failure_that_does_not_show_it(tmp_path: Path, jetstream: Make) -> None:
    with nats_server(tmp_path / "nats", "authorization { user: headgate, password: s3cret }") as server:
        url = server.url.replace("//", "//headgate:{}@")
        assert delivered(await jetstream(url.format("s3cret")).send(EVENTS[:5], 1))
        wrong = jetstream(url.format("wr0ng"))

        async def says_why() -> bool:
            refused = await wrong.send(EVENTS[:5], 1)
            assert refused.verdict is Verdict.FAILED
            assert "wr0ng" not in refused.detail
            return "Authorization Violation" in refused.detail

        # The server resets the connection after its refusal, and sometimes the refusal does not arrive.
        await until(says_why)


async def test_a_credentials_file_is_accepted(tmp_path: Path, jetstream: Make) -> None:
    identities = Identities()
    file = tmp_path / "headgate.creds"
    file.write_text(identities.credentials("headgate"))
    with nats_server(tmp_path / "nats", identities.settings) as server:
        assert delivered(await jetstream(server.url, credentials=file).send(EVENTS[:5], 1))
        for wrong in (None, tmp_path / "missing.creds"):
            refused = await jetstream(server.url, credentials=wrong).send(EVENTS[:5], 1)
            assert refused.verdict is Verdict.FAILED
            assert refused.detail.startswith("no connection to NATS: ")


async def test_a_forbidden_subject_is_a_failure_with_a_reason(tmp_path: Path, jetstream: Make) -> None:
    allowed = 'publish: { deny: "orders.>" }'
    users = f"authorization {{ users: [ {{ user: a, password: b, permissions: {{ {allowed} }} }} ] }}"
    with nats_server(tmp_path / "nats", users) as server:
        attempt = await jetstream(server.url.replace("//", "//a:b@"), timeout=0.5).send(EVENTS[:5], 1)
    assert attempt.verdict is Verdict.FAILED
    assert "Permissions Violation for Publish" in attempt.detail or "permissions violation" in attempt.detail


async def _delivers(sender: JetStream, events: Sequence[StoredEvent]) -> bool:
    return (await sender.send(events, 1)).verdict is Verdict.DELIVERED
