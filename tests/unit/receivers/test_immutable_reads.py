"""Immutable's contract: how stored events are listed, shown and verified."""

from typing import Any
from uuid import UUID

import pytest

from headgate_server.core import ledger
from headgate_server.core.errors import InvalidRequest, NotFound
from headgate_server.core.ledger import Break, BreakType, Checker
from headgate_server.core.model import StoredEvent
from headgate_server.receivers import Checked, Get, HttpRequest, Verify
from headgate_server.receivers.immutable import Immutable
from tests.unit.receivers.test_immutable import BATCH, CHECK, EXAMPLE, ONE, ROUTES, SINGLE, event
from tests.unit.receivers.workspace import NOW, Workspace


@pytest.fixture
def workspace() -> Workspace:
    return Workspace(Immutable())


def shown(workspace: Workspace) -> list[dict[str, Any]]:
    """Return the stored events as a list shows them, oldest first."""
    events: list[dict[str, Any]] = workspace.show(SINGLE).body["data"]
    return events[::-1]


def test_a_long_number_is_a_version(workspace: Workspace) -> None:
    sent = b'{"actor_id":"u","action":"a","version":%s}' % (b"9" * 30)
    assert workspace.post(SINGLE, sent).status == 202
    # The answer has all its digits; the parser of this test makes a double of them.
    assert shown(workspace)[0]["version"] == float("9" * 30)


def test_an_event_is_shown_as_the_vendor_shows_it(workspace: Workspace) -> None:
    sent = event(
        actor_name="Sarah Chen",
        actor_type="user",
        action_category="documents",
        resource="document",
        resource_id="doc_8nXpQr3",
        resource_name="Q4 Financial Report",
        metadata={"folder": "reports", "n": 1},
        tenant_id="org_7rT2xBc",
        session_id="sess_4kN8pLm",
        occurred_at="2026-03-15T15:32:18.847312+01:00",
    )
    workspace.post(SINGLE, event())
    workspace.post(SINGLE, sent | {"integrity": "mine", "ip_address": "192.0.2.1"})
    _, found = shown(workspace)
    first, second = workspace.rows
    assert found == {
        "id": str(UUID(bytes=second.id)),
        "actor": {"id": "user_1", "name": "Sarah Chen", "type": "user"},
        "action": "document.created",
        "action_category": "documents",
        "resource": {"type": "document", "id": "doc_8nXpQr3", "name": "Q4 Financial Report"},
        "targets": [],
        "metadata": {"folder": "reports", "n": 1},
        "tenant_id": "org_7rT2xBc",
        "session_id": "sess_4kN8pLm",
        "ip_country": None,
        "ip_city": None,
        "idempotency_key": None,
        "version": None,
        "integrity": {"event_hash": second.event_hash.hex(), "previous_event_hash": first.event_hash.hex()},
        "occurred_at": "2026-03-15T14:32:18.847312Z",
        "created_at": "2026-02-16T00:00:00.000001Z",
        "actor_id": "user_1",
        "actor_name": "Sarah Chen",
        "actor_type": "user",
        "resource_id": "doc_8nXpQr3",
        "resource_name": "Q4 Financial Report",
        "ip_address": "192.0.2.1",
    }


def test_the_first_event_has_none_before_it_and_no_time_of_its_own(workspace: Workspace) -> None:
    workspace.post(SINGLE, event())
    [found] = shown(workspace)
    assert found["integrity"]["previous_event_hash"] is None
    assert found["occurred_at"] == found["created_at"] == "2026-02-16T00:00:00Z"
    assert workspace.show(ONE).body == {"data": found}


@pytest.mark.parametrize("cursor", [None, "00" * 16])
def test_a_list_says_how_it_goes_on(workspace: Workspace, cursor: str | None) -> None:
    workspace.post(BATCH, {"events": EXAMPLE})
    reply = workspace.show(SINGLE, cursor)
    assert reply.status == 200
    assert [found["action"] for found in reply.body["data"]] == ["comment.added", "document.shared", "document.created"]
    assert reply.body["pagination"] == {"has_more": cursor is not None, "next_cursor": cursor}


def test_what_a_list_asks_for(workspace: Workspace) -> None:
    search = workspace.search(SINGLE)
    assert search._asdict() == {
        "limit": 25,
        "cursor": None,
        "type": None,
        "type_prefix": None,
        "source": None,
        "subject": None,
        "created_from": None,
        "created_to": None,
        "newest_first": True,
        "current_only": False,
        "with_previous": True,
        "match": None,
        "with_fates": False,
        "fates": None,
    }
    query = {"from": "2026-02-16T00:00:00Z", "to": "2026-02-16T00:00:00Z", "limit": "100", "cursor": "c", "path": "/x"}
    search = workspace.search(SINGLE, action="document.*", actor_id="user_1", resource="document", **query)
    assert (search.type, search.type_prefix, search.subject, search.source) == (None, "document.", "user_1", "document")
    assert (search.created_from, search.created_to, search.limit, search.cursor) == (NOW, NOW + 1, 100, "c")
    assert workspace.search(SINGLE, action="document.created").type == "document.created"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"resource_id": "doc_8nXpQr3"}, [0, 1, 2]),
        ({"resource_id": "doc_8"}, []),
        ({"target_type": "team"}, [1]),
        ({"target_type": "team", "target_id": "team_5bR7cNx"}, [1]),
        ({"target_type": "user", "target_id": "team_5bR7cNx"}, []),
        ({"tenant_id": "org_1"}, [3]),
        ({"session_id": "s"}, [3]),
        ({"search": "APPROVED"}, [2]),
        ({"search": "chen", "resource_id": "doc_8nXpQr3"}, [0, 1]),
        ({"search": 'the "Boss"'}, [3]),
        ({"search": "null"}, []),
    ],
)
def test_what_a_list_matches(workspace: Workspace, query: dict[str, str], found: list[int]) -> None:
    last = event(tenant_id="org_1", session_id="s", targets=None, actor_name='The "Boss"', metadata={"n": 10**30 + 0.5})
    workspace.post(BATCH, {"events": [*EXAMPLE, last]})
    match = workspace.search(SINGLE, **query).match
    assert match is not None
    assert [index for index, row in enumerate(workspace.rows) if match(row)] == found


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "x"},
        {"from": "x"},
        {"to": "x"},
        {"actor_id": "\0"},
        {"action": "\0*"},
    ],
)
def test_a_bad_query_is_refused(workspace: Workspace, query: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest) as raised:
        workspace.search(SINGLE, **query)
    assert Immutable().refusal(400, raised.value).status == 400


def test_an_id() -> None:
    endpoint = ROUTES["GET", ONE]
    assert isinstance(endpoint, Get)
    assert endpoint.with_previous
    event_id = UUID(int=7)
    assert endpoint.read(HttpRequest("GET", f"/api/v1/events/{event_id}", {"id": "x"}, b"", NOW)) == event_id.bytes
    with pytest.raises(NotFound):
        endpoint.read(HttpRequest("GET", "/api/v1/events/none", {}, b"", NOW))


def verified(rows: list[StoredEvent]) -> dict[str, Any]:
    """Return the answer to a verification of these rows."""
    checker = Checker(ledger.genesis("test"))
    checker.add(rows)
    return answered(checker.checked, checker.breaks)


def answered(checked: int, breaks: list[Break]) -> dict[str, Any]:
    endpoint = ROUTES["GET", CHECK]
    assert isinstance(endpoint, Verify)
    reply = endpoint.reply(HttpRequest("GET", CHECK, {}, b"", NOW), Checked(checked, breaks))
    assert reply.status == 200
    data: dict[str, Any] = reply.body["data"]
    return data


def test_a_sound_ledger(workspace: Workspace) -> None:
    workspace.post(BATCH, {"events": EXAMPLE})
    assert verified(workspace.rows) == {"valid": True, "events_checked": 3, "breaks": []}


def test_changed_content_is_a_hash_mismatch(workspace: Workspace) -> None:
    workspace.post(BATCH, {"events": EXAMPLE})
    changed = workspace.rows[1]._replace(subject="somebody else")
    data = verified([workspace.rows[0], changed, workspace.rows[2]])
    [found] = data["breaks"]
    assert not data["valid"]
    assert (found["event_id"], found["type"]) == (str(UUID(bytes=changed.id)), "hash_mismatch")
    assert len(found["expected_hash"]) == len(found["actual_hash"]) == 64


def test_a_removed_event_is_one_chain_break_with_hashes(workspace: Workspace) -> None:
    workspace.post(BATCH, {"events": EXAMPLE})
    last = workspace.rows[2]
    [found] = verified([workspace.rows[0], last])["breaks"]
    assert (found["event_id"], found["type"]) == (str(UUID(bytes=last.id)), "chain_break")
    assert found["actual_hash"] == last.event_hash.hex()
    assert len(found["expected_hash"]) == 64


def test_a_ledger_that_was_cut_off_is_a_chain_break() -> None:
    cut_off = Break(None, 3, BreakType.HEAD_MISMATCH, "a" * 64, "b" * 64)
    assert answered(2, [cut_off])["breaks"] == [
        {"event_id": None, "type": "chain_break", "expected_hash": "a" * 64, "actual_hash": "b" * 64}
    ]


def test_a_chain_break_whose_hashes_are_not_known_has_none() -> None:
    [found] = answered(2, [Break(bytes(16), 3, BreakType.CHAIN_BREAK, "2", "3")])["breaks"]
    assert (found["expected_hash"], found["actual_hash"]) == (None, None)


def test_a_cell_of_another_type_has_no_hashes_either() -> None:
    [found] = answered(2, [Break(bytes(16), 3, BreakType.CONTENT_MISMATCH, "salt: 16 bytes", "salt: NULL")])["breaks"]
    assert (found["type"], found["expected_hash"], found["actual_hash"]) == ("hash_mismatch", None, None)


def test_what_a_verification_checks() -> None:
    endpoint = ROUTES["GET", CHECK]
    assert isinstance(endpoint, Verify)
    assert endpoint.read(HttpRequest("GET", CHECK, {}, b"", NOW)) == (10_000, None, None)
    query = {"from": "2026-02-16", "to": "2026-02-16T00:00:00Z", "limit": "5"}
    assert endpoint.read(HttpRequest("GET", CHECK, query, b"", NOW)) == (5, NOW, NOW + 1)
    with pytest.raises(InvalidRequest):
        endpoint.read(HttpRequest("GET", CHECK, {"limit": "100001"}, b"", NOW))
