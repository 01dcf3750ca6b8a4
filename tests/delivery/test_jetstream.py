"""A stream of a real NATS server gets every event once and in order, even after kills and with two publishers."""

import asyncio
import random
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import pytest
from nats.js import api

from headgate_server.core.model import StoredEvent
from headgate_server.delivery.attempt import Verdict
from headgate_server.delivery.jetstream import JetStream
from headgate_server.delivery.nats_connection import Nats, NatsConfig
from tests.delivery.conftest import render
from tests.support.delivering import stored
from tests.support.jetstream import EVENTS, Make, client, content, delivered, every, messages
from tests.support.nats import NatsServer
from tests.support.spans import Traced, identity
from tests.support.waiting import until


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


async def _delivers(sender: JetStream, events: Sequence[StoredEvent]) -> bool:
    return (await sender.send(events, 1)).verdict is Verdict.DELIVERED
