"""The compiled core writes the answers that the Python code writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_server.core.model import (
    Outcome,
    Problem,
    Status,
)
from headgate_server.core.reasons import Reason
from tests.native import twins
from tests.unit.test_wire import OUTCOMES

pytestmark = twins.needs_core


@given(st.lists(OUTCOMES, max_size=4), st.booleans())
def test_any_answer(outcomes: list[Outcome], numbered: bool) -> None:
    twins.answered(outcomes, [*range(1, 2 * len(outcomes), 2)] if numbered else [])


@pytest.mark.parametrize("text", ["\0", '\x1f\x7f\u2028"\\é👍'])
def test_answers_with_odd_texts(text: str) -> None:
    problem = Problem(Reason.TOO_LONG, text, text, differing_fields=(text,))
    twins.answered([Outcome(Status.REJECTED, None, problem, (text,))])


def test_a_lone_surrogate_is_left_to_python() -> None:
    """It has no UTF-8."""
    outcomes = [Outcome(Status.REJECTED, None, Problem(Reason.TOO_LONG, "\ud800", ""))]
    assert twins.core().batch_message(outcomes, ()) is twins.core().batch_json(outcomes, ()) is None
    assert twins.core().stream_results(outcomes) is None
