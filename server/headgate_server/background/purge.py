"""The job that deletes what is kept for a limited time: the answers of request keys, and rejections."""

import asyncio

import structlog

from headgate_server.background.leased import Terms
from headgate_server.core.model import Lease
from headgate_server.store import Answers, Rejections

log = structlog.get_logger(__name__)

NAME = "purge"

TERMS = Terms(term=600.0, margin=30.0, renew_every=200.0, take_every=60.0)
"""A purge may be an hour late, so its lease costs only one statement a minute."""

_PURGE_SECONDS = 3600.0
"""Answers are kept for 24 hours, rejections for days. One more hour of disk space does not matter."""


class Purge:
    """Deletes what is too old, now and every hour. It is too old for every process, so the writes need no fence."""

    def __init__(self, answers: Answers, rejections: Rejections, rejection_days: int, seconds: float = _PURGE_SECONDS):
        self._answers = answers
        self._rejections = rejections
        self._rejection_days = rejection_days
        self._seconds = seconds

    async def __call__(self, lease: Lease) -> None:
        """Purge until cancelled. Raises `Unavailable`."""
        while True:
            purged = await self._answers.purge()
            log.info("answers_purged", count=purged)
            purged = await self._rejections.purge(self._rejection_days)
            log.info("rejections_purged", count=purged)
            await asyncio.sleep(self._seconds)
