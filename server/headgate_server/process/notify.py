"""Tells systemd when the service is ready and when it ends (sd_notify). Without `NOTIFY_SOCKET` nothing is told."""

import os
import socket

import structlog

log = structlog.get_logger(__name__)

VARIABLE = "NOTIFY_SOCKET"
_STATUS_LENGTH = 200


def ready(status: str) -> None:
    """Say that the service accepts calls. The status is a line for `systemctl status`."""
    _tell("READY=1", f"STATUS={' '.join(status.split())[:_STATUS_LENGTH]}")


def stopping() -> None:
    """Say that the service ends its calls in progress."""
    _tell("STOPPING=1", "STATUS=stopping")


def _tell(*lines: str) -> None:
    address = os.environ.get(VARIABLE, "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # a name that is no file's
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
            told.setblocking(False)
            told.sendto("\n".join(lines).encode(), address)
    except (OSError, ValueError) as error:
        # The service runs all the same. systemd ends it if it waits for this message.
        log.warning("service_manager_not_told", message=lines[0], error=str(error))
