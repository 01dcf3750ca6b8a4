"""Turns workspaces and keys into messages of AdminService, and requests into the values that the use cases take."""

from collections.abc import Mapping, Sequence
from types import EllipsisType
from typing import Any

from headgate.v1 import admin_service_pb2 as pb
from headgate_server.access.keys import NewKey
from headgate_server.core import rates, timestamps
from headgate_server.core.audit import RESERVED
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.model import ApiKey, KeyLimits, RateLimit, Usage, Workspace
from headgate_server.core.reasons import Reason
from headgate_server.receivers.registry import RECEIVERS
from headgate_server.rpc import bodies, decode, wire

_NO_LIMIT = "none"
_DEFAULT = "default"
_MOST_QUOTA = 10**15

Rates = dict[str, RateLimit | EllipsisType | None]


def workspace_message(workspace: Workspace, usage: Usage) -> pb.ManagedWorkspace:
    """Return a workspace with its limits and its usage."""
    message = pb.ManagedWorkspace(
        name=workspace.name,
        quota=usage.quota,
        rates={name: _NO_LIMIT if rate is None else rates.text_of(rate) for name, rate in workspace.rates.items()},
        unknown_event_types=workspace.unknown_types,
        used=usage.events,
    )
    wire.set_timestamp(message.period_start, timestamps.month_start(usage.month))
    return message


def key_message(key: ApiKey, now: int, secret: str = "") -> pb.ApiKey:
    """Return a key; with its secret only where it was just created."""
    calls, events = key.limits
    message = pb.ApiKey(
        id=key.id,
        name=key.name,
        workspace=key.workspace.name,
        scopes=sorted(key.scopes),
        calls="" if calls is None else rates.text_of(calls),
        events="" if events is None else rates.text_of(events),
        prefix=key.prefix,
        state=key.state(now),
        successor=key.successor or "",
        secret=secret,
    )
    times = (key.created_at, key.expires_at, key.revoked_at, key.last_used_at)
    for name, time in zip(("created_at", "expires_at", "revoked_at", "last_used_at"), times, strict=True):
        if time is not None:
            wire.set_timestamp(getattr(message, name), time)
    return message


def new_key(message: pb.ApiKey, request_id: str) -> NewKey:
    """Return the key to create. Raises `InvalidRequest`."""
    for name in ("workspace", "scopes"):
        if not getattr(message, name):
            raise InvalidRequest(f"The {name} field is required.", reason=Reason.MISSING_FIELD, field=name)
    return NewKey(
        workspace=message.workspace,
        scopes=tuple(message.scopes),
        name=message.name,
        expires_at=time_of(message, "expires_at"),
        limits=KeyLimits(limit_of("calls", message.calls), limit_of("events", message.events)),
        request_id=request_id,
    )


def time_of(message: Any, field: str) -> int | None:
    """Return a time of a message in microseconds, None if it is absent. Raises `InvalidRequest`."""
    return decode.microseconds(getattr(message, field), field) if message.HasField(field) else None


def limit_of(field: str, text: str, whose: str = "") -> RateLimit | None:
    """Return a limit; empty and "none" are no limit. A message shows it after `whose`. Raises `InvalidRequest`."""
    if text in ("", _NO_LIMIT):
        return None
    try:
        return rates.rate_of(text, whose)
    except ValueError as error:
        raise InvalidRequest(f"{error}.", reason=Reason.INVALID_FIELD, field=field) from None


def rates_of(texts: Mapping[str, str]) -> Rates:
    """Return the rates to set by receiver; `...` is the receiver's default. Raises `InvalidRequest`."""
    found: Rates = {}
    for receiver, text in sorted(texts.items()):
        if receiver not in RECEIVERS:
            message = f"There is no receiver {receiver[:80]!r}; there are: {', '.join(sorted(RECEIVERS))}."
            raise InvalidRequest(message, reason=Reason.INVALID_FIELD, field="rates")
        found[receiver] = ... if text in ("", _DEFAULT) else limit_of("rates", text, f"{receiver}=")
    return found


def quota_of(message: pb.ManagedWorkspace) -> int | None:
    """Return the quota of a workspace, None for no limit. Raises `InvalidRequest`."""
    if not message.HasField("quota"):
        return None
    if not 0 <= message.quota <= _MOST_QUOTA:
        text = f"The quota must be 0 to {_MOST_QUOTA}."
        raise InvalidRequest(text, reason=Reason.NEGATIVE if message.quota < 0 else Reason.INVALID_FIELD, field="quota")
    return int(message.quota)


def check_limitable(name: str) -> None:
    """Raise `InvalidRequest` for the reserved workspace, whose settings nobody changes."""
    if name == RESERVED:
        text = f"The workspace {RESERVED} has the events of the audit: it has no limits and no settings."
        raise InvalidRequest(text, reason=Reason.INVALID_FIELD, field="workspace")


def named_fields(request: Any, member: str, changeable: Sequence[str]) -> list[str]:
    """Return the fields that an update changes: those of its mask, or without a mask those that it has. Those that only
    answers have are left out (AIP-203). Also fill the message from a JSON body. Raises `InvalidRequest`.
    """
    message = getattr(request, member)
    if request.HasField("json"):
        body = bodies.read_object(request.json.data)
        bodies.fill(message, body)
        sent = [path.partition(".")[0] for path in bodies.paths(message.DESCRIPTOR, body)]
    else:
        sent = [field.name for field, _ in message.ListFields()]
    mask = list(request.update_mask.paths)
    for path in mask:
        if path not in message.DESCRIPTOR.fields_by_name:
            text = f"The field {path[:80]!r} cannot be changed."
            raise InvalidRequest(text, reason=Reason.UNKNOWN_FIELD, field="update_mask")
    named = [path for path in dict.fromkeys(mask or sent) if path in changeable]
    if not named:
        text = f"The request names nothing to change; that can be: {', '.join(changeable)}."
        raise InvalidRequest(text, reason=Reason.MISSING_FIELD, field="update_mask")
    return named
