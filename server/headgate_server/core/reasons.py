"""Every reason that an answer can give, with what it means and what to do. Pure.

A reason is for programs and never changes its meaning. `docs/reasons.md` shows this catalogue, and
tests/unit/test_reasons.py holds both to the code: what is raised is in it, and what is in it is raised.
"""

from collections.abc import Mapping
from enum import StrEnum, auto
from typing import NamedTuple


class _Upper(StrEnum):
    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[str]) -> str:
        return name


class Reason(_Upper):
    """The `reason` of an error of a call, and of one event's `error` in a batch's results."""

    ABORTED = auto()
    BODY_TOO_LARGE = auto()
    CORRUPT_GZIP = auto()
    DATA_REFUSED = auto()
    DUPLICATE_FIELD = auto()
    EMPTY_BATCH = auto()
    EMPTY_FIELD = auto()
    EVENT_NOT_FOUND = auto()
    EXPECTED_HEAD_OUT_OF_RANGE = auto()
    HEADERS_TOO_LARGE = auto()
    IDEMPOTENCY_CONFLICT = auto()
    IDEMPOTENCY_KEY_REUSED = auto()
    INTERNAL = auto()
    INVALID_API_KEY = auto()
    INVALID_CHARACTER = auto()
    INVALID_CURSOR = auto()
    INVALID_EXPECTED_HEAD = auto()
    INVALID_FIELD = auto()
    INVALID_FILTER = auto()
    INVALID_ID = auto()
    INVALID_IDEMPOTENCY_KEY = auto()
    INVALID_JSON = auto()
    INVALID_LIMIT = auto()
    INVALID_NUMBER = auto()
    INVALID_PAGE_TOKEN = auto()
    INVALID_REQUEST = auto()
    INVALID_TIMESTAMP = auto()
    INVALID_UNICODE = auto()
    INVALID_UUID = auto()
    MALFORMED_EVENT = auto()
    MALFORMED_JSON = auto()
    MALFORMED_REQUEST = auto()
    MISSING_API_KEY = auto()
    MISSING_FIELD = auto()
    MISSING_SCOPE = auto()
    NEGATIVE = auto()
    NESTING_TOO_DEEP = auto()
    NOT_AN_OBJECT = auto()
    NOT_FOUND = auto()
    NO_SUCH_PATH = auto()
    NO_SUCH_RECEIVER = auto()
    NO_SUCH_SERVICE = auto()
    NUMBER_OUT_OF_RANGE = auto()
    OUTCOME_UNKNOWN = auto()
    OVERLOADED = auto()
    QUOTA_EXCEEDED = auto()
    RATE_LIMITED = auto()
    REPEATED_HEADER = auto()
    REQUEST_TIMEOUT = auto()
    SHUTTING_DOWN = auto()
    STORE_NOT_DURABLE = auto()
    STORE_UNAVAILABLE = auto()
    TOO_LONG = auto()
    TOO_MANY = auto()
    TOO_MANY_EVENTS = auto()
    TOO_MANY_PROPERTIES = auto()
    TWO_ENCODINGS = auto()
    UNKNOWN_BRIDGE = auto()
    UNKNOWN_FIELD = auto()
    UNKNOWN_FILTER = auto()
    UNSUPPORTED_MEDIA_TYPE = auto()
    UNSUPPORTED_TRANSFER_ENCODING = auto()
    UPSTREAM_TIMEOUT = auto()
    UPSTREAM_UNAVAILABLE = auto()
    WRONG_TYPE = auto()


class Answer(NamedTuple):
    """What carries a reason: a gRPC code and the HTTP status beside it."""

    grpc: str
    http: int


BAD = Answer("INVALID_ARGUMENT", 400)
UNAUTHENTICATED = Answer("UNAUTHENTICATED", 401)
FORBIDDEN = Answer("PERMISSION_DENIED", 403)
MISSING = Answer("NOT_FOUND", 404)
TIMEOUT = Answer("DEADLINE_EXCEEDED", 408)
CONFLICT = Answer("ALREADY_EXISTS", 409)
LARGE = Answer("RESOURCE_EXHAUSTED", 413)
MEDIA = Answer("INVALID_ARGUMENT", 415)
REUSED = Answer("FAILED_PRECONDITION", 422)
BUSY = Answer("RESOURCE_EXHAUSTED", 429)
HEADERS = Answer("RESOURCE_EXHAUSTED", 431)
BUG = Answer("INTERNAL", 500)
UNIMPLEMENTED = Answer("UNIMPLEMENTED", 501)
DOWN = Answer("UNAVAILABLE", 503)
LATE = Answer("DEADLINE_EXCEEDED", 504)


class Entry(NamedTuple):
    """What the catalogue says of a reason."""

    means: str
    do: str
    answers: tuple[Answer, ...] = (BAD,)
    """Of a call that failed as a whole, a single event's among them."""
    of_an_event: bool = False
    """Whether it also stands in a batch's results, and spoils its own event only."""
    retry: bool = False
    """Whether the same request may succeed later."""


def _event(means: str, do: str) -> Entry:
    """Return the entry of what is wrong with one event: a batch's result, and a single event's error of the call."""
    return Entry(means, do, of_an_event=True)


CATALOGUE: Mapping[Reason, Entry] = {
    Reason.ABORTED: Entry(
        "The event is valid; another event of an atomic batch failed.",
        "Mend the other event and send the batch again.",
        answers=(),
        of_an_event=True,
        retry=True,
    ),
    Reason.BODY_TOO_LARGE: Entry("The body is larger than the limit, inflated.", "Send less at once.", (LARGE,)),
    Reason.CORRUPT_GZIP: Entry("The body says that it is gzip and is not.", "Compress it anew, or send it plain."),
    Reason.DATA_REFUSED: Entry(
        "The database refused a value; nothing of the request is stored.", "Send the events one by one to find it."
    ),
    Reason.DUPLICATE_FIELD: _event("A name stands twice in one object.", "Send each name once."),
    Reason.EMPTY_BATCH: Entry("The batch has no events.", "Send at least one."),
    Reason.EMPTY_FIELD: _event("A field is there and is empty.", "Leave it out, or fill it."),
    Reason.EVENT_NOT_FOUND: Entry("There is no such event in this workspace.", "Check the id and the key.", (MISSING,)),
    Reason.EXPECTED_HEAD_OUT_OF_RANGE: Entry(
        "The expected head lies outside of the range that is checked.", "Widen the range, or leave it out."
    ),
    Reason.HEADERS_TOO_LARGE: Entry("The request's headers are too large.", "Send fewer or shorter ones.", (HEADERS,)),
    Reason.IDEMPOTENCY_CONFLICT: Entry(
        "Another event with other content is stored under this idempotency key.",
        "Give the event a key of its own, or drop it. `differing_fields` says where they differ.",
        (CONFLICT,),
        of_an_event=True,
    ),
    Reason.IDEMPOTENCY_KEY_REUSED: Entry(
        "Another request was sent under this `Idempotency-Key`.", "Use a new key for a new request.", (REUSED,)
    ),
    Reason.INTERNAL: Entry("A bug of the service.", "Tell the operator the request id: the log knows more.", (BUG,)),
    Reason.INVALID_API_KEY: Entry(
        "The API key is unknown, revoked or expired.", "Bring a valid key.", (UNAUTHENTICATED,)
    ),
    Reason.INVALID_CHARACTER: _event("A text holds the character U+0000.", "Leave it out."),
    Reason.INVALID_CURSOR: Entry("The cursor is not one that was given here.", "Begin with the first page."),
    Reason.INVALID_EXPECTED_HEAD: Entry(
        "The expected head is no sequence with 64 hexadecimal digits.", "Send both as `GetHead` gave them."
    ),
    Reason.INVALID_FIELD: _event("A field breaks a rule of the vendor's.", "The message says which."),
    Reason.INVALID_FILTER: Entry("A filter has a value that it cannot have.", "The message says which it can have."),
    Reason.INVALID_ID: Entry("The id is no UUID.", "Send an id that an answer gave."),
    Reason.INVALID_IDEMPOTENCY_KEY: Entry(
        "The header `Idempotency-Key` is empty, too long, or no ASCII text.", "Send a key of 1 to 255 characters."
    ),
    Reason.INVALID_JSON: _event("`data_json` is no JSON.", "Mend it; the message says where."),
    Reason.INVALID_LIMIT: Entry("The page size is no whole number within its bounds.", "The message says the bounds."),
    Reason.INVALID_NUMBER: _event("A number is NaN, infinite, or no number.", "Send a finite number, or null."),
    Reason.INVALID_PAGE_TOKEN: Entry(
        "The page token was given for another request, or its event is gone.",
        "Keep all other fields as they were, or begin anew.",
    ),
    Reason.INVALID_REQUEST: Entry(
        "The request cannot be read: its query, its path or a header.", "The message says what."
    ),
    Reason.INVALID_TIMESTAMP: _event(
        "A time is not RFC 3339, does not exist, or lies outside the years 1 to 9999.",
        "Send a time such as 2024-01-15T10:30:00Z.",
    ),
    Reason.INVALID_UNICODE: _event("A text holds a lone surrogate.", "Send Unicode text."),
    Reason.INVALID_UUID: _event("A field must be a UUID.", "Send one."),
    Reason.MALFORMED_EVENT: _event(
        "The event is no valid protobuf message.", "Generate the stubs anew; send deep data as `data_json`."
    ),
    Reason.MALFORMED_JSON: Entry("The body is no JSON; nothing is stored.", "Mend it; the message says where."),
    Reason.MALFORMED_REQUEST: Entry("The request is no valid protobuf message.", "Generate the stubs anew."),
    Reason.MISSING_API_KEY: Entry(
        "There is no API key.", "Send `Authorization: Bearer hg_…` or `X-API-Key: hg_…`.", (UNAUTHENTICATED,)
    ),
    Reason.MISSING_FIELD: _event("A required field is absent or empty.", "Send it."),
    Reason.MISSING_SCOPE: Entry("The API key may not do this.", "Bring a key with the scope named.", (FORBIDDEN,)),
    Reason.NEGATIVE: Entry("A number is negative that must not be.", "Send 0 or more."),
    Reason.NESTING_TOO_DEEP: _event("The data nests deeper than 100 levels.", "Flatten it."),
    Reason.NOT_AN_OBJECT: Entry("The body is JSON, and no object.", "Send an object."),
    Reason.NOT_FOUND: Entry("There is no such thing in this workspace.", "Check the name.", (MISSING,)),
    Reason.NO_SUCH_PATH: Entry("Nothing answers to this method and path.", "Check both.", (MISSING,)),
    Reason.NO_SUCH_RECEIVER: Entry(
        "There is no such vendor under `/compat/`.", "The message lists those that there are.", (MISSING,)
    ),
    Reason.NO_SUCH_SERVICE: Entry("Health was asked of a service that is not there.", "Check its name.", (MISSING,)),
    Reason.NUMBER_OUT_OF_RANGE: _event("A number's exponent is beyond 999,999,999.", "Send a smaller one, or text."),
    Reason.OUTCOME_UNKNOWN: Entry(
        "The store was lost while it committed: the events may be stored.",
        "Send the request again; with keys nothing is stored twice.",
        (DOWN,),
        retry=True,
    ),
    Reason.OVERLOADED: Entry(
        "Too much is waiting already; nothing is stored.", "Come back after `Retry-After`.", (BUSY, DOWN), retry=True
    ),
    Reason.QUOTA_EXCEEDED: Entry(
        "The workspace has stored what it may this month.",
        "Wait for the first of next month (UTC), or have the quota raised.",
        (BAD, BUSY),
        of_an_event=True,
        retry=True,
    ),
    Reason.RATE_LIMITED: Entry(
        "The workspace has made as many requests as it may.", "Come back after `Retry-After`.", (BUSY,), retry=True
    ),
    Reason.REPEATED_HEADER: Entry(
        "A header was sent more than once that may stand once: a request key, or two different credentials.",
        "Send it once.",
    ),
    Reason.REQUEST_TIMEOUT: Entry(
        "The request did not arrive in time.", "Send it again, faster or in parts.", (TIMEOUT,), retry=True
    ),
    Reason.SHUTTING_DOWN: Entry(
        "The server is ending; nothing is stored.", "Send the request again, to another server.", (DOWN,), retry=True
    ),
    Reason.STORE_NOT_DURABLE: Entry(
        "The database is set to lose, in a power cut, what it acknowledges; nothing is stored.",
        "Tell the operator: the message names the setting.",
        (DOWN,),
        retry=True,
    ),
    Reason.STORE_UNAVAILABLE: Entry(
        "The database cannot be reached or cannot store; nothing is stored.",
        "Come back after `Retry-After`.",
        (DOWN,),
        retry=True,
    ),
    Reason.TOO_LONG: _event("A field is longer than its limit.", "Shorten it; the message says the limit."),
    Reason.TOO_MANY: Entry("A filter has more values than it may.", "Ask in parts."),
    Reason.TOO_MANY_EVENTS: Entry("The batch has more events than it may.", "Send it in parts."),
    Reason.TOO_MANY_PROPERTIES: _event("An event has more properties than the vendor allows.", "Send fewer."),
    Reason.TWO_ENCODINGS: Entry("The request has both a JSON body and protobuf events.", "Send one of them."),
    Reason.UNKNOWN_BRIDGE: Entry(
        "The bridge's token is not the server's.",
        "Tell the operator: `HEADGATE_BRIDGE_TOKEN` must be the same for both.",
        (FORBIDDEN,),
    ),
    Reason.UNKNOWN_FIELD: _event("A field has a name that means nothing here.", "Leave it out, or mend its name."),
    Reason.UNKNOWN_FILTER: Entry("There is no such filter.", "The message lists those that there are."),
    Reason.UNSUPPORTED_MEDIA_TYPE: Entry(
        "The body is compressed or encoded in a way that is not read.", "Send JSON, plain or as gzip.", (MEDIA,)
    ),
    Reason.UNSUPPORTED_TRANSFER_ENCODING: Entry(
        "The body comes in a transfer-encoding other than chunks.",
        "Send it with a length, or chunked.",
        (UNIMPLEMENTED,),
    ),
    Reason.UPSTREAM_TIMEOUT: Entry(
        "The server did not answer in time: the events may be stored.",
        "Send the request again; with keys nothing is stored twice.",
        (LATE,),
        retry=True,
    ),
    Reason.UPSTREAM_UNAVAILABLE: Entry(
        "The server cannot be reached, or went away before it answered: the events may be stored.",
        "Send the request again; with keys nothing is stored twice.",
        (DOWN,),
        retry=True,
    ),
    Reason.WRONG_TYPE: _event("A field has another type than it must.", "The message says which it must have."),
}
