"""The buffer of the asyncio client with a spool: the event loop goes on while the disk is slow, and nothing is lost."""

import asyncio
import sqlite3
import threading
from collections import deque

import grpc
import pytest

from headgate_client import AsyncClient, Closed, NotSent, QueueFull, Retry, SpoolError
from headgate_client.core.events import prepare
from headgate_client.spool import Spool
from tests.support.waiting import until
from tests.unit.client.channel import LocalServer


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.db"


@pytest.fixture
def server():
    with LocalServer() as made:
        yield made


@pytest.fixture
async def make(server, path):
    """Return a function that makes a buffer with the spool, of a client of its own."""
    made = []

    def buffered(**settings):
        client = AsyncClient(server.address, api_key="hg_x", retry=Retry(first=0.01, most=0.01))
        made.append(
            client.buffered(**{"max_size": 3, "max_age": 60.0, "close_timeout": 0.0, "spool": path, **settings})
        )
        return made[-1]

    yield buffered
    for buffer in made:
        await buffer.close(0.0)


class Slow:
    """Holds up what a spool does until somebody lets it go on."""

    def __init__(self, monkeypatch, *names):
        self.waiting = deque()
        self.began = []
        for name in names:
            monkeypatch.setattr(Spool, name, self._held(name, getattr(Spool, name)))

    def _held(self, name, original):
        def held(spool, *arguments):
            gate = threading.Event()
            self.began.append((name, len(arguments[0]) if name == "add_all" else None))
            self.waiting.append(gate)
            assert gate.wait(10), f"the event loop waits for {name}"
            return original(spool, *arguments)

        return held

    def let_go(self):
        while self.waiting:
            self.waiting.popleft().set()

    async def entered(self):
        async def somebody():
            return self.waiting

        await until(somebody)


def types(batch):
    return [event.type for event in batch.events]


async def accepted(server):
    return types(await asyncio.to_thread(server.accept))


async def test_the_loop_goes_on_while_the_disk_is_slow(make, server, path, monkeypatch):
    """Only the loop lets the disk go on: if it waited for the disk, neither would go on."""
    fill(path, 3)
    buffer = make()
    slow = Slow(monkeypatch, "add_all", "load", "remove", "close")

    async def going_on():
        while True:
            slow.let_go()
            await asyncio.sleep(0)

    going = asyncio.create_task(going_on())
    tickets = [await buffer.emit_wait(name) for name in "abc"]
    seen = await accepted(server) + await accepted(server)
    assert seen == ["old"] * 3 + ["a", "b", "c"]
    assert (await tickets[2]).stored
    assert await buffer.close(5.0) == []
    going.cancel()
    assert {name for name, _ in slow.began} == {"add_all", "load", "remove", "close"}
    assert rows(path) == []


async def test_events_that_are_emitted_together_share_the_wait_for_the_disk(make, path, monkeypatch):
    buffer = make()
    slow = Slow(monkeypatch, "add_all")
    waiting = [asyncio.ensure_future(buffer.emit_wait(f"{n}")) for n in range(50)]
    for _ in range(2):
        await slow.entered()
        assert not any(one.done() for one in waiting[1:])
        slow.let_go()
    tickets = await asyncio.gather(*waiting)
    assert slow.began == [("add_all", 1), ("add_all", 49)]
    await buffer.close(0.0)
    assert rows(path) == [ticket.key for ticket in tickets]


async def test_an_event_in_the_middle_of_a_wait_for_the_disk_is_behind_it(make, server, path, monkeypatch):
    buffer = make()
    slow = Slow(monkeypatch, "add_all")
    first, second = (asyncio.ensure_future(buffer.emit_wait(name)) for name in "ab")
    await slow.entered()
    threading.Timer(0.1, slow.let_go).start()
    buffer.emit("c")  # waits for the disk, and so for the event that is being written
    slow.let_go()
    await slow.entered()
    slow.let_go()
    assert await accepted(server) == ["a", "c", "b"]
    assert (await (await first)).stored
    assert (await (await second)).stored


async def test_events_behind_a_backlog_are_sent_once_and_in_order(make, server, path):
    fill(path, 100)
    buffer = make()
    buffer._start()
    seen = []
    waiting = []
    for number in range(50):
        waiting.append(asyncio.ensure_future(buffer.emit_wait(f"{number}")))
        if number % 5 == 0:
            buffer.emit(f"at once {number}")
        if number % 2:
            seen += await accepted(server)
    while len(seen) < 159:
        seen += await accepted(server)
    assert seen[:100] == ["old"] * 100
    assert [name for name in seen[100:] if name.isdigit()] == [f"{n}" for n in range(50)][: 159 - 110]
    assert len(set(seen[100:])) == 59
    tickets = await asyncio.gather(*waiting)
    assert (await tickets[0]).stored

    async def settled():
        return buffer.stats.waiting == 1

    await until(settled)


async def test_an_event_that_cannot_be_written_is_not_taken_and_its_room_is_free_again(make, server, monkeypatch):
    buffer = make(max_items=3)
    with monkeypatch.context() as broken:
        broken.setattr(Spool, "add_all", lambda *_: (_ for _ in ()).throw(OSError("no disk")))
        with pytest.raises(SpoolError, match="no disk"):
            await buffer.emit_wait("a")
    tickets = [await asyncio.wait_for(buffer.emit_wait(name), 10) for name in "bcd"]
    assert await accepted(server) == ["b", "c", "d"]
    assert (await tickets[0]).stored
    assert buffer.stats.emitted == 3


async def test_events_on_their_way_to_the_disk_count_as_waiting(make, server, monkeypatch):
    buffer = make(max_items=3)
    slow = Slow(monkeypatch, "add_all")
    waiting = [asyncio.ensure_future(buffer.emit_wait(name)) for name in "abcd"]
    for _ in range(2):
        await slow.entered()
        slow.let_go()
    await asyncio.gather(*waiting[:3])
    assert slow.began == [("add_all", 1), ("add_all", 2)]
    assert await accepted(server) == ["a", "b", "c"]
    await slow.entered()
    slow.let_go()
    await waiting[3]


async def test_a_cancelled_caller_does_not_take_its_event_back(make, server, path, monkeypatch):
    buffer = make()
    slow = Slow(monkeypatch, "add_all")
    waiting = asyncio.ensure_future(buffer.emit_wait("a"))
    await slow.entered()
    waiting.cancel()
    slow.let_go()
    for name in "bc":
        buffer.emit(name)
    assert await accepted(server) == ["a", "b", "c"]


async def test_closing_waits_for_what_is_being_written_and_refuses_what_is_not(make, server, path, monkeypatch):
    buffer = make()
    slow = Slow(monkeypatch, "add_all")
    first, second = (asyncio.ensure_future(buffer.emit_wait(name)) for name in "ab")
    await slow.entered()
    closing = asyncio.ensure_future(buffer.close(0.0))
    with pytest.raises(Closed):
        await second
    slow.let_go()
    ticket = await first
    assert await closing == []
    assert rows(path) == [ticket.key]
    with pytest.raises(NotSent) as left:
        await ticket
    assert left.value.spooled
    with pytest.raises(Closed):
        await buffer.emit_wait("c")


async def test_a_full_spool_makes_room_also_without_a_block(make, server, path):
    """Nothing but an event has started the sender."""
    fill(path, 3)
    buffer = make(max_items=3)
    emitted = asyncio.ensure_future(buffer.emit_wait("new"))
    assert await accepted(server) == ["old"] * 3
    assert not (await asyncio.wait_for(emitted, 10)).done()


async def test_a_full_spool_makes_room_also_when_its_event_is_refused(make, server, path):
    fill(path, 3)
    buffer = make(max_items=3)
    with pytest.raises(QueueFull):
        buffer.emit("new")
    assert await accepted(server) == ["old"] * 3


async def test_a_closed_client_makes_no_buffer_and_waits_for_nothing(server, path):
    client = AsyncClient(server.address, api_key="hg_x", retry=Retry(first=1e6, most=1e6), timeout=1e9)
    calling = asyncio.ensure_future(client.ingest({"type": "t"}))
    await asyncio.to_thread(server.fail, grpc.StatusCode.UNAVAILABLE)

    async def pauses():
        return client._ending._pauses

    await until(pauses)
    await client.close()
    with pytest.raises(Closed):
        await asyncio.wait_for(calling, 10)
    with pytest.raises(Closed):
        client.buffered(spool=path)
    assert not path.exists()


async def test_closing_a_subscription_ends_its_wait_to_begin_again():
    client = AsyncClient("127.0.0.1:1", api_key="hg_x", retry=Retry(first=1e6, most=1e6))
    subscription = client.subscribe()
    reading = asyncio.ensure_future(anext(subscription))

    async def pauses():
        return subscription._ending._pauses

    await until(pauses)
    await subscription.close()
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(reading, 10)
    await client.close()


def test_the_next_event_loop_goes_on_where_the_last_one_ended(server, path, monkeypatch):
    """Also with an event that was being written when the loop ended."""
    client = AsyncClient(server.address, api_key="hg_x")
    buffer = client.buffered(max_size=3, max_age=60.0, spool=path)
    slow = Slow(monkeypatch, "add_all")

    async def first():
        waiting = asyncio.ensure_future(buffer.emit_wait("a"))
        await slow.entered()
        waiting.cancel()

    async def second():
        for name in "bc":
            buffer.emit(name)
        assert await accepted(server) == ["a", "b", "c"]
        await client.close()

    asyncio.run(first())
    threading.Timer(0.1, slow.let_go).start()
    asyncio.run(second())


def test_what_was_being_read_when_the_loop_ended_is_sent_by_the_next_loop(server, path, monkeypatch):
    fill(path, 3)
    client = AsyncClient(server.address, api_key="hg_x")
    buffer = client.buffered(max_size=3, max_age=60.0, spool=path)
    slow = Slow(monkeypatch, "load")

    async def first():
        buffer._start()
        await slow.entered()

    async def second():
        buffer.emit("a")
        assert await accepted(server) == ["old"] * 3
        await buffer.close(0.0)
        await client.close()

    asyncio.run(first())
    threading.Timer(0.1, slow.let_go).start()
    asyncio.run(second())


async def test_a_spool_that_cannot_be_read_is_read_again(make, server, path, monkeypatch):
    monkeypatch.setattr("headgate_client.aio_buffered.UNREADABLE_SECONDS", 0.01)
    fill(path, 3)
    buffer = make()
    with monkeypatch.context() as broken:
        failed = threading.Event()

        def fail(*_):
            failed.set()
            raise SpoolError("no disk")

        broken.setattr(Spool, "load", fail)
        buffer._start()
        await asyncio.to_thread(failed.wait, 10)
    assert await accepted(server) == ["old"] * 3


async def test_a_failed_call_is_made_again_with_the_same_events(make, server):
    buffer = make()
    tickets = await asyncio.gather(*(buffer.emit_wait(name) for name in "abc"))
    first = await asyncio.to_thread(server.fail, grpc.StatusCode.INTERNAL, "RST_STREAM with error code 8")
    assert await asyncio.to_thread(server.accept) == first
    assert (await tickets[0]).stored


def fill(path, events):
    """Leave events in a spool, as a process that was killed does."""
    spool = Spool(path, fsync=False)
    spool.open()
    spool.add_all([(f"k{n}", prepare({"type": "old", "key": f"k{n}"}).encoded) for n in range(events)])
    spool.close()


def rows(path):
    """Return the keys of the events in a spool."""
    connection = sqlite3.connect(path)
    keys = [key for (key,) in connection.execute("SELECT key FROM events ORDER BY row")]
    connection.close()
    return keys
