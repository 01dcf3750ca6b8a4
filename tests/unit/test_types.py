"""Types say what bytes and numbers mean: a value that has its own type is never annotated as `bytes` or `int`."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import headgate_server
from headgate_server.core import ledger
from headgate_server.core.model import Draft, Head, Link, StoredEvent, Workspace
from headgate_server.core.types import Commitment, Dedupe, EventHash, EventId, Identity, Salt, WorkspaceId

_SERVER = Path(headgate_server.__file__).parent
_KINDS = {
    *("event_id", "event_hash", "commitment", "salt", "identity", "fingerprint", "digest", "previous", "resume"),
    *("dedupe", "dedupes", "ids", "released", "superseded", "known", "conflicts"),
}
"""Names of arguments, fields and variables whose bytes have a type in core/types.py."""


def _annotations() -> Iterator[tuple[str, str, str]]:
    """Yield module, name and annotation of everything in the server that is annotated."""
    for path in sorted(_SERVER.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.arg) and node.annotation is not None:
                yield path.stem, node.arg, ast.unparse(node.annotation)
            elif isinstance(node, ast.AnnAssign):
                yield (
                    path.stem,
                    ast.unparse(node.target).removeprefix("self.").lstrip("_"),
                    ast.unparse(node.annotation),
                )


def test_nothing_that_has_a_kind_is_mere_bytes() -> None:
    found = list(_annotations())
    assert {name for _, name, _ in found} >= _KINDS
    assert [each for each in found if each[1] in _KINDS and "bytes" in each[2]] == []


def test_a_workspace_is_named_by_its_own_kind_of_number() -> None:
    found = [each for each in _annotations() if each[1] == "workspace_id"]
    assert len(found) > 50
    # A row of a table that is checked may hold anything.
    assert {annotation for *_, annotation in found} <= {"WorkspaceId", "WorkspaceId | None", "Any"}
    assert get_type_hints(Workspace)["id"] is WorkspaceId


def test_the_models_values_name_the_kinds() -> None:
    shared = {"id": EventId, "event_hash": EventHash, "salt": Salt, "commitment": Commitment}
    assert get_type_hints(Link).items() >= shared.items()
    assert get_type_hints(StoredEvent).items() >= {**shared, "dedupe": Dedupe | None}.items()
    assert get_type_hints(Draft).items() >= {"dedupe": Dedupe | None, "identity": Identity, "salt": Salt}.items()
    assert get_type_hints(Head)["hash"] is EventHash


def test_what_the_index_holds_of_an_identity() -> None:
    identity = ledger.identity("native", "shop", "order-1")
    assert ledger.dedupe_of(identity) == identity[:16]
    assert ledger.dedupe_of(ledger.NO_IDENTITY) == b""
