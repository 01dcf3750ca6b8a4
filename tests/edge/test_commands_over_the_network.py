"""Commands with `--url` and `--key`: the same as at the store, through the bridge."""

import json

from tests.edge.conftest import MakeEdge
from tests.support.edge import failure
from tests.support.up import headgate


def test_an_operator_without_the_store(make_edge: MakeEdge) -> None:
    operator, acme = make_edge(workspace="_headgate"), make_edge()
    there = ("--url", operator.up.rest, "--key", operator.key)
    made = headgate("keys", "create", *there, "--workspace", "over-the-network", "--scope", "events:write")
    assert made.returncode == 0, made.stderr
    (key,) = map(
        json.loads, headgate("keys", "list", *there, "--workspace", "over-the-network", "--json").stdout.splitlines()
    )
    assert made.stdout.startswith(key["prefix"])
    assert headgate("keys", "revoke", *there, key["id"]).returncode == 0
    acts = headgate("audit", *there, "--workspace", "over-the-network", "--json").stdout.splitlines()
    assert [json.loads(act)["type"] for act in acts] == ["workspace.created", "key.created", "key.revoked"]

    listed = headgate("destinations", "list", "--service", *there[1:], "--workspace", "over-the-network")
    assert (listed.returncode, listed.stdout) == (0, ""), listed.stderr
    for edge, name, status in (
        (operator, "over-the-network", 200),
        (operator, "nobody", 404),
        (acme, "over-the-network", 403),
    ):
        answer = edge.http.get("/v1/events", headers={"headgate-workspace": name})
        assert answer.status_code == status, answer.text
        assert status == 200 or failure(answer)[0] == status

    acme.batch({"type": "t", "data": {"n": 12345678901234567890}})
    own = ("--url", acme.up.rest, "--key", acme.key)
    (line,) = headgate("events", "list", *own).stdout.splitlines()
    assert json.loads(line) == acme.http.get("/v1/events").json()["events"][0]
    assert "12345678901234567890" in line
    refused = headgate("audit", *own)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "not '_headgate'" in refused.stderr
    both = headgate("keys", "list", *there, "--store", acme.url)
    assert "give --url or --store, not both" in both.stderr
