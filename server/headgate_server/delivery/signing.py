"""Signatures of webhooks, as Standard Webhooks specifies them. No clock.

The specification is at https://www.standardwebhooks.com. A receiver can verify them with any of its libraries.
"""

import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from headgate_server.core.model import StoredEvent

SHARED_PREFIX = "whsec_"
PRIVATE_PREFIX = "whsk_"
PUBLIC_PREFIX = "whpk_"

_SHARED_BYTES = range(24, 65)
_NEW_BYTES = 32
"""The size of the HMAC's hash."""
_SEED_BYTES = 32


class Key(Protocol):
    """Signs the requests to one destination."""

    @property
    def text(self) -> str:
        """The key as it is stored. A private key MUST never be shown."""
        ...

    @property
    def shown(self) -> str:
        """The text with which the receiver verifies signatures. The owner sees it once."""
        ...

    def signature(self, content: bytes) -> str:
        """Return a signature with its version: an item of `webhook-signature`."""
        ...


@dataclass(frozen=True, slots=True)
class SharedKey:
    """A secret of both sides, for HMAC-SHA256."""

    text: str = field(repr=False)
    """The secret, `whsec_…`."""
    _secret: bytes = field(repr=False)

    @property
    def shown(self) -> str:
        """The secret, `whsec_…`."""
        return self.text

    def signature(self, content: bytes) -> str:
        """Return `v1,` and the HMAC."""
        return f"v1,{b64encode(hmac.digest(self._secret, content, sha256)).decode()}"


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key of the sender, for ed25519."""

    text: str = field(repr=False)
    """The private key, `whsk_…`."""
    _key: Ed25519PrivateKey = field(repr=False)

    @property
    def shown(self) -> str:
        """The public key, `whpk_…`."""
        return PUBLIC_PREFIX + b64encode(self._key.public_key().public_bytes_raw()).decode()

    def signature(self, content: bytes) -> str:
        """Return `v1a,` and the ed25519 signature."""
        return f"v1a,{b64encode(self._key.sign(content)).decode()}"


def new_shared_key() -> str:
    """Return a new secret, `whsec_…`."""
    return SHARED_PREFIX + b64encode(secrets.token_bytes(_NEW_BYTES)).decode()


def new_private_key() -> str:
    """Return a new ed25519 key, `whsk_…`: its seed and its public half, in the form of NaCl and other senders."""
    key = Ed25519PrivateKey.generate()
    return PRIVATE_PREFIX + b64encode(key.private_bytes_raw() + key.public_key().public_bytes_raw()).decode()


def read_key(text: str) -> Key:
    """Return the key of a text from one of the functions above, or from another sender of Standard Webhooks.

    Raises `ValueError` with a sentence that does not quote the text.
    """
    if text.startswith(SHARED_PREFIX):
        secret = _decoded(text.removeprefix(SHARED_PREFIX))
        if len(secret) not in _SHARED_BYTES:
            raise ValueError(f"a secret has {_SHARED_BYTES[0]} to {_SHARED_BYTES[-1]} bytes, this one {len(secret)}")
        return SharedKey(text, secret)
    if text.startswith(PRIVATE_PREFIX):
        return PrivateKey(text, _private(_decoded(text.removeprefix(PRIVATE_PREFIX))))
    raise ValueError(f"a key begins with {SHARED_PREFIX} or {PRIVATE_PREFIX}")


def _private(raw: bytes) -> Ed25519PrivateKey:
    if len(raw) not in (_SEED_BYTES, 2 * _SEED_BYTES):
        raise ValueError(f"a private key has {_SEED_BYTES} or {2 * _SEED_BYTES} bytes, this one {len(raw)}")
    key = Ed25519PrivateKey.from_private_bytes(raw[:_SEED_BYTES])
    if raw[_SEED_BYTES:] not in (b"", key.public_key().public_bytes_raw()):
        raise ValueError("the two halves of a private key do not belong together")
    return key


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise ValueError("a key is base64 after its prefix") from None


def message_id(events: Sequence[StoredEvent]) -> str:
    """Return the `webhook-id` of a message: the id of its event. For several events it is a hash of all their ids. So
    it is the same for each attempt, and different for different events.
    """
    if len(events) == 1:
        return str(UUID(bytes=events[0].id))
    return f"batch_{sha256(b''.join(event.id for event in events)).hexdigest()[:32]}"


def headers(message: str, moment: int, body: bytes, keys: Sequence[Key]) -> list[tuple[str, str]]:
    """Return the three headers of an attempt. `moment` is its time in microseconds. During a rotation `keys` also has
    the old key, and the receiver chooses the signature that it can verify.
    """
    seconds = moment // 1_000_000
    content = f"{message}.{seconds}.".encode() + body
    return [
        ("webhook-id", message),
        ("webhook-timestamp", str(seconds)),
        ("webhook-signature", " ".join(key.signature(content) for key in keys)),
    ]
