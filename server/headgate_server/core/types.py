"""What bytes and numbers stand for. Pure.

To a type checker each kind is a type of its own, so that none is taken for another. At run time they are bytes and
integers. They are made where they come from: in the functions that hash and draw them, and where a request brings one.
A row of a database is typed by the tuple that it fills.
"""

from typing import NewType

WorkspaceId = NewType("WorkspaceId", int)
"""The number of a workspace in the store, from 1."""

EventId = NewType("EventId", bytes)
"""The 16 bytes of a UUIDv7."""

EventHash = NewType("EventHash", bytes)
"""The 32 bytes that link an event to the previous one; of an empty ledger, those of its genesis."""

Commitment = NewType("Commitment", bytes)
"""The 32 bytes that commit to an event's content: SHA-256(salt || canonical content)."""

Salt = NewType("Salt", bytes)
"""The 16 random bytes of a commitment."""

Identity = NewType("Identity", bytes)
"""The 32 bytes of SHA-256 over (receiver, scope, key); empty for an event without a key."""

Dedupe = NewType("Dedupe", bytes)
"""What the index of identities holds: the first 16 bytes of an identity."""

Fingerprint = NewType("Fingerprint", bytes)
"""The 32 bytes of SHA-256 over a request: a second request under its `Idempotency-Key` must have the same."""

KeyDigest = NewType("KeyDigest", bytes)
"""The 32 bytes of SHA-256 over an API key, by which it is stored and found."""
