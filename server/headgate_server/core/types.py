"""Types for the kinds of bytes and numbers. Pure.

A type checker sees a separate type for each kind, so that it refuses one in the place of another. At run time they are
bytes and integers. A value gets its type where it is made: in the functions that hash or draw it, and where a request
contains one. A row of a database gets its types from the tuple that it fills.
"""

from typing import NewType

WorkspaceId = NewType("WorkspaceId", int)
"""The number of a workspace in the store, from 1."""

EventId = NewType("EventId", bytes)
"""The 16 bytes of a UUIDv7."""

RejectionId = NewType("RejectionId", EventId)
"""The 16 bytes of a UUIDv7, too: printed and paged as an event's."""

EventHash = NewType("EventHash", bytes)
"""The 32 bytes that link an event to the previous one. In an empty ledger they are the genesis hash."""

Commitment = NewType("Commitment", bytes)
"""The 32 bytes that commit to an event's content: SHA-256(salt || canonical content)."""

Salt = NewType("Salt", bytes)
"""The 16 random bytes of a commitment."""

Identity = NewType("Identity", bytes)
"""The 32 bytes of SHA-256 over (receiver, scope, key); empty for an event without a key."""

Dedupe = NewType("Dedupe", bytes)
"""The first 16 bytes of an identity, which the index of identities contains."""

Fingerprint = NewType("Fingerprint", bytes)
"""The 32 bytes of SHA-256 over a request: a second request under its `Idempotency-Key` must have the same."""

KeyDigest = NewType("KeyDigest", bytes)
"""The 32 bytes of SHA-256 over an API key, by which it is stored and found."""
