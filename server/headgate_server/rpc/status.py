"""One table from errors to codes, and errors in the form of google.rpc.Status (https://google.aip.dev/193)."""

from math import ceil
from typing import NamedTuple

import grpc
import orjson
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2, status_pb2

from headgate_server.core import errors

DOMAIN = "headgate"
"""The `domain` of every ErrorInfo."""

DETAILS_LIMIT = 4096
"""Bytes of encoded details. Past some tens of kilobytes Envoy resets the connection that it shares with other
callers' requests.
"""

HTTP_STATUS_KEY = "x-headgate-http-status"
"""The metadata key that tells the bridge an HTTP status that no gRPC code maps to."""

DETAILS_KEY = "grpc-status-details-bin"


class Code(NamedTuple):
    """A gRPC code, and the HTTP status if it is not the one that the gRPC code maps to."""

    grpc: grpc.StatusCode
    http: int | None = None


CODES: dict[type[errors.HeadgateError], Code] = {
    errors.InvalidRequest: Code(grpc.StatusCode.INVALID_ARGUMENT),
    errors.UnsupportedMediaType: Code(grpc.StatusCode.INVALID_ARGUMENT, 415),
    errors.BodyTooLarge: Code(grpc.StatusCode.RESOURCE_EXHAUSTED, 413),
    errors.Unauthenticated: Code(grpc.StatusCode.UNAUTHENTICATED),
    errors.PermissionDenied: Code(grpc.StatusCode.PERMISSION_DENIED),
    errors.NotFound: Code(grpc.StatusCode.NOT_FOUND),
    errors.EventConflict: Code(grpc.StatusCode.ALREADY_EXISTS),
    errors.AlreadyExists: Code(grpc.StatusCode.ALREADY_EXISTS),
    errors.RequestKeyReused: Code(grpc.StatusCode.FAILED_PRECONDITION, 422),
    errors.TooSlow: Code(grpc.StatusCode.DEADLINE_EXCEEDED, 408),
    errors.Overloaded: Code(grpc.StatusCode.RESOURCE_EXHAUSTED),
    errors.QuotaExceeded: Code(grpc.StatusCode.RESOURCE_EXHAUSTED),
    errors.Unavailable: Code(grpc.StatusCode.UNAVAILABLE),
    errors.OutcomeUnknown: Code(grpc.StatusCode.UNAVAILABLE),
    errors.HeadgateError: Code(grpc.StatusCode.INTERNAL),
}


def code_of(error: errors.HeadgateError) -> Code:
    """Return the code of the error's class, or of the nearest class above it."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


_HTTP = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
}
"""The HTTP status into which Envoy translates each gRPC code (google/rpc/code.proto)."""


def http_of(error: errors.HeadgateError) -> int:
    """Return the HTTP status of an error."""
    code = code_of(error)
    return _HTTP[code.grpc] if code.http is None else code.http


_GRPC = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ALREADY_EXISTS,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


def counted_as(http: int) -> grpc.StatusCode:
    """Return the gRPC code under which an answer of this HTTP status is counted."""
    if http < 400:
        return grpc.StatusCode.OK
    return _GRPC.get(http, grpc.StatusCode.INVALID_ARGUMENT if http < 500 else grpc.StatusCode.INTERNAL)


def retry_after(error: errors.HeadgateError) -> str | None:
    """Return the `Retry-After` of an error, whole seconds and at least one (RFC 9110, 10.2.3); None if a retry will
    not help.
    """
    return None if error.retry_after is None else str(max(1, ceil(error.retry_after)))


def bug(request_id: str) -> errors.HeadgateError:
    """Return the answer to an unexpected error. It has the request id, and no detail of the error."""
    return errors.HeadgateError(
        f"An error in the server; the server's log has the details under the request id {request_id}."
    )


def encode(error: errors.HeadgateError) -> bytes:
    """Return the error as a serialized google.rpc.Status, its details within `DETAILS_LIMIT`."""
    code: int = code_of(error).grpc.value[0]
    status = status_pb2.Status(code=code, message=printable(error.message))
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    status.details.add().Pack(info)
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_shorten(error.field, 256), description=status.message, reason=error.reason
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_after * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    while status.ByteSize() > DETAILS_LIMIT and info.metadata:
        del info.metadata[max(info.metadata, key=lambda name: len(info.metadata[name]))]
        status.details[0].Pack(info)
    encoded: bytes = status.SerializeToString()
    return encoded


def as_json(error: errors.HeadgateError) -> bytes:
    """Return the error as the body of a refused REST call."""
    return orjson.dumps(MessageToDict(status_pb2.Status.FromString(encode(error)), preserving_proto_field_name=True))


def as_line(error: errors.HeadgateError) -> bytes:
    """Return the error as a line of a JSON stream: `{"error": …}`, with the content of a refused REST call's body."""
    return b'{"error":%b}\n' % as_json(error)


def printable(message: str) -> str:
    """Return a message for a status: bounded, and without characters that have no UTF-8."""
    return _shorten(message, 1024)


def _shorten(text: str, limit: int) -> str:
    """Return a text of at most `limit` bytes. A character may take four, and a status contains the message twice."""
    encoded = text.encode(errors="backslashreplace")
    return encoded.decode() if len(encoded) <= limit else encoded[: limit - 3].decode(errors="ignore") + "…"
