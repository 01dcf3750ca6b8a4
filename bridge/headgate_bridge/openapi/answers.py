"""The answers to requests that fail: a component for each status, with its reasons, and the form of all of them."""

from collections.abc import Collection, Iterator
from http import HTTPStatus
from typing import Any

from headgate_bridge.openapi.tables import ALWAYS, NAMED, STATUSES, WITH_BODY, WITH_KEY
from headgate_server.core.reasons import CATALOGUE, Reason

Json = dict[str, Any]

ERROR = {"$ref": "#/components/schemas/Error"}
REQUEST_ID = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}

_TYPE = "type.googleapis.com/google.rpc."
HEADERS: Json = {
    "X-Request-Id": {
        "description": "The id of the request: the caller's own, or a new one. The server's log has the same id.",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "The seconds after which the same request may succeed.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {"description": "How to send a key.", "schema": {"type": "string"}},
    "X-RateLimit-Limit": {"description": "The most requests at once.", "schema": {"type": "integer"}},
    "X-RateLimit-Remaining": {"description": "How many of them are left.", "schema": {"type": "integer"}},
    "X-RateLimit-Reset": {
        "description": "When all of them are left again, in seconds since 1970.",
        "schema": {"type": "integer"},
    },
}
_OF_STATUS = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}


def names(status: int) -> str:
    """Return the name of the component for a status."""
    return "".join(word.capitalize() for word in HTTPStatus(status).name.split("_"))


def responses() -> Json:
    """Return the components for all statuses of the catalogue of reasons."""
    return {names(status): _response(status) for status in sorted(STATUSES)}


def statuses(*, key: bool, body: bool, named: Collection[int]) -> Iterator[int]:
    """Yield the statuses with which an operation may fail."""
    when = {ALWAYS: True, WITH_KEY: key, WITH_BODY: body, NAMED: False}
    return (status for status, kind in STATUSES.items() if when[kind] or status in named)


def statuses_named_in(text: str) -> Iterator[int]:
    """Yield the statuses of the gRPC codes that a comment names."""
    for entry in CATALOGUE.values():
        for answer in entry.answers:
            if STATUSES[answer.http] == NAMED and answer.grpc in text:
                yield answer.http


def headers(status: int) -> Json:
    """Return the headers of an answer with this status."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *_OF_STATUS.get(status, ()))}


def _response(status: int) -> Json:
    reasons = [
        (reason, entry) for reason, entry in CATALOGUE.items() if status in {each.http for each in entry.answers}
    ]
    lines = [f"- `{reason}`: {entry.means} {entry.do}" for reason, entry in reasons]
    return {
        "description": f"{HTTPStatus(status).phrase}.\n\n" + "\n".join(lines),
        "headers": headers(status),
        "content": {"application/json": {"schema": ERROR}},
    }


def schemas() -> Json:
    """Return the schemas of an error."""
    return {
        "Error": {
            "type": "object",
            "description": "A request that failed: `google.rpc.Status` in JSON.",
            "required": ["code", "message", "details"],
            "properties": {
                "code": {"type": "integer", "format": "int32", "description": "The gRPC code."},
                "message": {"type": "string", "description": "A sentence for people. It may change."},
                "details": {
                    "type": "array",
                    "description": "The reason, and what belongs to it.",
                    "minItems": 1,
                    "items": {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in _DETAILS]},
                },
            },
            "examples": [_example()],
        },
        "Reason": {
            "type": "string",
            "enum": [str(reason) for reason in Reason],
            "description": "Why something failed, for programs. Its meaning never changes; new ones may be added.\n\n"
            "| reason | meaning | what to do | a retry may help |\n|---|---|---|---|\n"
            + "\n".join(
                f"| `{reason}` | {entry.means} | {entry.do} | {'yes' if entry.retry else 'no'} |"
                for reason, entry in CATALOGUE.items()
            ),
        },
        **_DETAILS,
    }


def _detail(kind: str, properties: Json, *optional: str) -> Json:
    required = ["@type", *(name for name in properties if name not in optional)]
    return {
        "type": "object",
        "required": required,
        "properties": {"@type": {"const": _TYPE + kind}, **properties},
    }


_DETAILS: Json = {
    "ErrorInfo": _detail(
        "ErrorInfo",
        {
            "reason": {"$ref": "#/components/schemas/Reason"},
            "domain": {"const": "headgate"},
            "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
        },
        "metadata",
    ),
    "BadRequest": _detail(
        "BadRequest",
        {
            "field_violations": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["field", "description"],
                    "properties": {
                        "field": {"type": "string", "description": "The field at fault."},
                        "description": {"type": "string"},
                        "reason": {"$ref": "#/components/schemas/Reason"},
                    },
                },
            }
        },
    ),
    "RetryInfo": _detail(
        "RetryInfo", {"retry_delay": {"type": "string", "pattern": "^[0-9.]+s$", "description": "As `Retry-After`."}}
    ),
}


def _example() -> Json:
    info = {"@type": _TYPE + "ErrorInfo", "reason": str(Reason.MISSING_FIELD), "domain": "headgate", "metadata": {}}
    return {"code": 3, "message": "The type field is required.", "details": [info]}
