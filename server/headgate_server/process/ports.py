"""Addresses: as text, and reserved for processes that listen on them."""

import contextlib
import errno
import socket
from collections.abc import Container, Iterator, Sequence

from headgate_server.core.errors import SetupError

HIGHEST_PORT = 65535


def host_of(text: str) -> str:
    """Return the host of a text; an IPv6 address may be in brackets. Raises `ValueError` if there is no host."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not host or "[" in host or "]" in host or any(character.isspace() for character in host):
        raise ValueError(f"{text!r} is not a host: give a name or an address, such as 127.0.0.1 or ::1")
    try:
        host.encode("idna")  # as a look-up does
    except UnicodeError:
        raise ValueError(f"{text!r} is not a host: a part of a name has 1 to 63 characters") from None
    return host


def shown(host: str, port: int) -> str:
    """Return HOST:PORT for a URL or gRPC: an IPv6 address is in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url_of(host: str, port: int, scheme: str = "http") -> str:
    """Return the URL of an address. The `%` before an IPv6 address's zone is escaped (RFC 6874)."""
    return f"{scheme}://{shown(host.replace('%', '%25'), port)}"


@contextlib.contextmanager
def reserved(
    host: str, port: int, count: int, purpose: str, *, elsewhere: bool = False, avoid: Container[int] = ()
) -> Iterator[Sequence[int]]:
    """Reserve `count` ports in a row for processes that listen on `host`, from `port` on; with 0 any free ones. With
    `elsewhere`, a free one is reserved in place of each port after the first that is taken, or that is one to `avoid`.

    The ports are bound with SO_REUSEADDR and do not listen. A process whose socket has it too can listen there, and no
    outgoing connection gets the port while that process is replaced. Raises `SetupError` if a port is taken, or if the
    address is not this machine's; its message names the `purpose`.
    """
    with contextlib.ExitStack() as stack:
        found = []
        for index in range(count):
            number = port + index if port else 0
            movable = elsewhere and index > 0
            try:
                found.append(_bound(stack, host, 0 if movable and number in avoid else number))
            except OSError as error:
                if not movable:
                    raise SetupError(f"cannot listen on {shown(host, number)} for {purpose}: {_why(error)}") from None
                found.append(_bound(stack, host, 0))
        yield found


def _bound(stack: contextlib.ExitStack, host: str, number: int) -> int:
    """Bind a port until the stack ends, and return it. Raises `OSError`."""
    if number > HIGHEST_PORT:
        raise OSError(errno.EINVAL, "there is no such port")  # getaddrinfo would take another one
    # Only the first address of a name. The process that listens fails if another one is taken.
    family, kind, _, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
    bound = stack.enter_context(socket.socket(family, kind))
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(address)
    return int(bound.getsockname()[1])


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use"
    return error.strerror or str(error)
