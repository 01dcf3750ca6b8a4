"""Finds statements that Citus could not send to one node.

A statement names its workspace by equality in each distributed table that it reads or changes: in the table itself, or
by a join on the workspace's id with a table of which that is true. Those that cross workspaces are listed here.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import BinaryExpression, BindParameter, Column, Engine, Insert, Table, event
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import ClauseElement

from headgate_server.store.citus.catalog import DISTRIBUTED
from headgate_server.store.holds import Holds

CROSSING = {
    "_heads": "the heads of many ledgers, by their ids",
    "_ledgers": "all ledgers, for a check of all",
    "Database.workspaces_of_events": "all ledgers, for a check of all",
    "CitusDatabase.workspaces_of_events": "the same, one statement for each",
    "Cursors.lagging": "every ledger beyond a follower's cursor; heads and cursors are joined by the workspace",
    "Deliveries.watch": "every active destination with its head, joined by the workspace",
    "Deliveries.lags": "every destination with its head, joined by the workspace, and those that have failures",
    "Answers._expired": "expired answers of all workspaces; they are deleted by workspace",
    "Rejections.purge": "old counts of all workspaces",
    "_purge_some": "old rejections of all workspaces; they are deleted by workspace",
    "Survey._facts": "totals of all heads",
    "Measures.read": "the number of destinations in each state",
    "Transfer.ends": "all heads, for a copy",
    "_page": "a page of a whole table, for a copy",
    "_clear": "all rows of a table, for a copy",
}
"""Functions whose statements cross workspaces, each with what for. Citus executes these on all nodes."""


def unnamed(statement: ClauseElement) -> set[str]:
    """Return the distributed tables of a statement in which it does not name the workspace."""
    if isinstance(statement, Insert) and statement.select is None:
        return set()
    tables: set[str] = set()
    named: set[str] = set()
    joined: list[tuple[str, str]] = []
    for element in visitors.iterate(statement):
        if isinstance(element, Table):
            tables.add(element.name)
        elif isinstance(element, Column) and isinstance(element.table, Table):
            tables.add(element.table.name)
        elif isinstance(element, Holds):
            named.add("events")
        elif isinstance(element, BinaryExpression) and element.operator is operators.eq:
            sides = [_workspace_of(side) for side in (element.left, element.right)]
            match sides:
                case [str(left), str(right)]:
                    joined.append((left, right))
                case [str(one), None] if isinstance(element.right, BindParameter):
                    named.add(one)
    for _ in joined:
        for left, right in joined:
            if {left, right} & named:
                named |= {left, right}
    return (tables & set(DISTRIBUTED)) - named


def _workspace_of(side: Any) -> str | None:
    """Return the table of which this is the column `workspace_id`."""
    is_one = isinstance(side, Column) and side.name == "workspace_id" and isinstance(side.table, Table)
    return str(side.table.name) if is_one else None


def _function() -> str:
    """Return the topic's function that executes a statement now; empty if it is a test's."""
    frame = inspect.currentframe()
    while frame is not None:
        if "/tests/" in frame.f_code.co_filename and frame.f_code.co_filename != __file__:
            return ""
        if "/headgate_server/store/" in frame.f_code.co_filename:
            return frame.f_code.co_qualname.partition(".<locals>")[0]
        frame = frame.f_back
    return ""


@contextmanager
def watched() -> Iterator[list[str]]:
    """Yield a list that gets each statement of the store that neither names its workspace nor is in `CROSSING`."""
    found: list[str] = []

    def look(connection: Any, statement: Any, *_: Any) -> None:
        if not isinstance(statement, ClauseElement) or not (tables := unnamed(statement)):
            return
        function = _function()
        if function and function not in CROSSING:
            found.append(f"{function}: {sorted(tables)} in {statement}")

    event.listen(Engine, "before_execute", look)
    try:
        yield found
    finally:
        event.remove(Engine, "before_execute", look)
