"""What lasts: subscriptions over a server's end, and forks of processes with subscriptions."""

import asyncio
import gc
import os
import threading
import weakref

from headgate_client import AsyncClient, Client, Retry
from headgate_client.core.follow import SILENCE
from tests.support.service import ServerProcess, make_key
from tests.support.waiting import GUARD, until, until_true

RETRY = Retry(first=0.05, most=0.2)


async def test_a_subscription_continues_after_the_server_was_killed(tmp_path):
    store = f"sqlite:///{tmp_path}/headgate.db"
    key = await make_key(store)
    first = await ServerProcess(store).__aenter__()
    address = f"127.0.0.1:{first.port}"
    with Client(address, api_key=key, retry=RETRY) as client:
        async with AsyncClient(address, api_key=key, retry=RETRY) as other:
            seen, seen_by_other = [], []
            subscription, subscribed = client.subscribe(after_sequence=0), other.subscribe(after_sequence=0)
            reading = threading.Thread(target=lambda: seen.extend(read(subscription, 6)))
            reading.start()
            task = asyncio.ensure_future(read_async(subscribed, 6, seen_by_other))
            await other.ingest_batch([{"type": "t"}] * 3)
            await until_equal(seen_by_other, [1, 2, 3])
            await first.kill()
            async with ServerProcess(store, "--grpc-port", str(first.port)):
                await other.ingest_batch([{"type": "t"}] * 3)
                await asyncio.wait_for(task, GUARD)
                await asyncio.to_thread(reading.join, 20)
                assert seen == seen_by_other == [1, 2, 3, 4, 5, 6]
                assert subscription.sequence == 6
                subscription.close()
                await subscribed.close()


def read(subscription, events):
    return [event.sequence for _, event in zip(range(events), subscription, strict=False)]


async def read_async(subscription, events, seen):
    async for event in subscription:
        seen.append(event.sequence)
        if len(seen) == events:
            break


async def until_equal(seen, expected):
    async def equal():
        return seen == expected

    await until(equal)


def test_a_fork_ends_no_subscription_and_the_child_reads_on_its_own(served, key):
    with Client(served.address, api_key=key, retry=RETRY) as client:
        client.ingest_batch([{"type": "t"}] * 3)
        subscription = client.subscribe(after_sequence=0)
        assert next(subscription).sequence == 1
        later = []
        reading = threading.Thread(target=lambda: later.append([next(subscription).sequence for _ in range(3)]))
        reading.start()
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                own = client.subscribe(after_sequence=1)
                os.write(writer, b"%d %d" % (next(own).sequence, next(own).sequence))
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            assert pipe.read() == b"2 3"
        client.ingest({"type": "t"})
        reading.join(20)
        assert later == [[2, 3, 4]]


def test_a_subscription_that_is_forgotten_ends_its_stream(served, key):
    with Client(served.address, api_key=key) as client:
        client.ingest({"type": "t"})
        for event in client.subscribe(after_sequence=0):
            assert event.sequence == 1
            break
        until_true(lambda: not client._transport._running)
        until_true(lambda: not any(one.name == "headgate-subscription" for one in threading.enumerate()))


def test_closing_the_client_ends_a_subscription(served, key):
    client = Client(served.address, api_key=key, retry=RETRY)
    ended = []
    reading = threading.Thread(target=lambda: ended.append(list(client.subscribe())))
    reading.start()
    until_true(lambda: client._transport._running)
    client.close()
    reading.join(20)
    assert ended == [[]]


def test_closing_a_subscription_ends_the_thread_that_waits_for_it(served, key):
    """At once: not when a silent stream would be given up."""
    with Client(served.address, api_key=key) as client:
        subscription, ended = client.subscribe(), []
        reading = threading.Thread(target=lambda: ended.append(list(subscription)))
        reading.start()
        until_true(lambda: client._transport._running)
        subscription.close()
        reading.join(SILENCE / 2)
        assert ended == [[]]


async def test_closing_a_subscription_ends_the_task_that_waits_for_it(served, key):
    async with AsyncClient(served.address, api_key=key) as client:
        subscription = client.subscribe()
        task = asyncio.ensure_future(read_async(subscription, 1, []))
        await asyncio.to_thread(until_true, lambda: client._transport._running)
        await subscription.close()
        await asyncio.wait_for(task, SILENCE / 2)


def test_a_subscription_keeps_no_stream_that_has_ended(served, key):
    with Client(served.address, api_key=key, retry=RETRY) as client, client.subscribe(after_sequence=0) as subscription:
        streams = []
        for sequence in (1, 2, 3):
            client.ingest({"type": "t"})
            assert next(subscription).sequence == sequence
            streams.append(weakref.ref(subscription._inbox))
            # As at a fork: the stream ends, and is begun again.
            client._transport.before_fork()
            client._transport.after_fork_in_parent()

        def kept():
            gc.collect()
            return [stream for stream in streams[:-1] if stream() is not None]

        until_true(lambda: not kept())
