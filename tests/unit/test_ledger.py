"""The ledger's arithmetic against its golden vectors, and the breaks that a check finds."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_server.core import canonical, ledger, timestamps
from headgate_server.core.checked_rows import StoredHead
from headgate_server.core.ledger import MAX_BREAKS, Checker
from headgate_server.core.model import Head, StoredEvent
from headgate_server.store.schema import metadata
from tests.support.drafts import draft
from tests.unit.linking import linked

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "ledger.json").read_text())
CHAIN = VECTORS["chain"]

_MOMENTS = st.integers(0, timestamps.MAX)


def stored(vector: dict[str, Any]) -> StoredEvent:
    """Return an event of the golden chain as a row."""
    identity = bytes.fromhex(vector["identity"])
    return StoredEvent(
        workspace_id=1,
        id=bytes.fromhex(vector["id"]),
        sequence=vector["sequence"],
        created_at=vector["created_at"],
        receiver=vector["receiver"],
        type=vector["type"],
        source=vector["source"],
        subject=vector["subject"],
        occurred_at=vector["occurred_at"],
        data=None if vector["data"] is None else vector["data"].encode(),
        scope=vector["scope"],
        key=vector["key"],
        dedupe=identity[:16] or None,
        salt=bytes.fromhex(vector["salt"]),
        commitment=bytes.fromhex(vector["commitment"]),
        event_hash=bytes.fromhex(vector["event_hash"]),
        attributes=None if vector.get("attributes") is None else vector["attributes"].encode(),
    )


def check(rows: list[StoredEvent], head: Head | None = None, expected: Head | None = None) -> list[tuple[int, str]]:
    """Return (sequence, type) of each break in the ledger of "acme"."""
    checker = Checker(ledger.genesis("acme"), expected)
    checker.add(rows)
    if head is not None:
        checker.expect_head(head)
    assert checker.checked == len(rows)
    return [(found.sequence, found.type) for found in checker.breaks]


@pytest.fixture
def chain() -> tuple[list[StoredEvent], Head]:
    """Return a sound ledger of six events, every other one with a key, and its head."""
    drafts = [draft(f"k{n}" if n % 2 else None, {"n": n}, subject=f"s{n}", occurred_at=n) for n in range(1, 7)]
    return linked("acme", drafts)


@pytest.mark.parametrize("vector", VECTORS["genesis"], ids=lambda vector: vector["workspace"])
def test_golden_genesis(vector: dict[str, str]) -> None:
    assert ledger.genesis(vector["workspace"]) == Head(0, bytes.fromhex(vector["hash"]), 0)


@pytest.mark.parametrize("vector", VECTORS["identities"], ids=lambda vector: f"{vector['scope']}-{vector['key']}")
def test_golden_identities(vector: dict[str, str]) -> None:
    assert ledger.identity(vector["receiver"], vector["scope"], vector["key"]).hex() == vector["sha256"]


@pytest.mark.parametrize("vector", VECTORS["ids"], ids=lambda vector: str(vector["created_at"]))
def test_golden_ids(vector: dict[str, Any]) -> None:
    assert ledger.event_id(vector["created_at"], bytes.fromhex(vector["random"])).hex() == vector["id"]


@pytest.mark.parametrize("vector", VECTORS["commitments"], ids=lambda vector: vector["content"])
def test_golden_commitments(vector: dict[str, str]) -> None:
    assert ledger.commitment(bytes.fromhex(vector["salt"]), vector["content"].encode()).hex() == vector["commitment"]


def test_the_golden_chain_is_sound_and_ends_at_its_head() -> None:
    head = Head(CHAIN["head"]["sequence"], bytes.fromhex(CHAIN["head"]["hash"]), CHAIN["head"]["created_at"])
    assert check([stored(vector) for vector in CHAIN["events"]], head, expected=head) == []


@given(st.lists(st.text(max_size=4), min_size=3, max_size=3), st.lists(st.text(max_size=4), min_size=3, max_size=3))
def test_no_two_identities_run_into_one_another(one: list[str], other: list[str]) -> None:
    assert (ledger.identity(*one) == ledger.identity(*other)) == (one == other)


@given(_MOMENTS, st.binary(min_size=8, max_size=8))
def test_an_id_is_a_uuid_of_version_7_that_holds_its_microsecond(created_at: int, random: bytes) -> None:
    event_id = UUID(bytes=ledger.event_id(created_at, random))
    assert event_id.version == 7
    assert event_id.variant == "specified in RFC 4122"
    milliseconds, fraction = event_id.int >> 80, event_id.int >> 64 & 0xFFF
    assert milliseconds == created_at // 1000
    # A reader who treats the 12 bits as a fraction of a millisecond gets the microsecond back by rounding up.
    assert -(-fraction * 1000 // 4096) == created_at % 1000


@given(_MOMENTS, _MOMENTS, st.binary(min_size=8, max_size=8), st.binary(min_size=8, max_size=8))
def test_ids_sort_as_their_moments_do(one: int, other: int, some: bytes, more: bytes) -> None:
    if one != other:
        assert (ledger.event_id(one, some) < ledger.event_id(other, more)) == (one < other)
    assert ledger.first_id(one) <= ledger.event_id(one, some) <= ledger.last_id(one)


def test_every_microsecond_of_a_millisecond_has_an_id_of_its_own() -> None:
    ids = [ledger.event_id(1_705_314_600_123_000 + n, bytes(8)) for n in range(1001)]
    assert ids == sorted(set(ids))


def test_a_sound_ledger_has_no_breaks(chain: tuple[list[StoredEvent], Head]) -> None:
    rows, head = chain
    assert check(rows, head) == []
    assert check([], ledger.genesis("acme")) == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"type": "other"}, "content_mismatch"),
        ({"source": "other"}, "content_mismatch"),
        ({"subject": ""}, "content_mismatch"),
        ({"occurred_at": None}, "content_mismatch"),
        ({"data": b'{"n":4}'}, "content_mismatch"),
        ({"data": b"{}"}, "content_mismatch"),
        ({"data": None}, "content_mismatch"),
        ({"salt": bytes(16)}, "content_mismatch"),
        ({"receiver": "vendor"}, "hash_mismatch"),
        ({"key": "other"}, "hash_mismatch"),
        ({"key": None}, "hash_mismatch"),
        ({"scope": "other"}, "hash_mismatch"),
        ({"dedupe": bytes(16)}, "hash_mismatch"),
        ({"created_at": 7}, "hash_mismatch"),
        ({"id": bytes(16)}, "hash_mismatch"),
    ],
)
def test_a_changed_column_is_one_break_at_its_event(
    chain: tuple[list[StoredEvent], Head], change: dict[str, Any], kind: str
) -> None:
    rows, head = chain
    rows[2] = rows[2]._replace(**change)
    assert check(rows, head) == [(3, kind)]


@pytest.mark.parametrize(
    "emptied",
    [
        {"data": b'{"n":3},"occurred_at":3,"source":"test","subject":"s3"', "source": "", "subject": ""},
        {"data": b'{"n":3},"occurred_at":3,"source":"test"', "source": ""},
        {"data": b'{"n":3},"occurred_at":3'},
    ],
)
def test_data_that_swallowed_the_columns_behind_it_is_found(
    chain: tuple[list[StoredEvent], Head], emptied: dict[str, Any]
) -> None:
    rows, head = chain
    changed = rows[2]._replace(occurred_at=None, **emptied)
    # The hashed bytes are the same, so the commitment does not show the change.
    of = (rows[2], changed)
    assert len(set(map(_content, of))) == 1
    rows[2] = changed
    assert check(rows, head) == [(3, "content_mismatch")]


def _content(row: StoredEvent) -> bytes:
    return canonical.content(row.type, row.source, row.subject, row.occurred_at, row.data, row.attributes)


@pytest.mark.parametrize("attributes", [b'{"a":1},"data":{"n":3}', b'{"a":1},"data":{"n":3},"occurred_at":3'])
def test_attributes_that_swallowed_the_columns_behind_them_are_found(attributes: bytes) -> None:
    one = draft(None, {"n": 3}, occurred_at=3, attributes=b'{"a":1}')
    rows, head = linked("acme", [one])
    assert check(rows, head) == []
    occurred_at = None if b"occurred_at" in attributes else 3
    changed = rows[0]._replace(attributes=attributes, data=None, occurred_at=occurred_at)
    assert _content(changed) == _content(rows[0])
    assert check([changed], head) == [(1, "content_mismatch")]


_NO_JSON = [b"{", b"", b"{}{}", b"NaN", b"[-Infinity]", b"\xff", b'{"a":' * 5_000]


@pytest.mark.parametrize(
    ("column", "text"),
    [
        *(("data", text) for text in _NO_JSON),
        *(("attributes", text) for text in (*_NO_JSON, b"5", b'"x"', b"[]", b"null", b' {"a":1}')),
    ],
)
def test_data_or_attributes_that_are_not_one_value_are_found(
    chain: tuple[list[StoredEvent], Head], column: str, text: bytes
) -> None:
    rows, head = chain
    changed = rows[2]._replace(**{column: text})
    rows[2] = changed._replace(commitment=ledger.commitment(changed.salt, _content(changed)))
    assert (3, "content_mismatch") in check(rows, head)


@pytest.mark.parametrize("data", [b"5", b'"x"', b"[]", b"null", b"false", b"1e+400", b'{"a":12345678901234567890}'])
def test_data_of_any_json_value_verifies(data: bytes) -> None:
    rows, head = linked("acme", [draft(None, data), draft("k", data, attributes=b'{"data_base64":true}')])
    assert check(rows, head) == []


def test_what_no_store_would_have_written_is_a_break_and_no_error(chain: tuple[list[StoredEvent], Head]) -> None:
    rows, head = chain
    for change, wanted in (
        ({"sequence": -3}, {(-3, "chain_break"), (-3, "hash_mismatch")}),
        ({"type": "\ud800"}, {(3, "content_mismatch")}),
        ({"receiver": "\ud800"}, {(3, "hash_mismatch")}),
        ({"key": "\ud800"}, {(3, "hash_mismatch")}),
        ({"id": rows[2].id + b"x"}, {(3, "hash_mismatch")}),
        ({"id": rows[2].id[:15]}, {(3, "hash_mismatch")}),
        ({"scope": None}, {(3, "hash_mismatch")}),
        ({"created_at": 2**63}, {(3, "hash_mismatch")}),
    ):
        tampered = [*rows[:2], rows[2]._replace(**change), *rows[3:]]
        assert set(check(tampered, head)) >= wanted, change


def test_a_scope_without_a_key_is_found(chain: tuple[list[StoredEvent], Head]) -> None:
    rows, head = chain
    assert rows[1].key is None
    rows[1] = rows[1]._replace(scope="test")
    assert check(rows, head) == [(2, "hash_mismatch")]


def test_a_changed_commitment_breaks_content_and_hash(chain: tuple[list[StoredEvent], Head]) -> None:
    rows, head = chain
    rows[2] = rows[2]._replace(commitment=bytes(32))
    assert check(rows, head) == [(3, "content_mismatch"), (3, "hash_mismatch")]


def test_a_changed_hash_breaks_its_event_and_the_next(chain: tuple[list[StoredEvent], Head]) -> None:
    rows, head = chain
    rows[2] = rows[2]._replace(event_hash=bytes(32))
    assert check(rows, head) == [(3, "hash_mismatch"), (4, "hash_mismatch")]


def test_a_released_identity_is_no_break(chain: tuple[list[StoredEvent], Head]) -> None:
    rows, head = chain
    rows[2] = rows[2]._replace(dedupe=None)
    assert check(rows, head) == []


def test_a_removed_event_breaks_the_one_behind_it(chain: tuple[list[StoredEvent], Head]) -> None:
    rows, head = chain
    del rows[2]
    assert check(rows, head) == [(4, "chain_break"), (4, "hash_mismatch")]


def test_renumbering_after_a_removal_does_not_hide_it(chain: tuple[list[StoredEvent], Head]) -> None:
    rows, head = chain
    del rows[2]
    renumbered = [row._replace(sequence=sequence) for sequence, row in enumerate(rows, 1)]
    assert (3, "hash_mismatch") in check(renumbered, head)


def test_exchanged_events_break_the_chain(chain: tuple[list[StoredEvent], Head]) -> None:
    rows, head = chain
    rows[1], rows[2] = rows[2], rows[1]
    assert {kind for _, kind in check(rows, head)} == {"chain_break", "hash_mismatch"}


def test_truncation_shows_only_against_a_head(chain: tuple[list[StoredEvent], Head]) -> None:
    rows, head = chain
    assert check(rows[:4]) == []
    assert check(rows[:4], head) == [(6, "head_mismatch")]


def test_an_event_of_another_workspace_does_not_fit() -> None:
    rows, head = linked("other", [draft("k", {"n": 1})])
    assert check(rows, head) == [(1, "hash_mismatch")]


def test_a_rewritten_ledger_shows_only_against_a_head_kept_elsewhere(chain: tuple[list[StoredEvent], Head]) -> None:
    _, kept = chain
    rewritten, head = linked("acme", [draft(f"k{n}", {"n": n * 10}) for n in range(1, 7)])
    assert check(rewritten, head) == []
    assert check(rewritten, head, expected=kept) == [(6, "head_mismatch")]


def test_an_expected_head_is_checked_where_the_run_passes_it(chain: tuple[list[StoredEvent], Head]) -> None:
    rows, head = chain
    third = Head(3, rows[2].event_hash, rows[2].created_at)
    assert check(rows, head, expected=third) == []
    assert check(rows, head, expected=third._replace(hash=bytes(32))) == [(3, "head_mismatch")]


def test_a_check_may_go_on_from_any_link(chain: tuple[list[StoredEvent], Head]) -> None:
    rows, head = chain
    checker = Checker(Head(rows[2].sequence, rows[2].event_hash, rows[2].created_at))
    checker.add(rows[3:5])
    checker.add(rows[5:])
    checker.expect_head(head)
    assert checker.breaks == []
    assert checker.last == head


def test_breaks_are_named_up_to_a_bound() -> None:
    rows, _ = linked("acme", [draft(data={"n": n}) for n in range(MAX_BREAKS + 50)])
    assert len(check([row._replace(data=None) for row in rows])) == MAX_BREAKS


def test_a_break_says_what_was_computed_and_what_stands_there(chain: tuple[list[StoredEvent], Head]) -> None:
    rows, _ = chain
    checker = Checker(ledger.genesis("acme"))
    sealed = rows[0].event_hash
    checker.add([rows[0]._replace(event_hash=bytes(32))])
    (found,) = checker.breaks
    assert (found.event_id, found.expected, found.actual) == (rows[0].id, sealed.hex(), bytes(32).hex())


def test_every_column_is_in_the_specification() -> None:
    """docs/design/ledger.md says how a change of each column shows, and names the tables whose changes do not show."""
    page = (Path(__file__).parent.parent.parent / "docs" / "design" / "ledger.md").read_text()
    section = page.partition("## Every column")[2].partition("\n## ")[0]
    proven = {name: metadata.tables[name] for name in ("events", "heads", "workspaces")}
    columns = {f"{name}.{column.name}" for name, table in proven.items() for column in table.columns}
    assert {row.partition("`")[0] for row in section.split("\n| `")[1:]} == columns
    for name in metadata.tables.keys() - proven.keys():
        assert f"`{name}`" in section


def test_a_cell_of_another_shape_is_named_without_its_value(chain: tuple[list[StoredEvent], Head]) -> None:
    rows, head = chain
    rows[2] = rows[2]._replace(salt="secret", sequence=None, dedupe=b"secret")
    checker = Checker(ledger.genesis("acme"))
    checker.add(rows)
    checker.expect_head(head)
    assert [found[1:] for found in checker.breaks] == [
        (3, "chain_break", "sequence: integer", "sequence: NULL"),
        (3, "hash_mismatch", "dedupe: 16 bytes", "dedupe: 6 bytes"),
        (3, "content_mismatch", "salt: 16 bytes", "salt: text of 6 characters"),
    ]
    assert {found.event_id for found in checker.breaks} == {rows[2].id}


def test_what_follows_a_hash_that_is_none_does_not_verify(chain: tuple[list[StoredEvent], Head]) -> None:
    """Padded with zeros the hash would have 32 bytes again, so the link to it must not verify."""
    rows, _ = chain
    identity = b"" if rows[3].key is None else ledger.identity(rows[3].receiver, rows[3].scope or "", rows[3].key)
    sealed = rows[3]
    forged = ledger.event_hash(b"", 4, sealed.created_at, sealed.id, identity, sealed.commitment, sealed.receiver)
    assert check([*rows[:2], rows[2]._replace(event_hash=b""), sealed._replace(event_hash=forged)]) == [
        (3, "hash_mismatch"),
        (4, "hash_mismatch"),
    ]


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        ({}, None),
        ({"sequence": 5}, "hash"),
        ({"hash": bytes(32)}, "hash"),
        ({"hash": "x"}, "hash"),
        ({"created_at": 1}, "created_at"),
        ({"created_at": 10**17}, "created_at"),
        ({"month": 202402}, "month"),
        ({"month": None}, "month"),
        ({"month_events": 5}, "month_events"),
        ({"month_events": 7.5}, "month_events"),
    ],
)
def test_the_heads_row(chain: tuple[list[StoredEvent], Head], head: dict[str, Any], wanted: str | None) -> None:
    rows, last = chain
    checker = Checker(ledger.genesis("acme"))
    checker.add(rows)
    checker.expect_stored_head(StoredHead(*last, 202401, 6)._replace(**head), 0)
    assert [found.type for found in checker.breaks] == ["head_mismatch"] * (wanted is not None)
    if wanted is not None:
        column = checker.breaks[0].expected.partition(":")[0]
        assert column == (wanted if wanted != "hash" or head == {"hash": "x"} else column)


def test_at_the_end_of_a_month_the_head_counts_the_next(chain: tuple[list[StoredEvent], Head]) -> None:
    """Return a head as `settle` leaves it: the next event is in the next month, which has no events yet."""
    end = timestamps.parse("2024-01-31T23:59:59.999999Z")[0]
    assert ledger.counted_month(StoredHead(5, bytes(32), end, 0, 0)) == 202402
    assert ledger.counted_month(StoredHead(5, bytes(32), end - 1, 0, 0)) == 202401
    assert ledger.counted_month(StoredHead(0, bytes(32), 0, 0, 0)) == 0
