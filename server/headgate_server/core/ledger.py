"""The ledger's arithmetic: ids, hashes, and the check of both. Pure.

The framing is versioned by the tags below and written down, with vectors, in docs/design/ledger.md: change one and
every ledger written so far stops verifying. `tests/vectors/ledger.json` holds the bytes.
"""

import struct
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from headgate_server.core import canonical
from headgate_server.core.model import Head, StoredEvent

_GENESIS_TAG = b"headgate/ledger/v1\0"
_IDENTITY_TAG = b"headgate/identity/v1\0"
_EVENT_TAG = b"headgate/event/v1\0"

# tag, previous hash, sequence, created_at, id, identity (zeros without a key), commitment; the receiver's name
# follows.
_EVENT_FRAME = struct.Struct(f">{len(_EVENT_TAG)}s32sQq16s32s32s")

_ID_FRAME = struct.Struct(">QQ")

MAX_BREAKS = 1_000
"""Breaks that one check names: a ledger that was rewritten breaks at every event, and a thousand tell as much as a
million.
"""


def genesis(workspace: str) -> Head:
    """Return the head of an empty ledger: its hash binds the ledger to the workspace's name."""
    return Head(0, sha256(_GENESIS_TAG + workspace.encode()).digest(), 0)


def identity(receiver: str, scope: str, key: str) -> bytes:
    """Return the SHA-256 that stands for (receiver, scope, key): each as its UTF-8 length in 4 bytes, big-endian,
    then its UTF-8.
    """
    return sha256(_identity_scope(receiver, scope) + _framed(key)).digest()


@lru_cache(maxsize=1024)
def _identity_scope(receiver: str, scope: str) -> bytes:
    """Return what the identities of one scope begin with: events come from few sources."""
    return _IDENTITY_TAG + _framed(receiver) + _framed(scope)


def _framed(part: str) -> bytes:
    encoded = part.encode()
    return len(encoded).to_bytes(4) + encoded


def commitment(salt: bytes, content: bytes) -> bytes:
    """Return SHA-256(salt || canonical content): content and salt can be erased while the chain still verifies."""
    return sha256(salt + content).digest()


def event_hash(
    previous: bytes, sequence: int, created_at: int, event_id: bytes, identity: bytes, commitment: bytes, receiver: str
) -> bytes:
    """Return the link that seals one event onto the one before. `identity` is empty for an event without a key."""
    return sha256(
        _EVENT_FRAME.pack(_EVENT_TAG, previous, sequence, created_at, event_id, identity, commitment)
        + receiver.encode()
    ).digest()


def event_id(created_at: int, random: bytes) -> bytes:
    """Return a UUIDv7 of `created_at`, from 8 random bytes (RFC 9562, method 3 of section 6.2).

    The sub-millisecond 12 bits hold the microseconds, so ids sort as `created_at` does.
    """
    milliseconds, microseconds = divmod(created_at, 1000)
    high = milliseconds << 16 | 0x7000 | (microseconds << 12) // 1000
    low = int.from_bytes(random) & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
    return _ID_FRAME.pack(high, low)


def first_id(created_at: int) -> bytes:
    """Return the smallest id that an event of this `created_at` or later can have: a time range is an id range."""
    return event_id(max(created_at, 0), bytes(8))


class Break(NamedTuple):
    """One place at which a ledger is not what was sealed; `LedgerBreak` of the proto says what each type means."""

    event_id: bytes | None
    sequence: int
    type: str
    expected: str
    actual: str


class Checker:
    """Recomputes a run of events, oldest first, from what is stored.

    `previous` is the link before the run: the genesis, or the event before, whose own soundness is not checked here.
    `expected` is a head that was kept elsewhere: where the run passes its sequence, its hash must stand there.
    """

    def __init__(self, previous: Head, expected: Head | None = None):
        self.last = previous
        self._expected = expected
        self.checked = 0
        self.breaks: list[Break] = []

    def add(self, events: Iterable[StoredEvent]) -> None:
        """Check the next events of the run. Work of about 5 µs an event: keep it off the event loop."""
        for event in events:
            self.checked += 1
            self._check_chain(event)
            self._check_content(event)
            self._check_hash(event)
            self.last = Head(event.sequence, event.event_hash, event.created_at)
            if self._expected is not None and self._expected.sequence == event.sequence:
                self.expect_head(self._expected)

    def expect_head(self, head: Head) -> None:
        """Check that the run ended at `head`: nothing was cut off, nothing stands beyond it."""
        if (self.last.sequence, self.last.hash) != (head.sequence, head.hash):
            self._break(None, head.sequence, "head_mismatch", head.hash.hex(), self.last.hash.hex())

    def break_at_head(self, beyond: Head, head: Head) -> None:
        """Note that an event stands beyond the head."""
        self._break(None, beyond.sequence, "head_mismatch", head.hash.hex(), beyond.hash.hex())

    def _check_chain(self, event: StoredEvent) -> None:
        wanted = self.last.sequence + 1
        if event.sequence != wanted:
            self._break(event.id, event.sequence, "chain_break", str(wanted), str(event.sequence))

    def _check_content(self, event: StoredEvent) -> None:
        try:
            content = canonical.content(event.type, event.source, event.subject, event.occurred_at, event.data)
        except (TypeError, ValueError):  # what no store of ours would have taken: a text that is no Unicode
            content = b""
        expected = commitment(event.salt, content)
        # Data that is more than one object may have swallowed the fields behind it: the same content, other columns.
        if expected != event.commitment or not (event.data is None or canonical.is_object(event.data)):
            self._break(event.id, event.sequence, "content_mismatch", expected.hex(), event.commitment.hex())

    def _check_hash(self, event: StoredEvent) -> None:
        try:
            named = b"" if event.key is None else identity(event.receiver, event.scope or "", event.key)
            expected = event_hash(
                self.last.hash, event.sequence, event.created_at, event.id, named, event.commitment, event.receiver
            )
        except (struct.error, UnicodeEncodeError):  # what no store of ours would have written: a negative sequence
            named = expected = b""
        sound = (
            expected == event.event_hash
            and len(event.id) == 16
            and (event.scope is None) == (event.key is None)
            and event.dedupe in (None, named[:16])
        )
        if not sound:
            self._break(event.id, event.sequence, "hash_mismatch", expected.hex(), event.event_hash.hex())

    def _break(self, event_id: bytes | None, sequence: int, kind: str, expected: str, actual: str) -> None:
        if len(self.breaks) < MAX_BREAKS:
            self.breaks.append(Break(event_id, sequence, kind, expected, actual))
