"""The compiled core decides what the Python code decides, and links it to the same hashes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_server.core import compiled, ledger, timestamps
from headgate_server.core.model import (
    Draft,
    Problem,
    Settled,
    Submission,
    Usage,
)
from headgate_server.core.settle import Settlement
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


def test_a_run_that_fails_changes_nothing() -> None:
    """Otherwise Python, which decides the slots again, would take its own new events for duplicates."""
    known: dict[Any, Any] = {}
    slots = [draft("a"), draft("b")._replace(commitment=b"short")]
    with pytest.raises(TypeError):
        twins.core().decide_run(slots, 0, bytes(16), known, 1, 0, bytes(32), twins.NOW, 10)
    assert known == {}
