"""Certificates of an authority of the test's own, in files."""

import os
import socket
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import trustme
from cryptography import x509

EXPIRED = datetime(2020, 1, 2, tzinfo=UTC)


def chain_of(leaf: trustme.LeafCert) -> bytes:
    """Return a certificate and its chain, in PEM."""
    return b"".join(part.bytes() for part in leaf.cert_chain_pems)


def expired(authority: trustme.CA, name: str) -> trustme.LeafCert:
    """Return a certificate that is not valid any more."""
    return authority.issue_cert(name, not_before=EXPIRED - timedelta(days=9), not_after=EXPIRED)


def serial(pem: bytes) -> int:
    """Return the serial number of the first certificate of a PEM text."""
    return x509.load_pem_x509_certificates(pem)[0].serial_number


class Files:
    """A server's certificate, its key, and the authority of its clients, in a folder."""

    def __init__(self, folder: Path, leaf: trustme.LeafCert, clients: trustme.CA | None = None):
        self.cert, self.key, self.client_ca = (folder / name for name in ("tls.crt", "tls.key", "clients.crt"))
        self.replace(leaf)
        if clients is not None:
            put(self.client_ca, clients.cert_pem.bytes())
        self.options = ["--tls-cert", str(self.cert), "--tls-key", str(self.key)]
        if clients is not None:
            self.options += ["--tls-client-ca", str(self.client_ca)]

    def replace(self, leaf: trustme.LeafCert) -> None:
        """Replace certificate and key, one after the other, as many tools do."""
        put(self.cert, chain_of(leaf))
        put(self.key, leaf.private_key_pem.bytes())


def put(path: Path, content: bytes) -> None:
    """Write a file, and move it to its place."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    os.replace(new, path)


class Client(NamedTuple):
    """What a client trusts and shows."""

    trusted: trustme.CA
    leaf: trustme.LeafCert | None = None

    def context(self, protocols: Sequence[str] = ()) -> ssl.SSLContext:
        """Return a context for Python's TLS."""
        context = ssl.create_default_context(cadata=self.trusted.cert_pem.bytes().decode())
        if self.leaf is not None:
            self.leaf.configure_cert(context)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def shown_by(self, port: int, name: str = "localhost") -> int:
        """Return the serial number of the certificate that a port shows on a new connection."""
        with (
            socket.create_connection(("127.0.0.1", port), 10) as plain,
            self.context(["h2"]).wrap_socket(plain, server_hostname=name) as connection,
        ):
            shown = connection.getpeercert(binary_form=True)
            assert shown is not None
            return x509.load_der_x509_certificate(shown).serial_number
