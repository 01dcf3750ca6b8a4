"""What is recorded of a request's outcomes."""

from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from headgate_server.core.model import Link, Outcome, Status
from headgate_server.core.types import Commitment, EventHash, EventId, Salt
from headgate_server.process.metrics import Metrics, catalogue
from headgate_server.rpc.pipeline.call import Call
from headgate_server.rpc.taking import conflicting, counted

ACCEPTED, CONFLICT, DUPLICATE = Status.ACCEPTED, Status.CONFLICT, Status.DUPLICATE


def _outcomes(statuses: Sequence[Status]) -> list[Outcome]:
    return [Outcome(status, _link(number)) for number, status in enumerate(statuses)]


def _link(number: int) -> Link:
    return Link(EventId(bytes([number])), number, 0, EventHash(b""), Salt(b""), Commitment(b""), None)


@pytest.mark.parametrize(
    "statuses",
    [
        [],
        [ACCEPTED],
        [CONFLICT],
        [ACCEPTED] * 100,
        [ACCEPTED] * 99 + [DUPLICATE],
        [DUPLICATE, *[ACCEPTED] * 99],
        [ACCEPTED, CONFLICT, ACCEPTED, DUPLICATE, CONFLICT],
        [CONFLICT] * 3,
    ],
)
def test_statuses_are_counted_in_log_and_metrics(statuses: list[Status]) -> None:
    owner: Any = SimpleNamespace(workspace=SimpleNamespace(name="acme"))
    call = Call(method="", metadata={}, principal=owner)
    metrics, outcomes = Metrics(), _outcomes(statuses)
    expected = Counter(status.value for status in statuses)
    assert counted(call, outcomes, metrics) == expected
    assert call.log == expected
    # The keys are plain texts, as the log and the metrics write them.
    assert {type(key) for key in call.log} <= {str}
    seen = metrics.read()[catalogue.EVENTS.name]
    assert {labels[0]: value for labels, value in seen.items() if value} == expected
    found = [(number, EventId(bytes([number]))) for number, status in enumerate(statuses) if status is CONFLICT]
    assert list(conflicting(outcomes).items()) == found


def test_a_conflict_with_an_event_that_is_not_stored_is_compared_with_nothing() -> None:
    assert conflicting([Outcome(CONFLICT), Outcome(ACCEPTED, _link(1))]) == {}
