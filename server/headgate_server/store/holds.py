"""The one condition of the topics that each dialect words itself."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, LargeBinary, bindparam, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from headgate_server.core.types import Dedupe, WorkspaceId

DISTRIBUTED = "headgate_distributed"
"""The attribute of a dialect whose tables Citus has distributed."""


class Holds(ColumnElement[bool]):
    """Whether an event has one of these identities of a workspace. Each dialect words it so that every plan uses the
    index of identities and none reads the ledger.
    """

    inherit_cache = False

    def __init__(self, workspace_id: WorkspaceId, dedupes: Sequence[Dedupe]):
        self.workspace_id = workspace_id
        self.dedupes = list(dedupes)


@compiles(Holds, "sqlite")
def _on_sqlite(element: Holds, compiler: SQLCompiler, **options: Any) -> str:
    condition = text(
        "events.rowid IN (SELECT rowid FROM events INDEXED BY events_dedupe_key"
        " WHERE workspace_id = :workspace_id AND dedupe IN :dedupes)"
    )
    bound = condition.bindparams(
        bindparam("workspace_id", element.workspace_id), bindparam("dedupes", element.dedupes, expanding=True)
    )
    return compiler.process(bound, **options)


@compiles(Holds, "postgresql")
def _on_postgres(element: Holds, compiler: SQLCompiler, **options: Any) -> str:
    if getattr(compiler.dialect, DISTRIBUTED, False):
        return _on_citus(element, compiler, **options)
    condition = text("(int8send(events.workspace_id) || events.dedupe) = ANY (:holders) AND events.dedupe IS NOT NULL")
    owner = element.workspace_id.to_bytes(8, "big")
    holders = [owner + dedupe for dedupe in element.dedupes]
    bound = condition.bindparams(bindparam("holders", holders, postgresql.ARRAY(LargeBinary)))
    return compiler.process(bound, **options)


def _on_citus(element: Holds, compiler: SQLCompiler, **options: Any) -> str:
    condition = text(
        "events.workspace_id = :workspace_id AND events.dedupe = ANY (:dedupes) AND events.dedupe IS NOT NULL"
    )
    bound = condition.bindparams(
        bindparam("workspace_id", element.workspace_id, BigInteger),
        bindparam("dedupes", element.dedupes, postgresql.ARRAY(LargeBinary)),
    )
    return compiler.process(bound, **options)
