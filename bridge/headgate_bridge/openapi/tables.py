"""What no proto says about REST: one table for each question. What is in no table has the usual form."""

from collections.abc import Mapping
from typing import Any

NEED_NO_KEY = frozenset({"DocsService", "ProbeService", "Handshake"})
"""The services whose methods need no key, and methods that need none."""

IN_NO_WORKSPACE = frozenset({"AdminService"})
"""The services whose methods need a key and are not made in a workspace. All others take the header `WORKSPACE`."""

_EVENTS = {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Event"}}
_LINES = {"type": "string", "description": "One event in JSON a line."}
_CLOUDEVENT = {
    "type": "object",
    "description": "A CloudEvent 1.0 in the JSON format. Any other member is an extension.",
    "properties": {
        "specversion": {"type": "string", "enum": ["1.0"]},
        **{name: {"type": "string", "minLength": 1, "maxLength": 255} for name in ("id", "source", "type")},
        "subject": {"type": ["string", "null"], "maxLength": 255},
        "time": {"type": ["string", "null"], "format": "date-time"},
        "datacontenttype": {"type": ["string", "null"], "maxLength": 255},
        "dataschema": {"type": ["string", "null"]},
        "data": {},
        "data_base64": {"type": ["string", "null"], "contentEncoding": "base64"},
    },
    "required": ["specversion", "id", "source", "type"],
}
_CLOUDEVENTS: Mapping[str, Any] = {"type": "array", "minItems": 1, "items": _CLOUDEVENT}
_READ_CLOUDEVENTS = {"type": "array", "items": _CLOUDEVENT}
_MESSAGE = {"type": "string", "description": "A serialized message of io.cloudevents.v1."}

PLACES = {"IngestService": -2, "EventService": -1, "ProbeService": 1, "DocsService": 2}
"""The services that come before the others in the reference, and after them."""

REQUEST_TYPES: Mapping[str, Mapping[str, Any]] = {
    "BatchIngest": {
        "application/json": {"oneOf": [{"$ref": "#/components/schemas/BatchIngestRequest"}, _EVENTS]},
        "application/x-ndjson": _LINES,
        "application/json-lines": _LINES,
        "application/jsonl": _LINES,
    },
    "Receive": {
        "application/cloudevents+json": _CLOUDEVENT,
        "application/cloudevents-batch+json": _CLOUDEVENTS,
        "application/cloudevents+protobuf": _MESSAGE,
        "application/cloudevents-batch+protobuf": _MESSAGE,
        "*/*": {"description": "The data of one event, whose attributes are headers with the prefix `ce-`."},
    },
}
"""By method: the media types of its requests, each with a schema. None is the message's schema. The usual is JSON."""

ANSWER_TYPES: Mapping[str, Mapping[str, Any]] = {
    "Receive": {
        "application/json": {
            "oneOf": [
                {"$ref": "#/components/schemas/EventResult"},
                {"$ref": "#/components/schemas/BatchIngestResponse"},
            ]
        }
    },
    "GetOpenApi": {"application/json": {"type": "object"}},
    "GetReference": {"text/html": {"type": "string"}},
    "GetReferenceScript": {"text/javascript": {"type": "string"}},
    "GetEvent": {"application/json": None, "application/cloudevents+json": _CLOUDEVENT},
    "ListEvents": {"application/json": None, "application/cloudevents-batch+json": _READ_CLOUDEVENTS},
}
"""The same of answers."""

NO_CONTENT: Mapping[str, str] = {
    "Receive": "The event is stored, and the header `Prefer` asked for no body.",
}
"""By method: when it answers with 204 and no body."""

STREAM_TYPES = {
    "application/x-ndjson": 'A message in JSON a line. An error that ends the stream is the last line: `{"error": …}`.',
    "text/event-stream": "The same as server-sent events, if the header `Accept` names this type.",
}
"""The media types of a method that answers with a stream, and how they hold its messages."""

READ_AS: Mapping[str, Mapping[str, Any]] = {
    "headgate.v1.Destination.start": {"type": ["string", "integer"]},
}
"""Fields that REST reads in more forms than their type has."""

PRINTED_AS: Mapping[str, Mapping[str, Any]] = {
    "headgate.v1.StoredEvent.data": {"description": "The payload: an object; of a CloudEvent any JSON value."},
}
"""Fields of answers that REST prints in another form than their type has."""

WORKSPACE = "Headgate-Workspace"
"""The header that names the workspace of a call."""

REQUEST_HEADERS: Mapping[str, tuple[str, Mapping[str, Any], str]] = {
    "Idempotency-Key": (
        "metadata `idempotency-key`",
        {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
        "For 24 hours the same request with the same key gets the first answer again, and nothing is stored twice.",
    ),
    "If-None-Match": (
        "header `If-None-Match`",
        {"type": "string"},
        "The `ETag` of an earlier answer. If the content has not changed, the answer is 304, without it.",
    ),
    "Last-Event-ID": (
        "header `Last-Event-ID`",
        {"type": "string", "pattern": "^[0-9]{1,18}$"},
        "The `id` of the last server-sent event that was received. The stream continues after it.",
    ),
    "Prefer": (
        "header `Prefer`",
        {"type": "string"},
        "`return=minimal`: if one event is stored, the answer is 204 without a body.",
    ),
    "WebHook-Request-Origin": (
        "header `WebHook-Request-Origin`",
        {"type": "string"},
        "The sender that asks. Without this header the answer allows nothing.",
    ),
}
"""Headers of requests: a method takes one if its comment, or that of its service, has these words."""

WORKSPACE_HEADER: tuple[Mapping[str, Any], str] = (
    {"type": "string", "minLength": 1, "maxLength": 63},
    "The workspace of the call. With an operator's key (workspace `_headgate`, scope `admin`) it may be any. With "
    "another key it can only be that of the key, which is also meant without this header.",
)
"""The schema and the description of the header `WORKSPACE`."""

ANSWER_HEADERS: Mapping[str, tuple[str, str]] = {
    "ETag": ("If-None-Match", "A tag of the content."),
    "Idempotency-Replayed": ("Idempotency-Key", "`true` if this is the stored answer to an earlier request."),
}
"""Headers of successful answers: a method sends one if it takes this header."""

ALWAYS, WITH_KEY, WITH_BODY, NAMED = "always", "with a key", "with a body", "where a comment or a path names it"
STATUSES: Mapping[int, str] = {
    400: ALWAYS,
    401: WITH_KEY,
    403: ALWAYS,
    404: NAMED,
    408: ALWAYS,
    409: NAMED,
    413: WITH_BODY,
    415: WITH_BODY,
    422: NAMED,
    429: ALWAYS,
    431: ALWAYS,
    500: ALWAYS,
    501: WITH_BODY,
    503: ALWAYS,
    504: ALWAYS,
}
"""When each status of the catalogue of reasons can occur."""
