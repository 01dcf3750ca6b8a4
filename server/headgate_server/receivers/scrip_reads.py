"""The reads of Scrip's event API: which events a list shows, and how an event is shown; docs/compat/scrip.md."""

from collections.abc import Callable, Mapping

from headgate_server.core import jsonbody, timestamps
from headgate_server.core.destinations import Fate
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.model import StoredEvent
from headgate_server.core.reasons import Reason
from headgate_server.receivers import HttpRequest, Page, Reply, Search
from headgate_server.receivers.answers import members, shown_id
from headgate_server.receivers.common import Json, filter_text, filter_uuid, instant, page_limit

_TIMES = ("created_at", "received_at", "processed_at", "updated_at")
OPTIONAL = ("external_id", "participant_id", "recipient_id", "recipient_external_id")
"""Members that an event need not have. It is always shown with them."""
STATUS = {Fate.NONE: "COMPLETED", Fate.PENDING: "PENDING", Fate.DELIVERED: "COMPLETED", Fate.FAILED: "FAILED"}
"""An event's status says what became of its delivery. Where it is meant for no destination, it is completed at once."""
_CHOICES = {
    "status": (*STATUS.values(), "PROCESSING", "RECEIVED"),
    "sort_by": ("created_at",),
    "sort_dir": ("desc", "asc"),
    "event_type": ("EXTERNAL",),
    "rule_id": (),
}
"""The values that a list's parameters may have. Ignoring another value would show events that were not requested."""


def read_search(request: HttpRequest) -> Search:
    """Return which events a list asks for. Raises `InvalidRequest`."""
    query = {name: value for name, value in request.query.items() if value}
    for name, choices in _CHOICES.items():
        if name in query and query[name] not in choices:
            raise InvalidRequest(f"invalid {name}", reason=Reason.INVALID_FILTER, field=name)
    fates = frozenset(fate for fate, status in STATUS.items() if status == query.get("status"))
    return Search(
        limit=page_limit(query, 50, 200),
        cursor=query.get("cursor"),
        source=filter_uuid(query, "program_id"),
        subject=filter_text(query, "external_id"),
        created_from=instant(query, "from"),
        created_to=instant(query, "to"),
        with_fates=True,
        fates=fates if "status" in query else None,
        newest_first=query.get("sort_dir") != "asc",
        match=_matcher(query),
    )


def _matcher(query: Mapping[str, str]) -> Callable[[StoredEvent], bool] | None:
    """Return the filter for conditions on the event's content; None if the columns cover all conditions."""
    external_id, participant_id = filter_text(query, "external_id"), filter_uuid(query, "participant_id")
    event_from, event_to = instant(query, "event_from"), instant(query, "event_to")
    if not (external_id or participant_id) and event_from is None and event_to is None:
        return None

    def matches(event: StoredEvent) -> bool:
        occurred_at = event.occurred_at or 0
        if (event_from is not None and occurred_at < event_from) or (event_to is not None and occurred_at >= event_to):
            return False
        if external_id is None and participant_id is None:
            return True
        # The subject may be either of the two ids, so the event's own object decides.
        sent = jsonbody.read_exact(event.data or b"{}")
        return (external_id is None or sent.get("external_id") == external_id) and (
            participant_id is None or (sent.get("participant_id") or "").lower() == participant_id
        )

    return matches


def reply_page(request: HttpRequest, page: Page) -> Reply:
    """Return a page of events."""
    pagination = {"has_more": page.cursor is not None, "next_cursor": page.cursor}
    return Reply(200, {"data": list(map(_shown, page.events, page.fates)), "pagination": pagination})


def reply_event(request: HttpRequest, page: Page) -> Reply:
    """Return one event."""
    return Reply(200, _shown(page.events[0], page.fates[0]))


def _shown(event: StoredEvent, fate: Fate) -> Json:
    """Return a stored event as the vendor shows it: the object that was sent, and the fields that the service adds."""
    known = {"id": shown_id(event.id), "status": STATUS[fate], "event_type": "EXTERNAL", "error_message": None}
    times = dict.fromkeys(_TIMES, timestamps.format(event.created_at))
    return dict.fromkeys(OPTIONAL) | members(event) | known | times
