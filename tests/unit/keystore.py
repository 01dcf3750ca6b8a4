"""A store of API keys for tests of the authenticator. tests/contract tests the real stores."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import cast

from headgate_server.access import auth
from headgate_server.core.errors import Unavailable
from headgate_server.core.model import ApiKey, Scope, Workspace
from headgate_server.store import Directory

ACME = Workspace(1, "acme")


class KeyStore:
    """Finds keys, counts the look-ups, and answers late or not at all if a test wants it."""

    def __init__(self) -> None:
        self.keys: dict[bytes, ApiKey] = {}
        self.asked: Counter[bytes] = Counter()
        self.batches: list[int] = []
        """How many keys each look-up was for."""
        self.error: Exception | None = None
        self.broken: set[bytes] = set()
        """Digests whose row cannot be read."""
        self.open = asyncio.Event()
        """Look-ups end once it is set."""
        self.open.set()
        self.entered = asyncio.Event()
        """Set once a look-up has begun."""

    async def find_keys(self, digests: Sequence[bytes]) -> dict[bytes, ApiKey]:
        """Return the keys as they are when the look-up begins."""
        self.asked.update(digests)
        self.batches.append(len(digests))
        self.entered.set()
        found, error = {digest: self.keys[digest] for digest in digests if digest in self.keys}, self.error
        await self.open.wait()
        if error is not None:
            raise error
        if self.broken & set(digests):
            raise Unavailable("The store's database failed.")
        return found

    def add(self, *scopes: Scope, now: int = 0, expires_at: int | None = None) -> tuple[str, ApiKey]:
        """Make a key and store it."""
        key, record = auth.make_key(ACME, frozenset(scopes or {Scope.EVENTS_WRITE}), now, expires_at)
        self.keys[record.digest] = record
        return key, record

    def revoke(self, record: ApiKey, at: int) -> None:
        """Revoke a key."""
        self.keys[record.digest] = record._replace(revoked_at=at)

    def as_store(self) -> Directory:
        """Return it as the directory; only this part of it is called here."""
        return cast(Directory, self)
