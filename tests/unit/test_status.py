"""Errors and their codes: one table, and details that stay small."""

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from headgate_server.core import errors
from headgate_server.core.errors import HeadgateError
from headgate_server.rpc import status

TABLE = [
    (errors.InvalidRequest, "INVALID_ARGUMENT", 400),
    (errors.BodyTooLarge, "RESOURCE_EXHAUSTED", 413),
    (errors.Unauthenticated, "UNAUTHENTICATED", 401),
    (errors.UnsupportedMediaType, "INVALID_ARGUMENT", 415),
    (errors.PermissionDenied, "PERMISSION_DENIED", 403),
    (errors.NotFound, "NOT_FOUND", 404),
    (errors.EventConflict, "ALREADY_EXISTS", 409),
    (errors.AlreadyExists, "ALREADY_EXISTS", 409),
    (errors.RequestKeyReused, "FAILED_PRECONDITION", 422),
    (errors.TooSlow, "DEADLINE_EXCEEDED", 408),
    (errors.Overloaded, "RESOURCE_EXHAUSTED", 429),
    (errors.RateLimited, "RESOURCE_EXHAUSTED", 429),
    (errors.QuotaExceeded, "RESOURCE_EXHAUSTED", 429),
    (errors.Unavailable, "UNAVAILABLE", 503),
    (errors.OutcomeUnknown, "UNAVAILABLE", 503),
    (errors.HeadgateError, "INTERNAL", 500),
]

# The HTTP status into which Envoy translates a gRPC code (google/rpc/code.proto).
ENVOY = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "FAILED_PRECONDITION": 400,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    "INTERNAL": 500,
}


def made(kind: type[HeadgateError], message: str = "…") -> HeadgateError:
    """Return an error of a class, with any further arguments that its constructor needs."""
    error = kind.__new__(kind)
    HeadgateError.__init__(error, message)
    return error


def subclasses(kind: type[HeadgateError]) -> Iterator[type[HeadgateError]]:
    """Yield a class of error and all its subclasses."""
    yield kind
    for below in kind.__subclasses__():
        if not below.__module__.startswith("headgate_server"):
            continue
        yield from subclasses(below)


def details(error: HeadgateError) -> tuple[status_pb2.Status, dict[str, Message]]:
    """Return an error as its status, and the details by the name of their type."""
    encoded = status_pb2.Status.FromString(status.encode(error))
    found: dict[str, Message] = {}
    for packed in encoded.details:
        detail = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])()
        assert packed.Unpack(detail)
        found[packed.TypeName()] = detail
    return encoded, found


@pytest.mark.parametrize(("kind", "code", "http"), TABLE, ids=lambda value: getattr(value, "__name__", str(value)))
def test_the_code_of_each_error(kind: type[HeadgateError], code: str, http: int) -> None:
    error = made(kind, "What happened.")
    assert status.code_of(error).grpc is grpc.StatusCode[code]
    assert status.http_of(error) == http
    encoded, found = details(error)
    assert grpc.StatusCode[code].value[0] == encoded.code
    assert encoded.message == "What happened."
    info = found["google.rpc.ErrorInfo"]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (kind.reason, "headgate")


@pytest.mark.parametrize(("kind", "code", "http"), TABLE, ids=lambda value: getattr(value, "__name__", str(value)))
def test_the_bridge_gets_the_status_only_if_envoy_would_send_another(
    kind: type[HeadgateError], code: str, http: int
) -> None:
    sent = status.code_of(made(kind)).http
    assert sent == (None if ENVOY[code] == http else http)


def test_every_error_is_in_the_table() -> None:
    public = {kind for kind in subclasses(HeadgateError) if kind.__module__ == errors.__name__}
    assert {kind for kind, _, _ in TABLE} == public
    assert {kind for kind, _, _ in TABLE} >= set(status.CODES)


def test_an_error_without_a_line_of_its_own_has_the_code_of_the_class_above() -> None:
    class SpecialError(errors.BodyTooLarge):
        """Not in the table."""

    assert status.code_of(SpecialError("…")) == status.CODES[errors.BodyTooLarge]


def test_reasons_are_constants_for_programs() -> None:
    reasons = [made(kind).reason for kind, _, _ in TABLE]
    assert len(set(reasons)) == len(reasons)
    assert all(reason.isupper() and reason.isascii() and " " not in reason for reason in reasons)


def test_a_field_becomes_a_violation() -> None:
    _, found = details(errors.InvalidRequest("Too many.", reason="TOO_MANY_EVENTS", field="events"))
    (violation,) = found["google.rpc.BadRequest"].field_violations  # type: ignore[attr-defined]
    assert (violation.field, violation.description, violation.reason) == ("events", "Too many.", "TOO_MANY_EVENTS")


def test_only_what_may_be_tried_again_says_when() -> None:
    delays = {}
    for kind, _, _ in TABLE:
        _, found = details(made(kind))
        delays[kind.__name__] = "google.rpc.RetryInfo" in found
    assert {name for name, has_delay in delays.items() if has_delay} == {
        "Overloaded",
        "RateLimited",
        "Unavailable",
        "OutcomeUnknown",
    }
    error = errors.Overloaded("…", retry_after=2.5)
    _, found = details(error)
    assert found["google.rpc.RetryInfo"].retry_delay.ToMilliseconds() == 2500  # type: ignore[attr-defined]
    assert status.retry_after(error) == "3"
    assert status.retry_after(errors.Overloaded("…", retry_after=0.0)) == "1"
    assert status.retry_after(errors.NotFound("…")) is None


def test_metadata_travels_in_the_info() -> None:
    _, found = details(errors.EventConflict("…", metadata={"event_id": "1", "differing_fields": "/data/a,/type"}))
    info = found["google.rpc.ErrorInfo"]
    assert dict(info.metadata) == {"event_id": "1", "differing_fields": "/data/a,/type"}  # type: ignore[attr-defined]


_ANY_TEXT = st.text(st.characters() | st.sampled_from("\U0001f600\ud800"), max_size=40).flatmap(
    lambda text: st.sampled_from([1, 1, 100, 3000]).map(lambda times: text * times)
)


@given(
    message=_ANY_TEXT,
    field=_ANY_TEXT,
    metadata=st.dictionaries(
        st.sampled_from("abc"), st.text(st.characters(exclude_categories=["Cs"])).map(lambda t: t * 500)
    ),
    retry_after=st.none() | st.floats(0, 1e6),
)
def test_details_are_small_and_unicode_whatever_the_error_says(
    message: str, field: str, metadata: dict[str, str], retry_after: float | None
) -> None:
    error = HeadgateError(message, field=field, metadata=metadata, retry_after=retry_after)
    encoded = status.encode(error)
    assert len(encoded) <= status.DETAILS_LIMIT
    assert status_pb2.Status.FromString(encoded).message == status.printable(message)


def test_of_metadata_that_is_too_large_the_largest_is_left_out() -> None:
    metadata = {"event_id": "1", "sequence": "2", "differing_fields": "/data/é" * 2000}
    _, found = details(errors.EventConflict("…", metadata=metadata))
    assert dict(found["google.rpc.ErrorInfo"].metadata) == {"event_id": "1", "sequence": "2"}  # type: ignore[attr-defined]


def test_a_long_message_ends_with_an_ellipsis() -> None:
    assert status.printable("short") == "short"
    assert status.printable("x" * 1024) == "x" * 1024
    assert status.printable("x" * 5000) == "x" * 1021 + "…"
    assert status.printable("\ud800") == "\\ud800"
