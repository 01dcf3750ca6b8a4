"""The five vendors as the property test sees them: events that are valid, events that are not, and the exact answer
to a request, given what the model says became of each event.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

from hypothesis import strategies as st

from headgate_server.core.model import Mismatch
from headgate_server.receivers import Receiver
from headgate_server.receivers.registry import RECEIVERS


class Fate(Enum):
    """The outcome of an event in the model."""

    NEW = "new"
    REPLACED = "replaced"
    SAME = "same"
    CONFLICT = "conflict"
    INVALID = "invalid"


LINKED = frozenset({Fate.NEW, Fate.REPLACED})
KEPT = LINKED | {Fate.SAME}


class Case(NamedTuple):
    """One event as it is sent: JSON, its identity, and a mark that distinguishes contents of that identity."""

    text: bytes
    valid: bool = False
    key: str | None = None
    content: str = ""


class Given(NamedTuple):
    """One event, its fate, and the id of its row, if a row holds it."""

    case: Case
    fate: Fate
    id: bytes = b""


class _Sentence:
    """Equal to any text that is not empty: the receivers' own tests check the wording of sentences."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and other != ""

    __hash__ = None  # type: ignore[assignment]


SENTENCE = _Sentence()

Answer = tuple[int, Any]
Members = dict[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """One vendor's facts that the test needs."""

    receiver: Receiver
    batch: str
    single: str
    members: Callable[[str | None, bytes], Members]
    """Makes a valid event's members as JSON texts, from a key and a content."""
    broken: Mapping[str, Sequence[bytes | None]]
    """The values that a member must not have; None means absent."""
    answer: Callable[[Sequence[Given]], Answer]
    on_mismatch: Mismatch | None
    """None if events have no identity."""
    keyless: bool = False
    """Whether an event may leave its key out."""
    atomic: bool = False
    request_key: bool = False


_LONG = b'"' + b"x" * 300 + b'"'
_NUL = rb'"a\u0000"'
_SURROGATE = rb'"\ud800"'
_ODD_TEXTS = (b"5", b"true", b"[]", b"{}", b"1e400", _SURROGATE, _NUL, _LONG)
_NO_TEXTS = (None, b"null", b'""', *_ODD_TEXTS)
_ODD_OBJECTS = (b"5", b"true", b'"x"', b"[]", b"-1e400")
_NO_OBJECTS = (None, b"null", *_ODD_OBJECTS)
_ODD_TIMES = (b'""', b"5", b"{}", b'"yesterday"', b'"2024-13-01T00:00:00Z"', _SURROGATE)
_NO_TIMES = (None, b"null", *_ODD_TIMES)

POISON: Sequence[bytes] = (
    _SURROGATE, rb'{"\udc00":1}', b'{"a":1,"a":1}', b"1e9999999999", b"[" * 200 + b"]" * 200,
    b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
)  # fmt: skip
"""Values that no event may hold anywhere."""
NO_EVENTS: Sequence[bytes] = (b"5", b"null", b"true", b'"x"', b"[]", b"{}", rb'{"\ud800":1}')

_CONTENTS: Mapping[bytes, str] = {
    b"1": "one", b"1.0": "one", b"10e-1": "one", b'"1"': "text", b"true": "true", b"null": "null", b"[1]": "list",
    b"18446744073709551617": "large", b"18446744073709551617.0": "large", b"1e400": "huge", b"1e-400": "tiny",
    rb'"\ud83d\ude00"': "emoji", '"😀"'.encode(): "emoji", rb'"\u0000"': "nul", b'{"b":1,"a":2}': "object",
    b'{"a":2,"b":1.0}': "object",
}  # fmt: skip
"""Contents that every vendor accepts, with a mark that is equal for equal contents."""

_KEYS = ("a", "b", "é😀", "K" * 255)


def cases(vendor: Vendor) -> st.SearchStrategy[Case]:
    """Return valid and invalid events with few keys and contents, so that they repeat."""
    keys = st.sampled_from((None, *_KEYS) if vendor.keyless else _KEYS)
    valid = st.builds(_valid, st.just(vendor), keys, st.sampled_from([*_CONTENTS]), st.booleans())
    flaws = st.sampled_from([(field, raw) for field, raws in vendor.broken.items() for raw in raws])
    poisons = st.tuples(st.just("x"), st.sampled_from(POISON))
    spoilt = st.builds(_spoilt, st.just(vendor), keys, flaws | poisons)
    return valid | valid | spoilt | st.sampled_from(NO_EVENTS).map(Case)


def text_of(members: Members) -> bytes:
    """Return a JSON object whose members are JSON texts."""
    return b"{%s}" % b",".join(b'"%s":%s' % (name.encode(), raw) for name, raw in members.items())


def batch_of(batch: Sequence[Case]) -> bytes:
    """Return the body of a batch."""
    return b'{"events":[%s]}' % b",".join(case.text for case in batch)


def _valid(vendor: Vendor, key: str | None, raw: bytes, turned: bool) -> Case:
    members = vendor.members(key, raw)
    if turned:  # the order of members is not content
        members = dict(reversed(members.items()))
    return Case(text_of(members), True, key if vendor.on_mismatch else None, _CONTENTS[raw])


def _spoilt(vendor: Vendor, key: str | None, flaw: tuple[str, bytes | None]) -> Case:
    field, raw = flaw
    members = vendor.members(key, b"1")
    members.pop(field, None)
    return Case(text_of(members if raw is None else members | {field: raw}))


def _quoted(text: str | None) -> bytes:
    return json.dumps(text).encode()


def _shown(event_id: bytes) -> str:
    return str(UUID(bytes=event_id))


PROGRAM = "550e8400-e29b-41d4-a716-446655440000"


def _scrip_members(key: str | None, raw: bytes) -> Members:
    return {
        "program_id": _quoted(PROGRAM),
        "idempotency_key": _quoted(key),
        "event_timestamp": b'"2024-01-15T10:30:00Z"',
        "external_id": b'"user_abc123"',
        "event_data": b'{"type":"purchase","n":%s}' % raw,
    }


def _scrip_answer(batch: Sequence[Given]) -> Answer:
    results: list[Any] = []
    for index, given in enumerate(batch):
        if given.fate in KEPT:
            event = {
                "id": _shown(given.id),
                "idempotency_key": given.case.key,
                "program_id": PROGRAM,
                "participant_id": None,
                "external_id": "user_abc123",
                "event_timestamp": "2024-01-15T10:30:00Z",
                "status": "PENDING",
            }
            results.append({"index": index, "status": "accepted", "event": event})
        else:
            error = "idempotency_conflict" if given.fate is Fate.CONFLICT else SENTENCE
            results.append({"index": index, "status": "error", "error": error, "event": None})
    kept = sum(given.fate in KEPT for given in batch)
    body = {"total": len(batch), "success_count": kept, "error_count": len(batch) - kept, "results": results}
    return 200, body


SCRIP = Vendor(
    receiver=RECEIVERS["scrip"],
    batch="/v1/events/batch",
    single="/v1/events",
    members=_scrip_members,
    broken={
        "program_id": (*_NO_TEXTS, b'"prog_1"'),
        "idempotency_key": _NO_TEXTS,
        "event_timestamp": _NO_TIMES,
        "event_data": _NO_OBJECTS,
        "external_id": _NO_TEXTS,
        "participant_id": (*_ODD_TEXTS, b'"part_1"'),
        "recipient_id": (*_ODD_TEXTS, b'"part_1"'),
    },
    answer=_scrip_answer,
    on_mismatch=Mismatch.CONFLICT,
)


def _immutable_members(key: str | None, raw: bytes) -> Members:
    named = {} if key is None else {"idempotency_key": _quoted(key)}
    return {"actor_id": b'"user_1"', "action": b'"document.created"', "metadata": b'{"n":%s}' % raw} | named


def _immutable_answer(batch: Sequence[Given]) -> Answer:
    words = {Fate.NEW: "queued", Fate.SAME: "duplicate"}
    invalid = {"id": None, "status": "invalid", "error": "validation_failed", "message": SENTENCE}
    events = [
        {"id": _shown(given.id), "status": words[given.fate]} if given.fate in words else invalid for given in batch
    ]
    return 202, {"events": events}


IMMUTABLE = Vendor(
    receiver=RECEIVERS["immutable"],
    batch="/api/v1/events/batch",
    single="/api/v1/events",
    members=_immutable_members,
    broken={
        "actor_id": _NO_TEXTS,
        "action": _NO_TEXTS,
        "idempotency_key": _ODD_TEXTS,
        "resource": _ODD_TEXTS,
        "metadata": (*_ODD_OBJECTS, text_of({f"k{n}": b"1" for n in range(51)}), b'{"a":"%s"}' % (b"x" * 65_536)),
        "occurred_at": _ODD_TIMES,
        "targets": (b"{}", b"[{}]", b"[5]", b'[{"type":5}]'),
        "version": (b'"1"', b"1.5", b"true"),
    },
    answer=_immutable_answer,
    on_mismatch=Mismatch.DUPLICATE,
    keyless=True,
)


def _roboflow_members(key: str | None, raw: bytes) -> Members:
    return {
        "eventId": _quoted(key),
        "eventType": b'"quality_check"',
        "useCaseId": b'"line-1"',
        "timestamp": b'"2024-01-15T10:30:00.000Z"',
        "eventData": b'{"result":"pass","n":%s}' % raw,
    }


def _roboflow_answer(batch: Sequence[Given]) -> Answer:
    kept = [given.case.key for given in batch if given.fate in KEPT]
    if not kept:
        return 400, {"error": SENTENCE}
    warnings = {str(index): [SENTENCE] for index, given in enumerate(batch) if given.fate not in KEPT}
    return 201, {"created": len(kept), "eventIds": kept} | ({"warnings": warnings} if warnings else {})


ROBOFLOW = Vendor(
    receiver=RECEIVERS["roboflow"],
    batch="/vision-events/batch",
    single="/vision-events",
    members=_roboflow_members,
    broken={
        "eventId": _NO_TEXTS,
        "eventType": _NO_TEXTS,
        "useCaseId": _NO_TEXTS,
        "timestamp": _NO_TIMES,
        "eventData": _NO_OBJECTS,
    },
    answer=_roboflow_answer,
    on_mismatch=Mismatch.REPLACE,
)


def _flokit_members(_: str | None, raw: bytes) -> Members:
    return {
        "event": b'"subscription_started"',
        "timestamp": b'"2024-01-15T10:30:00Z"',
        "user_id": b'"user_1"',
        "properties": b'{"currency":"USD","n":%s}' % raw,
    }


def _evt(event_id: bytes) -> str:
    """Write an id in base 32 by its bits, five at a time."""
    bits = f"{int.from_bytes(event_id):0130b}"
    digits = "0123456789abcdefghjkmnpqrstvwxyz"
    return "evt_" + "".join(digits[int(bits[at : at + 5], 2)] for at in range(0, 130, 5))


def _flokit_answer(batch: Sequence[Given]) -> Answer:
    ids = [_evt(given.id) for given in batch if given.fate in KEPT]
    errors = [
        {"index": index, "event": _event_name(given.case), "reason": SENTENCE}
        for index, given in enumerate(batch)
        if given.fate not in KEPT
    ]
    return 200, {
        "status": "ok", "accepted": len(ids), "rejected": len(errors), "event_ids": ids, "errors": errors,
    }  # fmt: skip


class _NameOrNull:
    """Equal to the name of this vendor's events, and to null if an event has no name that can be shown."""

    def __eq__(self, other: object) -> bool:
        return other in (None, "", "subscription_started")

    __hash__ = None  # type: ignore[assignment]


def _event_name(case: Case) -> Any:
    """Return the name that an error shows."""
    named = case.text.startswith(b'{"event":"subscription_started"') and not any(raw in case.text for raw in POISON)
    return "subscription_started" if named else _NameOrNull()


FLOKIT = Vendor(
    receiver=RECEIVERS["flokit"],
    batch="/v1/batch/events",
    single="/v1/events",
    members=_flokit_members,
    broken={
        "event": _NO_TEXTS,
        "timestamp": _NO_TIMES,
        "user_id": _NO_TEXTS,
        "anonymous_id": (),
        "properties": (None, b"{}", b'{"currency":5}', b'{"currency":null}', *_ODD_OBJECTS),
    },
    answer=_flokit_answer,
    on_mismatch=None,
    request_key=True,
)


def _vibefollow_members(_: str | None, raw: bytes) -> Members:
    return {"external_user_id": b'"user_1"', "name": b'"video_watched"', "properties": b'{"n":%s}' % raw}


class _Field:
    """Equal to the path of an event, or of a member of it."""

    def __init__(self, index: int):
        self._event = f"events[{index}]"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and (other == self._event or other.startswith(self._event + "."))

    __hash__ = None  # type: ignore[assignment]


def _vibefollow_answer(batch: Sequence[Given]) -> Answer:
    bad = [index for index, given in enumerate(batch) if given.fate is Fate.INVALID]
    if not bad:
        return 202, {"data": {"accepted": True}}
    errors = [{"code": "validation_failed", "message": SENTENCE, "field": _Field(index)} for index in bad]
    return 422, {"errors": errors}


VIBEFOLLOW = Vendor(
    receiver=RECEIVERS["vibefollow"],
    batch="/api/v1/events/batch",
    single="/api/v1/events",
    members=_vibefollow_members,
    broken={
        "external_user_id": _NO_TEXTS,
        "name": _NO_TEXTS,
        "properties": (*_ODD_OBJECTS, text_of({f"k{n}": b"1" for n in range(101)})),
    },
    answer=_vibefollow_answer,
    on_mismatch=None,
    atomic=True,
    request_key=True,
)

VENDORS: Mapping[str, Vendor] = {
    vendor.receiver.name: vendor for vendor in (FLOKIT, IMMUTABLE, ROBOFLOW, SCRIP, VIBEFOLLOW)
}
