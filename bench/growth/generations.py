"""Generations of keys: the index is ordered by generation first, so that new keys meet in a small part of it.

A generation is a run of the ledger: `sequence >> SHIFT`. The head's lock, under which every key is looked up, says
which one is current; those before it are sealed: they never gain a key again, so a filter made of one is complete for
ever, whichever process made it and whatever others do. A key that a filter does not rule out is looked up in that
generation's part of the index, and so is every key where there is no filter yet: a filter saves time and decides
nothing.
"""

from collections.abc import Sequence
from typing import Any

from bench.growth.designs import FOUND, Design
from bench.growth.filters import Filters
from bench.growth.load import WORKSPACE
from bench.growth.rows import Group, first_id

SHIFT = 20
"""A generation is 2^20 keys: about 70 MB of the index."""

# By the ids, which are in the ledger's order: the rows of a generation lie together, while its keys lie anywhere.
_KEYS = f"""
SELECT string_agg(dedupe, '') FROM events
WHERE workspace_id = {WORKSPACE} AND id >= $1 AND id < $2 AND dedupe IS NOT NULL
"""

_PROBE = f"""
SELECT e.* FROM unnest($1::int[], $2::int[], $3::int[]) AS wanted (generation, first, last)
CROSS JOIN LATERAL (
    SELECT dedupe, {FOUND}
    WHERE workspace_id = {WORKSPACE} AND (sequence >> {SHIFT})::int = wanted.generation
        AND dedupe = ANY(($4::bytea[])[wanted.first : wanted.last])
    ORDER BY dedupe
) AS e
"""


class Generations(Design):
    """The index led by the generation, and no filters: every key is looked up in every generation."""

    name = "generations, no filters"
    change = (
        "DROP INDEX events_dedupe_key",
        f"CREATE UNIQUE INDEX events_dedupe_key ON events (workspace_id, ((sequence >> {SHIFT})::int), dedupe)"
        " WITH (fillfactor = 70) WHERE dedupe IS NOT NULL",
        "ANALYZE events",
    )

    async def known(self, connection: Any, group: Group) -> Sequence[Any]:
        newest = group.head.sequence >> SHIFT
        wanted = [(generation, group.identities) for generation in range(newest + 1)]
        return await _look_up(connection, wanted)


class Filtered(Generations):
    """The same with a filter for each sealed generation."""

    name = "generations and filters"

    def __init__(self, bits: int = 12):
        """`bits`: of memory, for each key of a sealed generation."""
        self._filters = Filters(1 << SHIFT, bits)

    async def prepare(self, connection: Any) -> None:
        sequence = await connection.fetchval("SELECT sequence FROM heads WHERE workspace_id = $1", WORKSPACE)
        await self._seal(connection, sequence + 1)

    async def append(self, connection: Any, group: Group) -> None:
        await super().append(connection, group)
        # On the clock, and in the way of the next group; a service would do it beside its appends.
        await self._seal(connection, group.head.sequence + 1)

    async def known(self, connection: Any, group: Group) -> Sequence[Any]:
        newest = group.head.sequence >> SHIFT
        unfiltered = [(generation, group.identities) for generation in range(len(self._filters), newest + 1)]
        return await _look_up(connection, [*unfiltered, *self._filters.candidates(group.identities)])

    async def _seal(self, connection: Any, sequence: int) -> None:
        """Make the filters of the generations before that of `sequence`, of committed rows."""
        for generation in range(len(self._filters), sequence >> SHIFT):
            bounds = [first_id(one << SHIFT) for one in (generation, generation + 1)]
            self._filters.add(await connection.fetchval(_KEYS, *bounds))


async def _look_up(connection: Any, wanted: Sequence[tuple[int, Sequence[bytes]]]) -> Sequence[Any]:
    """Return what is stored under identities; `wanted` pairs a generation with those to look up in it."""
    generations, firsts, lasts, identities = [], [], [], list[bytes]()
    for generation, keys in wanted:
        generations.append(generation)
        firsts.append(len(identities) + 1)
        identities += keys
        lasts.append(len(identities))
    found: Sequence[Any] = await connection.fetch(_PROBE, generations, firsts, lasts, identities)
    return found
