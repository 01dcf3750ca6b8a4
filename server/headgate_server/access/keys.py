"""The operator's use cases for API keys."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256

from headgate_server.access import auth
from headgate_server.core.audit import OPERATOR_SCOPES, RESERVED
from headgate_server.core.errors import InvalidRequest, NotFound
from headgate_server.core.model import NO_LIMITS, ApiKey, KeyLimits, Scope
from headgate_server.core.reasons import Reason
from headgate_server.process.clock import Clock, system_clock
from headgate_server.receivers.registry import VENDOR_SCOPES
from headgate_server.store import Directory

MOST_NAME = 100
DAY = 86_400_000_000
MOST_OVERLAP = 365 * DAY
SCOPES = (*(scope.value for scope in Scope), *VENDOR_SCOPES)
"""All scopes that a key can have."""

_REQUEST_ID = re.compile(r"[!-~]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """The fields of a key that is created."""

    workspace: str
    scopes: Collection[str]
    name: str = ""
    expires_at: int | None = None
    limits: KeyLimits = NO_LIMITS
    request_id: str = ""
    """Identifies the creation, so that it is done once. Empty: it may be done again."""


def is_workspace_name(name: str) -> bool:
    """Whether a workspace can have this name."""
    return name == RESERVED or re.fullmatch(auth.WORKSPACE_NAME, name) is not None


def check_workspace(name: str) -> None:
    """Raise `InvalidRequest` if a workspace cannot have this name."""
    if is_workspace_name(name):
        return
    raise InvalidRequest(
        f"{name[:80]!r} is not a valid name of a workspace: a name has 1 to 63 of a-z, 0-9, '.', '_' and '-', "
        "with a letter or digit at both ends",
        field="workspace",
    )


def check_name(name: str) -> str:
    """Return the name of a key. Raises `InvalidRequest`."""
    if len(name) > MOST_NAME or not name.isprintable():
        message = f"The name of a key has at most {MOST_NAME} printable characters."
        raise InvalidRequest(message, reason=Reason.INVALID_FIELD, field="name")
    return name


async def create(directory: Directory, new: NewKey, clock: Clock = system_clock) -> tuple[str, ApiKey]:
    """Create a key, and its workspace if there is none of that name. Return the key, which is not stored, and its
    record.

    Raises `InvalidRequest` if a field is not allowed, and `AlreadyExists` if the same creation was done before.
    """
    check_workspace(new.workspace)
    check_name(new.name)
    if unknown := sorted(set(new.scopes) - set(SCOPES)):
        message = f"There is no scope {unknown[0][:80]!r}; there are: {', '.join(SCOPES)}."
        raise InvalidRequest(message, reason=Reason.INVALID_FIELD, field="scopes")
    if new.workspace == RESERVED and not frozenset(new.scopes) <= OPERATOR_SCOPES:
        raise InvalidRequest(
            f"a key of the workspace {RESERVED} can have the scopes {', '.join(sorted(OPERATOR_SCOPES))}: only the "
            "service writes events there",
            field="scopes",
        )
    if new.request_id and not _REQUEST_ID.fullmatch(new.request_id):
        message = "A request_id has 1 to 64 visible ASCII characters."
        raise InvalidRequest(message, reason=Reason.INVALID_FIELD, field="request_id")
    now = clock()
    auth.check_key(frozenset(new.scopes), now, new.expires_at)
    workspace = await directory.create_workspace(new.workspace)
    key, record = auth.make_key(workspace, frozenset(new.scopes), now, new.expires_at)
    record = record._replace(name=new.name, limits=new.limits)
    if new.request_id:
        identity = sha256(f"{new.workspace}\0{new.request_id}".encode()).digest()
        record = record._replace(id=f"{auth.ID_PREFIX}{identity[:16].hex()}")
    await directory.add_key(record)
    return key, record


async def rotate(
    directory: Directory,
    key_id: str,
    overlap: int = DAY,
    expires_at: int | None = None,
    clock: Clock = system_clock,
) -> tuple[str, ApiKey]:
    """Create a key in place of another one, which stays valid for `overlap` microseconds. Return the new key, which is
    not stored, and its record.

    The new key expires at `expires_at`; None: after as long a time as the old one had, or never if that had no expiry.
    Raises `NotFound`, and `InvalidRequest` if the key is not valid any more or was rotated already.
    """
    if not 0 <= overlap <= MOST_OVERLAP:
        message = f"The overlap has 0 to {MOST_OVERLAP // 1_000_000} seconds."
        raise InvalidRequest(message, reason=Reason.INVALID_FIELD, field="overlap_seconds")
    now, made = clock(), list[str]()

    def make(old: ApiKey, successor: ApiKey | None) -> tuple[ApiKey, int]:
        if old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= now):
            message = f"The key {key_id} is not valid any more: create another one."
            raise InvalidRequest(message, reason=Reason.INVALID_FIELD, field="id")
        if successor is not None and successor.revoked_at is None:
            message = (
                f"The key {key_id} was rotated already: rotate its successor {successor.id}, or revoke that first."
            )
            raise InvalidRequest(message, reason=Reason.INVALID_FIELD, field="id")
        until = expires_at
        if until is None and old.lifetime is not None:
            until = now + old.lifetime
        key, new = auth.make_key(old.workspace, old.scopes, now, until)
        made[:] = [key]
        end = now + overlap
        return new._replace(name=old.name, limits=old.limits), min(end, old.expires_at or end)

    record = await directory.rotate_key(key_id, make)
    if record is None:
        raise missing(key_id)
    return made[0], record


async def change(
    directory: Directory, key_id: str, *, name: str | None = None, limits: KeyLimits | None = None
) -> ApiKey:
    """Change the name or the limits of a key; None changes nothing. Raises `NotFound` and `InvalidRequest`."""
    if name is not None:
        check_name(name)

    def changed(old: ApiKey) -> ApiKey:
        return old._replace(name=old.name if name is None else name, limits=old.limits if limits is None else limits)

    record = await directory.update_key(key_id, changed)
    if record is None:
        raise missing(key_id)
    return record


async def get(directory: Directory, key_id: str) -> ApiKey:
    """Return a key by its id. Raises `NotFound`."""
    record = await directory.get_key(key_id)
    if record is None:
        raise missing(key_id)
    return record


def missing(key_id: str) -> NotFound:
    """Return the error for a key that there is not."""
    return NotFound(f"there is no key {key_id[:80]!r}; `headgate keys list` shows the ids", field="id")
