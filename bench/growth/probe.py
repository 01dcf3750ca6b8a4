"""The look-up by itself: what a group's identities cost, new ones and such as were stored before."""

import hashlib
import os
import random
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench.growth.designs import Design
from bench.growth.load import WORKSPACE
from bench.growth.measure import connected
from bench.growth.rows import Group
from headgate_server.core.model import Head

_GROUPS = 20


class Probes(NamedTuple):
    """Microseconds a key."""

    new: float
    stored: float
    """Among all that were loaded, so each in another page of the table."""


async def probes(url: str, design: Design, events: int, size: int) -> Probes:
    """Look up groups of `size` keys in a table of so many events. Raises `RuntimeError` if too few or many are
    found."""
    connection = await connected(url)
    try:
        await design.prepare(connection)
        sequence = await connection.fetchval("SELECT sequence FROM heads WHERE workspace_id = $1", WORKSPACE)
        new = [[os.urandom(16) for _ in range(size)] for _ in range(_GROUPS)]
        chance = random.Random(0)
        # As the loader made them.
        known = [
            [hashlib.md5(str(number).encode()).digest() for number in chance.sample(range(1, events + 1), size)]
            for _ in range(_GROUPS)
        ]
        return Probes(
            await _time(connection, design, sequence, new, 0), await _time(connection, design, sequence, known, size)
        )
    finally:
        await connection.close()


async def _time(connection: Any, design: Design, sequence: int, keys: Sequence[list[bytes]], wanted: int) -> float:
    groups = [design.encode(Group(sorted(one), (), Head(sequence, b"", 0))) for one in keys]
    spent = 0.0
    for group in groups:
        started = time.perf_counter()
        found = await design.known(connection, group)
        spent += time.perf_counter() - started
        if len(found) != wanted:
            raise RuntimeError(f"{design.name} found {len(found)} of {wanted}")
    return spent / sum(map(len, keys)) * 1e6
