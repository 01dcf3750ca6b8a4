"""Destinations over REST through Envoy, and on the command line."""

from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from headgate_server.cli import commands as cli
from headgate_server.core.model import Scope
from tests.support.edge import Edge, failure
from tests.support.receivers import Receiver, answers, beside
from tests.support.up import Up, headgate
from tests.support.waiting import until_true


@pytest.fixture
def up(store_url: str, tmp_path: Path) -> Any:
    with Up("--store", store_url, "--webhook-allow", "127.0.0.0/8", "--webhook-allow", "::1", folder=tmp_path) as up:
        yield up


def shown(edge: Edge, destination_id: str, **wanted: Any) -> dict[str, Any]:
    """Wait until a destination has these values, and return it."""

    def state() -> dict[str, Any]:
        response = edge.http.get(f"/v1/destinations/{destination_id}")
        found: dict[str, Any] = response.json()
        return found if wanted.items() <= found.items() else {}

    return until_true(state)


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_every_request_of_rest(up: Up, store_url: str) -> None:
    with closing(Edge.of(up, store_url, "acme")) as edge, beside(answers()) as one:
        edge.batch({"type": "order.paid"}, {"type": "ping"})
        made = edge.post("/v1/destinations", _crm(one))
        assert made.status_code == 200, made.text
        body = made.json()
        assert (body["name"], body["cursor"], body["lag_events"]) == ("crm", 0, 2)
        assert body["webhook"]["secret"].startswith("whsec_")
        path = f"/v1/destinations/{body['id']}"
        assert edge.http.get("/v1/destinations").json()["destinations"][0]["id"] == body["id"]
        changed = edge.http.patch(f"{path}?update_mask=filter.types", json={"filter": {"types": ["ping"]}})
        assert (changed.status_code, changed.json()["filter"]["types"]) == (200, ["ping"]), changed.text
        assert edge.http.patch(path, json={"name": "new"}).json()["name"] == "new"
        for verb, state in (("pause", "paused"), ("resume", "active")):
            assert edge.http.post(f"{path}:{verb}").json()["state"] == state
            assert edge.post(f"{path}:{verb}", {}).json()["state"] == state
        assert edge.post(f"{path}:replay", {"after_sequence": 0}).status_code == 200
        assert edge.post(f"{path}:replay", {"from": "2026-01-01T00:00:00Z"}).status_code == 200
        assert edge.post(f"{path}:replay", {"set_aside": True}).status_code == 200
        assert edge.http.post(f"{path}:rotateSecret").json()["webhook"]["secret"].startswith("whsec_")
        assert edge.http.get(f"{path}/failures").json() == {"failures": [], "next_page_token": ""}
        for verb in ("retry", "skip"):
            assert failure(edge.http.post(f"{path}/failures/1:{verb}")) == (404, 5, "NOT_FOUND")
        assert failure(edge.post(f"{path}:replay", {"after_sequence": 99})) == (400, 3, "PAST_THE_END")
        assert failure(edge.post("/v1/destinations", _crm(one) | {"name": "new"})) == (409, 6, "NAME_TAKEN")
        assert failure(edge.post("/v1/destinations", b"{")) == (400, 3, "MALFORMED_JSON")
        deleted = edge.http.delete(path)
        assert (deleted.status_code, deleted.json()) == (200, {})
        assert failure(edge.http.get(path)) == (404, 5, "NOT_FOUND")
    with closing(Edge.of(up, store_url, "acme", [Scope.EVENTS_READ])) as weak:
        assert failure(weak.http.get("/v1/destinations")) == (403, 7, "MISSING_SCOPE")


def _crm(one: Receiver) -> dict[str, Any]:
    return {
        "name": "crm",
        "webhook": {"url": f"http://127.0.0.1:{one.port}/", "max_events": 1, "format": "standard"},
        "filter": {"types": ["order.*"]},
        "start": "beginning",
        "ordering": "ordered",
    }


def test_the_service_delivers_to_a_destination_of_the_command_line(up: Up, store_url: str) -> None:
    with closing(Edge.of(up, store_url, "acme")) as edge:
        edge.batch({"type": "order.paid", "idempotency_key": "a"}, {"type": "ping"})
        with beside(answers()) as one:
            url = f"http://127.0.0.1:{one.port}/"
            of = ("--store", store_url, "--workspace", "acme")
            made = headgate("destinations", "create", *of, "--name", "crm", "--url", url, "--type", "order.*",
                            "--ordered", "--start", "beginning")  # fmt: skip
            assert made.returncode == 0, made.stderr
            assert made.stdout.strip().startswith("whsec_")
            assert len(made.stdout.splitlines()) == 1
            assert "127.0.0.1 is in a blocked network (this machine); the setting --webhook-allow" in made.stderr
            (found,) = edge.http.get("/v1/destinations").json()["destinations"]
            shown(edge, found["id"], cursor=2, delivered=1)
            stored = edge.http.get("/v1/events?view=FULL").json()["events"]
            assert [event["delivery"] for event in stored] == ["delivered", "none"]
            assert edge.http.get(f"/v1/events/{stored[0]['id']}?view=FULL").json() == stored[0]
            assert "delivery" not in edge.http.get(f"/v1/events/{stored[0]['id']}").json()
            assert [orjson.loads(request.body)["data"]["sequence"] for request in one.requests] == [1]
            listed = headgate("destinations", "list", *of)
            assert f"{found['id']}  crm  active  ordered  cursor 2  0 behind  0 set aside" in listed.stdout
            assert "paused" in headgate("destinations", "pause", *of, "crm").stdout
            assert "active" in headgate("destinations", "resume", *of, found["id"]).stdout
            assert headgate("destinations", "replay", *of, "crm", "--after", "0").returncode == 0
            until_true(lambda: len(one.requests) == 2)
            assert headgate("destinations", "failures", *of, "crm").stdout == ""
            assert headgate("destinations", "delete", *of, "crm").returncode == 0
            assert headgate("destinations", "list", *of).stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "--workspace", "acme", "--name", "A", "--url", "https://x.example"), "is not 1 to 63"),
        (("create", "--workspace", "acme", "--name", "a", "--url", "x"), "does not begin with https://"),
        (("create", "--workspace", "acme", "--name", "a", "--url", "https://x.example", "--start", "x"), "start:"),
        (("create", "--workspace", "nobody", "--name", "a", "--url", "https://x.example"), "no workspace 'nobody'"),
        (("pause", "--workspace", "acme", "crm"), "no destination 'crm'"),
        (("replay", "--workspace", "acme", "crm"), "exactly one of"),
        (("replay", "--workspace", "acme", "crm", "--from", "x"), "not an RFC 3339 timestamp"),
    ],
)
def test_commands_that_are_refused(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    store = ("--store", f"sqlite:///{tmp_path}/x.db")
    key = ["keys", "create", *store, "--workspace", "acme", "--scope", "admin"]
    assert CliRunner().invoke(cli.headgate, key).exit_code == 0
    done = CliRunner().invoke(cli.headgate, ["destinations", arguments[0], *store, *arguments[1:]])
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_public_url_needs_no_note(tmp_path: Path) -> None:
    store = ["--store", f"sqlite:///{tmp_path}/x.db", "--workspace", "acme"]
    assert CliRunner().invoke(cli.headgate, ["keys", "create", *store, "--scope", "admin"]).exit_code == 0
    create = ["destinations", "create", *store, "--name", "crm", "--url", "https://example.com/"]
    done = CliRunner().invoke(cli.headgate, create)
    assert done.exit_code == 0
    assert done.stderr == ""
    assert done.stdout.startswith("whsec_")
