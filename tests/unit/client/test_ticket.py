"""Tickets: who waits for one, and no longer."""

import asyncio

import pytest

from headgate_client.core.errors import Dropped
from headgate_client.ticket import LoopTicket, Ticket


def test_a_ticket_forgets_who_has_waited_long_enough() -> None:
    """A program may ask again and again."""
    ticket = Ticket("k")
    for _ in range(3):
        with pytest.raises(TimeoutError):
            ticket.result(0)
        with pytest.raises(TimeoutError):
            ticket.exception(0)
    assert ticket._waiters == []


async def test_a_ticket_forgets_a_task_that_was_cancelled() -> None:
    ticket = LoopTicket("k")

    async def wait() -> None:
        await ticket

    tasks = [asyncio.ensure_future(wait()) for _ in range(3)]
    await asyncio.sleep(0)
    assert len(ticket._waiters) == 3
    tasks[0].cancel()
    tasks[2].cancel()
    await asyncio.wait((tasks[0], tasks[2]))
    assert len(ticket._waiters) == 1
    ticket.resolve(Dropped("The queue was full."))
    with pytest.raises(Dropped):
        await tasks[1]
