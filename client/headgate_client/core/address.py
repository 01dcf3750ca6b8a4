"""Where the service is, and whether the connection is encrypted."""

import ipaddress
from typing import NamedTuple
from urllib.parse import urlsplit


class Address(NamedTuple):
    """A place to connect to."""

    target: str
    """As gRPC writes it: host and port, or `unix:PATH`."""
    plaintext: bool
    loopback: bool


class Certificates(NamedTuple):
    """What a client trusts, and what it shows, in PEM. None: the system's authorities, and nothing."""

    trusted: bytes | None = None
    shown: bytes | None = None
    key: bytes | None = None


def parse(url: str, plaintext: bool | None = None) -> Address:
    """Return the address that a text names: `host:port`, `https://host`, `http://host`, or `unix:/path`.

    `plaintext` None: encrypted, except to this machine itself, and except where the text begins with `http://`.
    Raises `ValueError` if the text is no address, or if it and `plaintext` contradict each other.
    """
    text = url.strip()
    if not text:
        raise ValueError("the address is empty: give host:port, or set HEADGATE_URL")
    if text.startswith("unix:"):
        return Address(text, plaintext=plaintext is not False, loopback=True)
    scheme, host, port = _split(text)
    if (scheme == "http" and plaintext is False) or (scheme == "https" and plaintext):
        raise ValueError(f"the address {url!r} and the setting plaintext contradict each other")
    loopback = _is_loopback(host)
    if plaintext is None:
        plaintext = scheme == "http" or (scheme == "" and loopback)
    shown = f"[{host}]" if ":" in host else host
    return Address(f"{shown}:{port}", plaintext, loopback)


def _split(text: str) -> tuple[str, str, int]:
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    if scheme not in ("", "http", "https"):
        raise ValueError(f"the address {text!r} begins with neither https:// nor http://")
    try:
        parts = urlsplit(text if scheme else f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{text!r} is no address: {error}") from None
    if not host or any(character.isspace() for character in text):
        raise ValueError(f"{text!r} is no address: give host:port")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address has no user and password: the key is a setting of its own")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"the address {text!r} has a path or a query: give host and port only")
    if port is None:
        if not scheme:
            raise ValueError(f"the address {text!r} has no port")
        port = 443 if scheme == "https" else 80
    if not 0 < port < 65536:
        raise ValueError(f"the address {text!r} has no valid port")
    return scheme, host, port


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_certificates(certificates: Certificates, address: Address) -> None:
    """Raise `ValueError` if they are incomplete, or if the connection to the address would not use them."""
    if (certificates.shown is None) != (certificates.key is None):
        raise ValueError("client_cert and client_key are given together")
    if certificates.shown is not None and address.plaintext:
        raise ValueError(
            f"a certificate is shown only over TLS: give an address that begins with https:// ({address.target})"
        )


def check_key(key: str | None) -> str:
    """Return the key. Raises `ValueError` if there is none, or if it cannot be a header's value."""
    if not key:
        raise ValueError("there is no API key: give api_key, or set HEADGATE_KEY")
    if not isinstance(key, str) or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("the API key has a character that no key has")
    return key
