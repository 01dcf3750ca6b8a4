"""The bounds and the order in which requests are received."""

import asyncio
from collections.abc import Callable

import pytest

from headgate_server.core.errors import Overloaded, TooSlow
from headgate_server.rpc.pipeline.gate import Gate


class Sender:
    """A caller whose request arrives when the test decides."""

    def __init__(self, gate: Gate, caller: int, log: list[int]):
        self.arrived = asyncio.Event()
        self._caller = caller
        self._log = log
        self.task = asyncio.create_task(gate.receive(caller, self._receive))

    async def _receive(self) -> bytes:
        self._log.append(self._caller)
        await self.arrived.wait()
        return b"request"


Send = Callable[[Gate, int], Sender]


@pytest.fixture
def received() -> list[int]:
    """The callers whose requests are being received, in order."""
    return []


@pytest.fixture
def send(received: list[int]) -> Send:
    return lambda gate, caller: Sender(gate, caller, received)


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_bounded_number_at_once_in_the_order_of_arrival(send: Send, received: list[int]) -> None:
    gate = Gate(2, 2, seconds=60)
    senders = [send(gate, number) for number in (1, 2, 3, 4)]
    await _turns()
    assert received == [1, 2]
    senders[1].arrived.set()
    await _turns()
    assert received == [1, 2, 3]
    for sender in senders:
        sender.arrived.set()
    assert await asyncio.gather(*(sender.task for sender in senders)) == [b"request"] * 4


async def test_one_caller_does_not_use_all_places(send: Send, received: list[int]) -> None:
    """This holds even if it starts many requests."""
    gate = Gate(3, 2, seconds=60)
    slow = [send(gate, 1) for _ in range(20)]
    await _turns()
    assert received == [1, 1]
    for number in (2, 3, 4):
        other = send(gate, number)
        other.arrived.set()
        assert await other.task == b"request"
    for sender in slow:
        sender.task.cancel()
    await asyncio.wait([sender.task for sender in slow])


async def test_a_request_that_waits_too_long(send: Send) -> None:
    gate = Gate(1, 1, seconds=0.05)
    first, second = send(gate, 1), send(gate, 2)
    with pytest.raises(Overloaded):
        await second.task
    with pytest.raises(TooSlow):
        await first.task


async def test_a_cancelled_request_frees_its_place(send: Send) -> None:
    gate = Gate(1, 1, seconds=60)
    for number in (1, 1, 2):
        gone = send(gate, number)
        await _turns()
        gone.task.cancel()
        await asyncio.wait([gone.task])
    last = send(gate, 1)
    last.arrived.set()
    assert await last.task == b"request"


async def test_each_request_has_the_whole_time(send: Send) -> None:
    """The timer may run for an earlier request that has arrived."""
    clock = asyncio.get_running_loop().time
    gate = Gate(2, 2, seconds=0.05)
    first = send(gate, 1)
    first.arrived.set()
    assert await first.task == b"request"
    await asyncio.sleep(0.025)
    begun = clock()
    with pytest.raises(TooSlow):
        await send(gate, 1).task
    assert clock() - begun >= 0.05
    third = send(gate, 1)
    third.arrived.set()
    assert await third.task == b"request"
    assert not gate._callers


async def test_a_request_that_is_cancelled_is_not_too_slow(send: Send) -> None:
    """This holds even if its time is over in the same moment."""
    gate = Gate(1, 1, seconds=60)
    gone = send(gate, 1)
    await _turns()
    gone.task.cancel()
    gate._limit._over.add(gone.task)
    gone.task.cancel()
    await asyncio.wait([gone.task])
    assert gone.task.cancelled()
    assert not gate._limit._over
