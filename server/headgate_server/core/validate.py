"""Turns one event as a client sent it into a draft, or into a problem. Pure.

`native_json` checks a value from a JSON parser; `native` checks fields from a message. Both call `seal`, and so do the
vendors' receivers.
"""

from collections.abc import Mapping
from typing import Any, cast

from headgate_server.core import canonical, ledger, timestamps
from headgate_server.core.model import NATIVE, Draft, Mismatch, Problem
from headgate_server.core.randomness import draw
from headgate_server.core.reasons import Reason
from headgate_server.core.types import Salt

MAX_TEXT = 255
"""The most characters of type, source, subject and idempotency_key."""

_ALIASES = {"occurredAt": "occurred_at", "idempotencyKey": "idempotency_key"}
_FIELDS = frozenset({"type", "source", "subject", "occurred_at", "data", "idempotency_key"})
_FIELDS_OF_PROTO = {"data_json", "dataJson"}
_WARNED_FIELDS = 10
"""The most unknown fields with a warning each: a thousand warnings would make the answer larger than the request."""

FINER_THAN_MICROSECONDS = f"occurred_at {timestamps.FINER}."


def native_json(event: Any, salt: Salt | None = None) -> Draft | Problem:
    """Check and seal one event of a JSON body: a value from `jsonbody`, which may be the `Problem` found while reading
    it. `salt` is as in `seal`.
    """
    if isinstance(event, Problem):
        return event
    if type(event) is not dict:
        return Problem(Reason.WRONG_TYPE, "", f"An event must be a JSON object, not {json_type(event)}.")
    warnings: tuple[str, ...] = ()
    if not event.keys() <= _FIELDS:
        spelled = _respell(event)
        if isinstance(spelled, Problem):
            return spelled
        event, warnings = spelled
    occurred_at: int | None = None
    if (moment := event.get("occurred_at")) is not None:
        if type(moment) is not str:
            return _wrong_type("occurred_at", "an RFC 3339 string", moment)
        try:
            occurred_at, change = timestamps.parse(moment)
        except ValueError as error:
            return Problem(Reason.INVALID_TIMESTAMP, "occurred_at", f"{error}.")
        if change is not None:
            warnings += (f"occurred_at {change}.",)
    data = event.get("data")
    if data is not None and type(data) is not dict:
        return _texts_problem(event) or _wrong_type("data", "a JSON object", data)
    return native(
        event.get("type"),
        event.get("source"),
        event.get("subject"),
        occurred_at,
        data,
        event.get("idempotency_key"),
        salt,
        warnings,
    )


def native(
    type_: Any,
    source: Any,
    subject: Any,
    occurred_at: int | None,
    data: dict[str, Any] | bytes | None,
    key: Any,
    salt: Salt | None = None,
    warnings: tuple[str, ...] = (),
) -> Draft | Problem:
    """Check and seal the fields of a native event; None is an absent field. `data` and `salt` are as in `seal`."""
    if source is None:
        source = ""
    if subject is None:
        subject = ""
    if not _are_plain_texts(type_, source, subject, "-" if key is None else key):
        problem = _texts_problem({"type": type_, "source": source, "subject": subject, "idempotency_key": key})
        if problem is not None:
            return problem
    return seal(
        NATIVE,
        type_,
        source,
        subject,
        occurred_at,
        data,
        None if key is None else (source, key),
        warnings=warnings,
        salt=salt,
    )


def salts(count: int) -> list[Salt]:
    """Return so many salts. One call to the system serves a batch, not one call for each event."""
    randomness = draw(16 * count)
    return cast("list[Salt]", [randomness[at : at + 16] for at in range(0, 16 * count, 16)])


def seal(
    receiver: str,
    type_: str,
    source: str,
    subject: str,
    occurred_at: int | None,
    data: dict[str, Any] | bytes | None,
    identity: tuple[str, str] | None,
    *,
    on_mismatch: Mismatch = Mismatch.CONFLICT,
    warnings: tuple[str, ...] = (),
    salt: Salt | None = None,
    attributes: bytes | None = None,
) -> Draft | Problem:
    """Bring checked fields into canonical form and commit to them. Return a `Problem` if `data` has no canonical form.

    `data` is an object of JSON values, or canonical JSON already. `attributes` is canonical JSON, an object with
    members. `identity` is (scope, key) within the receiver, None for an event that is never deduplicated. Without a
    `salt` of 16 random bytes one is drawn.
    """
    if data is not None and type(data) is not bytes:
        try:
            data = canonical.encode(data)
        except canonical.Unrepresentable as error:
            return Problem(error.reason, "data", error.message)
    content = canonical.content(type_, source, subject, occurred_at, data, attributes)
    salt = salt or Salt(draw(16))
    if identity is None:
        scope = key = dedupe = None
        named = ledger.NO_IDENTITY
    else:
        scope, key = identity
        named = ledger.identity(receiver, scope, key)
        dedupe = ledger.dedupe_of(named)
    return Draft(
        receiver,
        type_,
        source,
        subject,
        occurred_at,
        data,
        scope,
        key,
        dedupe,
        salt,
        ledger.commitment(salt, content),
        named,
        content,
        on_mismatch,
        warnings,
        attributes,
    )


def _are_plain_texts(type_: Any, source: Any, subject: Any, key: Any) -> bool:
    """Whether the four texts are surely valid: one check of all together instead of three checks of each."""
    if not (type(type_) is type(source) is type(subject) is type(key) is str):
        return False
    texts = f"{type_}{source}{subject}{key}"
    return len(texts) <= MAX_TEXT and type_ != "" and key != "" and texts.isascii() and "\0" not in texts


def _texts_problem(event: Mapping[str, Any]) -> Problem | None:
    """Return the problem of the event's first invalid text; None if all are valid."""
    type_, key = event.get("type"), event.get("idempotency_key")
    if type_ is None or type_ == "":
        return Problem(Reason.MISSING_FIELD, "type", "The type field is required.")
    for field in ("type", "source", "subject", "idempotency_key"):
        value = event.get(field)
        if value is not None and (problem := text_problem(field, value)) is not None:
            return problem
    if key == "":
        return Problem(
            Reason.EMPTY_FIELD, "idempotency_key", "The idempotency_key field must not be empty; leave it out."
        )
    return None


def text_problem(field: str, value: Any, limit: int = MAX_TEXT) -> Problem | None:
    """Return the problem of `value` if it is not a text of at most `limit` characters that every store can hold."""
    if type(value) is not str:
        return _wrong_type(field, "a string", value)
    if len(value) > limit:
        return Problem(Reason.TOO_LONG, field, f"The {field} field is longer than {limit} characters.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return Problem(
                Reason.INVALID_UNICODE,
                field,
                f"The {field} field contains a lone surrogate, which is not Unicode text.",
            )
    if "\0" in value:
        return Problem(Reason.INVALID_CHARACTER, field, f"The {field} field contains the character U+0000.")
    return None


_JSON_TYPES: dict[type, str] = {str: "a string", dict: "an object", list: "a list"}


def json_type(value: Any) -> str:
    """Return what JSON calls the type of a value, with its article."""
    if value is None:
        return "null"
    if type(value) is bool:
        return "a boolean"
    return _JSON_TYPES.get(type(value), "a number")


def _respell(event: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]] | Problem:
    """Change ProtoJSON's spelling of names to ours, and warn of unknown fields."""
    known: dict[str, Any] = {}
    warnings: list[str] = []
    unknown = 0
    for name, value in event.items():
        if name in _FIELDS_OF_PROTO:
            return Problem(
                Reason.UNKNOWN_FIELD, name, "data_json is a field of gRPC messages; in JSON the object goes into data."
            )
        field = _ALIASES.get(name, name)
        if field not in _FIELDS:
            unknown += 1
            if unknown <= _WARNED_FIELDS:
                warnings.append(f"The field {_shown(name)} is not known and was ignored.")
        elif field in known:
            return Problem(Reason.DUPLICATE_FIELD, field, f"The field {field} occurs twice, in two spellings.")
        else:
            known[field] = value
    if unknown > _WARNED_FIELDS:
        warnings.append(f"{unknown - _WARNED_FIELDS} more fields are not known and were ignored.")
    return known, tuple(warnings)


def _shown(name: str) -> str:
    """Return a client's name for an answer: bounded, quoted, and without characters that have no UTF-8."""
    short = name if len(name) <= 80 else name[:79] + "…"
    return '"' + short.encode(errors="backslashreplace").decode() + '"'


def _wrong_type(field: str, expected: str, value: Any) -> Problem:
    return Problem(Reason.WRONG_TYPE, field, f"The {field} field must be {expected}, not {json_type(value)}.")
