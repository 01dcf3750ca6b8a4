"""What can go wrong with a whole request. Classes differ by what the caller should do.

`rpc/status.py` holds the one table from these classes to gRPC and HTTP codes. What is wrong with a single event of a
batch is no exception but a `model.Problem`.
"""

from headgate_server.core.model import Admission, RateLimit


class HeadgateError(Exception):
    """Base of all errors that a caller is told about.

    `reason` is a constant for programs, `field` the path of the offending part of the request ("" for all of it),
    `retry_after` seconds after which the same request may succeed (None: it will not), `metadata` what else a
    program may want.
    """

    reason = "INTERNAL"
    retry_after: float | None = None
    cause_told = False
    """Whether the log has its cause: many calls may share one error."""

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
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
    """Mend the request: it will never be accepted as it is."""

    reason = "INVALID_REQUEST"


class BodyTooLarge(InvalidRequest):
    """Send less at once."""

    reason = "BODY_TOO_LARGE"


class Unauthenticated(HeadgateError):
    """Bring a valid API key."""

    reason = "INVALID_API_KEY"


class PermissionDenied(HeadgateError):
    """Bring a key with the scope that the message names."""

    reason = "MISSING_SCOPE"


class NotFound(HeadgateError):
    """There is no such thing in the caller's workspace."""

    reason = "NOT_FOUND"


class EventConflict(HeadgateError):
    """Another event is stored under this idempotency key: send it under a key of its own, or drop it."""

    reason = "IDEMPOTENCY_CONFLICT"


class RequestKeyReused(HeadgateError):
    """Another request was sent under this `Idempotency-Key`: use a new key for a new request."""

    reason = "IDEMPOTENCY_KEY_REUSED"


class Overloaded(HeadgateError):
    """Too much is waiting already: nothing was stored, come back after `retry_after`."""

    reason = "OVERLOADED"
    retry_after = 1.0


class RateLimited(Overloaded):
    """More requests than the workspace may make: nothing was touched, come back after `retry_after`."""

    reason = "RATE_LIMITED"

    def __init__(self, message: str, *, retry_after: float, limit: RateLimit, admission: Admission):
        super().__init__(message, retry_after=retry_after)
        self.limit = limit
        self.admission = admission


class QuotaExceeded(HeadgateError):
    """The workspace has stored what it may this month, and nothing of this request was: come back after `retry_after`,
    when the next month has begun.
    """

    reason = "QUOTA_EXCEEDED"


class Unavailable(HeadgateError):
    """The store cannot be reached: nothing was stored, come back after `retry_after`."""

    reason = "STORE_UNAVAILABLE"
    retry_after = 1.0


class OutcomeUnknown(Unavailable):
    """The store was lost while it committed, and it could not be found out whether it did. Send the request again:
    with idempotency keys nothing is stored twice.
    """

    reason = "OUTCOME_UNKNOWN"


class SetupError(Exception):
    """What an operator has to mend before the service can start; the message is one line and says what."""
