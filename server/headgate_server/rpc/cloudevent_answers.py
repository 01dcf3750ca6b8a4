"""Stored events as CloudEvents, for readers whose header `Accept` prefers that."""

from collections.abc import Sequence
from urllib.parse import parse_qsl, quote, urlencode

import orjson
from google.api.httpbody_pb2 import HttpBody

from headgate_server.core import mediatypes
from headgate_server.core.model import StoredEvent
from headgate_server.reading.cloudevents import BATCH_CONTENT_TYPE, CONTENT_TYPE, cloudevent
from headgate_server.rpc.pipeline.call import ADDRESS_KEY, Call

_JSON = "application/json"


def wants_one(call: Call) -> bool:
    """Whether the answer with one event is to be a CloudEvent."""
    return _prefers(call, CONTENT_TYPE)


def wants_batch(call: Call) -> bool:
    """Whether the answer with a list of events is to be a batch of CloudEvents. A reader may name either type."""
    return _prefers(call, BATCH_CONTENT_TYPE, CONTENT_TYPE)


def _prefers(call: Call, *types: str) -> bool:
    return call.bridged and mediatypes.preferred(call.text("accept"), (_JSON, *types)) != _JSON


def one(event: StoredEvent, delivery: str) -> HttpBody:
    """Return a stored event as a CloudEvent."""
    return HttpBody(content_type=CONTENT_TYPE, data=orjson.dumps(cloudevent(event, delivery)))


def batch(events: Sequence[StoredEvent], fates: Sequence[str]) -> HttpBody:
    """Return stored events as a batch. `fates` is what became of the delivery of each; empty: it was not asked for."""
    shown = fates or [""] * len(events)
    clouds = [cloudevent(event, fate) for event, fate in zip(events, shown, strict=True)]
    return HttpBody(content_type=BATCH_CONTENT_TYPE, data=orjson.dumps(clouds))


def next_link(call: Call, token: str) -> tuple[tuple[str, str], ...]:
    """Return the header `Link` with the address of the next page (RFC 8288); nothing at the end. A batch of CloudEvents
    has no place for the token.
    """
    if not token:
        return ()
    path, _, query = (call.text(ADDRESS_KEY) or "").partition("?")
    kept = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name != "page_token"]
    address = f"{quote(path, safe='/:@%')}?{urlencode([*kept, ('page_token', token)])}"
    return (("link", f'<{address}>; rel="next"'),)
