"""Reads certificates again when their files change. What cannot be used is logged, and the old ones stay."""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import structlog

from headgate_server.process.certificates import TlsError, lacks_chain, load
from headgate_server.process.clock import Clock
from headgate_server.process.metrics.catalogue import TLS_EXPIRES
from headgate_server.process.metrics.cells import Reading
from headgate_server.process.tls import TlsFiles, TlsMaterial

log = structlog.get_logger(__name__)

NAME = "tls_renewal"
POLL_SECONDS = 1.0
"""The files are looked at, not watched: that works on every file system, and for links that are moved (Kubernetes,
certbot) as well as for files that are written in place.
"""
SOON = timedelta(days=7)
"""Most authorities and tools renew a month before the end, so a week before it the renewal has failed several times."""

RETRY = timedelta(minutes=1)
"""A certificate that is not valid yet, because the issuer's clock is ahead, becomes usable without a change."""

_State = Sequence[tuple[int, ...]]


class Renewal:
    """Certificates in use: `material` is checked. `tell` says who is told of later ones."""

    def __init__(self, files: TlsFiles, clock: Clock, *, poll_seconds: float = POLL_SECONDS):
        """Raises `TlsError` if the files cannot be used."""
        self._files = files
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._told: dict[Callable[[TlsMaterial], None], TlsMaterial] = {}
        self._tried = self._seen = self._state()
        self._failed: datetime | None = None
        self._warned: datetime | None = None
        self.material = load(files, clock)
        warn_of_gap(self.material)
        self._warn_of_end()

    def tell(self, changed: Callable[[TlsMaterial], None]) -> None:
        """Call `changed`, on the event loop, with each material that is newer than the present one."""
        self._told[changed] = self.material

    def readings(self, shown: str) -> Iterator[Reading]:
        """Return when the certificate expires, for the metrics. `shown` says where it is shown."""
        if (expires := self.material.expires) is not None:
            yield TLS_EXPIRES, (shown,), expires.timestamp()

    async def run(self) -> None:
        """Look at the files until cancelled."""
        while True:
            await asyncio.sleep(self._poll_seconds)
            # On a thread: the files may be on a network's file system.
            await asyncio.to_thread(self.look)
            self._tell()
            self._warn_of_end()

    def look(self) -> None:
        """Set `material` if the files have changed and can be used.

        A change counts when it was seen twice: a certificate and its key are rarely replaced at the same moment.
        """
        state = self._state()
        if state != self._seen:
            self._seen = state
            return
        if state == self._tried and (self._failed is None or self._now() - self._failed < RETRY):
            return
        is_new = state != self._tried
        self._tried, self._failed = state, None
        try:
            material = load(self._files, self._clock)
        except TlsError as error:
            self._failed = self._now()
            if is_new:
                log.error("tls_not_renewed", error=str(error), expires=_shown(self.material))
            return
        if material != self.material:
            self.material = material
            warn_of_gap(material)
            log.info("tls_renewed", expires=_shown(material))

    def _tell(self) -> None:
        """Tell everybody who has not been told yet. One who fails is told again at the next look."""
        for changed, material in self._told.items():
            if material is not self.material:
                try:
                    changed(self.material)
                except OSError as error:
                    log.error("tls_not_renewed", error=str(error), expires=_shown(material))
                else:
                    self._told[changed] = self.material

    def _state(self) -> _State:
        """Return what changes when a file is written or replaced, also by way of links."""
        return [_state_of(os.fspath(path)) for path in self._files.paths()]

    def _warn_of_end(self) -> None:
        """Log, once a day, that the certificate expires soon."""
        expires, now = self.material.expires, self._now()
        if expires is None or expires - now > SOON or (self._warned and now - self._warned < timedelta(days=1)):
            return
        self._warned = now
        log.warning("tls_certificate_expires", expires=_shown(self.material), file=str(self._files.cert))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock() / 1_000_000, UTC)


def warn_of_gap(material: TlsMaterial) -> None:
    """Log a warning if the chain seems to be incomplete."""
    if issuer := lacks_chain(material):
        log.warning("tls_chain_incomplete", missing=issuer, hint="append the authority's certificate to --tls-cert")


def _state_of(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _shown(material: TlsMaterial) -> str | None:
    return None if material.expires is None else f"{material.expires:%Y-%m-%dT%H:%M:%SZ}"
