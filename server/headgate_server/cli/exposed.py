"""Refuses to listen on a network in plain text, unless that was asked for."""

import ipaddress
import socket

import structlog

from headgate_server.core.errors import SetupError
from headgate_server.process.ports import shown
from headgate_server.process.tls import TlsConfig

log = structlog.get_logger(__name__)


def check_exposed(protocol: str, host: str, port: int, config: TlsConfig) -> None:
    """Raise `SetupError` if a port in plain text can be reached from other machines. If `--plaintext` was given, log a
    warning.
    """
    if config.cert is not None or is_loopback(host):
        return
    if not config.plaintext:
        raise SetupError(
            f"{protocol} on {shown(host, port)} would show keys and events to everybody on the network: give "
            "--tls-cert and --tls-key, or --plaintext if the network is trusted or a proxy before it has TLS"
        )
    log.warning("plaintext_on_network", protocol=protocol, host=host, port=port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address. A name must stand for such addresses alone."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        pass
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return False  # whoever listens there reports it
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)
