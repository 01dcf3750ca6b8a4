"""The URL of a webhook, checked when it is set. Pure.

Parsers read unusual URLs differently, and attacks use that. So only one plain form is accepted. The request is made
from the parts of this check, and the text is not parsed a second time.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

import idna

from headgate_server.delivery.networks import Address, Networks, literal
from headgate_server.process.ports import HIGHEST_PORT

LONGEST_URL = 2048
"""The length that servers and proxies commonly accept."""

_PORTS = {"http": 80, "https": 443}
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<target>[^#]*)(?P<fragment>#.*)?")
_AUTHORITY = re.compile(r"(?:\[(?P<six>[^\[\]]*)\]|(?P<name>[^\[\]:]*))(?::(?P<port>[0-9]{0,5}))?", re.ASCII)
_TARGET = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@/?%\[\]|{}^]*", re.ASCII)
"""The characters of a path and a query: those of RFC 3986, and four that are often not encoded."""

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_LOCALHOST = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Url:
    """A URL in its parts."""

    scheme: str
    host: str
    """A name in ASCII and lower case, or an address without brackets."""
    port: int
    target: str
    """The path and the query."""

    @property
    def address(self) -> Address | None:
        """The host if it is an address, None if it is a name."""
        return literal(self.host)

    @property
    def authority(self) -> str:
        """The host for the Host header, with the port if it is not the default of the scheme."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def check_url(text: str, networks: Networks) -> Url:
    """Return the URL of a webhook.

    Raises `ValueError` with a sentence about the fault, also if the host is an address that may not be reached. A name
    is looked up for every connection and not here, because its addresses can change.
    """
    if len(text) > LONGEST_URL:
        raise ValueError(f"the URL has more than {LONGEST_URL} characters")
    if any(mark.isspace() or not mark.isprintable() or mark == "\\" for mark in text):
        raise ValueError("the URL has a space, a backslash or a control character in it")
    if (match := _URL.fullmatch(text)) is None or (scheme := match["scheme"].lower()) not in _PORTS:
        raise ValueError("the URL does not begin with https:// or http://")
    if match["fragment"] is not None:
        raise ValueError("the URL has a fragment (#…), which is never sent")
    if "@" in match["authority"]:
        raise ValueError("the URL has credentials in it; use an extra header")
    if not _TARGET.fullmatch(match["target"]):
        raise ValueError("the path or the query of the URL has a character that must be percent-encoded")
    host, port = _host_and_port(match["authority"], scheme)
    target = match["target"] if match["target"].startswith("/") else f"/{match['target']}"
    url = Url(scheme, host, port, target)
    _check_host(url, networks)
    return url


def _host_and_port(authority: str, scheme: str) -> tuple[str, int]:
    if (match := _AUTHORITY.fullmatch(authority)) is None:
        raise ValueError("the URL has no valid host and port")
    port = int(match["port"]) if match["port"] else _PORTS[scheme]
    if not 1 <= port <= HIGHEST_PORT:
        raise ValueError(f"the port of the URL is not between 1 and {HIGHEST_PORT}")
    return (_name(match["name"]) if match["six"] is None else _ipv6(match["six"])), port


def _ipv6(text: str) -> str:
    # A zone (fe80::1%eth0) names an interface of the machine. A webhook's URL does not need one.
    if "%" not in text:
        with suppress(ValueError):
            return IPv6Address(text).compressed
    raise ValueError(f"[{text[:60]}] is not an IPv6 address")


def _name(text: str) -> str:
    """Return the host name for the look-up and the request: IDNA 2008, with the mapping of UTS 46 that browsers use."""
    if not text:
        raise ValueError("the URL has no host")
    try:
        name = _ascii(text if text.isascii() else idna.encode(text, uts46=True).decode())
    except (idna.IDNAError, UnicodeError):
        raise ValueError(f"{text[:60]!r} is not a valid host name") from None
    # Check after the mapping, because it turns full-width digits and dots into plain ones.
    address = literal(name)
    return name if address is None else address.compressed


def _ascii(text: str) -> str:
    """Return a name in lower case. Raises `idna.IDNAError` if it is not a name.

    Names of services in a cluster may have an underscore, which IDNA refuses.
    """
    labels = text.lower().split(".")
    if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise idna.IDNAError
    for label in labels:
        if label.startswith("xn--"):
            idna.decode(label)
    return text.lower()


def _check_host(url: Url, networks: Networks) -> None:
    if url.host == "localhost" or url.host.endswith(".localhost"):
        addresses = [ip_address(text) for text in _LOCALHOST]
        # One allowed address is enough, because connections are made to allowed addresses only.
        words = [networks.refusal(address) for address in addresses]
        word = None if None in words else words[0]
    else:
        word = None if url.address is None else networks.refusal(url.address)
    if word is not None:
        raise ValueError(f"{url.host} is in a blocked network ({word}); the setting --webhook-allow permits networks")
