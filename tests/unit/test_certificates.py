"""What is said of certificates and keys that cannot be used."""

import base64
import os
import random
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from headgate_server.core.errors import SetupError
from headgate_server.process.certificates import TlsError, lacks_chain, load
from headgate_server.process.clock import system_clock
from headgate_server.process.tls import TlsConfig, TlsFiles
from tests.support.tls import chain_of, expired

CA = trustme.CA()
OTHER = trustme.CA()
LEAF = CA.issue_cert("localhost")
KEY = LEAF.private_key_pem.bytes()
CHAIN = chain_of(LEAF)
BEHIND = CA.create_child_ca().issue_cert("localhost")
BEHIND_CHAIN = BEHIND.cert_chain_pems
EXPIRED = expired(CA, "localhost")
FUTURE = CA.issue_cert("localhost", not_before=datetime.now(UTC) + timedelta(days=2))


def _pem(key, password=None):
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _self_signed(key, *extensions):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=9))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


def _files(folder: Path, cert: bytes = CHAIN, key: bytes = KEY, trusted: bytes | None = None) -> TlsFiles:
    for name, content in (("cert", cert), ("key", key), ("ca", trusted)):
        if content is not None:
            (folder / name).write_bytes(content)
    return TlsFiles(folder / "cert", folder / "key", None if trusted is None else folder / "ca")


def _refused(files: TlsFiles) -> str:
    with pytest.raises(TlsError) as refused:
        load(files, system_clock)
    said = str(refused.value)
    assert "\n" not in said
    return said


def test_a_pair_and_its_authorities_are_read(tmp_path: Path) -> None:
    both = CA.cert_pem.bytes() + OTHER.cert_pem.bytes()
    material = load(_files(tmp_path, trusted=both), system_clock)
    assert (material.chain, material.key, material.trusted) == (CHAIN, KEY, both)
    assert material.expires == x509.load_pem_x509_certificate(CHAIN).not_valid_after_utc
    late = datetime(9000, 1, 1, tzinfo=UTC)
    behind = CA.create_child_ca().issue_cert("localhost", not_after=late)
    ends = [one.not_valid_after_utc for one in x509.load_pem_x509_certificates(chain_of(behind))]
    material = load(_files(tmp_path, chain_of(behind), behind.private_key_pem.bytes()), system_clock)
    assert material.expires == ends[1] < ends[0] == late
    assert (
        load(_files(tmp_path, chain_of(BEHIND), BEHIND.private_key_pem.bytes()), system_clock).chain.count(b"BEGIN")
        == 2
    )


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        pytest.param(b"", KEY, r"/cert is empty", id="empty certificate"),
        pytest.param(CHAIN, b" \n", r"/key is empty", id="empty key"),
        pytest.param(KEY, CHAIN, r"/cert has a private key and no certificate: .*swapped", id="swapped"),
        pytest.param(CHAIN, CHAIN, r"/key has a certificate and no private key: .*swapped", id="twice the certificate"),
        pytest.param(b"\x30\x82\x01", KEY, r"/cert has no certificate in PEM", id="DER"),
        pytest.param("höllo".encode("utf-16"), KEY, r"/cert has no certificate in PEM", id="another encoding"),
        pytest.param(CHAIN[:200], KEY, r"/cert has a certificate that cannot be read", id="cut off certificate"),
        pytest.param(CHAIN, b"hello", r"/key has no private key in PEM", id="no key"),
        pytest.param(CHAIN, KEY[:80], r"the private key in .*/key cannot be read", id="cut off key"),
        pytest.param(
            CHAIN, OTHER.issue_cert("x").private_key_pem.bytes(), r"key does not belong to the cert", id="pair"
        ),
        pytest.param(
            CHAIN,
            _pem(ec.generate_private_key(ec.SECP256R1()), b"hunter2"),
            r"is encrypted: store it without",
            id="password",
        ),
        pytest.param(
            chain_of(EXPIRED), EXPIRED.private_key_pem.bytes(), r"expired at 2020-01-02T00:00:00Z", id="expired"
        ),
        pytest.param(chain_of(FUTURE), FUTURE.private_key_pem.bytes(), r"is not valid before 20", id="not yet"),
        pytest.param(CA.cert_pem.bytes() + CHAIN, KEY, r"must begin with the key's own .* number 2", id="order"),
        pytest.param(CHAIN + OTHER.cert_pem.bytes(), KEY, r"certificate 2 .* did not sign certificate 1", id="gap"),
        pytest.param(b"x" * (1 << 20) + CHAIN, KEY, r"/cert has more than 1048576 bytes", id="huge"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, cert: bytes, key: bytes, said: str) -> None:
    assert re.search(said, _refused(_files(tmp_path, cert, key)))


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP256K1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["RSA 1024", "secp256k1", "ed25519"],
)
def test_a_key_that_envoy_does_not_serve(tmp_path: Path, key: object) -> None:
    assert "of a kind that is not served" in _refused(_files(tmp_path, _self_signed(key), _pem(key)))


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())])
def test_a_key_that_is_served(tmp_path: Path, key: object) -> None:
    assert load(_files(tmp_path, _self_signed(key), _pem(key)), system_clock).key


def test_a_damaged_certificate_is_refused_and_ends_nothing(tmp_path: Path) -> None:
    """Some damage is only found when a part of the certificate is asked for, with errors of other types."""
    files = _files(tmp_path, b"", BEHIND.private_key_pem.bytes())
    whole = [
        x509.load_pem_x509_certificate(part.bytes()).public_bytes(serialization.Encoding.DER) for part in BEHIND_CHAIN
    ]
    draw = random.Random(1)
    refused = 0
    for _ in range(300):
        parts = [bytearray(part) for part in whole]
        damaged = draw.choice(parts)
        damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        (tmp_path / "cert").write_bytes(b"".join(map(_pem_of, parts)))
        try:
            lacks_chain(load(files, system_clock))
        except TlsError as error:
            refused += "cannot be checked" in str(error)
    assert refused > 5


def _pem_of(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


def test_a_file_that_is_none(tmp_path: Path) -> None:
    files = _files(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "missing", "No such file"),
        (tmp_path / "cert" / "x", "Not a directory"),
        (tmp_path / "pipe", "is not a regular file"),
        (Path("/proc/self/mem"), "Input/output error"),
        (Path("/dev/null"), "is not a regular file"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        assert said in _refused(files._replace(cert=path))
        assert said in _refused(files._replace(trusted=path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    files = _files(tmp_path)
    (tmp_path / "key").chmod(0)
    assert "Permission denied" in _refused(files)


def test_authorities_of_which_one_is_valid(tmp_path: Path) -> None:
    gone = chain_of(EXPIRED)
    assert "expired at" in _refused(_files(tmp_path, trusted=gone))
    assert load(_files(tmp_path, trusted=gone + CA.cert_pem.bytes()), system_clock).trusted
    assert "has no certificate" in _refused(_files(tmp_path, trusted=b"x"))


def test_a_chain_that_seems_to_be_missing(tmp_path: Path) -> None:
    """Public authorities name the place of their certificate; an authority of one's own usually does not."""
    where = x509.UniformResourceIdentifier("http://ca.example/ca.crt")
    access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, where)
    key = ec.generate_private_key(ec.SECP256R1())
    alone = _self_signed(key, x509.AuthorityInformationAccess([access]))
    assert lacks_chain(load(_files(tmp_path, alone, _pem(key)), system_clock)) == "CN=localhost"
    assert lacks_chain(load(_files(tmp_path), system_clock)) == ""
    assert lacks_chain(load(_files(tmp_path, chain_of(BEHIND), BEHIND.private_key_pem.bytes()), system_clock)) == ""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cert": "x"}, "--tls-cert needs --tls-key"),
        ({"key": "x"}, "--tls-key needs --tls-cert"),
        ({"client_ca": "x"}, "--tls-client-ca needs --tls-cert"),
        ({"cert": "x", "key": "x", "plaintext": True}, "contradict"),
    ],
)
def test_settings_that_do_not_fit(given: dict[str, object], said: str) -> None:
    with pytest.raises(SetupError, match=said):
        TlsConfig(**given).files()


def test_settings_without_tls() -> None:
    assert TlsConfig().files() is None
    assert TlsConfig(plaintext=True).files() is None
