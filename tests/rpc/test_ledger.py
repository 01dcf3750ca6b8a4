"""GetHead and VerifyLedger: an unchanged ledger verifies, and changes made without the server show."""

from collections.abc import Sequence
from typing import Any

import grpc
import pytest

from headgate.v1.event_pb2 import StoredEvent
from headgate.v1.ledger_service_pb2 import GetHeadRequest, GetHeadResponse, VerifyLedgerRequest, VerifyLedgerResponse
from headgate_server.core import ledger
from tests.support import database
from tests.support.calls import Caller, event, refused
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite


async def _head(caller: Caller) -> GetHeadResponse:
    head: GetHeadResponse = await caller.ledger.GetHead(GetHeadRequest(), metadata=caller.metadata)
    return head


async def _verify(caller: Caller, **request: Any) -> VerifyLedgerResponse:
    found: VerifyLedgerResponse = await caller.ledger.VerifyLedger(
        VerifyLedgerRequest(**request), metadata=caller.metadata
    )
    return found


def _breaks(response: VerifyLedgerResponse) -> list[tuple[int, str]]:
    assert response.valid is (not response.breaks)
    return [(found.sequence, found.type) for found in response.breaks]


@pytest.fixture
async def filled(caller: Caller) -> Caller:
    """Return the client of a workspace with six events of every kind."""
    await caller.batch(event("a", {"n": 1}), event(), event(source="", type="t"))
    await caller.batch(
        event("b", b'{"n":18446744073709551617}'), event("c", occurred_at={"seconds": 1}), event("d", {})
    )
    return caller


@pytest.fixture
async def stored(filled: Caller) -> Sequence[StoredEvent]:
    """Return the six events."""
    return await filled.all_events()


async def test_an_empty_ledger(caller: Caller) -> None:
    head = await _head(caller)
    assert (head.sequence, head.hash) == (0, ledger.genesis("acme").hash.hex())
    assert not head.HasField("created_at")
    assert await _verify(caller) == VerifyLedgerResponse(valid=True)
    kept = await _verify(caller, expected_sequence=0, expected_hash=head.hash)
    assert kept.valid


async def test_the_head_is_the_last_event(filled: Caller, stored: Sequence[StoredEvent]) -> None:
    head = await _head(filled)
    last = stored[-1]
    assert (head.sequence, head.hash, head.created_at) == (6, last.event_hash, last.created_at)


async def test_sound(filled: Caller) -> None:
    assert await _verify(filled) == VerifyLedgerResponse(valid=True, events_checked=6)


async def test_two_workspaces_have_two_ledgers(service: Service, filled: Caller) -> None:
    async with service.caller(workspace="other") as other:
        await other.batch(event("a", {"n": 1}))
        assert (await _head(other)).sequence == 1
        assert (await _verify(other)).events_checked == 1
    assert (await _head(filled)).sequence == 6


async def test_in_steps(filled: Caller) -> None:
    checked, token, steps = 0, "", 0
    while True:
        step = await _verify(filled, limit=2, page_token=token)
        assert step.valid
        checked, steps, token = checked + step.events_checked, steps + 1, step.next_page_token
        if not token:
            break
    assert checked == 6
    assert steps in (3, 4)


async def test_a_range(filled: Caller, stored: Sequence[StoredEvent]) -> None:
    first, last = stored[1].created_at, stored[4].created_at
    assert (await _verify(filled, **{"from": first})).events_checked == 5
    assert (await _verify(filled, to=last)).events_checked == 4
    assert (await _verify(filled, **{"from": first, "to": last})).events_checked == 3
    assert (await _verify(filled, **{"from": last, "to": first})).events_checked == 0


async def test_an_expected_head(filled: Caller, stored: Sequence[StoredEvent]) -> None:
    for kept in stored:
        assert (await _verify(filled, expected_sequence=kept.sequence, expected_hash=kept.event_hash.upper())).valid
    wrong = await _verify(filled, expected_sequence=3, expected_hash=stored[3].event_hash)
    assert _breaks(wrong) == [(3, "head_mismatch")]
    assert (wrong.breaks[0].expected_hash, wrong.breaks[0].actual_hash) == (stored[3].event_hash, stored[2].event_hash)
    # The ledger never reached this head: it was cut off, and its head set back.
    beyond = await _verify(filled, expected_sequence=9, expected_hash="ab" * 32)
    assert _breaks(beyond) == [(9, "head_mismatch")]


async def test_an_expected_head_in_steps(filled: Caller, stored: Sequence[StoredEvent]) -> None:
    wanted = {"expected_sequence": 5, "expected_hash": "00" * 32, "limit": 2}
    found, token = [], ""
    while True:
        step = await _verify(filled, page_token=token, **wanted)
        found += _breaks(step)
        token = step.next_page_token
        if not token:
            break
    assert found == [(5, "head_mismatch")]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        pytest.param("UPDATE events SET type = 'x' WHERE sequence = 3", [(3, "content_mismatch")], id="content"),
        pytest.param("UPDATE events SET data = NULL WHERE sequence = 1", [(1, "content_mismatch")], id="payload"),
        pytest.param("UPDATE events SET salt = commitment WHERE sequence = 2", None, id="salt"),
        pytest.param("UPDATE events SET key = 'x' WHERE sequence = 4", [(4, "hash_mismatch")], id="key"),
        pytest.param(
            "UPDATE events SET created_at = created_at + 1 WHERE sequence = 2", [(2, "hash_mismatch")], id="created_at"
        ),
        pytest.param(
            "UPDATE events SET event_hash = commitment WHERE sequence = 2",
            [(2, "hash_mismatch"), (3, "hash_mismatch")],
            id="hash",
        ),
        pytest.param("DELETE FROM events WHERE sequence = 2", [(3, "chain_break"), (3, "hash_mismatch")], id="removed"),
        pytest.param(
            "DELETE FROM events WHERE sequence = 1", [(2, "chain_break"), (2, "hash_mismatch")], id="the first removed"
        ),
        pytest.param("DELETE FROM events WHERE sequence > 4", [(6, "head_mismatch")], id="the end cut off"),
        pytest.param("DELETE FROM events", [(6, "head_mismatch")], id="all removed"),
        pytest.param(
            "UPDATE events SET sequence = 9 - sequence WHERE sequence IN (4, 5)",
            [(5, "chain_break"), (5, "hash_mismatch"), (4, "chain_break"), (4, "hash_mismatch"), (6, "chain_break")],
            id="reordered",
        ),
        pytest.param("UPDATE heads SET hash = hash, sequence = 7", [(7, "head_mismatch")], id="the head"),
    ],
)
async def test_tampering(
    filled: Caller, store_url: str, stored: Sequence[StoredEvent], change: str, found: list[tuple[int, str]] | None
) -> None:
    if "salt =" in change and not store_url.startswith("sqlite"):
        change = change.replace("= commitment", "= substr(commitment, 1, 16)")
    await database.execute(store_url, change)
    response = await _verify(filled)
    assert _breaks(response) == ([(2, "content_mismatch")] if found is None else found)
    ids = {one.sequence: one.id for one in stored}
    for one in response.breaks:
        assert one.event_id in ("", *ids.values())
        assert one.expected_hash
        assert one.actual_hash


async def test_a_rewritten_ledger_needs_a_head_kept_elsewhere(
    filled: Caller, store_url: str, stored: Sequence[StoredEvent]
) -> None:
    """A ledger that was cut off, with its head set back, verifies alone; an earlier head shows the loss."""
    fourth = database.literal(store_url, bytes.fromhex(stored[3].event_hash))
    await database.execute(store_url, "DELETE FROM events WHERE sequence > 4")
    moved = stored[3].created_at.ToMicroseconds()
    back = f"UPDATE heads SET sequence = 4, hash = {fourth}, created_at = {moved}, month_events = 4"
    await database.execute(store_url, back)
    assert (await _verify(filled)).valid
    kept = await _verify(filled, expected_sequence=6, expected_hash=stored[5].event_hash)
    assert _breaks(kept) == [(6, "head_mismatch")]


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        pytest.param({"limit": -1}, "NEGATIVE", "limit", id="a negative limit"),
        pytest.param({"page_token": "AAAA"}, "INVALID_PAGE_TOKEN", "page_token", id="no token"),
        pytest.param({"expected_sequence": 1}, "INVALID_EXPECTED_HEAD", "expected_hash", id="no hash"),
        pytest.param(
            {"expected_sequence": 1, "expected_hash": "xy" * 32},
            "INVALID_EXPECTED_HEAD",
            "expected_hash",
            id="no digits",
        ),
        pytest.param(
            {"expected_sequence": 1, "expected_hash": "ab" * 31},
            "INVALID_EXPECTED_HEAD",
            "expected_hash",
            id="too short",
        ),
        pytest.param(
            {"expected_sequence": -1, "expected_hash": "ab" * 32},
            "NEGATIVE",
            "expected_sequence",
            id="a negative sequence",
        ),
    ],
)
@on_sqlite
async def test_no_verification(caller: Caller, request_: dict[str, object], reason: str, field: str) -> None:
    refusal = await refused(_verify(caller, **request_))
    assert (refusal.code, refusal.reason, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, reason, [field])


@on_sqlite
async def test_an_expected_head_before_the_range(filled: Caller, stored: Sequence[StoredEvent]) -> None:
    kept = {"expected_sequence": 1, "expected_hash": stored[0].event_hash, "from": stored[3].created_at}
    assert (await refused(_verify(filled, **kept))).reason == "EXPECTED_HEAD_OUT_OF_RANGE"


@on_sqlite
async def test_an_expected_head_beyond_the_range(filled: Caller, stored: Sequence[StoredEvent]) -> None:
    """An expected head outside a bounded range cannot be checked, so the call is refused."""
    kept = {"expected_sequence": 6, "expected_hash": stored[5].event_hash, "to": stored[3].created_at}
    refusal = await refused(_verify(filled, **kept))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "EXPECTED_HEAD_OUT_OF_RANGE")
    assert refusal.fields == ["expected_sequence"]
    # If the limit, and not the range, ends the run, a later page may still reach the head.
    assert (await _verify(filled, **kept, limit=2)).valid


async def test_events_beyond_the_head(filled: Caller, store_url: str, stored: Sequence[StoredEvent]) -> None:
    """A head set back, to hide later events from a reader who stops at the head."""
    fourth = database.literal(store_url, bytes.fromhex(stored[3].event_hash))
    moved = stored[3].created_at.ToMicroseconds()
    await database.execute(store_url, f"UPDATE heads SET sequence = 4, hash = {fourth}, created_at = {moved}")
    found = await _verify(filled)
    assert (found.events_checked, _breaks(found)) == (6, [(6, "head_mismatch")])
    (beyond,) = found.breaks
    assert (beyond.expected_hash, beyond.actual_hash) == (stored[3].event_hash, stored[5].event_hash)


@pytest.mark.parametrize("sequence", [0, 1, 5, 6, 30])
async def test_a_forged_event_behind_the_newest(
    filled: Caller, store_url: str, stored: Sequence[StoredEvent], sequence: int
) -> None:
    """The ledger ends where the ids end, whatever other columns claim; `expected_head` and lists change nothing."""
    forged = database.id_literal(store_url, b"\xff" * 16)
    copied = f"workspace_id, {forged}, {sequence}, created_at, receiver, type, source, subject, occurred_at, data"
    await database.execute(
        store_url,
        f"INSERT INTO events SELECT {copied}, scope, key, NULL, salt, commitment, event_hash, NULL"
        " FROM events WHERE sequence = 2",
    )
    assert len(await filled.all_events()) == 7
    kept = {"expected_sequence": 6, "expected_hash": stored[5].event_hash}
    for found in (await _verify(filled), await _verify(filled, **kept)):
        assert found.events_checked == 7
        assert set(_breaks(found)) == {
            (sequence, "chain_break"),
            (sequence, "hash_mismatch"),
            (max(sequence, 6), "head_mismatch"),
        }


@on_sqlite
async def test_a_cell_of_another_type_is_a_break(filled: Caller, store_url: str) -> None:
    """The cell is named with its type and not its value, and does not hide other breaks."""
    await database.execute(store_url, "UPDATE events SET salt = 'abc' WHERE sequence = 2")
    await database.execute(store_url, "UPDATE events SET receiver = x'ff', sequence = 'x' WHERE sequence = 3")
    await database.execute(store_url, "UPDATE events SET type = 'x' WHERE sequence = 5")
    found = await _verify(filled)
    assert _breaks(found) == [
        (2, "content_mismatch"),
        (3, "chain_break"),
        (3, "hash_mismatch"),
        (5, "content_mismatch"),
    ]
    assert [(one.expected_hash, one.actual_hash) for one in found.breaks[:3]] == [
        ("salt: 16 bytes", "salt: text of 3 characters"),
        ("sequence: integer", "sequence: text of 1 characters"),
        ("receiver: text", "receiver: 1 bytes"),
    ]


@on_sqlite
async def test_a_token_belongs_to_its_range_and_method(filled: Caller, stored: Sequence[StoredEvent]) -> None:
    token = (await _verify(filled, limit=2)).next_page_token
    for misuse in ({"from": stored[1].created_at}, {"to": stored[5].created_at}):
        assert (await refused(_verify(filled, page_token=token, **misuse))).reason == "INVALID_PAGE_TOKEN"
