"""Scrip's contract: the searches of its reads, and the events that they show."""

import orjson
import pytest

from headgate_server.core.destinations import Fate
from headgate_server.core.errors import InvalidRequest, NotFound
from headgate_server.core.model import Draft
from headgate_server.receivers import Find, Get, Page, Search, Take
from tests.unit.receivers.scrip_requests import BATCH, EXAMPLE, GET, ID, LIST, MOMENT, PROGRAM, request, stored


def search(**query: str) -> Search:
    assert isinstance(LIST, Find)
    return LIST.read(request(path="/v1/events", query=query))


def test_a_list_without_filters_is_the_newest_50() -> None:
    assert search() == Search(limit=50, with_fates=True)
    assert search(status="", program_id="", cursor="") == Search(limit=50, with_fates=True)


def test_columns_answer_what_they_can() -> None:
    asked = search(
        program_id=PROGRAM.upper(),
        sort_dir="asc",
        limit="200",
        cursor="00ff",
        status="COMPLETED",
        to="2024-01-15T10:30:00Z",
        **{"from": "2024-01-15"},
    )
    assert asked == Search(
        limit=200,
        cursor="00ff",
        source=PROGRAM,
        created_from=MOMENT - 37_800_000_000,
        created_to=MOMENT,
        newest_first=False,
        with_fates=True,
        fates=frozenset({Fate.NONE, Fate.DELIVERED}),
    )


@pytest.mark.parametrize("status", ["PROCESSING", "RECEIVED"])
def test_no_event_has_a_status_that_stands_for_no_fate(status: str) -> None:
    assert search(status=status, to="2024-01-15T10:30:00Z").fates == frozenset()


@pytest.mark.parametrize(("status", "fate"), [("PENDING", Fate.PENDING), ("FAILED", Fate.FAILED)])
def test_a_status_is_what_became_of_the_delivery(status: str, fate: Fate) -> None:
    assert search(status=status).fates == {fate}
    assert search(status=status).created_to is None
    assert isinstance(GET, Get)
    assert GET.with_fates
    assert (
        orjson.loads(orjson.dumps(GET.reply(request(), Page([stored(EXAMPLE)], None, (), [fate])).body))["status"]
        == status
    )


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"external_id": "user_abc123"}, [0, 1]),
        ({"participant_id": PROGRAM}, [0, 2]),
        ({"participant_id": PROGRAM.upper(), "external_id": "user_abc123"}, [0]),
        ({"external_id": PROGRAM}, []),
        ({"event_from": "2024-01-15T10:30:00Z"}, [0, 1]),
        ({"event_to": "2024-01-15T10:30:00Z"}, [2]),
        ({"event_from": "2024-01-14", "event_to": "2024-01-15T10:30:00.000001Z"}, [0, 1, 2]),
    ],
)
def test_the_event_itself_answers_the_rest(query: dict[str, str], found: list[int]) -> None:
    events = [
        stored(EXAMPLE),
        stored(EXAMPLE | {"participant_id": None, "event_data": {"n": 10**30}}),
        stored(EXAMPLE | {"external_id": None, "event_timestamp": "2024-01-14T10:30:00Z"}),
    ]
    match = search(**query).match
    assert match is not None
    assert [index for index, event in enumerate(events) if match(event)] == found


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "201"},
        {"limit": "ten"},
        {"status": "DONE"},
        {"program_id": "p"},
        {"participant_id": "p"},
        {"external_id": "a\0b"},
        {"sort_dir": "up"},
        {"sort_by": "event_timestamp"},
        {"rule_id": PROGRAM},
        {"event_type": "SYSTEM"},
        {"from": "yesterday"},
        {"to": "yesterday", "status": "FAILED"},
        {"event_from": "1"},
        {"event_to": "1"},
    ],
)
def test_a_filter_that_is_not_as_documented_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        search(**query)
    assert refused.value.field in query


def test_an_event_is_read_back_as_it_was_sent() -> None:
    event = EXAMPLE | {"event_data": {"amount": 12345678901234567890123, "id": 1}, "id": "theirs", "status": "odd"}
    body = b'{"events":[' + orjson.dumps(event | {"event_data": "?"}).replace(
        b'"?"', b'{"amount":12345678901234567890123,"id":1}'
    )
    assert isinstance(BATCH, Take)
    [slot] = BATCH.read(request(body + b"]}")).slots
    assert isinstance(slot, Draft)
    assert isinstance(GET, Get)
    reply = GET.reply(request(), Page([stored(EXAMPLE)._replace(data=slot.data)], None, (), [Fate.NONE]))
    assert reply.status == 200
    raw = orjson.dumps(reply.body)
    assert b'"event_data":{"amount":12345678901234567890123,"id":1}' in raw
    shown = orjson.loads(raw)
    assert {name: shown[name] for name in EXAMPLE if name != "event_data"} == {
        name: value for name, value in EXAMPLE.items() if name != "event_data"
    }
    assert (shown["id"], shown["status"], shown["event_type"]) == (str(ID), "COMPLETED", "EXTERNAL")
    assert shown["created_at"] == shown["processed_at"] == "2024-01-15T10:30:00.000001Z"


def test_a_page_says_whether_there_is_more() -> None:
    assert isinstance(LIST, Find)
    sent = {name: value for name, value in EXAMPLE.items() if name not in ("participant_id", "recipient_id")}
    body = orjson.loads(orjson.dumps(LIST.reply(request(), Page([stored(sent)], "00ff", (), [Fate.DELIVERED])).body))
    assert body["pagination"] == {"has_more": True, "next_cursor": "00ff"}
    assert (body["data"][0]["participant_id"], body["data"][0]["recipient_id"]) == (None, None)
    empty = LIST.reply(request(), Page([], None))
    assert empty.body == {"data": [], "pagination": {"has_more": False, "next_cursor": None}}


def test_an_event_is_asked_for_by_its_id() -> None:
    assert isinstance(GET, Get)
    assert GET.read(request(path=f"/v1/events/{ID}")) == ID.bytes
    for path in ("/v1/events/x", "/v1/events/", "/v1/events/\0"):
        with pytest.raises(NotFound):
            GET.read(request(path=path))
