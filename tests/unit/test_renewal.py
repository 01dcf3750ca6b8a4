"""Certificates are read again when their files change, and only usable ones are used."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from structlog.testing import capture_logs

from headgate_server.process.certificates import TlsError
from headgate_server.process.metrics.catalogue import TLS_EXPIRES
from headgate_server.process.renewal import Renewal
from headgate_server.process.tls import TlsFiles, TlsMaterial
from tests.support.tls import Files, chain_of, expired, put
from tests.support.waiting import GUARD

CA = trustme.CA()
START = datetime.now(UTC)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return int(self.now.timestamp() * 1_000_000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path, CA.issue_cert("localhost"))


@pytest.fixture
def renewal(files: Files, clock: Clock) -> Renewal:
    return Renewal(TlsFiles(files.cert, files.key, None), clock)


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[dict[str, object]]]:
    with capture_logs() as logged:
        yield logged


def _events(logged: list[dict[str, object]]) -> list[object]:
    return [each["event"] for each in logged]


def _looked(renewal: Renewal, times: int = 2) -> TlsMaterial:
    for _ in range(times):
        renewal.look()
    return renewal.material


def test_a_pair_is_used_once_it_rests(files: Files, renewal: Renewal, logged: list[dict[str, object]]) -> None:
    before = renewal.material
    leaf = CA.issue_cert("localhost")
    put(files.cert, chain_of(leaf))
    assert _looked(renewal, 1) is before
    put(files.key, leaf.private_key_pem.bytes())
    assert _looked(renewal, 1) is before
    assert _looked(renewal, 1).chain == chain_of(leaf)
    assert _events(logged) == ["tls_renewed"]
    _looked(renewal, 3)
    assert _events(logged) == ["tls_renewed"]


def test_the_metrics_have_the_end_of_what_is_used(files: Files, renewal: Renewal) -> None:
    ends = START + timedelta(days=400)
    leaf = CA.issue_cert("localhost", not_after=ends)
    files.replace(leaf)
    (old,) = renewal.readings("grpc")
    assert old[2] == renewal.material.expires.timestamp() > ends.timestamp()  # type: ignore[union-attr]
    _looked(renewal)
    assert list(renewal.readings("grpc")) == [(TLS_EXPIRES, ("grpc",), float(int(ends.timestamp())))]
    put(files.cert, b"broken")
    _looked(renewal)
    assert list(renewal.readings("grpc")) == [(TLS_EXPIRES, ("grpc",), float(int(ends.timestamp())))]


def test_a_side_that_only_trusts_has_no_end_in_the_metrics(tmp_path: Path, clock: Clock) -> None:
    put(tmp_path / "ca", CA.cert_pem.bytes())
    assert list(Renewal(TlsFiles(None, None, tmp_path / "ca"), clock).readings("upstream")) == []


def test_what_is_touched_is_not_new(files: Files, renewal: Renewal, logged: list[dict[str, object]]) -> None:
    before = renewal.material
    os.utime(files.cert, (1, 1))
    assert _looked(renewal) is before
    assert _events(logged) == []


def test_written_in_place_and_by_a_link_that_is_moved(tmp_path: Path, clock: Clock) -> None:
    """As a copy does it, and as Kubernetes does it: a link to a folder is replaced."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Files(tmp_path / name, CA.issue_cert("localhost"))
    (tmp_path / "now").symlink_to("one")
    renewal = Renewal(TlsFiles(tmp_path / "now/tls.crt", tmp_path / "now/tls.key", None), clock)
    (tmp_path / "next").symlink_to("two")
    os.replace(tmp_path / "next", tmp_path / "now")
    assert _looked(renewal).chain == (tmp_path / "two/tls.crt").read_bytes()
    for name in ("tls.crt", "tls.key"):
        shutil.copyfile(tmp_path / "one" / name, tmp_path / "two" / name)
    assert _looked(renewal).chain == (tmp_path / "one/tls.crt").read_bytes()


def test_what_cannot_be_used_is_logged_once_and_the_old_one_stays(
    files: Files, renewal: Renewal, clock: Clock, logged: list[dict[str, object]]
) -> None:
    before = renewal.material
    broken = {
        "does not belong": lambda: put(files.key, CA.issue_cert("x").private_key_pem.bytes()),
        "No such file": files.key.unlink,
        "expired at": lambda: files.replace(expired(CA, "localhost")),
        "is empty": lambda: put(files.cert, b""),
    }
    for said, breaks in broken.items():
        breaks()
        assert _looked(renewal, 4) is before
        clock.now += timedelta(minutes=2)
        _looked(renewal)
        assert _events(logged) == ["tls_not_renewed"]
        assert said in str(logged[0]["error"])
        assert logged[0]["log_level"] == "error"
        logged.clear()
    leaf = CA.issue_cert("localhost")
    files.replace(leaf)
    assert _looked(renewal).chain == chain_of(leaf)


def test_a_certificate_that_becomes_valid_is_used_then(files: Files, renewal: Renewal, clock: Clock) -> None:
    leaf = CA.issue_cert("localhost", not_before=START + timedelta(minutes=5))
    files.replace(leaf)
    before = renewal.material
    assert _looked(renewal, 3) is before
    clock.now += timedelta(minutes=6)
    assert _looked(renewal, 1).chain == chain_of(leaf)


def test_the_end_is_announced_once_a_day(files: Files, clock: Clock, logged: list[dict[str, object]]) -> None:
    files.replace(CA.issue_cert("localhost", not_after=START + timedelta(days=30)))
    renewal = Renewal(TlsFiles(files.cert, files.key, None), clock)
    assert _events(logged) == []
    clock.now += timedelta(days=23, hours=1)
    for _ in range(3):
        renewal._warn_of_end()
    assert _events(logged) == ["tls_certificate_expires"]
    clock.now += timedelta(days=1, hours=1)
    renewal._warn_of_end()
    assert len(logged) == 2


def test_a_start_with_a_bad_pair_fails(files: Files, clock: Clock) -> None:
    files.replace(expired(CA, "localhost"))
    with pytest.raises(TlsError, match="expired"):
        Renewal(TlsFiles(files.cert, files.key, None), clock)


async def test_users_are_told_until_they_have_it(files: Files, clock: Clock, logged: list[dict[str, object]]) -> None:
    """One that fails does not keep the others from it."""
    renewal = Renewal(TlsFiles(files.cert, files.key, None), clock, poll_seconds=0.001)
    told: list[bytes] = []
    done = asyncio.Event()
    failures = iter([OSError(28, "No space left on device")])

    def fails_once(material: TlsMaterial) -> None:
        for failure in failures:
            raise failure
        done.set()

    renewal.tell(fails_once)
    renewal.tell(lambda material: told.append(material.chain))
    leaf = CA.issue_cert("localhost")
    files.replace(leaf)
    task = asyncio.create_task(renewal.run())
    await asyncio.wait_for(done.wait(), GUARD)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert told == [chain_of(leaf)]
    assert "No space left" in str([each for each in logged if each["event"] == "tls_not_renewed"])
