"""The metrics of a service with two workers and Envoy, scraped while it works."""

import asyncio
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from headgate_server.process.metrics.catalogue import CATALOGUE, Kind
from tests.support.up import Up, headgate
from tests.support.waiting import until
from tests.unit.metrics.test_deploy import NAME, PROMTOOL, expressions, names

LATER = {
    "headgate_destination_lag_events",
    "headgate_destination_lag_seconds",
    "headgate_destination_set_aside",
    "headgate_delivery_seconds",
    "headgate_delivery_attempts",
    "headgate_delivery_events",
    "headgate_destinations_disabled",
    "headgate_group_failures",
    "headgate_job_failures",
    "headgate_ledger_checks",
    "headgate_ledger_breaks_found",
    "headgate_streams",
    "headgate_store_free_bytes",
    "headgate_tls_certificate_expires_timestamp_seconds",
}
"""What has samples only when there are destinations, failures or streams, with SQLite or with TLS."""


def _samples(page: str) -> Mapping[str, Mapping[str, float]]:
    """Return the samples of a page by name, and by the values of their labels."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = " ".join(sample.labels[name] for name in sorted(sample.labels))
            assert labels not in found.setdefault(sample.name, {}), sample
            found[sample.name][labels] = sample.value
    return found


async def test_two_workers_under_load(postgres_url: str, tmp_path: Path) -> None:
    assert headgate("ledger", "verify", "--store", postgres_url).returncode == 0
    arguments = ("--store", postgres_url, "--workers", "2", "--metrics-port", "0", "--metrics-workspaces", "5")
    with Up(*arguments, folder=tmp_path) as up:
        async with httpx.AsyncClient(base_url=f"http://{up.rest}", headers={"x-api-key": up.key}) as http:
            address = f"http://127.0.0.1:{up.metrics_port}/metrics"

            async def load(number: int) -> None:
                for count in range(10):
                    events = [{"type": "t", "idempotency_key": f"{number}-{count}"}, {"source": "x"}]
                    (await http.post("/v1/events/batch", json={"events": events})).raise_for_status()

            pages = asyncio.gather(*(http.get(address) for _ in range(4)))
            await asyncio.gather(*map(load, range(6)))
            assert {page.status_code for page in await pages} == {200}
            assert (await http.get("/v1/events/none")).status_code == 400
            page = (await http.get(address)).text
            found = _samples(page)

            async def measured() -> bool:
                return "headgate_ledger_verified_breaks" in _samples((await http.get(address)).text)

            await until(measured)
    assert found["headgate_events_total"] == {" accepted": 60, "MISSING_FIELD rejected": 60}
    assert found["headgate_workspace_events_total"] == {"accepted default": 60, "rejected default": 60}
    assert found["headgate_calls_total"]["OK /headgate.v1.IngestService/BatchIngest"] == 60
    assert found["headgate_group_events_sum"][""] >= 60
    assert set(found["headgate_group_seconds_count"]) == {"lock", "look_up", "settle", "write", "commit"}
    assert found["headgate_waiting_events_bound"][""] == 2 * 40_000
    assert found["headgate_ready"][""] == 1
    assert found["headgate_envoy_answering"][""] == 1
    assert found["headgate_store_bytes"][""] > 1_000_000
    assert all(value > 0 for value in found["headgate_worker_calls_total"].values())
    assert found["envoy_http_downstream_rq_xx_total"]["http 2"] >= 60  # the parser adds `_total`
    shown = {name.removesuffix("_total").removesuffix("_count") for name in found}
    wanted = {metric.name for metric in CATALOGUE} - LATER
    assert wanted - shown <= {"headgate_ledger_verified_timestamp_seconds", "headgate_ledger_verified_breaks"}
    assert {name for name in shown if name.startswith("headgate_")} <= {
        f"{metric.name}{suffix}"
        for metric in CATALOGUE
        for suffix in ("", *(("_bucket", "_sum") if metric.kind is Kind.HISTOGRAM else ()))
    }
    # What the dashboard and the alerts name of Envoy's metrics exists in this version of Envoy.
    named = set().union(*map(names, expressions()))
    assert {name for name in named if name.startswith("envoy_")} <= set(NAME.findall(page))
    _checked(page)


def _checked(page: str) -> None:
    """Let promtool check our part of a page, where promtool is."""
    if not Path(PROMTOOL).exists():
        return
    ours = page[: page.index("# TYPE envoy_")]
    ran = subprocess.run([PROMTOOL, "check", "metrics"], input=ours, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")


@pytest.mark.parametrize("command", ["serve", "deliver"])
def test_a_port_in_use(tmp_path: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        grpc = ("--grpc-port", "0") if command == "serve" else ()
        done = headgate(command, "--data-dir", str(tmp_path), *grpc, "--metrics-port", port)
    assert done.returncode == 2
    assert f"cannot serve metrics on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr
