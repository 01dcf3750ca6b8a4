"""Errors of a whole request. There is one class for each action that the caller should take.

`rpc/status.py` holds the only table from these classes to gRPC and HTTP codes. A fault in a single event of a batch is
not an exception but a `model.Problem`.
"""

from headgate_server.core.model import Admission, RateLimit
from headgate_server.core.reasons import Reason


class HeadgateError(Exception):
    """Base of all errors that are reported to a caller.

    `reason` is a constant for programs. `field` is the path of the part of the request at fault; "" means the whole
    request. `retry_after` is the number of seconds after which the same request may succeed; None means never.
    `metadata` has more values for programs.
    """

    reason: Reason = Reason.INTERNAL
    retry_after: float | None = None
    cause_logged = False
    """Whether its cause was logged. Many calls may share one error."""

    def __init__(
        self,
        message: str,
        *,
        reason: Reason | None = None,
        field: str = "",
        retry_after: float | None = None,
        metadata: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.message = message
        self.field = field
        self.metadata = metadata or {}
        if reason is not None:
            self.reason = reason
        if retry_after is not None:
            self.retry_after = retry_after


class InvalidRequest(HeadgateError):
    """Correct the request: it will never be accepted unchanged."""

    reason = Reason.INVALID_REQUEST


class UnsupportedMediaType(InvalidRequest):
    """Send the body in a media type that the message names."""

    reason = Reason.UNSUPPORTED_MEDIA_TYPE


class BodyTooLarge(InvalidRequest):
    """Send a smaller body."""

    reason = Reason.BODY_TOO_LARGE


class Unauthenticated(HeadgateError):
    """Send a valid API key."""

    reason = Reason.INVALID_API_KEY


class PermissionDenied(HeadgateError):
    """Send a key with the scope that the message names."""

    reason = Reason.MISSING_SCOPE


class NotFound(HeadgateError):
    """The caller's workspace has no such resource."""

    reason = Reason.NOT_FOUND


class EventConflict(HeadgateError):
    """Another event is stored under this idempotency key: send the event under its own key, or do not send it."""

    reason = Reason.IDEMPOTENCY_CONFLICT


class AlreadyExists(HeadgateError):
    """The workspace already has an object of this name: choose another name, or change the existing object."""

    reason = Reason.NAME_TAKEN


class RequestKeyReused(HeadgateError):
    """Another request was sent under this `Idempotency-Key`: use a new key for a new request."""

    reason = Reason.IDEMPOTENCY_KEY_REUSED


class Overloaded(HeadgateError):
    """Too many requests are waiting: nothing was stored, retry after `retry_after`."""

    reason = Reason.OVERLOADED
    retry_after = 1.0


class TooSlow(HeadgateError):
    """The request did not arrive in time: nothing was stored, send it again, faster or in parts."""

    reason = Reason.REQUEST_TIMEOUT


class RateLimited(Overloaded):
    """The workspace exceeds its rate limit: nothing was changed, retry after `retry_after`."""

    reason = Reason.RATE_LIMITED

    def __init__(self, message: str, *, retry_after: float, limit: RateLimit, admission: Admission):
        super().__init__(message, retry_after=retry_after)
        self.limit = limit
        self.admission = admission


class QuotaExceeded(HeadgateError):
    """The workspace's monthly quota is used up, and nothing of this request was stored: retry after `retry_after`, when
    the next month has begun.
    """

    reason = Reason.QUOTA_EXCEEDED


class Unavailable(HeadgateError):
    """The store cannot be reached: nothing was stored, retry after `retry_after`."""

    reason = Reason.STORE_UNAVAILABLE
    retry_after = 1.0


class OutcomeUnknown(Unavailable):
    """The connection to the store was lost during the commit, and the result is unknown. Send the request again: with
    idempotency keys nothing is stored twice.
    """

    reason = Reason.OUTCOME_UNKNOWN


class LeaseLost(Exception):
    """Another process holds the lease now: nothing was changed, and this process must stop what the lease was for."""


class SetupError(Exception):
    """The operator must correct something before the service can start. The message is one line that names it."""
