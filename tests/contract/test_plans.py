"""PostgreSQL: identities are found through their index, with any statistics of the tables."""

import asyncpg
import pytest
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect

from headgate_server.store import directory, ledgers
from headgate_server.store.holds import Holds
from headgate_server.store.opening import open_store
from headgate_server.store.postgres import append as postgres_append
from tests.support.drafts import append, draft

_STATEMENTS = {
    "probe_events": (postgres_append._PROBE_EVENTS, "bytea[]"),
    "probe": (postgres_append._PROBE, "bytea[], bigint[], text[], bytea[]"),
    "held": (postgres_append._HELD, "bytea[]"),
    "supersede": (postgres_append._SUPERSEDE, "bytea[]"),
}


@pytest.mark.parametrize("store_url", ["postgres", "oldest_postgres"], indirect=True)
@pytest.mark.parametrize("analysed", [False, True])
@pytest.mark.parametrize("events", [0, 1, 1_000])
async def test_no_plan_reads_a_ledger(store_url: str, events: int, analysed: bool) -> None:
    store = await open_store(store_url)
    try:
        # From many workspaces with few events each, the planner expects few events in every other workspace.
        spaces = [(await store.directory.create_workspace(f"w{n}")).id for n in range(4)]
        for space in spaces:
            await append(store, space, draft("k"))
        await append(store, spaces[0], *(draft(str(n)) for n in range(events)))
    finally:
        await store.close()
    connection = await asyncpg.connect(store_url)
    try:
        if analysed:
            await connection.execute("ANALYZE")
        await connection.execute(postgres_append._BEGIN.format(level="on"))
        for name, (statement, types) in _STATEMENTS.items():
            await connection.execute(f"PREPARE {name} ({types}) AS {statement}")
            arguments = ", ".join("'{}'" for _ in types.split(","))
            plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE {name}({arguments})"))
            assert "Index Scan using events_dedupe_key" in plan, plan
            assert "Index Cond: ((int8send(workspace_id) || dedupe) = wanted.holder)" in plan, plan
            assert "events_pkey" not in plan, plan
            assert "Seq Scan" not in plan, plan
        await connection.execute("ROLLBACK; SET enable_seqscan = off")  # as of the connections that read
        lookup = ledgers._LINKS.where(Holds(spaces[0], [])).compile(dialect=asyncpg_dialect.dialect())
        await connection.execute(f"PREPARE lookup AS {lookup}")
        plan = "\n".join(row[0] for row in await connection.fetch("EXPLAIN EXECUTE lookup('{}')"))
        assert "on events_dedupe_key" in plan, plan
        assert "events_pkey" not in plan, plan
        assert "Seq Scan" not in plan, plan
        for count, look_up in directory._LOOK_UPS.items():
            await connection.execute(f"PREPARE keys{count} AS {look_up.compile(dialect=asyncpg_dialect.dialect())}")
            digests = ", ".join(["''"] * count)
            plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE keys{count}({digests})"))
            assert "api_keys_digest_key" in plan, plan
            assert "Seq Scan" not in plan, plan
    finally:
        await connection.close()
