"""Checks the fields of a destination. Pure. Each function raises `InvalidRequest`, which names the wrong field."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from headgate_server.core.destinations import (
    BEGINNING,
    NOW,
    EventFilter,
    Format,
    JetStream,
    Ordering,
    Signature,
    Webhook,
)
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.model import CLOUDEVENTS, NATIVE
from headgate_server.core.reasons import Reason
from headgate_server.delivery.extra_headers import check_headers
from headgate_server.delivery.jetstream import check_prefix, check_stream
from headgate_server.delivery.networks import Networks
from headgate_server.delivery.url import check_url
from headgate_server.receivers.registry import RECEIVERS

MOST_EVENTS = 100
LONGEST_TIMEOUT = 60
DEFAULT_TIMEOUT = 15
MOST_VALUES = 100
"""The most values of one list of a filter. Each value is compared with each event."""
_LONGEST_VALUE = 255

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_NAMES = "1 to 63 of a-z, 0-9, '.', '_' and '-', with a letter or digit at both ends"
_SEQUENCE = re.compile(r"[0-9]{1,18}", re.ASCII)

_Word = TypeVar("_Word", Ordering, Format, Signature)


def name_of(text: str) -> str:
    """Return a destination's name."""
    if not text:
        raise InvalidRequest("The name field is required.", reason=Reason.MISSING_FIELD, field="name")
    if not _NAME.fullmatch(text):
        raise _invalid("name", f"{text[:80]!r} is not {_NAMES}")
    return text


def filter_of(types: Sequence[str], sources: Sequence[str], receivers: Sequence[str]) -> EventFilter:
    """Return a filter. It is refused if it cannot match any event."""
    for field, values in (("types", types), ("sources", sources), ("receivers", receivers)):
        _check_values(f"filter.{field}", values)
    for value in types:
        if "*" in value.removesuffix(".*") or value == ".*":
            raise _invalid("filter.types", f"{value!r} has a star that is not at the end after a name and a dot")
    all_receivers = {NATIVE, CLOUDEVENTS, *RECEIVERS}
    for value in receivers:
        if value not in all_receivers:
            raise _invalid("filter.receivers", f"{value!r} is not one of {', '.join(sorted(all_receivers))}")
    return EventFilter(tuple(dict.fromkeys(types)), tuple(dict.fromkeys(sources)), tuple(dict.fromkeys(receivers)))


def ordering_of(text: str, *, default: Ordering = Ordering.PARALLEL) -> Ordering:
    """Return an ordering; the default for an empty text."""
    return _word("ordering", text, Ordering, default)


def start_of(text: str) -> int:
    """Return the start: the sequence of the first event, `BEGINNING` or `NOW`."""
    if text in ("", "now"):
        return NOW
    if text == "beginning":
        return BEGINNING
    if not _SEQUENCE.fullmatch(text):
        raise _invalid("start", f"{text[:80]!r} is neither 'beginning' nor 'now' nor a sequence")
    return int(text)


def webhook_of(
    url: str,
    networks: Networks,
    *,
    max_events: int = 0,
    timeout: int = 0,
    form: str = "",
    signature: str = "",
) -> Webhook:
    """Return a webhook; 0 and an empty text are the defaults."""
    if not url:
        raise InvalidRequest("The webhook.url field is required.", reason=Reason.MISSING_FIELD, field="webhook.url")
    try:
        check_url(url, networks)
    except ValueError as error:
        raise InvalidRequest(f"webhook.url: {error}.", reason=Reason.INVALID_URL, field="webhook.url") from None
    _check_range("webhook.max_events", max_events or 1, MOST_EVENTS)
    _check_range("webhook.timeout_seconds", timeout or DEFAULT_TIMEOUT, LONGEST_TIMEOUT)
    return Webhook(
        url=url,
        max_events=max_events or 1,
        timeout=float(timeout or DEFAULT_TIMEOUT),
        format=_word("webhook.format", form, Format, Format.STANDARD),
        signature=_word("webhook.signature", signature, Signature, Signature.HMAC),
    )


def headers_of(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the extra headers of a webhook."""
    try:
        return tuple(check_headers(headers))
    except ValueError as error:
        raise _invalid("webhook.headers", str(error)) from None


def jetstream_of(stream: str, subject_prefix: str) -> JetStream:
    """Return a stream."""
    _check_text("jetstream.stream", stream, check_stream)
    _check_text("jetstream.subject_prefix", subject_prefix, check_prefix)
    return JetStream(stream=stream, subject_prefix=subject_prefix)


def _check_text(field: str, text: str, check: Callable[[str], str]) -> None:
    if not text:
        raise InvalidRequest(f"The {field} field is required.", reason=Reason.MISSING_FIELD, field=field)
    try:
        check(text)
    except ValueError as error:
        raise _invalid(field, str(error)) from None


def _check_values(field: str, values: Collection[str]) -> None:
    if len(values) > MOST_VALUES:
        raise InvalidRequest(f"{field} has more than {MOST_VALUES} values.", reason=Reason.TOO_MANY, field=field)
    for value in values:
        if not value or len(value) > _LONGEST_VALUE or "\0" in value:
            raise _invalid(field, "a value has 1 to 255 characters, and none of them is U+0000")


def _check_range(field: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise _invalid(field, f"{value} is not between 1 and {most}")


def _word(field: str, text: str, words: type[_Word], default: _Word) -> _Word:
    if not text:
        return default
    try:
        return words(text)
    except ValueError:
        raise _invalid(field, f"{text[:80]!r} is not one of {', '.join(words)}") from None


def _invalid(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {message}.", reason=Reason.INVALID_FIELD, field=field)
