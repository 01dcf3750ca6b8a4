"""The URL of a webhook has one plain form. All others are refused with a reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_server.delivery.networks import Networks, network_of
from headgate_server.delivery.url import Url, check_url

LOOPBACK = Networks([network_of("127.0.0.0/8")])


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://crm.example/hooks?a=b&c=%20", Url("https", "crm.example", 443, "/hooks?a=b&c=%20")),
        ("HTTPS://CRM.Example", Url("https", "crm.example", 443, "/")),
        ("http://crm.example:8080", Url("http", "crm.example", 8080, "/")),
        ("http://crm.example:/", Url("http", "crm.example", 80, "/")),
        ("https://crm.example?x", Url("https", "crm.example", 443, "/?x")),
        ("https://8.8.8.8/", Url("https", "8.8.8.8", 443, "/")),
        ("https://[2606:4700:0::1111]:444/", Url("https", "2606:4700::1111", 444, "/")),
        ("https://bücher.example/", Url("https", "xn--bcher-kva.example", 443, "/")),
        ("https://XN--BCHER-KVA.example/", Url("https", "xn--bcher-kva.example", 443, "/")),
        ("https://faß.example/", Url("https", "xn--fa-hia.example", 443, "/")),
        ("https://crm。example/", Url("https", "crm.example", 443, "/")),
        ("http://crm_v2/in", Url("http", "crm_v2", 80, "/in")),
    ],
)
def test_a_url_is_split_into_its_parts(text: str, url: Url) -> None:
    assert check_url(text, Networks()) == url


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "https:// or http://"),
        ("crm.example/hooks", "https:// or http://"),
        ("ftp://crm.example/", "https:// or http://"),
        ("file:///etc/passwd", "https:// or http://"),
        ("gopher://127.0.0.1/", "https:// or http://"),
        ("http:crm.example", "https:// or http://"),
        ("https:///hooks", "no host"),
        ("https://:443/", "no host"),
        ("https://user:secret@crm.example/", "credentials"),
        ("https://user@crm.example/", "credentials"),
        ("https://@crm.example/", "credentials"),
        ("https://crm.example/#", "fragment"),
        ("https://crm.example#@127.0.0.1/", "fragment"),
        ("https://crm.example:0/", "port"),
        ("https://crm.example:65536/", "port"),
        ("https://crm.example:0000080/", "port"),
        ("https://crm.example:http/", "port"),
        ("https://crm.example:-1/", "port"),
        ("https://crm.example:٨٠/", "port"),
        ("https://a b.example/", "space"),
        ("https://crm.example/\r\nHost: x", "space"),
        ("https://crm.example/\x00", "control character"),
        ("https://crm.example\\@127.0.0.1/", "backslash"),
        ("https://crm.example/ü", "percent-encoded"),
        ('https://crm.example/"', "percent-encoded"),
        ("https://crm.example./", "not a valid host name"),
        ("https://crm..example/", "not a valid host name"),
        ("https://-crm.example/", "not a valid host name"),
        ("https://crm%2eexample/", "not a valid host name"),
        ("https://xn--a.example/", "not a valid host name"),
        ("https://℀.example/", "not a valid host name"),
        (f"https://{'a' * 64}.example/", "not a valid host name"),
        (f"https://{'a.' * 130}example/", "not a valid host name"),
        ("https://[::1/", "no valid host and port"),
        ("https://[crm.example]/", "not an IPv6 address"),
        ("https://[fe80::1%25eth0]/", "not an IPv6 address"),
        ("https://[127.0.0.1]/", "not an IPv6 address"),
        (f"https://crm.example/{'a' * 2048}", "2048 characters"),
    ],
)
def test_other_forms_are_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_url(text, Networks())


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "crm.localhost",
        "10.0.0.7",
        "169.254.169.254",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::7f00:1]",
        "[fd00:ec2::254]",
        "0.0.0.0",
        "127。0。0。1",
        "①②⑦.⓪.⓪.①",
        "\uff11\uff12\uff17.0.0.1",
    ],
)
def test_a_url_that_names_a_blocked_network_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"is in a blocked network .* --webhook-allow"):
        check_url(f"http://{host}/", Networks())


@pytest.mark.parametrize("host", ["0", "127.1", "0x7f.1", "0x7f000001", "017700000001", "2130706433", "127.0.0.1.1"])
def test_other_forms_of_ipv4_are_refused(host: str) -> None:
    with pytest.raises(ValueError, match="is not an IPv4 address"):
        check_url(f"http://{host}/", LOOPBACK)


def test_an_allowed_network_is_accepted() -> None:
    assert check_url("http://127.0.0.1:8080/", LOOPBACK) == Url("http", "127.0.0.1", 8080, "/")
    assert check_url("http://localhost:8080/", LOOPBACK).host == "localhost"


@pytest.mark.parametrize(
    ("text", "authority"),
    [
        ("https://crm.example/", "crm.example"),
        ("https://crm.example:443/", "crm.example"),
        ("http://crm.example:443/", "crm.example:443"),
        ("https://[2606:4700::1111]/", "[2606:4700::1111]"),
        ("https://[2606:4700::1111]:1/", "[2606:4700::1111]:1"),
    ],
)
def test_a_request_names_the_host_as_the_url_does(text: str, authority: str) -> None:
    assert check_url(text, Networks()).authority == authority


@given(st.text(st.sampled_from("htps:/[]@?#%.\\abx01-_~éß。1 \t"), max_size=40).map("http://".__add__) | st.text())
def test_every_text_is_a_url_or_has_a_reason(text: str) -> None:
    try:
        url = check_url(text, Networks())
    except ValueError:
        return
    assert str(url).isascii()
    assert check_url(str(url), Networks()) == url
