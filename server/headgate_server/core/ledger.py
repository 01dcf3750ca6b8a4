"""The ledger's arithmetic: ids, hashes, and the check of both. Pure.

The tags below version the framing. docs/design/ledger.md specifies it and `tests/vectors/ledger.json` holds the bytes.
If one byte changes, no ledger written so far verifies any more.
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from operator import itemgetter
from typing import NamedTuple, Protocol, TypeVar, cast

from headgate_server.core import canonical, shapes, timestamps
from headgate_server.core.checked_rows import StoredHead
from headgate_server.core.model import Head, Link, StoredEvent
from headgate_server.core.shapes import Misshapen
from headgate_server.core.types import Commitment, Dedupe, EventHash, EventId, Identity, Salt

_Kind_co = TypeVar("_Kind_co", covariant=True)


class _Hashed(Protocol[_Kind_co]):
    """What `sha256` returns."""

    def digest(self) -> _Kind_co: ...


_GENESIS_TAG = b"headgate/ledger/v1\0"
_IDENTITY_TAG = b"headgate/identity/v1\0"
_EVENT_TAG = b"headgate/event/v1\0"

# tag, previous hash, sequence, created_at, id, identity (zeros without a key), commitment; the receiver's name
# follows.
_EVENT_FRAME = struct.Struct(f">{len(_EVENT_TAG)}s32sQq16s32s32s")

# The same functions, with the kind of bytes that each of them makes. A cast costs nothing when they are called.
_event_sha256 = cast("Callable[[bytes], _Hashed[EventHash]]", sha256)
_commitment_sha256 = cast("Callable[[bytes], _Hashed[Commitment]]", sha256)
_identity_sha256 = cast("Callable[[bytes], _Hashed[Identity]]", sha256)
_packed_id = cast("Callable[[int, int], EventId]", struct.Struct(">QQ").pack)

dedupe_of = cast("Callable[[Identity], Dedupe]", itemgetter(slice(16)))
"""Returns what the index of identities holds of an identity."""

NO_IDENTITY = Identity(b"")
"""The identity of an event without a key."""

MAX_BREAKS = 1_000
"""The most breaks that one check names. A rewritten ledger breaks at every event, and a thousand show as much as a
million.
"""


def genesis(workspace: str) -> Head:
    """Return the head of an empty ledger. Its hash binds the ledger to the workspace's name."""
    return Head(0, _event_sha256(_GENESIS_TAG + workspace.encode()).digest(), 0)


def identity(receiver: str, scope: str, key: str) -> Identity:
    """Return the SHA-256 of (receiver, scope, key). Each is framed as its UTF-8 length in 4 bytes, big-endian, then its
    UTF-8.
    """
    return _identity_sha256(_identity_scope(receiver, scope) + _framed(key)).digest()


@lru_cache(maxsize=1024)
def _identity_scope(receiver: str, scope: str) -> bytes:
    """Return the bytes with which the identities of one scope begin. Cached, because events come from few sources."""
    return _IDENTITY_TAG + _framed(receiver) + _framed(scope)


def _framed(part: str) -> bytes:
    encoded = part.encode()
    return len(encoded).to_bytes(4) + encoded


def commitment(salt: Salt, content: bytes) -> Commitment:
    """Return SHA-256(salt || canonical content). Content and salt can be erased, and the chain still verifies."""
    return _commitment_sha256(salt + content).digest()


def event_hash(
    previous: EventHash,
    sequence: int,
    created_at: int,
    event_id: EventId,
    identity: Identity,
    commitment: Commitment,
    receiver: str,
) -> EventHash:
    """Return the hash that links an event to the previous one. `identity` is empty for an event without a key."""
    return _event_sha256(
        _EVENT_FRAME.pack(_EVENT_TAG, previous, sequence, created_at, event_id, identity, commitment)
        + receiver.encode()
    ).digest()


def event_id(created_at: int, random: bytes) -> EventId:
    """Return a UUIDv7 of `created_at`, from 8 random bytes (RFC 9562, method 3 of section 6.2).

    The sub-millisecond 12 bits hold the microseconds, so ids sort as `created_at` does.
    """
    milliseconds, microseconds = divmod(created_at, 1000)
    high = milliseconds << 16 | 0x7000 | (microseconds << 12) // 1000
    low = int.from_bytes(random) & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
    return _packed_id(high, low)


def first_id(created_at: int) -> EventId:
    """Return the smallest id that an event of this `created_at` or later can have. So a time range is an id range."""
    return event_id(max(created_at, 0), bytes(8))


def last_id(created_at: int) -> EventId:
    """Return the largest id that an event of this `created_at` or earlier can have."""
    return event_id(max(created_at, 0), b"\xff" * 8)


class BreakType(StrEnum):
    """The types of breaks, as on the wire. `LedgerBreak` of the proto says what each means."""

    CONTENT_MISMATCH = "content_mismatch"
    HASH_MISMATCH = "hash_mismatch"
    CHAIN_BREAK = "chain_break"
    HEAD_MISMATCH = "head_mismatch"

    @property
    def is_of_the_chain(self) -> bool:
        """Whether events are missing, added or in another order, while each event is sound in itself."""
        return self in (BreakType.CHAIN_BREAK, BreakType.HEAD_MISMATCH)


class Break(NamedTuple):
    """One place at which a ledger differs from what was sealed.

    `event_id` is None if the break concerns no event, or an event whose id does not have 16 bytes. `expected` and
    `actual` are hashes in hexadecimal, or sequences for a `chain_break`; or both begin with a column's name and a
    colon.
    """

    event_id: EventId | None
    sequence: int
    type: BreakType
    expected: str
    actual: str

    @property
    def names_hashes(self) -> bool:
        """Whether `expected` and `actual`, if not empty, are hashes."""
        return self.type is not BreakType.CHAIN_BREAK and ":" not in self.expected


_BREAK_OF = {
    "sequence": BreakType.CHAIN_BREAK,
    **dict.fromkeys(
        ("type", "source", "subject", "occurred_at", "data", "attributes", "salt", "commitment"),
        BreakType.CONTENT_MISMATCH,
    ),
}
"""The type of break for a column of a wrong shape. A column that is not listed is a hash mismatch."""


class Checker:
    """Recomputes a run of events, oldest first, from the stored rows.

    `previous` is the link before the run: the genesis, or the previous event, which is not checked itself. `expected`
    is a head that was kept elsewhere: the event at its sequence must have its hash.

    `passed_expected` says whether the run has reached that sequence. `released` holds the identities of the events last
    added whose `dedupe` is empty; give `holds` the events that hold them now. `held` has the events last added that
    hold an identity; give `shares` the identities that more than one event holds.
    """

    def __init__(self, previous: Head, expected: Head | None = None):
        self.last = previous
        self.checked = 0
        self.breaks: list[Break] = []
        self.released: dict[Dedupe, StoredEvent] = {}
        self.held: list[StoredEvent] = []
        self.passed_expected = False
        self._expected = expected

    def add(self, events: Iterable[StoredEvent]) -> None:
        """Check the next events of the run. It takes about 8 µs an event: call it off the event loop."""
        self.released, self.held = {}, []
        for event in events:
            self.checked += 1
            misshapen = shapes.misshapen_event(event)
            if misshapen:
                self._check_misshapen(event, misshapen)
            else:
                self._check_chain(event)
                self._check_content(event)
                self._check_hash(event)
                self.last = Head(event.sequence, event.event_hash, event.created_at)
            if self._expected is not None and self._expected.sequence == self.last.sequence:
                self.passed_expected = True
                self.expect_head(self._expected)

    def holds(self, holders: Mapping[Dedupe, Link]) -> None:
        """Check that a later event now holds each identity in `released`: only a later event may release it."""
        for dedupe, event in self.released.items():
            holder = holders.get(dedupe)
            if holder is None or not (type(holder.sequence) is int and holder.sequence > event.sequence):
                wrong = (f"dedupe: {_shown(dedupe)}", f"dedupe: {_shown(None)}")
                self._break(event, event.sequence, BreakType.HASH_MISMATCH, *wrong)

    def shares(self, counts: Mapping[Dedupe, int]) -> None:
        """Name the events of `held` whose identity more than one event holds. `counts` says how many."""
        for event in self.held:
            if event.dedupe is not None and (count := counts.get(event.dedupe, 1)) > 1:
                wrong = ("dedupe: of one event", f"dedupe: of {count} events")
                self._break(event, event.sequence, BreakType.HASH_MISMATCH, *wrong)

    def expect_head(self, head: Head) -> None:
        """Check that the run ended at `head`: no event was cut off, and none follows it."""
        if (self.last.sequence, self.last.hash) != (head.sequence, head.hash):
            place = max(head.sequence, self.last.sequence)
            self._break(None, place, BreakType.HEAD_MISMATCH, head.hash.hex(), self.last.hash.hex())

    def expect_stored_head(self, head: StoredHead | None, month_start: int | None) -> None:
        """Check the head's row against the event at which the run ended.

        `month_start` is the sequence of the last event before the head's month, 0 if there is none; None: unknown.
        """
        if head is None:
            self._break_head("a row of heads", "none")
            return
        misshapen = shapes.misshapen_head(head)
        for cell in misshapen:
            self._break_head(cell.wanted, cell.found)
        if misshapen:
            return
        breaks = len(self.breaks)
        self.expect_head(Head(*head[:3]))
        if len(self.breaks) > breaks:
            return  # the following checks assume that the head names the last event
        if head.created_at != self.last.created_at:
            self._break_head(f"created_at: {self.last.created_at}", f"created_at: {head.created_at}")
            return
        month = counted_month(head)
        if head.month != month:
            self._break_head(f"month: {month}", f"month: {head.month}")
        elif month_start is not None and head.month_events != head.sequence - month_start:
            self._break_head(f"month_events: {head.sequence - month_start}", f"month_events: {head.month_events}")

    def _check_misshapen(self, event: StoredEvent, misshapen: Iterable[Misshapen]) -> None:
        """Name each cell of a wrong shape, and continue from the link that the event should be."""
        cells = {cell.column: cell for cell in misshapen}
        place = self.last.sequence + 1 if "sequence" in cells else event.sequence
        if "sequence" not in cells:
            self._check_chain(event)
        for column, cell in cells.items():
            self._break(event, place, _BREAK_OF.get(column, BreakType.HASH_MISMATCH), cell.wanted, cell.found)
        self.last = Head(
            place,
            _NO_HASH if "event_hash" in cells else event.event_hash,
            0 if "created_at" in cells else event.created_at,
        )

    def _check_chain(self, event: StoredEvent) -> None:
        expected = self.last.sequence + 1
        if event.sequence != expected:
            self._break(event, event.sequence, BreakType.CHAIN_BREAK, str(expected), str(event.sequence))

    def _check_content(self, event: StoredEvent) -> None:
        try:
            content = canonical.content(
                event.type, event.source, event.subject, event.occurred_at, event.data, event.attributes
            )
        except (TypeError, ValueError):  # a text that is not Unicode; our stores never write one
            content = b""
        expected = commitment(event.salt, content)
        # Data that is more than one value may contain the following fields: the same content from other columns.
        whole = (event.data is None or canonical.is_value(event.data)) and (
            event.attributes is None or canonical.is_object(event.attributes)
        )
        if expected != event.commitment or not whole:
            self._break(event, event.sequence, BreakType.CONTENT_MISMATCH, expected.hex(), event.commitment.hex())

    def _check_hash(self, event: StoredEvent) -> None:
        try:
            named = NO_IDENTITY if event.key is None else identity(event.receiver, event.scope or "", event.key)
            expected = event_hash(
                self.last.hash, event.sequence, event.created_at, event.id, named, event.commitment, event.receiver
            )
            timed = event_id(event.created_at, event.id[8:])
        except (struct.error, UnicodeEncodeError):  # for example a negative sequence; our stores never write one
            self._break(event, event.sequence, BreakType.HASH_MISMATCH, "", event.event_hash.hex())
            return
        dedupe = dedupe_of(named) or None
        if expected != event.event_hash or len(self.last.hash) != 32:
            wrong = (expected.hex(), event.event_hash.hex())
        elif timed != event.id:
            wrong = (f"id: {timed.hex()}", f"id: {event.id.hex()}")
        elif (event.scope is None) != (event.key is None):
            wrong = (f"scope: {shapes.name_of(event.key)}", f"scope: {shapes.name_of(event.scope)}")
        elif event.dedupe == dedupe:
            if dedupe is not None:
                self.held.append(event)
            return
        elif event.dedupe is None and dedupe is not None:
            self.released[dedupe] = event
            return
        else:
            wrong = (f"dedupe: {_shown(dedupe)}", f"dedupe: {_shown(event.dedupe)}")
        self._break(event, event.sequence, BreakType.HASH_MISMATCH, *wrong)

    def _break_head(self, expected: str, actual: str) -> None:
        self._break(None, self.last.sequence, BreakType.HEAD_MISMATCH, expected, actual)

    def _break(self, event: StoredEvent | None, sequence: int, kind: BreakType, expected: str, actual: str) -> None:
        if len(self.breaks) < MAX_BREAKS:
            known = event.id if event is not None and shapes.is_event_id(event.id) else None
            self.breaks.append(Break(known, sequence, kind, expected, actual))


def _shown(value: bytes | None) -> str:
    return "NULL" if value is None else value.hex()


_NO_HASH = EventHash(b"")
"""The hash of an event whose stored hash is no hash: the next event does not verify."""


def counted_month(head: StoredHead) -> int:
    """Return the month that a head counts: the earliest month of the next event. 0 in an empty ledger, or if the time
    has no month.
    """
    if head.sequence == 0 or not timestamps.MIN <= head.created_at < timestamps.MAX:
        return 0
    return timestamps.month(head.created_at + 1)[0]
