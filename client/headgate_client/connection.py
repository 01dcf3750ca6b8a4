"""The settings that both clients share, from arguments and the environment to a transport."""

import os
from collections.abc import Sequence
from typing import Any

from headgate_client import fork
from headgate_client.core.address import Certificates, check_certificates, check_key, parse
from headgate_client.core.queue import Limits
from headgate_client.core.retry import Retry
from headgate_client.core.scripts import Times
from headgate_client.feed import OnFailure, Settings
from headgate_client.spool import Spool
from headgate_client.transport import MakeChannel, Transport, channel_maker

URL = "HEADGATE_URL"
KEY = "HEADGATE_KEY"


def open_transport(
    url: str | None,
    key: str | None,
    plaintext: bool | None,
    certificates: Certificates,
    channel_options: Sequence[tuple[str, Any]],
    make_channel: MakeChannel | None,
) -> Transport:
    """Return a transport. Raises `ValueError` if the settings name no address or no key, or contradict each other."""
    key = check_key(key if key is not None else os.environ.get(KEY))
    if make_channel is None:
        address = parse(url if url is not None else os.environ.get(URL, ""), plaintext)
        check_certificates(certificates, address)
        make_channel = channel_maker(address, certificates, channel_options)
    transport = Transport(make_channel, key)
    fork.register_transport(transport)
    return transport


def buffer_settings(
    times: Times,
    *,
    max_size: int,
    max_age: float,
    max_items: int,
    max_bytes: int,
    when_full: str,
    spool: str | os.PathLike[str] | None,
    spool_fsync: bool,
    on_failure: OnFailure | None,
    close_timeout: float,
) -> Settings:
    """Return the settings of a buffer."""
    limits = Limits(
        max_size=max_size,
        max_age=max_age,
        max_items=max_items,
        max_bytes=max_bytes,
        max_batch_bytes=min(Limits.max_batch_bytes, max_bytes),
        when_full=when_full,
    )
    if not close_timeout >= 0:
        raise ValueError("close_timeout is not negative")
    return Settings(
        limits=limits,
        retry=times.retry,
        attempt_timeout=times.attempt_timeout,
        close_timeout=close_timeout,
        spool=None if spool is None else Spool(spool, fsync=spool_fsync),
        on_failure=on_failure,
    )


def times_of(timeout: float, attempt_timeout: float, retry: Retry | None) -> Times:
    """Return how long a method may take."""
    return Times(timeout=timeout, attempt_timeout=attempt_timeout, retry=retry or Retry())
