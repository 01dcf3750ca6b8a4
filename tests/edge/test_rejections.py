"""Refused events through Envoy and on the command line: listed, shown, edited and replayed."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from headgate_server.cli import commands as cli
from headgate_server.core.model import Scope
from tests.edge.conftest import MakeEdge
from tests.support.edge import Edge, failure, statuses
from tests.support.up import headgate
from tests.support.vendors import VENDORS, Vendor
from tests.support.waiting import until_true

BATCH = (
    b'{"events": [\n'
    b'  {"type": "order.completed", "source": "shop", "data": {"n": 1}},\n'
    b'  {"source": "shop", "idempotency_key": "order-2", "data": {"amount": 12345678901234567890.10}},\n'
    b'  {"type": "order.completed", "occurred_at": "yesterday"},\n'
    b'  "order.completed"\n'
    b"]}"
)
MENDED = (
    b'{"event": {"type": "order.completed", "source": "shop", "idempotency_key": "order-2",'
    b' "data": {"amount": 12345678901234567890.10}}}'
)


def seen(edge: Edge, count: int, query: str = "") -> list[dict[str, Any]]:
    """Return so many rejections, the newest first, as soon as they are written."""

    def there() -> list[dict[str, Any]]:
        response = edge.http.get("/v1/rejections" + query)
        assert response.status_code == 200, response.text
        assert response.json().keys() == {"rejections", "next_page_token", "omitted"}
        found: list[dict[str, Any]] = response.json()["rejections"]
        return found if len(found) >= count else []

    found = until_true(there)
    assert len(found) == count
    return found


def test_bad_events_of_a_batch_are_shown_edited_and_replayed(any_edge: Edge) -> None:
    edge = any_edge
    response = edge.post("/v1/events/batch", BATCH, x_request_id="my-request")
    assert statuses(response.json()) == ["accepted", "rejected", "rejected", "rejected"]
    text, moment, missing = seen(edge, 3)
    assert missing.keys() == {
        *("id", "received_at", "reason", "field", "message", "receiver", "key_id", "request_id", "event", "event_size")
    }
    assert (missing["reason"], missing["field"], missing["receiver"]) == ("MISSING_FIELD", "type", "native")
    assert missing["message"] == "The type field is required."
    assert missing["request_id"] == "my-request"
    assert missing["event"].encode() in BATCH
    assert missing["event"].startswith('{"source": "shop"')
    assert (moment["reason"], text["event"]) == ("INVALID_TIMESTAMP", '"order.completed"')
    assert edge.http.get(f"/v1/rejections/{missing['id']}").json() == missing

    replay = f"/v1/rejections/{missing['id']}:replay"
    dry = edge.post(replay + "?validate_only=true", MENDED)
    assert dry.json() == {"index": 0, "status": "accepted"}
    result = edge.post(replay, MENDED).json()
    assert result.keys() == {"index", "status", "id", "sequence", "created_at", "event_hash"}
    assert (result["status"], result["sequence"]) == ("accepted", 2)
    assert edge.post(replay, MENDED).json() == {**result, "status": "duplicate"}
    marked = edge.http.get(f"/v1/rejections/{missing['id']}").json()
    assert marked["event_id"] == result["id"]
    assert marked["replayed_at"]
    assert b"12345678901234567890.1" in edge.http.get(f"/v1/events/{result['id']}").content

    # Unchanged, the others fail again. The one that was replayed is left out.
    answer = edge.post("/v1/rejections:replay", b"{}").json()
    assert (answer["total"], answer["success_count"], answer["error_count"]) == (2, 0, 2)
    assert [each["rejection_id"] for each in answer["results"]] == [moment["id"], text["id"]]
    assert answer["results"][0]["result"]["error"]["reason"] == "INVALID_TIMESTAMP"
    alone = edge.http.post(f"/v1/rejections/{text['id']}:replay")
    assert (alone.status_code, alone.json()["status"]) == (200, "rejected")


def test_filters_in_a_query(edge: Edge) -> None:
    edge.post("/v1/events/batch", BATCH)
    text, moment, missing = seen(edge, 3)
    assert seen(edge, 1, "?reason=MISSING_FIELD&receiver=native&replayed=false")[0] == missing
    assert seen(edge, 1, f"?from={text['received_at']}&key_id={text['key_id']}")[0] == text
    offset = moment["received_at"].replace("Z", "+00:00")
    assert seen(edge, 1, f"?to={offset}")[0] == missing
    page = edge.http.get("/v1/rejections?page_size=2").json()
    assert page["rejections"] == [text, moment]
    rest = edge.http.get(f"/v1/rejections?page_size=2&page_token={page['next_page_token']}").json()
    assert (rest["rejections"], rest["next_page_token"]) == ([missing], "")


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        pytest.param("GET", "/v1/rejections?colour=red", 400, "INVALID_REQUEST", id="an unknown filter"),
        pytest.param("GET", "/v1/rejections?reason=NO", 400, "INVALID_FILTER", id="no such reason"),
        pytest.param("GET", "/v1/rejections?page_token=x", 400, "INVALID_PAGE_TOKEN", id="a bad token"),
        pytest.param("GET", "/v1/rejections?from=soon", 400, "INVALID_TIMESTAMP", id="no time"),
        pytest.param("GET", "/v1/rejections?page_size=-1", 400, "NEGATIVE", id="a negative size"),
        pytest.param("GET", "/v1/rejections/x", 400, "INVALID_ID", id="no id"),
        pytest.param("GET", "/v1/rejections/" + "0" * 32, 404, "REJECTION_NOT_FOUND", id="no rejection"),
        pytest.param("POST", "/v1/rejections/" + "0" * 32 + ":replay", 404, "REJECTION_NOT_FOUND", id="none to replay"),
        pytest.param("POST", "/v1/rejections/" + "0" * 32 + ":undo", 404, "NO_SUCH_PATH", id="no such verb"),
        pytest.param("POST", "/v1/rejections/x:replay?id=y", 400, "INVALID_REQUEST", id="a second id"),
        pytest.param("POST", "/v1/rejections:replay?reason=NO", 400, "INVALID_REQUEST", id="a filter in the query"),
        pytest.param("GET", "/v1/rejections:replay", 404, "NO_SUCH_PATH", id="a replay by GET"),
    ],
)
def test_requests_that_are_refused(edge: Edge, method: str, path: str, status: int, reason: str) -> None:
    response = edge.http.request(method, path)
    found = failure(response)
    assert (found[0], found[2]) == (status, reason)


def test_scopes(make_edge: MakeEdge, edge: Edge) -> None:
    edge.post("/v1/events/batch", BATCH)
    rejection = seen(edge, 3)[2]
    path = f"/v1/rejections/{rejection['id']}"
    stranger, nobody = make_edge(Scope.EVENTS_READ), make_edge(Scope.LEDGER_READ)
    assert failure(stranger.http.get(path))[::2] == (404, "REJECTION_NOT_FOUND")
    assert stranger.http.get("/v1/rejections").json()["rejections"] == []
    assert failure(stranger.post(path + ":replay", MENDED))[::2] == (403, "MISSING_SCOPE")
    assert failure(stranger.post("/v1/rejections:replay", b""))[::2] == (403, "MISSING_SCOPE")
    assert failure(nobody.http.get("/v1/rejections"))[::2] == (403, "MISSING_SCOPE")
    assert failure(nobody.http.get(path))[::2] == (403, "MISSING_SCOPE")
    nobody.http.headers.pop("x-api-key")
    assert failure(nobody.http.get("/v1/rejections"))[::2] == (401, "MISSING_API_KEY")


@pytest.mark.parametrize("vendor", VENDORS.values(), ids=VENDORS)
def test_a_vendors_rejection(edge: Edge, vendor: Vendor) -> None:
    good, bad = vendor.event(0), vendor.event(1)
    bad[vendor.text] = 5
    body = b'{"events": [' + orjson.dumps(good) + b" ,\n" + orjson.dumps(bad) + b"]}"
    edge.post(vendor.batch, body)
    (rejection,) = seen(edge, 1)
    assert (rejection["receiver"], rejection["reason"]) == (vendor.name, "WRONG_TYPE")
    assert rejection["event"].encode() == orjson.dumps(bad)
    again = edge.post(f"/v1/rejections/{rejection['id']}:replay", b"{}").json()
    assert (again["status"], again["error"]["message"]) == ("rejected", rejection["message"])


def _run(*arguments: str, code: int = 0) -> str:
    done = headgate("rejections", *arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_the_commands(make_edge: MakeEdge, tmp_path: Path) -> None:
    workspace = f"shell-{tmp_path.name[-8:].strip('-_').lower()}x"
    for store in ("sqlite", "postgres"):
        edge = make_edge(workspace=workspace, store=store)
        edge.post("/v1/events/batch", BATCH)
        text, moment, missing = seen(edge, 3)
        here = ("--store", edge.url, "--workspace", workspace)

        lines = _run("list", *here).splitlines()
        assert [line.split("  ")[0] for line in lines] == [each["id"] for each in (text, moment, missing)]
        assert lines[2].split("  ")[1:] == [
            *(missing["received_at"], "MISSING_FIELD", "type", "native", "-", "The type field is required.")
        ]
        assert len(_run("list", *here, "--limit", "2").splitlines()) == 2
        filters = ("--reason", "MISSING_FIELD", "--receiver", "native", "--key-id", missing["key_id"])
        assert len(_run("list", *here, *filters, "--to", moment["received_at"]).splitlines()) == 1
        assert _run("list", *here, "--from", "2100-01-01T00:00:00Z") == ""
        assert json.loads(_run("show", *here, missing["id"])) == missing

        event = tmp_path / "event.json"
        event.write_bytes(orjson.dumps({"type": "order.completed", "source": "shop"}))
        replay = ("replay", *here, missing["id"], "--event", str(event))
        assert json.loads(_run(*replay, "--validate-only"))["result"]["status"] == "accepted"
        first = json.loads(_run(*replay))
        assert (first["rejection_id"], first["result"]["status"]) == (missing["id"], "accepted")
        assert json.loads(_run(*replay))["result"]["status"] == "duplicate"
        assert "  replayed  " in _run("list", *here).splitlines()[2]
        assert json.loads(_run("replay", *here, moment["id"], code=1))["result"]["status"] == "rejected"
        everything = [json.loads(line) for line in _run("replay", *here, "--all", code=1).splitlines()]
        assert [each["rejection_id"] for each in everything] == [moment["id"], text["id"]]
        assert edge.stored() == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("list", "--workspace", "nobody"), "nobody", id="no such workspace"),
        pytest.param(("list", "--workspace", "a", "--reason", "NO"), "'NO'", id="no such reason"),
        pytest.param(("list", "--workspace", "a", "--receiver", "x"), "--receiver", id="no such receiver"),
        pytest.param(("list", "--workspace", "a", "--from", "soon"), "'soon'", id="no time"),
        pytest.param(("show", "--workspace", "a", "x"), "'x'", id="no id"),
        pytest.param(("show", "--workspace", "a", "0" * 32), "no rejection", id="no such rejection"),
        pytest.param(("replay", "--workspace", "a"), "--all", id="neither one nor all"),
        pytest.param(("replay", "--workspace", "a", "x", "--all"), "--all", id="one and all"),
        pytest.param(("replay", "--workspace", "a", "--all", "--event", "-"), "--event", id="one event for all"),
    ],
)
def test_commands_that_are_refused(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    store = ("--data-dir", str(tmp_path))
    key = ["keys", "create", *store, "--workspace", "a", "--scope", "admin"]
    assert CliRunner().invoke(cli.headgate, key).exit_code == 0
    done = CliRunner().invoke(cli.headgate, ["rejections", arguments[0], *store, *arguments[1:]])
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)
    assert done.stdout == ""
    assert said in done.stderr
