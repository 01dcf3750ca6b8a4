"""The bodies that `POST /v1/events/batch` takes besides its own object: a JSON array, and one event a line."""

import base64
import gzip
import socket
from typing import Any

import pytest

from headgate_server.core.model import Scope
from tests.edge.conftest import MakeEdge
from tests.edge.test_rejections import seen
from tests.support.edge import Edge, failure, statuses

BATCH = "/v1/events/batch"
LINES = "application/x-ndjson"
TEXTS = [
    b'{"type":"a","idempotency_key":"k1","data":{"n":12345678901234567890}}',
    b"",
    b' {"type": "b", ',
    b'{"type":"c","data":{"text":"\xff\xfe"}}\r',
    b" \t",
    b'{"type":"a","idempotency_key":"k1","data":{"n":1}}',
    b'{"source":"no type"}',
    b'{"type":"d"}',
]


def _sent(edge: Edge, body: bytes, query: str = "", **headers: str) -> Any:
    response = edge.post(BATCH + query, body, **({"content_type": LINES} | headers))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


@pytest.mark.parametrize("content_type", [LINES, "application/jsonl", "Application/JSON-Lines; Charset=UTF-8"])
def test_each_line_is_an_event_on_its_own(any_edge: Edge, content_type: str) -> None:
    answer = _sent(any_edge, b"\n".join(TEXTS), content_type=content_type)
    assert (answer["total"], answer["success_count"], answer["error_count"]) == (6, 2, 4)
    results = answer["results"]
    assert statuses(answer) == ["accepted", "rejected", "rejected", "conflict", "rejected", "accepted"]
    assert [result["index"] for result in results] == [0, 1, 2, 3, 4, 5]
    assert [result["line"] for result in results] == [1, 3, 4, 6, 7, 8]
    assert [result["error"]["reason"] for result in results if "error" in result] == [
        *("MALFORMED_JSON", "MALFORMED_JSON", "IDEMPOTENCY_CONFLICT", "MISSING_FIELD")
    ]
    assert results[1]["error"]["message"] == "The line is not JSON: the end at column 16 is not expected."
    assert results[2]["error"]["message"] == "The line is not UTF-8: byte 28 is 0xff."
    assert any_edge.stored() == 2
    assert b'"n":12345678901234567890' in any_edge.http.get(f"/v1/events/{results[0]['id']}").content


def test_rejections_keep_the_exact_line(any_edge: Edge) -> None:
    _sent(any_edge, b"\n".join(TEXTS))
    missing, conflict, no_text, malformed = seen(any_edge, 4)
    assert malformed["event"] == '{"type": "b",'
    assert conflict["event"].encode() == TEXTS[5]
    assert missing["event"].encode() == TEXTS[6]
    assert "event" not in no_text
    assert base64.b64decode(no_text["event_base64"]) == TEXTS[3].rstrip()
    assert no_text["event_size"] == len(TEXTS[3].rstrip())
    # Unchanged they fail again, each with its own reason; mended they are stored.
    for rejection in (malformed, no_text):
        again = any_edge.post(f"/v1/rejections/{rejection['id']}:replay", {})
        assert again.json()["error"]["reason"] == "MALFORMED_JSON", again.text
        mended = any_edge.post(f"/v1/rejections/{rejection['id']}:replay", {"event": {"type": "b"}})
        assert mended.json()["status"] == "accepted"


def test_options_are_in_the_query(edge: Edge) -> None:
    body = b'{"type":"a"}\n{"type":""}\n'
    atomic = _sent(edge, body, "?atomic=true")
    assert statuses(atomic) == ["aborted", "rejected"]
    assert [result["line"] for result in atomic["results"]] == [1, 2]
    assert statuses(_sent(edge, body, "?validate_only=true")) == ["accepted", "rejected"]
    assert statuses(_sent(edge, b'[{"type":"a"},5]', "?atomic=true", content_type="application/json")) == [
        "aborted",
        "rejected",
    ]
    assert edge.stored() == 0
    assert failure(edge.post(BATCH + "?colour=red", body, content_type=LINES))[0] == 400


def test_a_request_key_replays_the_lines(edge: Edge) -> None:
    body = b'\n{"type":"a"}\n\n{"type":5}'
    first = edge.post(BATCH, body, content_type=LINES, idempotency_key="chunk-1")
    packed = edge.post(
        BATCH, gzip.compress(body), content_type=LINES, idempotency_key="chunk-1", content_encoding="gzip"
    )
    assert packed.headers["idempotency-replayed"] == "true"
    assert packed.content == first.content
    assert [result["line"] for result in first.json()["results"]] == [2, 4]
    assert failure(edge.post(BATCH, body + b"\n{}", content_type=LINES, idempotency_key="chunk-1"))[0] == 422
    assert edge.stored() == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_lines_in_another_encoding_are_refused_one_by_one(any_edge: Edge, encoding: str) -> None:
    """JSON is UTF-8, whatever the charset says. Nothing is lost: what was sent is kept."""
    body = '{"type":"a"}\n{"type":"b"}'.encode(encoding)
    answer = _sent(any_edge, body, content_type=f"{LINES}; charset={encoding}")
    assert {result["error"]["reason"] for result in answer["results"]} == {"MALFORMED_JSON"}
    kept = seen(any_edge, answer["total"])
    assert all("event" in rejection or "event_base64" in rejection for rejection in kept)


def test_a_byte_order_mark_is_the_fault_of_its_line(edge: Edge) -> None:
    answer = _sent(edge, '{"type":"a"}\n{"type":"b"}'.encode("utf-8-sig"))
    assert statuses(answer) == ["rejected", "accepted"]


def test_a_sender_that_breaks_off_has_stored_nothing(edge: Edge) -> None:
    """Its lines are whole, but its request is not: the sender will send all of it again."""
    host, _, port = edge.up.rest.partition(":")
    line = b'{"type":"a"}\n'
    for framing, body in (
        ("content-length: 1000", line * 3),
        ("transfer-encoding: chunked", b"%x\r\n%b\r\n" % (len(line), line)),
    ):
        head = (
            f"POST {BATCH} HTTP/1.1\r\nhost: h\r\nx-api-key: {edge.key}\r\ncontent-type: {LINES}\r\n{framing}\r\n\r\n"
        )
        with socket.create_connection((host, int(port)), 10) as connection:
            connection.sendall(head.encode() + body)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass
    assert edge.stored() == 0


def test_an_array_of_events(any_edge: Edge) -> None:
    body = b'\r\n [{"type":"a","data":{"n":1,"n":2}}, {"type":"b","data":{"n":0.10}}, [], null]'
    for content_type in ("application/json", "text/plain", "application/json; charset=utf-8"):
        answer = _sent(any_edge, body, content_type=content_type)
        assert statuses(answer) == ["rejected", "accepted", "rejected", "rejected"]
        assert all("line" not in result for result in answer["results"])
    assert any_edge.stored() == 3
    assert [rejection["event"] for rejection in seen(any_edge, 9)[-3:]] == [
        "null",
        "[]",
        '{"type":"a","data":{"n":1,"n":2}}',
    ]


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"", LINES, (400, 3, "EMPTY_BATCH")),
        (b"\n \r\n", LINES, (400, 3, "EMPTY_BATCH")),
        (b"[]", "application/json", (400, 3, "EMPTY_BATCH")),
        (b"[" + b"{}," * 1_000 + b"{}]", "application/json", (400, 3, "TOO_MANY_EVENTS")),
        (b"{}\n" * 1_001, LINES, (400, 3, "TOO_MANY_EVENTS")),
        (b'{"type":"a"}\n' * 700_000, LINES, (413, 8, "BODY_TOO_LARGE")),
        (b'{"type":"a"}\n{"type":"a"}', "application/json", (400, 3, "MALFORMED_JSON")),
        (b"[" * 4_000_000, "application/json", (400, 3, "MALFORMED_JSON")),
    ],
    ids=["empty", "blank", "empty array", "long array", "many lines", "large", "not said", "deep"],
)
def test_what_is_no_batch_stores_nothing(
    edge: Edge, body: bytes, content_type: str, expected: tuple[int, int, str]
) -> None:
    assert failure(edge.post(BATCH, body, content_type=content_type)) == expected
    assert edge.stored() == 0


def test_without_the_scope_no_line_is_stored(make_edge: MakeEdge) -> None:
    reader = make_edge(Scope.EVENTS_READ, Scope.LEDGER_READ)
    assert failure(reader.post(BATCH, b'{"type":"a"}', content_type=LINES))[0] == 403
    nobody = reader.post(BATCH, b'{"type":"a"}', content_type=LINES, x_api_key="hg_nobody")
    assert failure(nobody)[0] == 401
    assert reader.stored() == 0
