"""Administrative acts as events of a reserved workspace: who did what, with the values before and after. Pure.

No act contains a secret: of keys only what a list shows, of webhooks only the host of the URL and the names of headers.
"""

from hashlib import sha256
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from headgate_server.core import rates, timestamps, validate
from headgate_server.core.destinations import Destination, Webhook
from headgate_server.core.event_types import EventType
from headgate_server.core.model import ApiKey, Draft, Scope

RESERVED = "_headgate"
"""The name of the operators' workspace. Its ledger has the administrative acts. No other workspace can have a name that
begins with an underscore, and none could in earlier versions.
"""

OPERATOR_SCOPES = frozenset({Scope.ADMIN, Scope.EVENTS_READ, Scope.LEDGER_READ})
"""What a key of the reserved workspace may do. Only the service itself writes events there."""

SOURCE = "headgate"
"""The source of the events of acts."""

Facts = dict[str, Any]
"""Values of JSON."""


class Actor(NamedTuple):
    """Who acts."""

    kind: str
    """`key`: a caller of the API. `cli`: a user of the operating system, at the store itself."""
    id: str = ""
    """The key's id, or the user's name. Empty only for `NOBODY`."""
    request_id: str = ""
    """The id of the call, empty if there is none."""


NOBODY = Actor("")
"""A server before a call: an act in its name is a bug, and is refused."""


class Act(NamedTuple):
    """One administrative act, which is done."""

    type: str
    """Such as `key.created`."""
    target: str
    """The id or the name of what was changed."""
    before: Facts | None = None
    """The values before the act. None: it did not exist."""
    after: Facts | None = None
    """The values after the act. None: it does not exist any more."""


def draft_of(actor: Actor, workspace: str, act: Act) -> Draft:
    """Return the event of an act in a workspace. Raises `TypeError` if nobody acts."""
    if actor == NOBODY:
        raise TypeError(f"the act {act.type} has no actor")
    data: dict[str, Any] = {"actor": {"kind": actor.kind, "id": actor.id}, "workspace": workspace, "target": act.target}
    if actor.request_id:
        data["request_id"] = actor.request_id
    data |= {name: facts for name, facts in (("before", act.before), ("after", act.after)) if facts is not None}
    draft = validate.native(act.type, SOURCE, workspace, None, data, None)
    if not isinstance(draft, Draft):
        raise TypeError(f"the act {act.type} cannot be an event: {draft.message}")
    return draft


def changes(old: Facts, new: Facts) -> tuple[Facts, Facts]:
    """Return the values that differ, before and after."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return {name: old.get(name) for name in names}, {name: new.get(name) for name in names}


def key_facts(key: ApiKey) -> Facts:
    """Return what is told of a key."""
    calls, events = key.limits
    return {
        "name": key.name,
        "prefix": key.prefix,
        "scopes": sorted(key.scopes),
        "calls": None if calls is None else rates.text_of(calls),
        "events": None if events is None else rates.text_of(events),
        "successor": key.successor,
        "expires_at": _time(key.expires_at),
        "revoked_at": _time(key.revoked_at),
    }


def event_type_facts(one: EventType) -> Facts:
    """Return what is told of an event type. The schema is a text, since its own nesting has another bound."""
    return {"mode": one.mode.value, "revision": one.revision, "schema": one.schema.decode()}


def destination_facts(one: Destination) -> Facts:
    """Return what is told of a destination."""
    return {
        "name": one.name,
        "state": one.state.value,
        "ordering": one.ordering.value,
        "filter": {kind: list(values) for kind, values in one.filter._asdict().items()},
        **_target_facts(one),
    }


def _target_facts(one: Destination) -> Facts:
    target = one.target
    if not isinstance(target, Webhook):
        return {"jetstream": {"stream": target.stream, "subject_prefix": target.subject_prefix}}
    # Many services have a secret in the path of a webhook's URL. The digest shows that it was changed.
    parts = urlsplit(target.url)
    host = parts.netloc.rpartition("@")[2]
    return {
        "webhook": {
            "host": f"{parts.scheme}://{host}",
            "url_sha256": sha256(target.url.encode()).hexdigest(),
            "max_events": target.max_events,
            "timeout_seconds": int(target.timeout),
            "format": target.format.value,
            "signature": target.signature.value,
        }
    }


def _time(microseconds: int | None) -> str | None:
    return None if microseconds is None else timestamps.format(microseconds)
