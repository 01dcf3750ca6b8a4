"""The designs: each a way to find a group's identities and to keep them unique, on the same table and rows."""

from collections.abc import Sequence
from typing import Any

from asyncpg.pgproto.pgproto import UUID

from bench.growth.load import WORKSPACE
from bench.growth.rows import COLUMNS, DEDUPE, Group

_LOCK = f"SELECT sequence, hash, created_at FROM heads WHERE workspace_id = {WORKSPACE} FOR NO KEY UPDATE"

_MOVE = f"UPDATE heads SET sequence = $1, hash = $2, created_at = $3 WHERE workspace_id = {WORKSPACE}"

FOUND = "id, sequence, created_at, event_hash, salt, commitment FROM events"

_REBUILT = "CREATE UNIQUE INDEX {name} ON events ({columns}) WITH (fillfactor = 70) WHERE dedupe IS NOT NULL"
"""As full as an index is whose keys came at random."""


_TENANT = WORKSPACE.to_bytes(8, "big")


class Design:
    """What the product did before it took `Guarded`, and what the others change of it."""

    name = "base"
    index = "events_dedupe_key"
    """The one whose size and reads are reported."""
    change: Sequence[str] = ()
    """Statements that turn a loaded database into this design's."""

    async def prepare(self, connection: Any) -> None:
        """Called once for each connection, before anything is timed."""

    def encode(self, group: Group) -> Group:
        """Return a group as this design stores it; not timed, as the product would make it so from the start."""
        return group

    async def append(self, connection: Any, group: Group) -> None:
        """Store a group of new events. Raises `RuntimeError` if one of them is known."""
        await connection.execute("BEGIN")
        await connection.fetch(_LOCK)
        if await self.known(connection, group):
            raise RuntimeError("a new event was found")
        await connection.copy_records_to_table("events", columns=COLUMNS, records=group.rows)
        await connection.execute(_MOVE, *group.head)
        await connection.execute("COMMIT")

    async def known(self, connection: Any, group: Group) -> Sequence[Any]:
        """Return what is stored under a group's identities."""
        statement = f"SELECT dedupe, {FOUND} WHERE workspace_id = $1 AND dedupe = ANY($2::bytea[]) ORDER BY dedupe"
        found: Sequence[Any] = await connection.fetch(statement, WORKSPACE, group.identities)
        return found


class Rebuilt(Design):
    """The same index built anew: shows that `fillfactor = 70` stands for an index that grew by itself."""

    name = "base, index rebuilt"
    change = ("DROP INDEX events_dedupe_key", _REBUILT.format(name="events_dedupe_key", columns="workspace_id, dedupe"))


class Uuid(Design):
    """`dedupe` of the type uuid: 36 bytes an entry of the index and not 44."""

    name = "dedupe as uuid"
    change = (
        "DROP INDEX events_dedupe_key",
        "ALTER TABLE events ALTER dedupe TYPE uuid USING encode(dedupe, 'hex')::uuid",
        Rebuilt.change[1],
    )

    def encode(self, group: Group) -> Group:
        rows = [(*row[:DEDUPE], UUID(row[DEDUPE]), *row[DEDUPE + 1 :]) for row in group.rows]
        return group._replace(rows=rows, identities=[UUID(one) for one in group.identities])

    async def known(self, connection: Any, group: Group) -> Sequence[Any]:
        statement = f"SELECT dedupe, {FOUND} WHERE workspace_id = $1 AND dedupe = ANY($2::uuid[]) ORDER BY dedupe"
        found: Sequence[Any] = await connection.fetch(statement, WORKSPACE, group.identities)
        return found


class Short(Design):
    """`dedupe` of eight bytes, not unique, to be checked against scope and key: 28 bytes an entry."""

    name = "dedupe as bigint, not unique"
    change = (
        "DROP INDEX events_dedupe_key",
        "ALTER TABLE events ALTER dedupe TYPE bigint USING ('x' || left(encode(dedupe, 'hex'), 16))::bit(64)::bigint",
        "CREATE INDEX events_dedupe_key ON events (workspace_id, dedupe) WITH (fillfactor = 70)",
    )

    def encode(self, group: Group) -> Group:
        rows = [(*row[:DEDUPE], _short(row[DEDUPE]), *row[DEDUPE + 1 :]) for row in group.rows]
        return group._replace(rows=rows, identities=sorted(map(_short, group.identities)))

    async def known(self, connection: Any, group: Group) -> Sequence[Any]:
        statement = f"SELECT scope, key, {FOUND} WHERE workspace_id = $1 AND dedupe = ANY($2::bigint[]) ORDER BY dedupe"
        found: Sequence[Any] = await connection.fetch(statement, WORKSPACE, group.identities)
        return found


class Hashed(Design):
    """A hash index, not unique: 20 bytes an entry, and no order in which to look up many.

    A key that many workspaces use is slow here, which one workspace does not show.
    """

    name = "hash index"
    change = (
        "DROP INDEX events_dedupe_key",
        "CREATE INDEX events_dedupe_key ON events USING hash (dedupe) WHERE dedupe IS NOT NULL",
    )

    async def known(self, connection: Any, group: Group) -> Sequence[Any]:
        statement = f"""
            SELECT e.* FROM unnest($2::bytea[]) AS wanted (dedupe)
            CROSS JOIN LATERAL (
                SELECT dedupe, {FOUND} WHERE events.workspace_id = $1 AND events.dedupe = wanted.dedupe OFFSET 0
            ) AS e
        """
        found: Sequence[Any] = await connection.fetch(statement, WORKSPACE, group.identities)
        return found


class TenantHashed(Design):
    """A hash index over workspace and identity: a key that many workspaces use is as cheap as any other."""

    name = "hash index with workspace"
    change = (
        "DROP INDEX events_dedupe_key",
        "CREATE INDEX events_dedupe_key ON events USING hash ((int8send(workspace_id) || dedupe))"
        " WHERE dedupe IS NOT NULL",
        "ANALYZE events",
    )

    def encode(self, group: Group) -> Group:
        return group._replace(identities=[_TENANT + identity for identity in group.identities])

    async def known(self, connection: Any, group: Group) -> Sequence[Any]:
        statement = f"""
            SELECT e.* FROM unnest($1::bytea[]) AS wanted (holder)
            CROSS JOIN LATERAL (
                SELECT dedupe, {FOUND} WHERE int8send(workspace_id) || dedupe = wanted.holder AND dedupe IS NOT NULL
                OFFSET 0
            ) AS e
        """
        found: Sequence[Any] = await connection.fetch(statement, group.identities)
        return found


class Guarded(TenantHashed):
    """The same index behind an exclusion constraint, which refuses what the look-up would have found: the product's."""

    name = "hash index with workspace, exclusion constraint"
    change = (
        "DROP INDEX events_dedupe_key",
        "ALTER TABLE events ADD CONSTRAINT events_dedupe_key"
        " EXCLUDE USING hash ((int8send(workspace_id) || dedupe) WITH =) WHERE (dedupe IS NOT NULL)",
        "ANALYZE events",
    )


class Unprobed(Design):
    """Nothing is looked up beforehand; the unique index refuses. Right only while no key comes twice."""

    name = "base without its probe"

    async def known(self, connection: Any, group: Group) -> Sequence[Any]:
        return ()


class Keys(Design):
    """A narrow table of keys: one descent finds and stores, by INSERT … ON CONFLICT DO NOTHING."""

    name = "table of keys, ON CONFLICT"
    index = "keys_pkey"
    change = (
        "DROP INDEX events_dedupe_key",
        "CREATE TABLE keys AS SELECT workspace_id, encode(dedupe, 'hex')::uuid AS dedupe, sequence FROM events",
        "ALTER TABLE keys ADD CONSTRAINT keys_pkey PRIMARY KEY (workspace_id, dedupe) WITH (fillfactor = 70)",
        "VACUUM (FREEZE, ANALYZE) keys",
    )

    async def known(self, connection: Any, group: Group) -> Sequence[Any]:
        new = await connection.fetch(
            "INSERT INTO keys SELECT $1, * FROM unnest($2::uuid[], $3::bigint[]) ON CONFLICT DO NOTHING"
            " RETURNING dedupe",
            WORKSPACE,
            group.identities,
            range(group.sequence, group.head.sequence + 1),
        )
        return () if len(new) == len(group.rows) else group.identities

    def encode(self, group: Group) -> Group:
        # Not stored twice.
        rows = [(*row[:DEDUPE], None, *row[DEDUPE + 1 :]) for row in group.rows]
        return group._replace(rows=rows, identities=[UUID(one) for one in group.identities])


def _short(identity: bytes) -> int:
    return int.from_bytes(identity[:8], "big", signed=True)
