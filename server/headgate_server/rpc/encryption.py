"""TLS of the gRPC port. New connections get the newest certificate; those that exist go on."""

from collections import deque

import grpc

from headgate_server.process.tls import TlsMaterial


class Encryption:
    """Credentials whose certificate can be replaced while the server runs."""

    def __init__(self, material: TlsMaterial):
        self._asks_clients = bool(material.trusted)
        # gRPC asks at each handshake, on its own threads. A deque's methods are atomic.
        self._newest: deque[grpc.ServerCertificateConfiguration] = deque(maxlen=1)
        self.credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            _configuration(material), self._replacement, require_client_authentication=self._asks_clients
        )

    def renew(self, material: TlsMaterial) -> None:
        """Show another certificate, and trust other authorities, from the next handshake on."""
        self._newest.append(_configuration(material))

    def _replacement(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the certificate that gRPC does not have yet, if there is one."""
        try:
            return self._newest.pop()
        except IndexError:
            return None


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.chain)], root_certificates=material.trusted or None
    )
