"""The first figure: batches of 100 events from 32 callers on PostgreSQL, over the limit. `python -m
bench.first_figure`

All parts share this machine. The limit and the product take turns, every round in the other order, in the same
tables, which grow under both; the limit's best group size counts. Takes about a minute and prints a table.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench import cpu, parts, table
from bench.lockstep import Assignment, Contender

_ROUNDS = 5
_LAST_START = 80.0
"""Seconds after which no further round begins, so that a busy machine yields fewer rounds and not a longer wait."""
_EVENTS = 48_000
"""Of one contender in one round: some seconds, and a multiple of every group size."""
_BATCH = 100
_CALLERS = 32
_LIMIT_GROUPS = (1_000, 2_000, 4_000)
"""Where the limit flattens out; it is slower below and no faster above."""
_WARM_UP = Assignment(events=8_000, group=_BATCH)


class _Competitor:
    """A contender at one group size, and what was measured of it."""

    def __init__(self, name: str, contender: Contender, group: int):
        self.series = table.Series(name)
        self._contender = contender
        self._assignment = Assignment(events=_EVENTS, group=group)

    async def take_turn(self, server: int | None, database: int) -> None:
        """Work once; `server` (None: it has no part in this) and `database` are the processes whose CPU counts."""
        await self._contender.prepare(self._assignment)
        pids = [database] if server is None else [database, server]
        before = [cpu.tree_seconds(pid) for pid in pids]
        timing = await self._contender.go()
        spent = [cpu.tree_seconds(pid) - earlier for pid, earlier in zip(pids, before, strict=True)]
        self.series.timings.append(timing)
        self.series.database_seconds.append(spent[0])
        self.series.server_seconds += spent[1:]


def main() -> None:
    """Run it."""
    with parts.database() as database, tempfile.TemporaryDirectory() as folder:
        print(asyncio.run(_measure(database, Path(folder, "server.log"))))
        print(f"PostgreSQL {database.version}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the end.")


async def _measure(database: parts.Database, log: Path) -> str:
    async with parts.product(database.url, log) as product:
        limit = Contender("bench.limit", database.url, str(product.limit_workspace), environment=os.environ)
        callers = (str(product.port), str(_CALLERS))
        driver = Contender("bench.driver", *callers, environment=parts.driver_environment(product.key))
        with limit, driver:
            for contender in (limit, driver):
                await contender.prepare(_WARM_UP)
                await contender.go()
            limits = [_Competitor(f"limit, groups of {size:,}", limit, size) for size in _LIMIT_GROUPS]
            measured = _Competitor(f"product, {_CALLERS} callers, batches of {_BATCH}", driver, _BATCH)
            turns = [*((one, None) for one in limits), (measured, product.pid)]
            latest = time.monotonic() + _LAST_START
            for number in range(_ROUNDS):
                if time.monotonic() > latest:
                    break
                for competitor, server in reversed(turns) if number % 2 else turns:
                    await competitor.take_turn(server, database.pid)
    await _check_heads(database.url, rounds=len(measured.series.timings))
    return _report([one.series for one in limits], measured.series)


async def _check_heads(url: str, rounds: int) -> None:
    """Raise `RuntimeError` unless the ledgers hold exactly what was stored."""
    stored = rounds * _EVENTS
    wanted = {"limit": stored * len(_LIMIT_GROUPS) + _WARM_UP.events, "product": stored + _WARM_UP.events}
    found = await parts.heads(url)
    if found != wanted:
        raise RuntimeError(f"the ledgers end at {found}, not at {wanted}")


def _report(limits: Sequence[table.Series], product: table.Series) -> str:
    best = max(limits, key=lambda series: median(series.rates))
    rows = [*table.figures([*limits, product]), table.ratio(f"product to {best.name}, by round", product, best)]
    return f"{table.markdown(rows)}\n\n{len(best.timings)} rounds of {_EVENTS:,} events."


if __name__ == "__main__":
    main()
