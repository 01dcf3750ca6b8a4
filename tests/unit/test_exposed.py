"""Ports in plain text: on loopback always, on a network only if that is asked for."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from headgate_server.cli.exposed import check_exposed, is_loopback
from headgate_server.cli.up import UpstreamConfig
from headgate_server.core.errors import SetupError
from headgate_server.process.tls import TlsConfig, TlsFiles

CERT, KEY, CA = Path("cert"), Path("key"), Path("ca")


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("192.0.2.1", False),
        ("fe80::1%lo", False),
        ("no-such-host.invalid", False),
        ("x" * 300, False),
    ],
)
def test_which_addresses_are_this_machine_alone(host: str, is_local: bool) -> None:
    assert is_loopback(host) is is_local


def test_a_network_needs_tls_or_the_word() -> None:
    with capture_logs() as logged:
        check_exposed("gRPC", "127.0.0.1", 1, TlsConfig())
        check_exposed("gRPC", "127.0.0.1", 1, TlsConfig(plaintext=True))
        check_exposed("gRPC", "0.0.0.0", 1, TlsConfig(cert=CERT, key=KEY))
        assert logged == []
        with pytest.raises(SetupError, match=r"gRPC on \[::\]:1 would show keys .* --tls-cert .* or --plaintext"):
            check_exposed("gRPC", "::", 1, TlsConfig())
        check_exposed("REST", "0.0.0.0", 8080, TlsConfig(plaintext=True))
    assert logged == [
        {
            "event": "plaintext_on_network",
            "log_level": "warning",
            "protocol": "REST",
            "host": "0.0.0.0",
            "port": 8080,
        }
    ]


def test_servers_of_a_bridge() -> None:
    far = (("192.0.2.7", 50051),)
    for near in (UpstreamConfig(), UpstreamConfig(host="0.0.0.0"), UpstreamConfig(several=(("::1", 1),))):
        assert near.files() is None
    assert UpstreamConfig(several=far, plaintext=True).files() is None
    assert UpstreamConfig(several=far, ca=CA).files() == TlsFiles(None, None, CA)
    assert UpstreamConfig(several=far, ca=CA, cert=CERT, key=KEY).files() == TlsFiles(CERT, KEY, CA)
    for wrong, said in (
        (UpstreamConfig(several=far), "calls to 192.0.2.7:50051 would show keys"),
        (UpstreamConfig(host="server"), "calls to server:50051 would show keys"),
        (UpstreamConfig(cert=CERT), "--upstream-cert and --upstream-key are given together"),
        (UpstreamConfig(ca=CA, key=KEY), "--upstream-cert and --upstream-key are given together"),
        (UpstreamConfig(cert=CERT, key=KEY), "--upstream-cert needs --upstream-ca"),
        (UpstreamConfig(ca=CA, plaintext=True), "contradict each other"),
    ):
        with pytest.raises(SetupError, match=said):
            wrong.files()
