"""The requests of log shippers as they come over the wire, with the recipes of docs/log-shippers.md.

Neither program is in a package that can be installed here. So the requests are written as the programs' own code writes
them (Vector 0.58: `src/sinks/http`, `src/http.rs`; Fluent Bit 5.1: `plugins/out_http`, `src/flb_http_client.c`,
`src/flb_pack.c`): the same headers in the same order and spelling, and the same bytes of a body.
"""

import gzip
import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.edge.test_rejections import seen
from tests.support.edge import Edge, raw, statuses

LOGS = ["GET /a 200", 'quoted "text" \\ é', "GET /b 500"]
DATES = [f"2026-11-30T09:00:0{second}.123456Z" for second in range(3)]


def _vector(edge: Edge, records: Sequence[str], *, framing: str, packed: bool) -> bytes:
    """Return a request of Vector's `http` sink. hyper writes names in lower case, serde_json members by their names."""
    texts = [record.encode() for record in records]
    if framing == "newline_delimited":
        body, kind = b"\n".join(texts), "application/x-ndjson"  # without a line feed at the end
    else:
        body, kind = b"[" + b",".join(texts) + b"]", "application/json"
    body = gzip.compress(body) if packed else body
    head = [
        *("POST /v1/events/batch HTTP/1.1", f"content-type: {kind}", *(["content-encoding: gzip"] if packed else [])),
        *(f"authorization: Bearer {edge.key}", "user-agent: Vector/0.58.0 (x86_64-unknown-linux-gnu c3445d4)"),
        *("accept-encoding: identity", f"host: {edge.up.rest}", f"content-length: {len(body)}"),
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def _fluent_bit(edge: Edge, records: Sequence[str], *, format_: str, packed: bool) -> bytes:
    """Return a request of Fluent Bit's `http` output."""
    texts = [record.encode() for record in records]
    if format_ == "json_lines":
        body, kind = b"".join(text + b"\n" for text in texts), "application/x-ndjson"
    else:
        body, kind = b"[" + b",".join(texts) + b"]", "application/json"
    body = gzip.compress(body) if packed else body
    head = [
        *("POST /v1/events/batch HTTP/1.1", f"Host: {edge.up.rest}", f"Content-Length: {len(body)}"),
        *(f"Content-Type: {kind}", *(["Content-Encoding: gzip"] if packed else []), "User-Agent: Fluent-Bit"),
        f"Authorization: Bearer {edge.key}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def _of_vector(key: str, log: str, date: str) -> str:
    data = {"host": "web-1", "message": log, "source_type": "file", "timestamp": date}
    event = {"data": data, "idempotency_key": key, "occurred_at": date, "source": "web-1", "type": "log.line"}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))


def _of_fluent_bit(key: str, log: str, date: str) -> str:
    """The date comes first. Lua has no order of members. Text that is not ASCII is escaped."""
    event = {"occurred_at": date, "idempotency_key": key, "source": "tail.0", "data": {"log": log}, "type": "log.line"}
    return json.dumps(event, separators=(",", ":"))


def _request(edge: Edge, shipper: str, form: str, records: Sequence[str], *, packed: bool) -> bytes:
    if shipper == "vector":
        return _vector(edge, records, framing=form, packed=packed)
    return _fluent_bit(edge, records, format_=form, packed=packed)


FORMS = [
    *(("vector", "newline_delimited"), ("vector", "character_delimited")),
    *(("fluent bit", "json_lines"), ("fluent bit", "json")),
]


def _sent(edge: Edge, request: bytes) -> Any:
    status, headers, body = raw(edge, request)
    assert (status, headers["content-type"]) == (200, "application/json"), body
    return json.loads(body)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("shipper", "form"), FORMS)
def test_a_shipper_delivers_and_sends_again(edge: Edge, shipper: str, form: str, packed: bool) -> None:
    of = _of_vector if shipper == "vector" else _of_fluent_bit
    records = [of(f"k{n}", log, date) for n, (log, date) in enumerate(zip(LOGS, DATES, strict=True))]
    request = _request(edge, shipper, form, records, packed=packed)
    answer = _sent(edge, request)
    assert statuses(answer) == ["accepted"] * 3
    assert not any("warnings" in result for result in answer["results"])
    # The answer was lost, or the shipper was killed and began again from its buffer.
    assert statuses(_sent(edge, request)) == ["duplicate"] * 3
    listed = edge.http.get("/v1/events").json()["events"]
    assert [(event["type"], event["occurred_at"]) for event in listed] == [("log.line", date) for date in DATES]
    field = "message" if shipper == "vector" else "log"
    assert [event["data"][field] for event in listed] == LOGS


@pytest.mark.parametrize(("shipper", "form"), FORMS)
def test_a_bad_record_is_kept_as_a_rejection(edge: Edge, shipper: str, form: str) -> None:
    """The answer is 200, since after any other status the shipper would send all records again, or drop them all."""
    of = _of_vector if shipper == "vector" else _of_fluent_bit
    bad = of("k1", "x", "1764493200.5")
    records = [of("k0", LOGS[0], DATES[0]), bad, of("k2", LOGS[2], DATES[2])]
    answer = _sent(edge, _request(edge, shipper, form, records, packed=False))
    assert statuses(answer) == ["accepted", "rejected", "accepted"]
    (kept,) = seen(edge, 1)
    assert (kept["reason"], kept["event"]) == ("INVALID_TIMESTAMP", bad)


def test_fluent_bit_without_a_format_is_told_so(edge: Edge) -> None:
    """Its default is MessagePack."""
    body = b"\x92\xd7\x00\x69\x2c\x0a\x10\x07\x5b\xcd\x15\x81\xa3log\xa1x"
    head = [
        *("POST /v1/events/batch HTTP/1.1", f"Host: {edge.up.rest}", f"Content-Length: {len(body)}"),
        *("Content-Type: application/msgpack", "User-Agent: Fluent-Bit", f"Authorization: Bearer {edge.key}"),
    ]
    status, _, answer = raw(edge, "\r\n".join([*head, "", ""]).encode() + body)
    assert status == 400
    assert json.loads(answer)["details"][0]["reason"] == "MALFORMED_JSON"


def test_vectors_health_check_is_a_head(edge: Edge) -> None:
    """It expects exactly 200. With `auth` in its own place the check has the sink's key, otherwise none."""
    for headers in ({}, {"authorization": f"Bearer {edge.key}", "x-api-key": ""}):
        response = edge.http.head("/readyz", headers=headers)
        assert (response.status_code, response.content) == (200, b"")
