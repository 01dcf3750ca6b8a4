"""The addresses that a webhook may reach. Pure.

A workspace chooses the URL, and the server makes the request. Without a check a workspace could reach addresses that
only the server can reach: its own ports, machines in its network, a cloud's metadata service.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_SPECIAL = {
    "this machine": "0.0.0.0/8 127.0.0.0/8 ::/128 ::1/128",
    "private": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7 fec0::/10",
    "shared (CGNAT)": "100.64.0.0/10",
    "link-local": "169.254.0.0/16 fe80::/10",
    # Azure's host agent. No other cloud has such a service at a public address.
    "a cloud's own service": "168.63.129.16/32",
    "multicast": "224.0.0.0/4 ff00::/8",
    "for protocols": "192.0.0.0/24 2001::/23",
    "for documentation": "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20",
    "for benchmarks": "198.18.0.0/15",
    "6to4": "192.88.99.0/24 2002::/16",
    "an IPv4 address in IPv6": "::/96 ::ffff:0:0/96 ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b:1::/48",
    "reserved": "240.0.0.0/4",
}
"""The networks that are not part of the public internet (IANA's special-purpose registries), with a word for each."""

_BLOCKED = [(ip_network(text), word) for word, texts in _SPECIAL.items() for text in texts.split()]
_PUBLIC_6 = IPv6Network("2000::/3")
"""The part of IPv6 that IANA has assigned. The rest is reserved or special."""

_NAT64 = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = IPv6Network("::/96")
_TRANSLATED = IPv6Network("::ffff:0:0:0/96")


@dataclass(frozen=True, slots=True)
class Networks:
    """The networks that may be reached: the public internet, and those that the operator allows."""

    allowed: Sequence[Network] = ()

    def refusal(self, address: Address) -> str | None:
        """Return why an address may not be reached, as a word such as "private"; None: it may be reached.

        If an address contains an IPv4 address, requests reach that address, so both must be allowed.
        """
        inner = _inner_ipv4(address)
        if inner is not None and (word := self.refusal(inner)) is not None:
            return word
        if any(address in network for network in self.allowed if network.version == address.version):
            return None
        for network, word in _BLOCKED:
            if network.version == address.version and address in network:
                return word
        return "reserved" if isinstance(address, IPv6Address) and address not in _PUBLIC_6 else None


def _inner_ipv4(address: Address) -> IPv4Address | None:
    """Return the IPv4 address inside an IPv6 address of a transition mechanism, None if there is none."""
    if isinstance(address, IPv4Address):
        return None
    if address.teredo is not None:
        return address.teredo[1]
    if address.ipv4_mapped is not None or address.sixtofour is not None:
        return address.ipv4_mapped or address.sixtofour
    if int(address) > 1 and any(address in network for network in (_NAT64, _NAT64_LOCAL, _COMPATIBLE, _TRANSLATED)):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def network_of(text: str) -> Network:
    """Return a network in CIDR notation, for the setting `--webhook-allow`. A single address is a network of one.

    Raises `ValueError` with a sentence about the fault.
    """
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a network such as 10.0.0.0/8 or fd00::/8: {error}") from None


def literal(host: str) -> Address | None:
    """Return the address if the host is one, None if it is a name.

    Raises `ValueError` for a host that only some resolvers read as an IPv4 address: 127.1, 0x7f000001,
    2130706433, 0177.0.0.1.
    """
    try:
        return ip_address(host)
    except ValueError:
        if _NUMBER.fullmatch(host.rpartition(".")[2]):
            raise ValueError(f"{host!r} ends in a number and is not an IPv4 address such as 192.0.2.1") from None
        return None


_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*", re.ASCII)
"""A last label that makes a host an IPv4 address (WHATWG URL, "ends in a number")."""
