"""Addresses outside the public internet are blocked in every form, unless the operator allows them."""

from ipaddress import ip_address

import pytest

from headgate_server.delivery.networks import Networks, literal, network_of

PUBLIC = "1.1.1.1 8.8.8.8 11.0.0.1 100.128.0.1 172.32.0.1 192.169.0.1 223.255.255.255 2606:4700::1111 2a00:1450::1"
BLOCKED = {
    "this machine": "0.0.0.0 0.1.2.3 127.0.0.1 127.255.255.255 :: ::1",
    "private": "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 fd00::1 fc00::1 fec0::1 fd00:ec2::254",
    "shared (CGNAT)": "100.64.0.1 100.127.255.255 100.100.100.200",
    "link-local": "169.254.169.254 fe80::1 fe80::1%1",
    "a cloud's own service": "168.63.129.16",
    "multicast": "224.0.0.1 239.255.255.255 ff02::1",
    "for protocols": "192.0.0.192 2001:1::1",
    "for documentation": "192.0.2.1 198.51.100.1 203.0.113.1 2001:db8::1 3fff::1",
    "for benchmarks": "198.18.0.1 198.19.255.255",
    "6to4": "192.88.99.1 2002:808:808::1",
    "an IPv4 address in IPv6": "::ffff:8.8.8.8 ::8.8.8.8 64:ff9b::8.8.8.8 ::ffff:0:8.8.8.8",
    "reserved": "240.0.0.1 255.255.255.255 100::1 4000::1 5f00::1 e000::1",
}
LOOPBACK_IN_IPV6 = [
    "::ffff:127.0.0.1",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b:1::127.0.0.1",
    "2002:7f00:1::",
    "2001:0:808:808::80ff:fffe",  # Teredo: the bits of its client's address are inverted.
]


@pytest.mark.parametrize("text", PUBLIC.split())
def test_the_public_internet_may_be_reached(text: str) -> None:
    assert Networks().refusal(ip_address(text)) is None


@pytest.mark.parametrize(("text", "word"), [(text, word) for word, texts in BLOCKED.items() for text in texts.split()])
def test_the_rest_is_blocked_with_a_word_for_it(text: str, word: str) -> None:
    assert Networks().refusal(ip_address(text)) == word


@pytest.mark.parametrize("text", LOOPBACK_IN_IPV6)
def test_an_address_with_an_inner_address_is_checked_by_both(text: str) -> None:
    address = ip_address(text)
    assert Networks().refusal(address) == "this machine"
    assert Networks([network_of("::/0")]).refusal(address) == "this machine"
    assert Networks([network_of("127.0.0.0/8")]).refusal(address) is not None
    assert Networks([network_of("::/0"), network_of("127.0.0.0/8")]).refusal(address) is None


def test_only_the_allowed_network_may_be_reached() -> None:
    networks = Networks([network_of("10.1.0.0/16"), network_of("fd00:1::/32"), network_of("127.0.0.1")])
    for text in ("10.1.2.3", "fd00:1::5", "127.0.0.1", "8.8.8.8"):
        assert networks.refusal(ip_address(text)) is None
    for text in ("10.2.0.1", "fd00:2::5", "127.0.0.2", "::1"):
        assert networks.refusal(ip_address(text)) is not None


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "10.0.0.1/8", "crm.example", "10.0.0.0-10.0.0.9"])
def test_a_network_is_written_as_cidr(text: str) -> None:
    with pytest.raises(ValueError, match="is not a network such as"):
        network_of(text)


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "2130706433",
        "0x7f000001",
        "0X7F.1",
        "0177.0.0.1",
        "127.0.0.01",
        "127.0.0.0x1",
        "1.2.3.4.5",
        "0x",
        "a.1",
    ],
)
def test_other_forms_of_ipv4_are_not_a_host(host: str) -> None:
    with pytest.raises(ValueError, match="is not an IPv4 address"):
        literal(host)


def test_names_and_addresses_are_distinguished() -> None:
    assert literal("crm.example") is None
    assert literal("10.in-addr.example") is None
    assert literal("192.0.2.1") == ip_address("192.0.2.1")
    assert literal("2001:db8::1") == ip_address("2001:db8::1")
