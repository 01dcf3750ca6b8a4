"""The end of a server: who is served, and how long it waits for callers to go elsewhere."""

import asyncio

import pytest

from headgate_server.rpc.transport import Farewell
from tests.support.waiting import until


async def answer(call):
    await asyncio.sleep(0)
    return b"answer"


class Caller:
    """Calls again as soon as it is answered, until it is told to go elsewhere."""

    def __init__(self, farewell):
        self.answers = 0
        self.elsewhere = False
        self._handler = farewell.keeping_back(answer)
        self.calls = asyncio.create_task(self._call())

    async def _call(self):
        while not self.elsewhere:
            assert await self._handler(None) == b"answer"
            self.answers += 1

    async def is_answered(self):
        return self.answers > 3


async def test_callers_are_served_until_they_go_elsewhere():
    farewell = Farewell()
    caller = Caller(farewell)
    ending = asyncio.create_task(farewell.turn_away(grace=60.0))
    await until(caller.is_answered)
    assert not ending.done()
    caller.elsewhere = True
    assert 57.0 <= await ending < 60.0
    await caller.calls


@pytest.mark.parametrize(("grace", "most"), [(60.0, 0.3), (0.4, 10.0)], ids=["its own bound", "half of the grace"])
async def test_callers_that_do_not_go_are_waited_for_a_bounded_time(grace, most, monkeypatch):
    monkeypatch.setattr("headgate_server.rpc.transport._TURN_AWAY_SECONDS", most)
    farewell = Farewell()
    caller = Caller(farewell)
    assert await farewell.turn_away(grace) < grace
    assert caller.answers > 3
    caller.elsewhere = True
    await caller.calls


async def test_nobody_is_waited_for_where_nobody_calls():
    farewell = Farewell()
    assert await farewell.turn_away(grace=60.0) > 57.0
