"""The limit on SQLite: what one connection to one file can store, with nothing around it.

`python -m bench.sqlite_limit FILE`, a contender. The file, its schema and the connection's settings are the product's,
and so are driver and statements: BEGIN IMMEDIATE, read the head, look for the identities, insert, move the head,
commit. The values of all statements are built beforehand, ids and hashes included, and nobody is answered. The file is
its own: beside a second writer the product would have to read its cached pages anew.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pysqlite3 import dbapi2 as driver

from bench import ledgers
from bench.ledgers import Group
from bench.lockstep import Assignment, Findings, Work, contend
from headgate_server.access import admin
from headgate_server.core.model import Head
from headgate_server.store.sqlite import database as sqlite

WORKSPACE = "limit"
"""The name of the workspace that is written to."""

_HEAD = "SELECT sequence, hash, created_at FROM heads WHERE workspace_id = ?"

_MOVE = "UPDATE heads SET sequence = ?, hash = ?, created_at = ? WHERE workspace_id = ?"

_FULL = 2


class _Transaction(NamedTuple):
    """What one transaction sends."""

    identities: bytes
    """One after the other."""
    insertions: Sequence[tuple[str, Sequence[Any]]]
    """Statements, each with its values."""
    head: Head


class _Appends:
    """An assignment of the limit: transaction after transaction."""

    def __init__(self, connection: Any, workspace_id: int, groups: Sequence[Group]):
        self._connection = connection
        self._workspace_id = workspace_id
        self._groups = groups
        self._transactions = [
            _Transaction(b"".join(group.identities), list(sqlite.insertions(group.rows)), group.head)
            for group in groups
        ]

    async def run(self) -> None:
        """Write all groups. Nothing else is to be done meanwhile, so no thread is needed."""
        cursor = self._connection.cursor()
        for transaction in self._transactions:
            self._append(cursor, transaction)

    async def check(self) -> Findings:
        """Count what is there. Raises `RuntimeError` unless it is what was written, and durable all along."""
        _check_durable(self._connection)
        (stored,) = self._connection.execute(
            "SELECT count(*) FROM events WHERE workspace_id = ? AND id >= ?",
            (self._workspace_id, self._groups[0].rows[0][1]),
        ).fetchone()
        wanted = sum(len(group.rows) for group in self._groups)
        if stored != wanted:
            raise RuntimeError(f"the limit stored {stored} events of {wanted}")
        return Findings(events=wanted, stored=wanted)

    def _append(self, cursor: Any, transaction: _Transaction) -> None:
        workspace_id = self._workspace_id
        cursor.execute("BEGIN IMMEDIATE")
        cursor.execute(_HEAD, (workspace_id,)).fetchone()
        if cursor.execute(sqlite._PROBE, (workspace_id, transaction.identities)).fetchone():
            raise RuntimeError("an event of the limit was stored before")
        for statement, values in transaction.insertions:
            cursor.execute(statement, values)
        cursor.execute(_MOVE, (*transaction.head, workspace_id))
        cursor.execute("COMMIT")


def _check_durable(connection: Any) -> None:
    """Raise `RuntimeError` if a commit would return before it is on disk."""
    (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
    (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
    if (synchronous, journal) != (_FULL, "wal"):
        raise RuntimeError(f"synchronous is {synchronous} and journal_mode {journal}: no limit of ours")


async def _opened(path: Path) -> tuple[Any, int]:
    """Let the product make the file and the workspace; return a connection with the product's settings, and the
    workspace's id.
    """
    async with admin.opened(f"sqlite:///{path}") as store:
        workspace = await store.create_workspace(WORKSPACE)
    connection = driver.connect(str(path), isolation_level=None)
    for pragma in sqlite._PRAGMAS:
        connection.execute(pragma)
    _check_durable(connection)
    return connection, workspace.id


def main() -> None:
    """Be the contender."""
    path = Path(sys.argv[1])
    # Made by the first assignment, and ended with the process.
    opened: tuple[Any, int] | None = None

    async def prepare(assignment: Assignment) -> Work:
        nonlocal opened
        opened = opened or await _opened(path)
        connection, workspace_id = opened
        head = Head(*connection.execute(_HEAD, (workspace_id,)).fetchone())
        return _Appends(connection, workspace_id, ledgers.groups(workspace_id, head, assignment))

    contend(prepare)


if __name__ == "__main__":
    main()
