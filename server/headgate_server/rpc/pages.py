"""Page tokens (AIP-158). They are opaque, and valid only for the same filters and the same workspace."""

from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256

from google.protobuf.message import Message

from headgate_server.core.errors import InvalidRequest
from headgate_server.core.reasons import Reason
from headgate_server.core.types import EventId, WorkspaceId

_ID_BYTES = 16
_CHECK_BYTES = 8


def page_token(event_id: EventId | None, workspace_id: WorkspaceId, request: Message) -> str:
    """Return the token for the page after `event_id`, empty if there is none."""
    if event_id is None:
        return ""
    return urlsafe_b64encode(event_id + _check(workspace_id, request)).rstrip(b"=").decode()


def resume_from(token: str, workspace_id: WorkspaceId, request: Message) -> EventId | None:
    """Return the last id of the previous page, None for the first page.

    Raises `InvalidRequest` if the token is not one of ours, or belongs to other filters.
    """
    if not token:
        return None
    try:
        decoded = urlsafe_b64decode(token.encode() + b"=" * (-len(token) % 4))
    except ValueError:
        decoded = b""
    if len(decoded) != _ID_BYTES + _CHECK_BYTES or decoded[_ID_BYTES:] != _check(workspace_id, request):
        raise InvalidRequest(
            "The page_token does not belong to this request; all other fields must be those of the previous request.",
            reason=Reason.INVALID_PAGE_TOKEN,
            field="page_token",
        )
    return EventId(decoded[:_ID_BYTES])


def name_token(last: str) -> str:
    """Return the token for the page after the object with this name or id, in a list without filters."""
    return urlsafe_b64encode(last.encode()).rstrip(b"=").decode()


def name_after(token: str) -> str:
    """Return the last name of the previous page, empty for the first page. Raises `InvalidRequest`."""
    try:
        return b64decode(token.encode() + b"=" * (-len(token) % 4), b"-_", validate=True).decode()
    except ValueError:
        raise bad_token() from None


def bad_token() -> InvalidRequest:
    """Return the error for a token that is not one of this list."""
    return InvalidRequest(
        "The page_token does not belong to this request.", reason=Reason.INVALID_PAGE_TOKEN, field="page_token"
    )


def page_size(requested: int, default: int, most: int, field: str = "page_size") -> int:
    """Return the size of a page: the default for 0, at most `most`. Raises `InvalidRequest` if negative."""
    if requested < 0:
        raise InvalidRequest(f"{field} must not be negative.", reason=Reason.NEGATIVE, field=field)
    return min(requested or default, most)


def _check(workspace_id: WorkspaceId, request: Message) -> bytes:
    """Return a digest of the fields that must not change between pages: all except the token and the size."""
    filters = type(request)()
    filters.CopyFrom(request)
    for name in ("page_token", "page_size", "limit"):
        if name in filters.DESCRIPTOR.fields_by_name:
            filters.ClearField(name)
    return sha256(workspace_id.to_bytes(8) + filters.SerializeToString(deterministic=True)).digest()[:_CHECK_BYTES]
