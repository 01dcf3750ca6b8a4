"""The compiled core gives the golden vectors."""

import struct
from hashlib import sha256
from typing import Any

import pytest

from headgate.v1.event_pb2 import Event
from headgate_server.core import ledger
from tests.native import twins
from tests.support.drafts import draft
from tests.unit import test_specification as independent

pytestmark = twins.needs_core

CANONICAL, LEDGER = independent.CANONICAL, independent.LEDGER


def _canonical(payload: bytes) -> bytes | None:
    """Return the canonical form of a payload by the compiled core alone; None if it leaves the event to Python."""
    event = Event(type="t", data_json=payload).SerializeToString()
    slots, left = twins.core().decode_events([event], [bytes(16)])
    return None if left else slots[0].data


@pytest.mark.parametrize("vector", CANONICAL["values"], ids=lambda vector: vector["name"])
def test_golden_values(vector: dict[str, str]) -> None:
    wrapped = _canonical(b'{"a":%s}' % vector["json"].encode())
    assert wrapped == b'{"a":%s}' % bytes.fromhex(vector["canonical_hex"])


@pytest.mark.parametrize("vector", CANONICAL["numbers"], ids=lambda vector: vector["json"][:30])
def test_golden_numbers(vector: dict[str, str]) -> None:
    wrapped = _canonical(b'{"a":%s}' % vector["json"].encode())
    if wrapped is None:
        assert len(vector["json"].lower().partition("e")[2].lstrip("+-0")) > 4  # a long exponent is left to Python
    else:
        assert wrapped.decode() == f'{{"a":{vector["canonical"]}}}'


@pytest.mark.parametrize("vector", CANONICAL["doubles"], ids=lambda vector: vector["ieee754_hex"])
def test_golden_doubles(vector: dict[str, str]) -> None:
    event = Event(type="t")
    event.data["a"] = struct.unpack(">d", bytes.fromhex(vector["ieee754_hex"]))[0]
    slots, left = twins.core().decode_events([event.SerializeToString()], [bytes(16)])
    assert (left, slots[0].data.decode()) == ([], f'{{"a":{vector["canonical"]}}}')


@pytest.mark.parametrize("vector", CANONICAL["rejected"], ids=lambda vector: vector["name"])
def test_what_has_no_canonical_form_is_left_to_python(vector: dict[str, Any]) -> None:
    levels = vector.get("levels", 0)
    text = vector.get("json") or '{"a":' * levels + "1" + "}" * levels
    assert _canonical(text.encode()) is None


@pytest.mark.parametrize("vector", CANONICAL["contents"], ids=lambda vector: vector["name"])
def test_golden_contents(vector: dict[str, Any]) -> None:
    if vector.get("attributes_json") is not None:
        pytest.skip("no event of our own API has attributes")
    event = Event(type=vector["type"], source=vector["source"], subject=vector["subject"])
    if vector["occurred_at_us"] is not None:
        event.occurred_at.seconds, rest = divmod(vector["occurred_at_us"], 1_000_000)
        event.occurred_at.nanos = rest * 1_000
    if vector["data_json"] is not None:
        event.data_json = vector["data_json"].encode()
    slots, left = twins.core().decode_events([event.SerializeToString()], [bytes(16)])
    if left:
        assert not vector["data_json"].startswith("{")  # our own API takes only objects
    else:
        assert slots[0].canonical.hex() == vector["canonical_hex"]
        assert slots[0].commitment == sha256(bytes(16) + slots[0].canonical).digest()


@pytest.mark.parametrize("vector", LEDGER["identities"], ids=lambda vector: f"{vector['scope']}-{vector['key']}")
def test_golden_identities(vector: dict[str, str]) -> None:
    if vector["receiver"] != "native":
        pytest.skip("only our own API's events are decoded by the core")
    event = Event(type="t", source=vector["scope"], idempotency_key=vector["key"])
    slots, left = twins.core().decode_events([event.SerializeToString()], [bytes(16)])
    assert (left, slots[0].identity.hex(), slots[0].dedupe.hex()) == ([], vector["sha256"], vector["dedupe"])


def test_the_golden_chain() -> None:
    """The compiled core links the vectors' events to the vectors' hashes."""
    chain = LEDGER["chain"]
    head = ledger.genesis(chain["workspace"])
    previous, clock = head.hash, 0
    for event in chain["events"]:
        named = b"" if event["key"] is None else ledger.identity(event["receiver"], event["scope"], event["key"])
        sealed = draft(event["key"], None, type=event["type"], receiver=event["receiver"])._replace(
            identity=named, commitment=bytes.fromhex(event["commitment"]), dedupe=None
        )
        clock = event["created_at"]
        random = bytes.fromhex(event["id"])[8:]
        _, rows, previous = twins.core().decide_run(
            [sealed], 0, random, {}, 1, event["sequence"] - 1, previous, clock, 1
        )
        assert (rows[0].id.hex(), rows[0].event_hash.hex()) == (event["id"], event["event_hash"])
        assert previous.hex() == event["event_hash"]
