"""What is sent to a Citus names its workspace, and every table has its place there."""

import re

import pytest
from sqlalchemy import and_, delete, insert, select, update
from sqlalchemy.sql.elements import ClauseElement

from headgate_server.core.types import Dedupe, WorkspaceId
from headgate_server.store.citus import append
from headgate_server.store.citus.catalog import DISTRIBUTED, LOCAL, REFERENCE
from headgate_server.store.holds import Holds
from headgate_server.store.schema import cursors, events, heads, metadata, workspaces
from tests.support.distributed import unnamed

_WORKSPACE = WorkspaceId(7)


def test_every_table_has_one_place() -> None:
    places = [*DISTRIBUTED, *REFERENCE, *LOCAL]
    assert sorted(places) == sorted(metadata.tables)


def test_the_key_of_every_distributed_table_has_the_workspace() -> None:
    for name in DISTRIBUTED:
        assert "workspace_id" in {column.name for column in metadata.tables[name].primary_key}, name


@pytest.mark.parametrize("name", append.STATEMENTS)
def test_an_append_names_its_workspace_by_equality(name: str) -> None:
    statement = append.STATEMENTS[name]
    tables = re.findall(r"\b(?:FROM|JOIN|UPDATE|INTO)\s+(\w+)\b(?!\()", statement)
    (table,) = [found for found in tables if found not in ("unnest", "SET")]
    assert table in DISTRIBUTED
    if "INSERT" in statement:
        assert "(workspace_id," in statement
        assert "SELECT $1::bigint," in statement
    else:
        assert re.search(r"\bworkspace_id = \$1::bigint", statement)


def test_no_statement_of_an_append_is_left_out() -> None:
    texts = {value for name, value in vars(append).items() if re.match("_[A-Z]", name) and isinstance(value, str)}
    touching = {
        text for text in texts if re.search(rf"\b({'|'.join(DISTRIBUTED)})\b", text) and "SET LOCAL" not in text
    }
    assert touching == set(append.STATEMENTS.values())


_NAMED = events.c.workspace_id == _WORKSPACE
_BESIDE = and_(cursors.c.workspace_id == heads.c.workspace_id, cursors.c.follower == "f")


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        (select(events).where(_NAMED), set()),
        (select(events).where(Holds(_WORKSPACE, [Dedupe(bytes(16))])), set()),
        (select(events), {"events"}),
        (select(events).where(events.c.workspace_id > _WORKSPACE), {"events"}),
        (select(events).where(events.c.workspace_id.in_([_WORKSPACE])), {"events"}),
        (select(events.c.id).where(events.c.sequence == _WORKSPACE), {"events"}),
        (select(heads).join(cursors, _BESIDE), {"heads", "cursors"}),
        (select(heads).join(cursors, _BESIDE).where(heads.c.workspace_id == _WORKSPACE), set()),
        (select(heads).join(workspaces, workspaces.c.id == heads.c.workspace_id), {"heads"}),
        (select(workspaces), set()),
        (update(heads).where(heads.c.workspace_id == _WORKSPACE).values(sequence=1), set()),
        (update(heads).values(sequence=1), {"heads"}),
        (delete(events).where(_NAMED, events.c.id.in_(select(cursors.c.event_id))), {"cursors"}),
        (insert(heads).values(workspace_id=_WORKSPACE, sequence=1), set()),
    ],
)
def test_a_statement_that_does_not_name_its_workspace_is_found(statement: ClauseElement, found: set[str]) -> None:
    assert unnamed(statement) == found
