"""PostgreSQL over TCP: TLS is as strict as the URL says, and the store finds a host that answers."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headgate_server.core.errors import SetupError
from headgate_server.store.opening import open_store
from tests.support import postgres

pytestmark = pytest.mark.skipif(
    postgres.system_programs() is None, reason="the wheel's PostgreSQL has no TLS: apt-get install postgresql"
)


@pytest.fixture(scope="module")
def certificates() -> Iterator[Path]:
    """Return a folder with an authority (ca), another one (other), and a server's certificate for `localhost`."""
    folder = Path(tempfile.mkdtemp(prefix="headgate-tls-"))
    try:
        for name in ("ca", "other"):
            _openssl(folder, "req", "-x509", *_new_key(name), "-out", f"{name}.crt", "-days", "2")
        _openssl(folder, "req", *_new_key("server"), "-out", "server.csr")
        (folder / "names").write_text("subjectAltName=DNS:localhost")
        issue = ("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
        _openssl(folder, *issue, "-out", "server.crt", "-days", "2", "-extfile", "names")
        folder.chmod(0o755)
        if not os.geteuid():
            shutil.chown(folder / "server.key", "nobody")
        yield folder
    finally:
        shutil.rmtree(folder)


def _new_key(name: str) -> tuple[str, ...]:
    return (
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        f"{name}.key",
        "-subj",
        f"/CN={name}",
    )


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def port(certificates: Path) -> Iterator[int]:
    """Return the port of a server with TLS, on 127.0.0.1."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        number: int = chosen.getsockname()[1]
    settings = (
        "listen_addresses=127.0.0.1",
        f"port={number}",
        "ssl=on",
        f"ssl_cert_file={certificates}/server.crt",
        f"ssl_key_file={certificates}/server.key",
    )
    with postgres.own_server(*settings, programs=postgres.system_programs()):
        yield number


async def _opens(url: str) -> None:
    await (await open_store(url)).close()


@pytest.mark.parametrize(
    "query",
    [
        "",
        "sslmode=disable",
        "sslmode=prefer",
        "sslmode=require",
        "sslmode=verify-ca&sslrootcert={0}/ca.crt",
        "sslmode=verify-full&sslrootcert={0}/ca.crt",
        "sslmode=verify-full&sslrootcert={0}/ca.crt&channel_binding=prefer&ssl_min_protocol_version=TLSv1.3",
    ],
)
async def test_a_server_that_is_what_the_url_asks_for(port: int, certificates: Path, query: str) -> None:
    await _opens(f"postgresql://postgres@localhost:{port}/postgres?{query.format(certificates)}")


@pytest.mark.parametrize(
    ("host", "query"),
    [
        ("localhost", "sslmode=verify-full&sslrootcert={0}/other.crt"),
        ("localhost", "sslmode=verify-ca&sslrootcert={0}/other.crt"),
        ("localhost", "sslmode=require&sslrootcert={0}/other.crt"),
        ("localhost", "sslrootcert=system"),
        ("localhost", "sslmode=verify-full&sslrootcert=system"),
        ("127.0.0.1", "sslmode=verify-full&sslrootcert={0}/ca.crt"),
    ],
)
async def test_a_server_that_is_not(port: int, certificates: Path, host: str, query: str) -> None:
    with pytest.raises(SetupError, match=r"cannot be used: .*(CERTIFICATE|certificate|SSL|TLS)"):
        await _opens(f"postgresql://postgres@{host}:{port}/postgres?{query.format(certificates)}")


@pytest.mark.parametrize("file", ["sslrootcert", "sslcert"])
async def test_a_file_that_is_no_certificate(port: int, file: str) -> None:
    with pytest.raises(SetupError, match="cannot be used"):
        await _opens(f"postgresql://postgres@localhost:{port}/postgres?sslmode=require&{file}={__file__}")


@contextmanager
def _silent() -> Iterator[int]:
    """Yield a port that accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


async def test_a_host_that_is_dead_or_silent_is_passed_over(port: int) -> None:
    started = time.monotonic()
    with _silent() as silent:
        await _opens(
            f"postgresql://postgres@127.0.0.1:1,127.0.0.1:{silent},127.0.0.1:{port}/postgres?connect_timeout=1"
        )
    assert time.monotonic() - started < 15
    with pytest.raises(SetupError, match="cannot be used"):
        await _opens("postgresql://postgres@127.0.0.1:1,127.0.0.1:2/postgres")
