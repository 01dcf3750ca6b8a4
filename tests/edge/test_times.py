"""One rule applies to times in bodies, queries and vendors' requests: docs/design/wire.md, Times."""

from typing import Any

import pytest

from tests.support.edge import Edge, failure
from tests.support.vendors import VENDORS

TAKEN = {
    "2016-12-31T23:59:60Z": "2017-01-01T00:00:00Z",
    "2015-06-30t23:59:60.75z": "2015-07-01T00:00:00Z",
    "2017-01-01T01:29:60+01:30": "2017-01-01T00:00:00Z",
    "2024-01-15t10:30:00z": "2024-01-15T10:30:00Z",
    "2024-01-15T10:30:00.1234567891Z": "2024-01-15T10:30:00.123456Z",
}
REFUSED = [
    "2016-12-31T12:59:60Z",
    "2016-12-30T23:59:60Z",
    "2016-12-31T23:59:60+01:00",
    "2016-12-31T23:59:61Z",
    "2024-01-15T24:00:00Z",
    "2024-01-15T10:30:00",
    "2024-01-15",
    "2024-01-15T10:30Z",
    "2024-02-30T10:30:00Z",
    "0000-01-01T00:00:00Z",
    "1705314600",
    "",
]
PATHS = ["/v1/events", "/v1/ledger/verify"]


def test_times_in_a_body(edge: Edge) -> None:
    results = edge.batch(*({"type": "t", "occurred_at": time} for time in (*TAKEN, *REFUSED)))["results"]
    assert [each["status"] for each in results] == ["accepted"] * len(TAKEN) + ["rejected"] * len(REFUSED)
    assert {each["error"]["reason"] for each in results[len(TAKEN) :]} == {"INVALID_TIMESTAMP"}
    stored = edge.http.get("/v1/events").json()["events"]
    assert [event["occurred_at"] for event in stored] == list(TAKEN.values())
    (warning,) = results[0]["warnings"]
    assert warning == "occurred_at is a leap second and was taken as the first microsecond after it."


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("field", ["from", "to"])
def test_times_in_a_query(edge: Edge, path: str, field: str) -> None:
    edge.batch({"type": "t"})
    for time in TAKEN:
        found = edge.http.get(path, params={field: time})
        assert found.status_code == 200, (time, found.text)
        number = len(found.json()["events"]) if path == PATHS[0] else found.json()["events_checked"]
        assert number == (field == "from"), time
    for time in REFUSED:
        refusal = edge.http.get(path, params={field: time})
        assert failure(refusal) == (400, 3, "INVALID_TIMESTAMP"), (time, refusal.text)
    assert failure(edge.http.get(path, params={f"{field}.seconds": "5"})) == (400, 3, "INVALID_REQUEST")


def test_a_query_bounds_what_it_says(edge: Edge) -> None:
    (result,) = edge.batch({"type": "t"})["results"]
    at = result["created_at"]
    for field, number in (("from", 1), ("to", 0)):
        for time in (at, at.lower()):
            assert len(edge.http.get("/v1/events", params={field: time}).json()["events"]) == number


def _immutable(edge: Edge, time: str) -> Any:
    vendor = VENDORS["immutable"]
    return edge.post(vendor.batch, {"events": [vendor.event(0) | {"occurred_at": time}]}).json()["events"][0]["status"]


def test_times_of_a_vendor(edge: Edge) -> None:
    """For a vendor that says ISO 8601, a time without an offset and a date are valid too; the other rules are the
    same.
    """
    more = {"2024-01-15T10:30:00", "2024-01-15", ""}
    for time in TAKEN:
        assert _immutable(edge, time) == "queued", time
        asked = edge.http.get("/compat/immutable/api/v1/events", params={"from": time})
        assert asked.status_code == 200, time
    for time in set(REFUSED) - more:
        assert _immutable(edge, time) == "invalid", time
        asked = edge.http.get("/compat/immutable/api/v1/events", params={"from": time})
        assert asked.status_code == 400, time
