"""Reads certificates and keys, and checks them: what is wrong is said before a handshake fails without a reason."""

import os
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID

from headgate_server.core.errors import SetupError
from headgate_server.process.clock import Clock
from headgate_server.process.tls import TlsFiles, TlsMaterial

_MOST_BYTES = 1024 * 1024
"""The system's own list of authorities has 220 KB."""
_LEAST_RSA_BITS = 2048
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
"""Envoy serves no other keys, and few clients take others."""


class TlsError(SetupError):
    """A certificate or a key cannot be used. The message is one line that names the file."""


def load(files: TlsFiles, clock: Clock) -> TlsMaterial:
    """Read the files and check them. Raises `TlsError` if they cannot be used now, and nothing else."""
    try:
        return _load(files, clock)
    except TlsError:
        raise
    except Exception as error:
        # Parts of a certificate are read when they are asked for. What is wrong with them then has many types.
        raise TlsError(f"a certificate in {_shown_paths(files)} cannot be checked: {_line(error)}") from error


def _load(files: TlsFiles, clock: Clock) -> TlsMaterial:
    now = datetime.fromtimestamp(clock() / 1_000_000, UTC)
    chain, key, trusted, expires = b"", b"", b"", None
    if files.cert is not None and files.key is not None:
        chain, key = _read(files.cert), _read(files.key)
        certificates = _certificates(files.cert, chain)
        _check_key(files.key, _key(files.key, key), files.cert, certificates)
        _check_chain(files.cert, certificates)
        for certificate in certificates:
            _check_dates(files.cert, certificate, now)
        expires = min(certificate.not_valid_after_utc for certificate in certificates)
    if files.trusted is not None:
        trusted = _read(files.trusted)
        _check_authorities(files.trusted, _certificates(files.trusted, trusted), now)
    return TlsMaterial(chain, key, trusted, expires)


def lacks_chain(material: TlsMaterial) -> str:
    """Return the name of the authority whose certificate seems to be missing in the chain; empty if none is.

    A certificate that says where its issuer's can be fetched is from a public authority, and those never sign with
    their root. Browsers fetch what is missing; curl, gRPC and most libraries do not.
    """
    certificates = x509.load_pem_x509_certificates(material.chain) if material.chain else []
    if len(certificates) != 1:
        return ""
    try:
        access = certificates[0].extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except Exception:
        return ""  # there is none, or one of the extensions cannot be read: this is only a hint
    fetched = any(each.access_method == AuthorityInformationAccessOID.CA_ISSUERS for each in access)
    return certificates[0].issuer.rfc4514_string() if fetched else ""


def _read(path: Path) -> bytes:
    try:
        # Not blocking: a pipe that nobody writes to is refused, too.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise TlsError(f"{path} is not a regular file: it is read several times")
            content = file.read(_MOST_BYTES + 1)
    except IsADirectoryError as error:
        raise TlsError(f"{path} is a folder: give the file in it") from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise TlsError(f"cannot read {path}: {why}") from error
    if not content.strip():
        raise TlsError(f"{path} is empty")
    if len(content) > _MOST_BYTES:
        raise TlsError(f"{path} has more than {_MOST_BYTES} bytes: it is no PEM file of certificates or of a key")
    return content


def _certificates(path: Path, content: bytes) -> Sequence[x509.Certificate]:
    if b"-----BEGIN CERTIFICATE-----" not in content:
        if b"PRIVATE KEY-----" in content:
            raise TlsError(f"{path} has a private key and no certificate: are the certificate and the key swapped?")
        raise TlsError(f"{path} has no certificate in PEM (-----BEGIN CERTIFICATE-----)")
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise TlsError(f"{path} has a certificate that cannot be read: {_line(error)}") from error


def _key(path: Path, content: bytes) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    if b"PRIVATE KEY-----" not in content:
        if b"-----BEGIN CERTIFICATE-----" in content:
            raise TlsError(f"{path} has a certificate and no private key: are the certificate and the key swapped?")
        raise TlsError(f"{path} has no private key in PEM (-----BEGIN PRIVATE KEY-----)")
    try:
        key = serialization.load_pem_private_key(content, None)
    except TypeError as error:
        raise TlsError(
            f"the private key in {path} is encrypted: store it without a password (openssl pkey -in {path} -out …), "
            "readable for the service alone"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TlsError(f"the private key in {path} cannot be read: {_line(error)}") from error
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _LEAST_RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return key
    raise TlsError(
        f"the private key in {path} is of a kind that is not served: take ECDSA (P-256, P-384, P-521) or RSA of at "
        f"least {_LEAST_RSA_BITS} bits"
    )


def _check_key(
    path: Path,
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    cert: Path,
    certificates: Sequence[x509.Certificate],
) -> None:
    """Raise `TlsError` if the first certificate is not the key's."""
    fitting = [index for index, one in enumerate(certificates) if _public(one) == _encoded(key.public_key())]
    if not fitting:
        raise TlsError(f"the key in {path} does not belong to the certificate in {cert}")
    if fitting[0] != 0:
        raise TlsError(f"{cert} must begin with the key's own certificate, which is number {fitting[0] + 1} in it")


def _public(certificate: x509.Certificate) -> bytes:
    try:
        return _encoded(certificate.public_key())
    except (ValueError, UnsupportedAlgorithm):
        return b""  # of a kind that is no key of ours


def _encoded(key: object) -> bytes:
    encoded: bytes = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def _check_chain(path: Path, certificates: Sequence[x509.Certificate]) -> None:
    """Raise `TlsError` unless each certificate is signed by the next one."""
    for number, (one, issuer) in enumerate(pairwise(certificates), 1):
        try:
            one.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
            raise TlsError(
                f"{path}: certificate {number + 1} ({issuer.subject.rfc4514_string()}) did not sign certificate "
                f"{number} ({one.subject.rfc4514_string()}): the chain has a gap or is in the wrong order"
            ) from error


def _check_dates(path: Path, certificate: x509.Certificate, now: datetime) -> None:
    name = certificate.subject.rfc4514_string()
    if now > certificate.not_valid_after_utc:
        raise TlsError(f"{path}: the certificate {name} expired at {_shown(certificate.not_valid_after_utc)}")
    if now < certificate.not_valid_before_utc:
        raise TlsError(f"{path}: the certificate {name} is not valid before {_shown(certificate.not_valid_before_utc)}")


def _check_authorities(path: Path, certificates: Sequence[x509.Certificate], now: datetime) -> None:
    """Raise `TlsError` if no authority is valid now. A list of many may have some that have expired."""
    valid = [one for one in certificates if one.not_valid_before_utc <= now <= one.not_valid_after_utc]
    if not valid:
        _check_dates(path, certificates[0], now)


def _shown(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def _shown_paths(files: TlsFiles) -> str:
    return ", ".join(str(path) for path in (files.cert, files.trusted) if path is not None)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
