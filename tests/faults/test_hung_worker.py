"""A hung worker: it runs, and answers nothing."""

import asyncio
import os
import signal
import time
from pathlib import Path

import httpx

from tests.support.up import Up
from tests.support.waiting import until

CALLERS = 16
"""So many that some of them surely reach the hung worker."""
SOON = 15.0
"""Seconds, generous: the promise is 4, and a call that hangs takes 60."""


async def test_its_callers_are_answered_soon_and_the_others_carry_on(store_url: str, tmp_path: Path) -> None:
    with Up("--store", store_url, "--workers", "2", folder=tmp_path) as up:
        async with httpx.AsyncClient(
            base_url=f"http://{up.rest}", headers={"x-api-key": up.key}, timeout=2 * SOON
        ) as http:

            async def call() -> tuple[int, float]:
                started = time.monotonic()
                response = await http.post("/v1/events", json={"type": "t"})
                return response.status_code, time.monotonic() - started

            async def one_in_a_row() -> bool:
                """Whether the other worker answered, for each caller."""
                return all(status == 200 for status, _ in await asyncio.gather(*(call() for _ in range(CALLERS))))

            await until(one_in_a_row)
            victim = min(up.workers())
            os.kill(victim, signal.SIGSTOP)
            try:
                answers = await asyncio.gather(*(call() for _ in range(CALLERS)))
                await until(one_in_a_row)
            finally:
                os.kill(victim, signal.SIGCONT)
            await until(one_in_a_row)
    assert {status for status, _ in answers} == {200, 503}
    assert max(seconds for _, seconds in answers) < SOON
