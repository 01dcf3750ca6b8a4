"""`headgate deliver`: the delivery as a process of its own, beside servers that do not deliver."""

import os
import signal
import subprocess
from contextlib import closing
from pathlib import Path

from tests.support.edge import Edge
from tests.support.receivers import answers, beside
from tests.support.up import HEADGATE, Up
from tests.support.waiting import until_true


def test_a_process_of_its_own_delivers(store_url: str, tmp_path: Path) -> None:
    with (
        beside(answers()) as one,
        Up("--store", store_url, "--deliver", "off", "--webhook-allow", "127.0.0.0/8", folder=tmp_path) as up,
        closing(Edge.of(up, store_url, "acme")) as edge,
    ):
        url = f"http://127.0.0.1:{one.port}/"
        made = edge.post("/v1/destinations", {"name": "crm", "webhook": {"url": url}}).json()
        edge.batch({"type": "t"})
        assert not any(job["name"] == "deliver" for job in edge.http.get("/readyz").json()["jobs"])
        assert one.requests == []
        process = subprocess.Popen(
            [*HEADGATE, "deliver", "--webhook-allow", "127.0.0.0/8"],
            env={**os.environ, "HEADGATE_STORE": store_url},
            stderr=subprocess.PIPE,
        )
        try:
            until_true(lambda: edge.http.get(f"/v1/destinations/{made['id']}").json()["cursor"] == 1)
            assert len(one.requests) == 1
        finally:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=30)
        assert process.returncode == 0
        assert b'"lease_taken"' in said
