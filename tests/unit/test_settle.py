"""The pure decisions of a settlement about submissions, from what was read under the lock."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_server.core import ledger, timestamps
from headgate_server.core.ledger import Checker
from headgate_server.core.model import (
    STORED,
    Decision,
    Draft,
    KeyReused,
    Link,
    Mismatch,
    Outcome,
    Problem,
    Replayed,
    Settled,
    Status,
    StoredAnswer,
    StoredEvent,
    Usage,
)
from headgate_server.core.reasons import Reason
from headgate_server.core.settle import Settlement
from tests.support.drafts import BAD, draft, request, submission

_GENESIS = ledger.genesis("acme")
_NOW = 1_700_000_000_000_000


def _settlement(*held: Draft, answers: dict[tuple[str, str], StoredAnswer] | None = None) -> Settlement:
    """Return the settlement of a group whose ledger already holds these drafts."""
    before = Settlement(1, _GENESIS, {}, {}, _NOW)
    links = [outcome.link for outcome in _outcomes(before.decide(submission(1, *held)))]
    known = {one.identity[:16]: link for one, link in zip(held, links, strict=True) if link}
    return Settlement(1, before.head, known, answers or {}, _NOW)


def _outcomes(decision: Decision) -> Sequence[Outcome]:
    assert isinstance(decision, Settled)
    return decision.outcomes


def _statuses(settlement: Settlement, *slots: Draft | Problem, atomic: bool = False) -> list[str]:
    return [outcome.status for outcome in _outcomes(settlement.decide(submission(1, *slots, atomic=atomic)))]


def test_links_follow_each_other() -> None:
    settlement = _settlement(draft(), draft())
    (outcome,) = _outcomes(settlement.decide(submission(1, draft())))
    assert outcome.link is not None
    # The clock has not advanced, so the time advances by a microsecond.
    assert (outcome.link.sequence, outcome.link.created_at) == (3, _NOW + 2)
    assert settlement.head == (3, outcome.link.event_hash, outcome.link.created_at)
    assert [row.id for row in settlement.rows] == [outcome.link.id]


@pytest.mark.parametrize(
    ("mismatch", "other"),
    [(Mismatch.CONFLICT, "conflict"), (Mismatch.DUPLICATE, "duplicate"), (Mismatch.REPLACE, "replaced")],
)
def test_a_held_identity(mismatch: Mismatch, other: str) -> None:
    settlement = _settlement(draft("k", {"n": 1}))
    assert _statuses(settlement, draft("k", {"n": 1.0}, on_mismatch=mismatch)) == ["duplicate"]
    assert _statuses(settlement, draft("k", {"n": 2}, on_mismatch=mismatch)) == [other]


@pytest.mark.parametrize("stored", [None, 1_705_314_600_000_000])
@pytest.mark.parametrize("sent", [None, 1_705_314_600_000_001])
@pytest.mark.parametrize("held", [True, False])
def test_a_time_that_was_filled_in_anew(stored: int | None, sent: int | None, held: bool) -> None:
    """Also within one group, whose events are not stored yet."""
    kept: dict[str, Any] = {"on_mismatch": Mismatch.CONFLICT_UNLESS_TIME, "attributes": b'{"a":1}'}
    first = draft("k", {"n": 1}, occurred_at=stored, **kept)
    settlement = _settlement(*[first] * held)
    later = [draft("k", {"n": 1}, occurred_at=sent, **kept), draft("k", {"n": 2}, occurred_at=sent, **kept)]
    other = [
        draft("k", {"n": 1}, subject="other", occurred_at=sent, **kept),
        draft("k", {"n": 1}, occurred_at=sent, on_mismatch=Mismatch.CONFLICT_UNLESS_TIME),
    ]
    again, *conflicts = _outcomes(settlement.decide(submission(1, *[first] * (not held), *later, *other)))[-4:]
    assert again.status == "duplicate"
    assert again.link is not None
    assert again.link.occurred_at == stored
    moment = "no time" if stored is None else "the time 2024-01-15T10:30:00Z"
    warned = (f"Only the time differs: the event was stored with {moment}, which is kept.",)
    assert again.warnings == (() if stored == sent else warned)
    assert {outcome.status for outcome in conflicts} == {"conflict"}
    assert {(outcome.problem.reason, outcome.problem.field) for outcome in conflicts if outcome.problem} == {
        ("IDEMPOTENCY_CONFLICT", "id")
    }


def test_a_conflict_says_which_event_holds_the_key() -> None:
    settlement = _settlement(draft("k", 1))
    (outcome,) = _outcomes(settlement.decide(submission(1, draft("k", 2))))
    assert outcome.link is not None
    assert outcome.problem is not None
    assert (outcome.link.sequence, outcome.problem.reason) == (1, "IDEMPOTENCY_CONFLICT")
    assert settlement.rows == []


def test_a_replacement_of_a_stored_event_supersedes_it_once() -> None:
    settlement = _settlement(draft("k", 0))
    versions = [draft("k", n, on_mismatch=Mismatch.REPLACE) for n in (1, 2, 2, 3)]
    assert _statuses(settlement, *versions) == ["replaced", "replaced", "duplicate", "replaced"]
    assert settlement.superseded == [versions[0].dedupe]
    # Only the last row of a group may hold the identity.
    assert [row.dedupe for row in settlement.rows] == [None, None, versions[0].dedupe]


def test_a_replacement_across_submissions_of_one_group() -> None:
    settlement = _settlement()
    assert _statuses(settlement, draft("k", 1)) == ["accepted"]
    assert _statuses(settlement, draft("k", 2, on_mismatch=Mismatch.REPLACE)) == ["replaced"]
    assert _statuses(settlement, draft("k", 2)) == ["duplicate"]
    assert settlement.superseded == []
    assert [row.dedupe is None for row in settlement.rows] == [True, False]


def test_atomic_with_siblings() -> None:
    assert _statuses(_settlement(), draft("k", 1), draft("k", 1), atomic=True) == ["accepted", "duplicate"]
    settlement = _settlement()
    assert _statuses(settlement, draft("k", 1), draft(), draft("k", 2), atomic=True) == [
        "aborted",
        "aborted",
        "conflict",
    ]
    assert (settlement.rows, settlement.head) == ([], _GENESIS)
    # Nothing of it is stored: the key is free for the next caller.
    assert _statuses(settlement, draft("k", 3)) == ["accepted"]


def test_an_aborted_submission_leaves_nothing_behind() -> None:
    """No row, no identity, no link, no count of the month, and no new month."""
    december = timestamps.parse("2026-12-01T00:00:00Z")[0]
    settlement = Settlement(1, _GENESIS, {}, {}, december - 3, Usage(5, 202611, 1))
    assert _statuses(settlement, draft("k", 1)) == ["accepted"]
    before = copy.deepcopy(vars(settlement))
    replacing = draft("k", 2, on_mismatch=Mismatch.REPLACE)
    aborted = _statuses(settlement, replacing, draft("new"), draft(), draft(), BAD, atomic=True)
    assert aborted == ["aborted"] * 4 + ["rejected"]
    assert vars(settlement) == before
    assert _statuses(settlement, draft("new")) == ["accepted"]


def test_atomic_counts_what_came_earlier_in_the_group() -> None:
    settlement = _settlement()
    assert _statuses(settlement, draft("k", 1)) == ["accepted"]
    assert _statuses(settlement, draft("k", 2), draft(), atomic=True) == ["conflict", "aborted"]
    assert _statuses(settlement, draft("k", 1), draft(), atomic=True) == ["duplicate", "accepted"]


def test_an_aborted_submission_is_answered_under_its_request_key() -> None:
    settlement = _settlement()
    failing = request(1, "r", draft("k"), BAD)
    decision = settlement.decide(failing)
    assert [outcome.status for outcome in _outcomes(decision)] == ["accepted", "rejected"]
    assert settlement.decide(failing) == Replayed(b"accepted,rejected")
    assert [(key.key, answer) for key, answer in settlement.new_answers] == [("r", b"accepted,rejected")]


def test_request_keys() -> None:
    stored = {("batch", "r"): StoredAnswer(b"1".ljust(32, b"\0"), b"answer")}
    settlement = _settlement(answers=stored)
    assert settlement.decide(request(1, "r", draft(), body=b"1")) == Replayed(b"answer")
    assert settlement.decide(request(1, "r", draft(), body=b"2")) == KeyReused()
    assert isinstance(settlement.decide(request(1, "r", draft(), body=b"2", scope="single")), Settled)
    assert len(settlement.rows) == 1


@pytest.mark.parametrize(
    ("slots", "atomic", "remembered"),
    [
        pytest.param([draft("b")], False, False, id="only the quota"),
        pytest.param([draft("b"), BAD], False, False, id="the quota and a flaw"),
        pytest.param([draft("a", 1), draft("b")], False, True, id="something is stored"),
        pytest.param([draft("a", 1), draft("b")], True, False, id="atomic"),
        pytest.param([BAD], False, True, id="only a flaw"),
    ],
)
def test_what_the_quota_refuses_whole_is_not_answered_so_again(
    slots: list[Draft | Problem], atomic: bool, remembered: bool
) -> None:
    first = Settlement(1, _GENESIS, {}, {}, _NOW, Usage(1, 0, 0))
    assert _statuses(first, draft("a", 1)) == ["accepted"]
    asked = replace(request(1, "r", *slots), atomic=atomic)
    assert isinstance(first.decide(asked), Settled)
    assert bool(first.new_answers) is remembered
    assert isinstance(first.decide(asked), Replayed if remembered else Settled)


_KEYS = st.sampled_from([None, "a", "b"])


_DATA = st.fixed_dictionaries({"n": st.integers(0, 2)})
_DRAFTS = st.builds(draft, _KEYS, _DATA, on_mismatch=st.sampled_from(Mismatch))
_SLOTS = st.lists(st.one_of(st.just(BAD), _DRAFTS), max_size=6)
_QUOTAS = st.one_of(st.none(), st.integers(0, 8))


@given(st.lists(st.tuples(_SLOTS, st.booleans()), max_size=5), _SLOTS, _QUOTAS)
def test_whatever_comes_the_ledger_is_sound(
    group: list[tuple[list[Draft | Problem], bool]], earlier: list[Draft | Problem], quota: int | None
) -> None:
    before = Settlement(1, _GENESIS, {}, {}, _NOW)
    before.decide(submission(1, *earlier))
    holding = {row.dedupe: _link_of(row) for row in before.rows if row.dedupe}
    settlement = Settlement(1, before.head, holding, {}, _NOW, Usage(quota, 0, 0))
    for slots, atomic in group:
        sequence = settlement.head.sequence
        outcomes = _outcomes(settlement.decide(submission(1, *slots, atomic=atomic)))
        assert len(outcomes) == len(slots)
        linked = sum(outcome.status in (Status.ACCEPTED, Status.REPLACED) for outcome in outcomes)
        assert settlement.head.sequence == sequence + linked
        if atomic:
            assert all(outcome.status in STORED for outcome in outcomes) or linked == 0
    assert settlement.usage.events == len(settlement.rows)
    assert quota is None or len(settlement.rows) <= quota
    checker = Checker(_GENESIS)
    checker.add(before.rows + settlement.rows)
    checker.expect_head(settlement.head)
    assert checker.breaks == []
    still_held = set(holding) - set(settlement.superseded)
    claimed = [row.dedupe for row in settlement.rows if row.dedupe]
    assert len(claimed) == len(set(claimed))
    assert not still_held & set(claimed)


def _link_of(row: StoredEvent) -> Link:
    return Link(row.id, row.sequence, row.created_at, row.event_hash, row.salt, row.commitment, row.occurred_at)


_REFUSED = Problem(Reason.SCHEMA_MISMATCH, "data.amount", "The data does not match.")


def test_a_refused_draft_is_rejected_only_if_it_is_not_stored() -> None:
    stored, changed, new = draft("a", {"n": 1}), draft("a", {"n": 2}), draft("b")
    settlement = _settlement(stored)
    slots = [one._replace(refused=_REFUSED, warnings=("w",)) for one in (stored, changed, new)]
    outcomes = _outcomes(settlement.decide(submission(1, *slots)))
    assert [outcome.status for outcome in outcomes] == ["duplicate", "conflict", "rejected"]
    assert [outcome.warnings for outcome in outcomes] == [("w",)] * 3
    assert outcomes[2].problem is _REFUSED
    assert not settlement.rows
    # Its key is free, and within a batch it takes no place.
    assert _statuses(settlement, slots[2], new) == ["rejected", "accepted"]


def test_a_refused_draft_aborts_an_atomic_submission_and_its_answer_is_not_kept() -> None:
    settlement = _settlement()
    refused = draft("b")._replace(refused=_REFUSED)
    assert _statuses(settlement, draft("a"), refused, atomic=True) == ["aborted", "rejected"]
    settlement.decide(request(1, "key", refused))
    assert not settlement.new_answers
    settlement.decide(request(1, "key", draft("a"), refused))
    assert len(settlement.new_answers) == 1
