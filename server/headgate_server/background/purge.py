"""The job that deletes the answers of request keys whose time is over."""

import asyncio

import structlog

from headgate_server.background.leased import Terms
from headgate_server.core.model import Lease
from headgate_server.store import Answers

log = structlog.get_logger(__name__)

NAME = "purge"

TERMS = Terms(term=600.0, margin=30.0, renew_every=200.0, take_every=60.0)
"""An hour more or less does not matter to a purge, so its lease costs a statement a minute and no more."""

_PURGE_SECONDS = 3600.0
"""Answers live for 24 hours; an hour more or less of disk does not matter."""


class Purge:
    """Deletes answers, now and every hour. What it deletes is over for every process, so no write of it is fenced."""

    def __init__(self, answers: Answers, seconds: float = _PURGE_SECONDS):
        self._answers = answers
        self._seconds = seconds

    async def __call__(self, lease: Lease) -> None:
        """Purge until cancelled. Raises `Unavailable`."""
        while True:
            purged = await self._answers.purge()
            log.info("answers_purged", count=purged)
            await asyncio.sleep(self._seconds)
