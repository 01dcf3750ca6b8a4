"""Scrip's contract: a failed event is delivered again."""

import orjson
import pytest

from headgate_server.core.errors import NotFound
from headgate_server.receivers import Retried, Retry
from tests.unit.receivers.scrip_requests import ID, ROUTES, request

RETRY = ROUTES["POST", "/v1/events/{id}/retry"]


def test_the_event_is_named_by_the_path() -> None:
    assert isinstance(RETRY, Retry)
    assert RETRY.read(request(path=f"/v1/events/{ID}/retry")) == ID.bytes
    assert RETRY.read(request(b"{", f"/v1/events/{ID}/retry")) == ID.bytes
    for name in ("x", "batch", "", "\0", "retry", f"{ID}x"):
        with pytest.raises(NotFound):
            RETRY.read(request(path=f"/v1/events/{name}/retry"))


@pytest.mark.parametrize(("count", "places"), [(1, "1 destination"), (2, "2 destinations")])
def test_an_event_that_had_failed(count: int, places: str) -> None:
    assert isinstance(RETRY, Retry)
    reply = RETRY.reply(request(), Retried(ID.bytes, count))
    assert reply.status == 200
    # The members are those of the vendor's page, in its order.
    assert orjson.dumps(reply.body) == orjson.dumps(
        {
            "event_id": str(ID),
            "message": "Event queued for retry",
            "previous_error": f"The event was not delivered to {places}.",
            "previous_status": "FAILED",
            "status": "PENDING",
        }
    )


def test_an_event_that_had_not_failed() -> None:
    assert isinstance(RETRY, Retry)
    reply = RETRY.reply(request(), Retried(ID.bytes, 0))
    message = "Only an event with the status FAILED can be retried."
    assert (reply.status, reply.body) == (409, {"code": "conflict", "message": message})
