"""Turns destinations and failures into messages, and requests into the values that `delivery/manage.py` takes."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from headgate.v1 import destination_pb2 as pb
from headgate_server.core import destinations as core
from headgate_server.core.destinations import Ordering, Status, Target
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.reasons import Reason
from headgate_server.delivery import checked
from headgate_server.delivery.manage import DestinationSettings, Shown
from headgate_server.delivery.networks import Networks
from headgate_server.rpc import wire

_CHANGEABLE = {
    "name",
    "filter",
    "filter.types",
    "filter.sources",
    "filter.receivers",
    "ordering",
    "webhook",
    "webhook.url",
    "webhook.max_events",
    "webhook.timeout_seconds",
    "webhook.format",
    "webhook.headers",
}
"""The fields that an update may change. For another kind of signature a new destination is needed."""

_OUTPUT = {field.name for field in pb.Destination.DESCRIPTOR.fields} - {
    "name",
    "filter",
    "ordering",
    "webhook",
    "jetstream",
    "start",
}
"""Fields that are ignored if a client sends them back (AIP-203)."""


def destination_message(status: Status) -> pb.Destination:
    """Return a destination as a message, without its secrets."""
    one = status.destination
    message = pb.Destination(
        id=one.id,
        name=one.name,
        filter=pb.DestinationFilter(types=one.filter.types, sources=one.filter.sources, receivers=one.filter.receivers),
        ordering=one.ordering,
        state=one.state,
        state_reason=one.why,
        cursor=one.cursor.sequence,
        lag_events=status.lag_events,
        lag_seconds=status.lag_seconds,
        set_aside=status.set_aside,
        delivered=one.delivered,
        failed_attempts=one.failed_attempts,
        last_error=one.last_error,
    )
    _set_target(message, one.target)
    if one.replay is not None:
        message.replay.after_sequence = one.replay.position.sequence
        message.replay.until_sequence = one.replay.until
    _set_time(message, "created_at", one.created_at)
    _set_time(message, "updated_at", one.updated_at)
    _set_time(message, "last_error_at", one.last_error_at)
    _set_time(message, "next_attempt_at", status.retry_after)
    _set_time(message, "failing_since", one.failing_since)
    return message


def shown_message(shown: Shown) -> pb.Destination:
    """Return a destination with the key with which its receiver verifies signatures."""
    message = destination_message(shown.status)
    if shown.key:
        message.webhook.secret = shown.key
    return message


def failure_message(failure: core.Failure) -> pb.DeliveryFailure:
    """Return a failure as a message."""
    message = pb.DeliveryFailure(
        sequence=failure.sequence,
        event_id=wire.id_text(failure.event_id),
        state=failure.state,
        attempts=failure.attempts,
        status=failure.status,
        error=failure.error,
    )
    _set_time(message, "first_failed_at", failure.first_failed_at)
    _set_time(message, "last_attempt_at", failure.last_attempt_at)
    _set_time(message, "next_attempt_at", failure.next_attempt_at)
    return message


def settings_of(message: pb.Destination, networks: Networks) -> DestinationSettings:
    """Return the checked settings of a message's destination. Raises `InvalidRequest`."""
    kind = message.WhichOneof("target")
    if kind is None:
        raise InvalidRequest(
            "A destination needs a webhook or a jetstream field.", reason=Reason.MISSING_FIELD, field="webhook"
        )
    default = Ordering.PARALLEL if kind == "webhook" else Ordering.ORDERED
    ordering = checked.ordering_of(message.ordering, default=default)
    if kind == "jetstream" and ordering is Ordering.PARALLEL:
        raise InvalidRequest("A stream is always ordered.", reason=Reason.INVALID_FIELD, field="ordering")
    return DestinationSettings(
        name=checked.name_of(message.name),
        target=_target(message, kind, networks),
        filter=checked.filter_of(message.filter.types, message.filter.sources, message.filter.receivers),
        ordering=ordering,
        headers=checked.headers_of(message.webhook.headers) if kind == "webhook" else (),
        start=checked.start_of(message.start),
    )


def changed_settings(old: Status, new: pb.Destination, named: Sequence[str], networks: Networks) -> DestinationSettings:
    """Return the settings of a destination in which the fields `named` have the values of a message. Raises
    `InvalidRequest`.
    """
    message = destination_message(old)
    kind = message.WhichOneof("target")
    if new.webhook.signature in ("", message.webhook.signature):
        named = [path for path in named if path != "webhook.signature"]
    if kind == "jetstream" and new.jetstream == message.jetstream:
        named = [path for path in named if path.partition(".")[0] != "jetstream"]
    for path in named:
        if path not in _CHANGEABLE or (path.startswith("webhook") and kind != "webhook"):
            raise InvalidRequest(
                f"The field {path[:80]!r} cannot be changed.{_why_not(path)}",
                reason=Reason.UNKNOWN_FIELD,
                field=path[:80],
            )
        if "." in path:
            # The merge skips messages that are not set, even if the mask names a field in one.
            getattr(new, path.partition(".")[0]).SetInParent()
    signature = message.webhook.signature
    mask = FieldMask(paths=named)
    mask.MergeMessage(new, message, replace_message_field=True, replace_repeated_field=True)
    if kind == "webhook":
        message.webhook.signature = signature
    return settings_of(message, networks)


def _why_not(path: str) -> str:
    if path.partition(".")[0] != "jetstream":
        return ""
    return " A stream shows which events it has. For another stream create another destination."


def leave_output_out(named: Sequence[str]) -> list[str]:
    """Return the paths without those of output fields."""
    return [path for path in named if path.partition(".")[0] not in _OUTPUT and path != "webhook.secret"]


def _target(message: pb.Destination, kind: str, networks: Networks) -> Target:
    if kind == "jetstream":
        return checked.jetstream_of(message.jetstream.stream, message.jetstream.subject_prefix)
    webhook = message.webhook
    return checked.webhook_of(
        webhook.url,
        networks,
        max_events=webhook.max_events,
        timeout=webhook.timeout_seconds,
        form=webhook.format,
        signature=webhook.signature,
    )


def _set_target(message: pb.Destination, target: Target) -> None:
    if isinstance(target, core.JetStream):
        message.jetstream.stream = target.stream
        message.jetstream.subject_prefix = target.subject_prefix
        return
    webhook = message.webhook
    webhook.url = target.url
    webhook.max_events = target.max_events
    webhook.timeout_seconds = int(target.timeout)
    webhook.format = target.format
    webhook.signature = target.signature


def _set_time(message: Any, name: str, microseconds: int | None) -> None:
    if microseconds is not None:
        wire.set_timestamp(getattr(message, name), microseconds)
