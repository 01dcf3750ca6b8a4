"""REST as a JSON client sees it: batches, single events, options, keys, reads."""

import json
from decimal import Decimal

import httpx
import pytest

from headgate_server.core.model import Scope
from tests.edge.conftest import MakeEdge
from tests.support import poison
from tests.support.edge import Edge, failure, statuses

BATCH = "/v1/events/batch"


@pytest.mark.parametrize(("text", "rejection"), [pytest.param(*value, id=name) for name, value in poison.JSON.items()])
def test_poison_touches_its_own_position(edge: Edge, text: bytes, rejection: poison.Rejection | None) -> None:
    response = edge.post(BATCH, poison.json_batch(b'{"type":"before"}', text, b'{"type":"after"}'))
    assert response.status_code == 200, response.text
    before, result, after = response.json()["results"]
    assert (before["status"], after["status"]) == ("accepted", "accepted")
    assert result["status"] == ("accepted" if rejection is None else "rejected")
    if rejection is not None:
        assert (result["error"]["reason"], result["error"]["field"]) == rejection


def test_all_poison_at_once(any_edge: Edge) -> None:
    texts = [text for text, _ in poison.JSON.values() if len(text) < 10_000]
    response = any_edge.post(BATCH, poison.json_batch(*texts))
    assert response.status_code == 200
    wanted = ["accepted" if bad is None else "rejected" for text, bad in poison.JSON.values() if len(text) < 10_000]
    assert statuses(response.json()) == wanted


def test_numbers_read_back_exact(edge: Edge) -> None:
    payload = (
        b'{"large":9007199254740993,"larger":18446744073709551617,"decimal":0.12345678901234567890123,"far":1e999}'
    )
    (result,) = edge.post(BATCH, poison.json_batch(poison.json_event(payload))).json()["results"]
    read = edge.http.get(f"/v1/events/{result['id']}").text
    exact = json.loads(read, parse_int=Decimal, parse_float=Decimal)["data"]
    assert exact == json.loads(payload, parse_int=Decimal, parse_float=Decimal)


def test_an_unknown_field_is_a_warning(edge: Edge) -> None:
    (result,) = edge.batch({"type": "t", "colour": "red"})["results"]
    assert result["warnings"] == ['The field "colour" is not known and was ignored.']


@pytest.mark.parametrize(
    ("query", "options"),
    [
        pytest.param("", {"atomic": True}, id="a key of the body"),
        pytest.param("?atomic=true", {}, id="a query parameter"),
        pytest.param("?atomic=false", {"atomic": True}, id="both"),
    ],
)
def test_atomic(edge: Edge, query: str, options: dict[str, bool]) -> None:
    assert statuses(edge.batch({"type": "t"}, {}, path=BATCH + query, **options)) == ["aborted", "rejected"]
    assert edge.stored() == 0


@pytest.mark.parametrize(
    ("query", "options"),
    [
        pytest.param("", {"validate_only": True}, id="a key of the body"),
        pytest.param("", {"validateOnly": True}, id="in ProtoJSON's spelling"),
        pytest.param("?validate_only=true", {}, id="a query parameter"),
        pytest.param("?validateOnly=true", {}, id="the same in ProtoJSON's spelling"),
    ],
)
def test_validate_only(edge: Edge, query: str, options: dict[str, bool]) -> None:
    answer = edge.batch({"type": "t"}, {}, path=BATCH + query, **options)
    assert answer["results"][0] == {"index": 0, "status": "accepted"}
    assert edge.stored() == 0


def test_a_single_event(edge: Edge) -> None:
    path, sent = "/v1/events", {"type": "t", "source": "s", "idempotency_key": "k", "data": {"n": 1}}
    accepted, duplicate = edge.post(path, sent), edge.post(path, sent)
    assert (accepted.status_code, duplicate.status_code) == (200, 200)
    assert (accepted.json()["index"], accepted.json()["status"], accepted.json()["sequence"]) == (0, "accepted", 1)
    assert duplicate.json() == accepted.json() | {"status": "duplicate"}

    conflict = edge.post(path, {**sent, "data": {"n": 2}})
    assert failure(conflict) == (409, 6, "IDEMPOTENCY_CONFLICT")
    assert conflict.json()["details"][0]["metadata"] == {
        "event_id": accepted.json()["id"],
        "sequence": "1",
        "differing_fields": "/data/n",
    }
    rejected = edge.post(path, {"source": "s"})
    assert failure(rejected) == (400, 3, "MISSING_FIELD")
    assert rejected.json()["details"][1] == {
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "field_violations": [
            {"field": "type", "description": "The type field is required.", "reason": "MISSING_FIELD"}
        ],
    }
    assert edge.post(f"{path}?validate_only=true", {"type": "t"}).json() == {"index": 0, "status": "accepted"}
    assert edge.stored() == 1


def test_a_request_key(any_edge: Edge) -> None:
    body = {"events": [{"type": "t"}, {}, {"type": "t", "idempotency_key": "k"}]}
    first = any_edge.post(BATCH, body, idempotency_key="r1")
    again = any_edge.post(BATCH, body, idempotency_key="r1")
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.content == again.content
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert failure(any_edge.post(BATCH, {"events": [{"type": "u"}]}, idempotency_key="r1")) == (
        422,
        9,
        "IDEMPOTENCY_KEY_REUSED",
    )
    # The options in the query are part of the request.
    assert any_edge.post(f"{BATCH}?atomic=true", body, idempotency_key="r1").status_code == 422
    assert failure(any_edge.post(BATCH, body, idempotency_key="k" * 256)) == (400, 3, "INVALID_IDEMPOTENCY_KEY")
    assert any_edge.stored() == 2


def test_a_request_key_of_a_single_event(edge: Edge) -> None:
    path = "/v1/events"
    first, again = (edge.post(path, {"type": "t"}, idempotency_key="r") for _ in range(2))
    assert first.content == again.content
    assert again.headers["idempotency-replayed"] == "true"
    assert failure(edge.post(path, {"type": "u"}, idempotency_key="r")) == (422, 9, "IDEMPOTENCY_KEY_REUSED")
    bad, bad_again = (edge.post(path, {}, idempotency_key="bad") for _ in range(2))
    assert failure(bad) == failure(bad_again) == (400, 3, "MISSING_FIELD")
    assert bad_again.headers["idempotency-replayed"] == "true"
    assert edge.stored() == 1


def test_pages(edge: Edge) -> None:
    edge.batch(*({"type": "document.created", "source": "s", "idempotency_key": f"k{n}"} for n in range(5)))
    edge.batch({"type": "other"})
    keys: list[str] = []
    query = {"type": "document.*", "page_size": "2", "newest_first": "true"}
    while True:
        page = edge.http.get("/v1/events", params=query).json()
        keys += [one["idempotency_key"] for one in page["events"]]
        query["page_token"] = page["next_page_token"]
        if not page["next_page_token"]:
            break
    assert keys == ["k4", "k3", "k2", "k1", "k0"]
    found = edge.http.get("/v1/events", params={"source": "s", "idempotency_key": "k3"}).json()["events"]
    assert [one["idempotency_key"] for one in found] == ["k3"]
    since = {"from": found[0]["created_at"], "to": "2100-01-01T00:00:00Z"}
    assert [one["sequence"] for one in edge.http.get("/v1/events", params=since).json()["events"]] == [4, 5, 6]


def test_the_ledger(edge: Edge) -> None:
    empty = edge.http.get("/v1/ledger/head").json()
    assert (empty["sequence"], len(empty["hash"]), "created_at" in empty) == (0, 64, False)
    last = edge.batch({"type": "a"}, {"type": "b"})["results"][-1]
    head = edge.http.get("/v1/ledger/head").json()
    assert head == {"sequence": 2, "hash": last["event_hash"], "created_at": last["created_at"]}
    expected = {"expected_sequence": 2, "expected_hash": head["hash"]}
    assert edge.http.get("/v1/ledger/verify", params=expected).json() == {
        "valid": True,
        "events_checked": 2,
        "breaks": [],
        "next_page_token": "",
    }
    wrong = edge.http.get("/v1/ledger/verify", params=expected | {"expected_hash": "00" * 32}).json()
    assert not wrong["valid"]
    assert wrong["breaks"][0]["type"] == "head_mismatch"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/events"),
        ("POST", "/v1/events/batch"),
        ("GET", "/v1/events"),
        ("GET", "/v1/events/0190a6f2-5a3c-7d21-8f00-3b1c5a7e9d42"),
        ("GET", "/v1/ledger/head"),
        ("GET", "/v1/ledger/verify"),
    ],
)
def test_access(edge: Edge, make_edge: MakeEdge, method: str, path: str) -> None:
    content = b'{"type":"t","events":[]}' if method == "POST" else None
    needed = Scope.EVENTS_WRITE if method == "POST" else Scope.LEDGER_READ if "ledger" in path else Scope.EVENTS_READ
    others = make_edge(*(scope for scope in Scope if scope not in (needed, Scope.ADMIN)))
    with httpx.Client(base_url=edge.http.base_url) as stranger:
        assert failure(stranger.request(method, path, content=content)) == (401, 16, "MISSING_API_KEY")
        bad = {"authorization": f"Bearer {edge.key}x"}
        assert failure(stranger.request(method, path, content=content, headers=bad)) == (401, 16, "INVALID_API_KEY")
        bearer = {"authorization": f"Bearer {edge.key}"}
        assert stranger.request(method, path, content=content, headers=bearer).status_code in (200, 400, 404)
    assert failure(others.http.request(method, path, content=content)) == (403, 7, "MISSING_SCOPE")


def test_another_workspaces_event(edge: Edge, make_edge: MakeEdge) -> None:
    (result,) = edge.batch({"type": "t"})["results"]
    path = f"/v1/events/{result['id']}"
    assert edge.http.get(path).status_code == 200
    assert failure(make_edge().http.get(path)) == (404, 5, "EVENT_NOT_FOUND")
