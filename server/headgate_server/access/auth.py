"""API keys: how they are created, and how a call is authenticated."""

import re
import secrets
import string
import time
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import NamedTuple

from cachetools import TTLCache

from headgate_server.access.look_ups import KeyLookUps
from headgate_server.core import ledger
from headgate_server.core.audit import OPERATOR_SCOPES, RESERVED
from headgate_server.core.errors import InvalidRequest, NotFound, PermissionDenied, Unauthenticated
from headgate_server.core.model import NO_LIMITS, ApiKey, KeyLimits, Scope, Workspace
from headgate_server.core.reasons import Reason
from headgate_server.core.types import KeyDigest
from headgate_server.process.clock import Clock, system_clock
from headgate_server.process.metrics import catalogue
from headgate_server.process.metrics.cells import Reading
from headgate_server.store import Directory

PREFIX = "hg_"
ID_PREFIX = "key_"
_ALPHABET = string.ascii_letters + string.digits
_SECRET_LENGTH = 43
"""Characters out of 62. They have 256 bits, so a plain SHA-256 is enough to store a key."""
_MAX_LENGTH = 256
"""The longest key that is looked up; ours have 46 characters."""

CACHE_SECONDS = 3.0
"""How long the result of a look-up is used. A revocation takes effect everywhere within 5 seconds; this leaves two
seconds for the look-up itself.
"""
_CACHED_KEYS = 10_000
_CACHED_REFUSALS = 10_000
"""The bounds of the two caches. They are separate so that many invalid keys cannot displace the valid ones."""

WORKSPACE_NAME = r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?"


class Principal(NamedTuple):
    """The owner of a call: its key's id, workspace and scopes."""

    key_id: str
    workspace: Workspace
    scopes: frozenset[str]
    limits: KeyLimits = NO_LIMITS

    def may(self, scope: str) -> bool:
        """Whether the key has the scope; `admin` has every scope of its workspace. In the reserved workspace a key can
        do only what an operator may do.
        """
        if self.workspace.name == RESERVED and scope not in OPERATOR_SCOPES:
            return False
        return scope in self.scopes or Scope.ADMIN in self.scopes


def check_key(scopes: frozenset[str], now: int, expires_at: int | None) -> None:
    """Raise `InvalidRequest` if there is no scope, or if the expiry is past."""
    if not scopes:
        raise InvalidRequest("a key needs at least one scope", field="scopes")
    if expires_at is not None and expires_at <= now:
        raise InvalidRequest("the expiry of a key must be in the future", field="expires_at")


def make_key(
    workspace: Workspace, scopes: frozenset[str], now: int, expires_at: int | None = None
) -> tuple[str, ApiKey]:
    """Return a new key, which is shown once, and its stored record. Raises `InvalidRequest` if there is no scope, or if
    the expiry is past.
    """
    check_key(scopes, now, expires_at)
    key = PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))
    key_id = ID_PREFIX + ledger.event_id(now, secrets.token_bytes(8)).hex()
    return key, ApiKey(key_id, digest_of(key), key[: len(PREFIX) + 5], workspace, scopes, now, expires_at, None)


class Authenticator:
    """Finds the owner of a key, from its cache if possible.

    `clock` decides whether a key has expired. `timer`, in seconds, decides how old a cached key is. The timer never
    goes back. A clock can be set back, and a revoked key would stay valid for that time.
    """

    def __init__(self, directory: Directory, clock: Clock = system_clock, timer: Callable[[], float] = time.monotonic):
        self._directory = directory
        self._clock = clock
        self.timer = timer
        """What measures how long a key is remembered, in seconds."""
        self._known: TTLCache[KeyDigest, ApiKey] = TTLCache(_CACHED_KEYS, CACHE_SECONDS, timer=timer)
        self._refused: TTLCache[KeyDigest, bool] = TTLCache(_CACHED_REFUSALS, CACHE_SECONDS, timer=timer)
        self._used: dict[str, int] = {}
        self._looking = KeyLookUps(directory, self._keep)
        self._look_ups = {"known": 0, "refused": 0, "missed": 0}

    async def authenticate(self, key: str | None) -> Principal:
        """Return the owner of the key.

        Raises `Unauthenticated` if the key is missing, unknown, revoked or expired, and `Unavailable` if the key could
        not be looked up.
        """
        if not key:
            raise Unauthenticated(
                'An API key is required, as "Authorization: Bearer hg_…" or "X-API-Key: hg_…".',
                reason=Reason.MISSING_API_KEY,
            )
        if not key.startswith(PREFIX) or len(key) > _MAX_LENGTH:
            raise _refusal()
        digest = digest_of(key)
        record = self._known.get(digest)
        if record is not None:
            self._look_ups["known"] += 1
        elif digest in self._refused:
            self._look_ups["refused"] += 1
            raise _refusal()
        else:
            self._look_ups["missed"] += 1
            record = await self._looking.find(digest)
        now = self._clock()
        if (
            record is None
            or record.revoked_at is not None
            or (record.expires_at is not None and record.expires_at <= now)
        ):
            raise _refusal()
        self._used[record.id] = now
        return Principal(record.id, record.workspace, record.scopes, record.limits)

    async def within(self, owner: Principal, name: str) -> Principal:
        """Return who acts in the workspace of this name with the key of `owner`: an operator, with every scope of the
        workspace, or the owner itself where that is its own.

        Raises `PermissionDenied` if the key is of another workspace and no operator's, `NotFound` if there is no such
        workspace, and `Unavailable` if it could not be looked up.
        """
        if name == owner.workspace.name:
            return owner
        if not is_operator(owner):
            of, told = owner.workspace.name, name[:100]
            message = f"The API key is of the workspace {of!r}, not {told!r}. Only an operator's key acts in others."
            raise PermissionDenied(message)
        found = await self._directory.workspace(name) if re.fullmatch(WORKSPACE_NAME, name) else None
        if found is None:
            raise NotFound(f"there is no workspace {name[:100]!r}")
        return Principal(owner.key_id, found, frozenset({Scope.ADMIN}), owner.limits)

    def take_used(self) -> dict[str, int]:
        """Return when keys were used since the last call of this, by their ids."""
        used, self._used = self._used, {}
        return used

    def note_used(self, used: Mapping[str, int]) -> None:
        """Note uses that could not be stored."""
        self._used = {**used, **self._used}

    def readings(self) -> Iterator[Reading]:
        """Yield how the cache is used, for the metrics."""
        for result, count in self._look_ups.items():
            yield catalogue.KEY_LOOK_UPS, (result,), count
        yield catalogue.KEYS_CACHED, (), self._known.currsize

    def _keep(self, digest: KeyDigest, record: ApiKey | None) -> None:
        """Keep the result of a look-up."""
        if record is None:
            self._refused[digest] = True
        else:
            self._known[digest] = record


def require(principal: Principal, *scopes: str) -> None:
    """Raise `PermissionDenied` if the caller's key has none of the scopes. Without scopes any key is enough."""
    if scopes and not any(principal.may(scope) for scope in scopes):
        names = " or ".join(f'"{scope}"' for scope in scopes)
        raise PermissionDenied(f"The API key lacks the scope {names}.")


def is_operator(principal: Principal) -> bool:
    """Whether the key is an operator's."""
    return principal.workspace.name == RESERVED and Scope.ADMIN in principal.scopes


def require_operator(principal: Principal) -> None:
    """Raise `PermissionDenied` if the caller's key is no operator's."""
    if not is_operator(principal):
        raise PermissionDenied(f'The API key lacks the scope "admin" of the workspace {RESERVED}.')


def digest_of(key: str) -> KeyDigest:
    return KeyDigest(sha256(key.encode(errors="surrogatepass")).digest())


def _refusal() -> Unauthenticated:
    return Unauthenticated("The API key is not valid.")
