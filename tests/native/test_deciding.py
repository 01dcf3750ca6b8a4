"""The compiled core decides what the Python code decides, and links it to the same hashes."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_server.core import compiled, ledger, timestamps
from headgate_server.core.model import (
    Draft,
    Head,
    Problem,
    Settled,
    Submission,
    Usage,
)
from headgate_server.core.settle import Settlement, decide_run
from tests.native import twins
from tests.native.drawn import SLOTS
from tests.support.drafts import draft
from tests.unit import test_specification as independent

pytestmark = twins.needs_core

_NEW_YEAR = timestamps.parse("2027-01-01T00:00:00Z")[0]


@given(
    st.lists(SLOTS, max_size=4),
    SLOTS,
    st.none() | st.integers(0, 6),
    st.booleans(),
    st.integers(_NEW_YEAR - 4, _NEW_YEAR),
)
def test_whatever_is_decided(
    groups: list[list[Draft | Problem]], earlier: list[Draft | Problem], quota: int | None, atomic: bool, now: int
) -> None:
    """New events, duplicates, conflicts, replacements, refused events, quotas, and the end of a month."""
    twins.settled(groups, earlier, quota=quota, atomic=atomic, now=now)


@given(st.lists(st.tuples(st.booleans(), SLOTS), max_size=6))
def test_a_ledger_that_both_have_written_verifies(turns: list[tuple[bool, list[Draft | Problem]]]) -> None:
    """By the verifier that was written from the specification alone."""
    settlement = Settlement(1, ledger.genesis("acme"), {}, {}, twins.NOW, Usage(None, 0, 0))
    for is_compiled, slots in turns:
        with compiled.using(twins.core() if is_compiled else None):
            assert isinstance(settlement.decide(Submission(workspace_id=1, slots=slots)), Settled)
    assert settlement.head.hash == independent.verified("acme", settlement.rows)


@pytest.mark.parametrize(
    "sequence", [2**63 - 3, 2**63 - 2, 2**63 - 1, 2**63, 2**64 - 3, -1, -2, -(2**63), -(2**63) - 1]
)
def test_no_sequence_wraps_around(sequence: int) -> None:
    """Past the largest one of the core, and below 0, Python decides: also where a run comes there half-way."""
    slots = [draft(key) for key in "ababcd"]

    def settle() -> Any:
        settlement = Settlement(1, Head(sequence, bytes(32), twins.NOW - 1), {}, {}, twins.NOW)
        try:
            decision = settlement.decide(Submission(workspace_id=1, slots=slots))
        except struct.error as error:  # what has no place in the hash's frame either
            return str(error)
        return decision, settlement.rows, settlement.head

    twins.both(settle)


@pytest.mark.parametrize(
    ("clock", "decided"),
    [(-(2**63), 0), (-1, 0), (0, 6), (2**48 * 1_000 - 3, 3), (2**48 * 1_000, 0), (2**63 - 1, 0)],
)
def test_no_time_wraps_around(clock: int, decided: int) -> None:
    """A run ends where an id has no place for the clock."""
    slots = [draft(key) for key in "abcdef"]
    run = twins.core().decide_run(slots, 0, bytes(48), {}, 1, 0, bytes(32), clock, 9)
    assert run == decide_run(slots[:decided], 0, bytes(48), {}, 1, 0, bytes(32), clock, 9)


def test_a_run_that_fails_changes_nothing() -> None:
    """Otherwise Python, which decides the slots again, would take its own new events for duplicates."""
    known: dict[Any, Any] = {}
    slots = [draft("a"), draft("b")._replace(commitment=b"short")]
    with pytest.raises(TypeError):
        twins.core().decide_run(slots, 0, bytes(16), known, 1, 0, bytes(32), twins.NOW, 10)
    assert known == {}
