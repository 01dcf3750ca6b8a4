"""TLS of the ports that we listen on: the settings, and what they name."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from headgate_server.core.errors import SetupError
from headgate_server.process.setting import path_of, setting


class TlsFiles(NamedTuple):
    """The files of one side of a connection: what it shows, and what it trusts."""

    cert: Path | None
    key: Path | None
    trusted: Path | None
    """The authorities whose certificates the other side must show. None: a server asks for no certificate."""

    def paths(self) -> tuple[Path, ...]:
        """Return the files that are given."""
        return tuple(path for path in self if path is not None)


class TlsMaterial(NamedTuple):
    """The checked content of `TlsFiles`, in PEM. What is not given is empty."""

    chain: bytes
    """The certificate, and after it those of the authorities between it and the root."""
    key: bytes
    trusted: bytes
    expires: datetime | None
    """When the chain ends to be valid: when the first of its certificates expires, mostly the service's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """Whether the ports are encrypted. The same certificate is shown on every port."""

    cert: Path | None = setting(
        None,
        "tls-cert",
        "Certificate for TLS on every port, with its chain, in PEM. It is read again when the file changes.",
        metavar="FILE",
        read=path_of,
    )
    """None: no TLS, which is right on loopback and behind a proxy that has TLS."""
    key: Path | None = setting(
        None, "tls-key", "The certificate's private key, in PEM, without a password.", metavar="FILE", read=path_of
    )
    client_ca: Path | None = setting(
        None,
        "tls-client-ca",
        "Refuse clients without a certificate from one of these authorities, in PEM. The API key is still needed.",
        metavar="FILE",
        read=path_of,
    )
    plaintext: bool = setting(
        False,
        "plaintext",
        "Listen on a network address without TLS. Only for a trusted network, or behind a proxy that has TLS.",
    )
    """A network address without TLS shows keys and events to everybody on the way, so it must be asked for."""

    def files(self) -> TlsFiles | None:
        """Return the files, None without TLS. Raises `SetupError` if the settings contradict each other."""
        if (self.cert is None) != (self.key is None):
            given, missing = ("tls-key", "tls-cert") if self.cert is None else ("tls-cert", "tls-key")
            raise SetupError(f"--{given} needs --{missing}: TLS needs a certificate and its key")
        if self.cert is None:
            if self.client_ca is not None:
                raise SetupError(
                    "--tls-client-ca needs --tls-cert and --tls-key: clients show certificates only over TLS"
                )
            return None
        if self.plaintext:
            raise SetupError("--plaintext and --tls-cert contradict each other: give one of them")
        return TlsFiles(self.cert, self.key, self.client_ca)
