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
    ALREADY_REPLAYED = auto()
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
    INVALID_SCHEMA = auto()
    INVALID_TIMESTAMP = auto()
    INVALID_UNICODE = auto()
    INVALID_URL = auto()
    INVALID_UUID = auto()
    MALFORMED_EVENT = auto()
    MALFORMED_JSON = auto()
    MALFORMED_REQUEST = auto()
    MISSING_API_KEY = auto()
    MISSING_FIELD = auto()
    MISSING_SCOPE = auto()
    NAME_TAKEN = auto()
    NEGATIVE = auto()
    NESTING_TOO_DEEP = auto()
    NOT_AN_OBJECT = auto()
    NOT_FOUND = auto()
    NOT_REPLAYABLE = auto()
    NO_SUCH_PATH = auto()
    NO_SUCH_RECEIVER = auto()
    NO_SUCH_SERVICE = auto()
    NUMBER_OUT_OF_RANGE = auto()
    OUTCOME_UNKNOWN = auto()
    OVERLOADED = auto()
    PAST_THE_END = auto()
    QUOTA_EXCEEDED = auto()
    RATE_LIMITED = auto()
    REJECTION_NOT_FOUND = auto()
    REPEATED_HEADER = auto()
    REQUEST_TIMEOUT = auto()
    SCHEMA_MISMATCH = auto()
    SCHEMA_TOO_COSTLY = auto()
    SEQUENCE_PAST_HEAD = auto()
    SEVERAL_STARTS = auto()
    SHUTTING_DOWN = auto()
    STORE_NOT_DURABLE = auto()
    STORE_UNAVAILABLE = auto()
    TOO_LONG = auto()
    TOO_MANY = auto()
    TOO_MANY_EVENTS = auto()
    TOO_MANY_PROPERTIES = auto()
    TWO_ENCODINGS = auto()
    UNKNOWN_BRIDGE = auto()
    UNKNOWN_EVENT_TYPE = auto()
    UNKNOWN_FIELD = auto()
    UNKNOWN_FILTER = auto()
    UNSUPPORTED_MEDIA_TYPE = auto()
    UNSUPPORTED_TRANSFER_ENCODING = auto()
    UPSTREAM_TIMEOUT = auto()
    UPSTREAM_UNAVAILABLE = auto()
    WRONG_TYPE = auto()


class Answer(NamedTuple):
    """A gRPC code and the HTTP status that belongs to it. An answer with them carries a reason."""

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
    """The catalogue's entry for a reason."""

    means: str
    do: str
    answers: tuple[Answer, ...] = (BAD,)
    """The answers to a call that failed as a whole. A call with a single event is one of these."""
    of_an_event: bool = False
    """Whether the reason can also be in a batch's results, where it affects only its own event."""
    retry: bool = False
    """Whether the same request may succeed later."""


def _event(means: str, do: str) -> Entry:
    """Return the entry for a fault of one event: it is in a batch's result, and the error of a call with one event."""
    return Entry(means, do, of_an_event=True)


CATALOGUE: Mapping[Reason, Entry] = {
    Reason.ABORTED: Entry(
        "The event is valid; another event of an atomic batch failed.",
        "Correct the other event and send the batch again.",
        answers=(),
        of_an_event=True,
        retry=True,
    ),
    Reason.ALREADY_REPLAYED: Entry(
        "The rejection was replayed before, as an event with other content.",
        "Look at the event that its `event_id` names; send new content as an event of its own.",
        answers=(),
        of_an_event=True,
    ),
    Reason.BODY_TOO_LARGE: Entry(
        "The body is larger than the limit, after decompression.", "Send fewer events in one request.", (LARGE,)
    ),
    Reason.CORRUPT_GZIP: Entry(
        "`Content-Encoding` says gzip, but the body is not valid gzip.", "Compress it again, or send it uncompressed."
    ),
    Reason.DATA_REFUSED: Entry(
        "The database refused a value; nothing of the request is stored.",
        "Send the events one by one to find the one with that value.",
    ),
    Reason.DUPLICATE_FIELD: _event("A name occurs twice in one object.", "Send each name once."),
    Reason.EMPTY_BATCH: Entry("The batch has no events.", "Send at least one."),
    Reason.EMPTY_FIELD: _event("A field is present but empty.", "Leave it out, or fill it."),
    Reason.EVENT_NOT_FOUND: Entry("There is no such event in this workspace.", "Check the id and the key.", (MISSING,)),
    Reason.EXPECTED_HEAD_OUT_OF_RANGE: Entry(
        "The expected head is outside the range that is checked.", "Widen the range, or leave it out."
    ),
    Reason.HEADERS_TOO_LARGE: Entry("The request's headers are too large.", "Send fewer or shorter ones.", (HEADERS,)),
    Reason.IDEMPOTENCY_CONFLICT: Entry(
        "Another event with other content is stored under this idempotency key.",
        "Give the event a key of its own, or do not send it. `differing_fields` says where they differ.",
        (CONFLICT,),
        of_an_event=True,
    ),
    Reason.IDEMPOTENCY_KEY_REUSED: Entry(
        "Another request was sent under this `Idempotency-Key`.", "Use a new key for a new request.", (REUSED,)
    ),
    Reason.INTERNAL: Entry(
        "The service has a bug.", "Tell the operator the request id: the log has the details.", (BUG,)
    ),
    Reason.INVALID_API_KEY: Entry(
        "The API key is unknown, revoked or expired.", "Send a valid key.", (UNAUTHENTICATED,)
    ),
    Reason.INVALID_CHARACTER: _event("A text contains the character U+0000.", "Leave the character out."),
    Reason.INVALID_CURSOR: Entry("The cursor does not come from an answer of this service.", "Begin with page one."),
    Reason.INVALID_EXPECTED_HEAD: Entry(
        "The expected head is not a sequence with 64 hexadecimal digits.", "Send both as `GetHead` returned them."
    ),
    Reason.INVALID_FIELD: _event("A field violates a rule.", "The message says which rule."),
    Reason.INVALID_FILTER: Entry("A filter has a value that is not allowed.", "The message says the allowed values."),
    Reason.INVALID_ID: Entry("The id is not a UUID.", "Send an id from an answer of this service."),
    Reason.INVALID_IDEMPOTENCY_KEY: Entry(
        "The header `Idempotency-Key` is empty, too long, or not ASCII text.", "Send a key of 1 to 255 characters."
    ),
    Reason.INVALID_JSON: _event(
        "`data_json`, or a CloudEvent's data that should be JSON, is not JSON.", "Correct it; the message says where."
    ),
    Reason.INVALID_LIMIT: Entry(
        "The page size is not a whole number within its bounds.", "The message says the bounds."
    ),
    Reason.INVALID_NUMBER: _event("A number is NaN or infinite, or it is not a number.", "Send a finite one, or null."),
    Reason.INVALID_PAGE_TOKEN: Entry(
        "The page token belongs to another request, or its event does not exist any more.",
        "Keep all other fields unchanged, or begin with page one.",
    ),
    Reason.INVALID_REQUEST: Entry(
        "The request cannot be read: its query, its path or a header.", "The message says what."
    ),
    Reason.INVALID_SCHEMA: Entry(
        "The schema is no JSON Schema (2020-12), refers outside itself, or takes too long to compile.",
        "The field and the message say where and why.",
    ),
    Reason.INVALID_TIMESTAMP: _event(
        "A time is not RFC 3339, does not exist, or is outside the years 1 to 9999.",
        "Send a time such as 2024-01-15T10:30:00Z.",
    ),
    Reason.INVALID_UNICODE: _event("A text contains a lone surrogate, or is not UTF-8.", "Send Unicode text."),
    Reason.INVALID_URL: Entry(
        "A URL is not http or https, has credentials in it, or names a blocked network.", "The message says which."
    ),
    Reason.INVALID_UUID: _event("A field must be a UUID and is not.", "Send a UUID."),
    Reason.MALFORMED_EVENT: _event(
        "The event is not a valid protobuf message.",
        "Generate the stubs again; send deeply nested data as `data_json`.",
    ),
    Reason.MALFORMED_JSON: Entry("The body is not JSON; nothing is stored.", "Correct it; the message says where."),
    Reason.MALFORMED_REQUEST: Entry("The request is not a valid protobuf message.", "Generate the stubs again."),
    Reason.MISSING_API_KEY: Entry(
        "There is no API key.", "Send `Authorization: Bearer hg_…` or `X-API-Key: hg_…`.", (UNAUTHENTICATED,)
    ),
    Reason.MISSING_FIELD: _event("A required field is absent or empty.", "Send the field."),
    Reason.MISSING_SCOPE: Entry(
        "The API key may not do this.", "Use a key with the scope that the message names.", (FORBIDDEN,)
    ),
    Reason.NAME_TAKEN: Entry(
        "The workspace has something of this name.", "Choose another name, or change the one that exists.", (CONFLICT,)
    ),
    Reason.NEGATIVE: Entry("A number is negative but must not be.", "Send 0 or more."),
    Reason.NESTING_TOO_DEEP: _event("The data nests deeper than 100 levels.", "Flatten the data."),
    Reason.NOT_AN_OBJECT: Entry("The body is JSON but not an object.", "Send an object."),
    Reason.NOT_FOUND: Entry("The workspace has nothing under this name.", "Check the name.", (MISSING,)),
    Reason.NOT_REPLAYABLE: _event(
        "The rejected event cannot be replayed as it is: it was cut, or its receiver does not exist any more.",
        "Replay it edited: send the whole event in the request.",
    ),
    Reason.NO_SUCH_PATH: Entry("The service has no such method and path.", "Check both.", (MISSING,)),
    Reason.NO_SUCH_RECEIVER: Entry(
        "There is no such vendor under `/compat/`.", "The message lists the vendors.", (MISSING,)
    ),
    Reason.NO_SUCH_SERVICE: Entry("The health check names an unknown service.", "Check the name.", (MISSING,)),
    Reason.NUMBER_OUT_OF_RANGE: _event(
        "A number's exponent is beyond 999,999,999.", "Send a smaller number, or a string."
    ),
    Reason.OUTCOME_UNKNOWN: Entry(
        "The connection to the store was lost during the commit: the events may be stored.",
        "Send the request again; with keys nothing is stored twice.",
        (DOWN,),
        retry=True,
    ),
    Reason.OVERLOADED: Entry(
        "Too many requests are waiting; nothing is stored.", "Try again after `Retry-After`.", (BUSY, DOWN), retry=True
    ),
    Reason.PAST_THE_END: Entry(
        "A sequence is past the end of the ledger, or past the last delivered event.",
        "The message says where the end is.",
    ),
    Reason.QUOTA_EXCEEDED: Entry(
        "The workspace has used up this month's quota.",
        "Wait for the first of next month (UTC), or ask the operator for a higher quota.",
        (BAD, BUSY),
        of_an_event=True,
        retry=True,
    ),
    Reason.RATE_LIMITED: Entry(
        "The key has sent more calls or events than its limit, or the workspace more requests than the rate limit of "
        "a receiver.",
        "Try again after `Retry-After`.",
        (BUSY,),
        retry=True,
    ),
    Reason.REJECTION_NOT_FOUND: Entry(
        "The workspace has no rejection with this id, or it was too old and is deleted.",
        "Check the id and the key.",
        (MISSING,),
    ),
    Reason.REPEATED_HEADER: Entry(
        "The request has two request keys, or two different credentials; only one is allowed.", "Send the header once."
    ),
    Reason.REQUEST_TIMEOUT: Entry(
        "The request did not arrive in time.", "Send it again, faster or in parts.", (TIMEOUT,), retry=True
    ),
    Reason.SCHEMA_MISMATCH: _event(
        "The event's data does not match the schema of its event type.",
        "The field and the message say which rule; correct the event, or the schema.",
    ),
    Reason.SCHEMA_TOO_COSTLY: _event(
        "The check against a schema takes too long.",
        "Simplify the schema, or send less data in an event; if it is retryable, fewer events in a batch.",
    ),
    Reason.SEQUENCE_PAST_HEAD: Entry(
        "The sequence to begin after is beyond the ledger's last event.",
        "Begin after a sequence that the ledger has. After a restore from a backup the ledger may be shorter.",
    ),
    Reason.SEVERAL_STARTS: Entry(
        "A subscription says more than one place to begin at.",
        "Send one of `after_sequence`, `after_id` and `from`, or none.",
    ),
    Reason.SHUTTING_DOWN: Entry(
        "The server is shutting down; nothing is stored.",
        "Send the request again, to another server.",
        (DOWN,),
        retry=True,
    ),
    Reason.STORE_NOT_DURABLE: Entry(
        "With its settings the database would lose acknowledged events in a power cut; nothing is stored.",
        "Tell the operator: the message names the setting.",
        (DOWN,),
        retry=True,
    ),
    Reason.STORE_UNAVAILABLE: Entry(
        "The database cannot be reached or cannot store; nothing is stored.",
        "Try again after `Retry-After`.",
        (DOWN,),
        retry=True,
    ),
    Reason.TOO_LONG: _event("A field is longer than its limit.", "Shorten it; the message says the limit."),
    Reason.TOO_MANY: Entry(
        "There are too many: values of a filter, or destinations of a workspace.",
        "Send several requests with fewer values each; the message says the limit.",
    ),
    Reason.TOO_MANY_EVENTS: Entry("The batch has too many events.", "Send several smaller batches."),
    Reason.TOO_MANY_PROPERTIES: _event("An event has more properties than the vendor allows.", "Send fewer."),
    Reason.TWO_ENCODINGS: Entry("The request has both a JSON body and protobuf events.", "Send one of them."),
    Reason.UNKNOWN_BRIDGE: Entry(
        "The bridge's token differs from the server's.",
        "Tell the operator: `HEADGATE_BRIDGE_TOKEN` must be the same for both.",
        (FORBIDDEN,),
    ),
    Reason.UNKNOWN_EVENT_TYPE: _event(
        "The workspace rejects events of a type that is none of its event types.",
        "Correct the type, or put an event type of this name.",
    ),
    Reason.UNKNOWN_FIELD: _event("A field has an unknown name.", "Leave the field out, or correct its name."),
    Reason.UNKNOWN_FILTER: Entry("There is no such filter.", "The message lists the filters."),
    Reason.UNSUPPORTED_MEDIA_TYPE: Entry(
        "The body has an unsupported media type, charset or compression.",
        "Send JSON, or a format of CloudEvents, in UTF-8, uncompressed or as gzip.",
        (MEDIA,),
    ),
    Reason.UNSUPPORTED_TRANSFER_ENCODING: Entry(
        "The body has a transfer-encoding other than `chunked`.",
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
        "The server cannot be reached, or ended before it answered: the events may be stored.",
        "Send the request again; with keys nothing is stored twice.",
        (DOWN,),
        retry=True,
    ),
    Reason.WRONG_TYPE: _event("A field has the wrong type.", "The message says which type it must have."),
}
