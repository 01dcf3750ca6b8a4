"""Methods as scripts: which calls they make."""

import pytest

from headgate.v1.ledger_service_pb2 import VerifyLedgerRequest, VerifyLedgerResponse
from headgate_client import Problem, Unavailable
from headgate_client.core import scripts
from headgate_client.core.scripts import Budget, Call, Times


def test_a_verification_is_calls_that_take_a_fraction_of_an_attempt():
    """A busy service needed more than an attempt of ten seconds for 100,000 events, at each retry."""
    script = scripts.verify(lambda: Budget(Times(), lambda: 0.0), VerifyLedgerRequest())
    asked = []
    answer = None
    for token in ("a", "b", ""):
        call = script.send(answer)
        assert isinstance(call, Call)
        asked.append(VerifyLedgerRequest.FromString(call.request))
        answer = VerifyLedgerResponse(valid=True, events_checked=10_000, next_page_token=token)
    with pytest.raises(StopIteration) as end:
        script.send(answer)
    assert [(request.limit, request.page_token) for request in asked] == [(10_000, ""), (10_000, "a"), (10_000, "b")]
    assert (end.value.value.valid, end.value.value.events_checked) == (True, 30_000)


def test_each_call_of_a_verification_has_the_whole_time():
    now = 0.0
    script = scripts.verify(lambda: Budget(Times(timeout=10.0), lambda: now), VerifyLedgerRequest())
    next(script)
    now = 9.0
    assert script.send(VerifyLedgerResponse(valid=True, next_page_token="a")).timeout == 10.0
    now = 25.0
    with pytest.raises(Unavailable):
        script.send(Problem("DEADLINE_EXCEEDED"))
