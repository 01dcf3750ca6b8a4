"""Addresses: TLS by default, plaintext only to this machine or when asked for."""

import pytest

from headgate_client import AsyncClient, Client
from headgate_client.core.address import parse


@pytest.mark.parametrize(
    ("url", "plaintext", "expected"),
    [
        ("127.0.0.1:8080", None, ("127.0.0.1:8080", True)),
        ("localhost:8080", None, ("localhost:8080", True)),
        ("[::1]:8080", None, ("[::1]:8080", True)),
        ("events.example.com:443", None, ("events.example.com:443", False)),
        ("10.0.0.1:8080", None, ("10.0.0.1:8080", False)),
        ("10.0.0.1:8080", True, ("10.0.0.1:8080", True)),
        ("127.0.0.1:8080", False, ("127.0.0.1:8080", False)),
        ("https://events.example.com", None, ("events.example.com:443", False)),
        ("https://127.0.0.1:8443/", None, ("127.0.0.1:8443", False)),
        ("http://events.internal", None, ("events.internal:80", True)),
        (" 127.0.0.1:8080\n", None, ("127.0.0.1:8080", True)),
        ("unix:/run/headgate.sock", None, ("unix:/run/headgate.sock", True)),
    ],
)
def test_an_address(url, plaintext, expected):
    address = parse(url, plaintext)
    assert (address.target, address.plaintext) == expected


@pytest.mark.parametrize(
    ("url", "plaintext", "said"),
    [
        ("", None, "HEADGATE_URL"),
        ("example.com", None, "no port"),
        ("ftp://example.com", None, "https://"),
        ("https://example.com/v1/events", None, "path"),
        ("https://hg_key@example.com", None, "user"),
        ("example.com:0", None, "port"),
        ("example.com:99999", None, "no address"),
        (":8080", None, "no address"),
        ("exa mple.com:8080", None, "no address"),
        ("https://example.com", True, "contradict"),
        ("http://example.com", False, "contradict"),
    ],
)
def test_what_is_no_address(url, plaintext, said):
    with pytest.raises(ValueError, match=said):
        parse(url, plaintext)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_address_and_key_come_from_the_environment(kind, monkeypatch):
    monkeypatch.setenv("HEADGATE_URL", "127.0.0.1:1")
    monkeypatch.setenv("HEADGATE_KEY", "hg_x")
    kind()
    monkeypatch.delenv("HEADGATE_KEY")
    with pytest.raises(ValueError, match="HEADGATE_KEY"):
        kind()
    monkeypatch.setenv("HEADGATE_KEY", "hg_x")
    monkeypatch.delenv("HEADGATE_URL")
    with pytest.raises(ValueError, match="HEADGATE_URL"):
        kind()


@pytest.mark.parametrize("key", ["", "hg x", "hg_\n", "hg_é"])
def test_a_key_that_no_header_can_carry_is_refused(key):
    with pytest.raises(ValueError, match="key"):
        Client("127.0.0.1:1", api_key=key)
