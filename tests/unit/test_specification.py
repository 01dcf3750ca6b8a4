"""A verifier of the ledger written from docs/design/{canonical,ledger}.md alone.

It represents a verifier in another language: it uses only hashlib, struct and json, and no code of Headgate.
"""

import json
import struct
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

_VECTORS = Path(__file__).parent.parent / "vectors"
LEDGER = json.loads((_VECTORS / "ledger.json").read_text())
CANONICAL = json.loads((_VECTORS / "canonical.json").read_text())

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


class Num(str):
    """A number token. Its type distinguishes it from a string."""


def canonical_json(text: str) -> bytes:
    """canonical.md, "Text"."""
    return write(json.loads(text, parse_int=Num, parse_float=Num)).encode()


def write(value: Any) -> str:
    if isinstance(value, Num):
        return write_number(value)
    if isinstance(value, str):
        return '"' + "".join(_ESCAPES.get(c, f"\\u{ord(c):04x}" if c < " " else c) for c in value) + '"'
    if isinstance(value, dict):
        return "{" + ",".join(f"{write(name)}:{write(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(write, value)) + "]"
    return {None: "null", True: "true", False: "false"}[value]


def write_number(token: str) -> str:
    """canonical.md, "Numbers"."""
    sign = "-" if token[0] == "-" else ""
    mantissa, _, exponent = token.lstrip("-").lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    n = len(digits) - len(fraction) + int(exponent or 0)
    digits = digits.rstrip("0")
    k = len(digits)
    if not digits:
        return "0"
    if k <= n and (n <= 21 or (k > 17 and n - k <= 21)):
        return sign + digits + "0" * (n - k)
    if 0 < n <= 21:
        return sign + digits[:n] + "." + digits[n:]
    if -6 < n <= 0:
        return sign + "0." + "0" * -n + digits
    return f"{sign}{digits[0]}{'.' if k > 1 else ''}{digits[1:]}e{'+' if n > 0 else '-'}{abs(n - 1)}"


def content(event: dict[str, Any]) -> bytes:
    """canonical.md, "The content of an event"."""
    members = {name: Num(event["occurred_at"]) for name in ["occurred_at"] if event["occurred_at"] is not None}
    members |= {name: event[name] for name in ("source", "subject", "type") if event[name] != ""}
    for name in ("attributes", "data"):
        if event.get(name) is not None:
            members[name] = json.loads(event[name], parse_int=Num, parse_float=Num)
    return write(members).encode()


def identity(receiver: str, scope: str, key: str) -> bytes:
    """ledger.md, "Identity"."""
    parts = [part.encode() for part in (receiver, scope, key)]
    return sha256(b"headgate/identity/v1\0" + b"".join(struct.pack(">I", len(part)) + part for part in parts)).digest()


def frame(previous: bytes, event: dict[str, Any], named: bytes, commitment: bytes) -> bytes:
    """ledger.md, "The event's frame"."""
    return (
        b"headgate/event/v1\0"
        + previous
        + struct.pack(">Q", event["sequence"])
        + struct.pack(">q", event["created_at"])
        + bytes.fromhex(event["id"])
        + named
        + commitment
        + str(event["receiver"]).encode()
    )


def uuid7(created_at: int, random: bytes) -> bytes:
    """ledger.md, "Id"."""
    milliseconds, microseconds = divmod(created_at, 1000)
    return (
        milliseconds.to_bytes(6, "big")
        + struct.pack(">H", 0x7000 + microseconds * 4096 // 1000)
        + bytes([random[0] & 0x3F | 0x80])
        + random[1:]
    )


def verified(workspace: str, rows: Iterable[Any]) -> bytes:
    """Check a ledger's rows from its genesis on, as they are stored. Return the last hash."""
    previous = sha256(b"headgate/ledger/v1\0" + workspace.encode()).digest()
    for sequence, row in enumerate(rows, 1):
        event = {**row._asdict(), "id": row.id.hex()}
        sealed = sha256(row.salt + content(event)).digest()
        named = bytes(32) if row.key is None else identity(row.receiver, row.scope or "", row.key)
        previous = sha256(frame(previous, event, named, sealed)).digest()
        assert (row.sequence, row.commitment, row.event_hash) == (sequence, sealed, previous)
        assert uuid7(row.created_at, row.id[8:]) == row.id
        assert row.dedupe in (None, named[:16])
    return previous


@pytest.mark.parametrize("vector", CANONICAL["values"], ids=lambda vector: vector["name"])
def test_canonical_values(vector: dict[str, str]) -> None:
    assert canonical_json(vector["json"]).hex() == vector["canonical_hex"]
    assert vector["canonical"].encode().hex() == vector["canonical_hex"]


@pytest.mark.parametrize("vector", CANONICAL["numbers"], ids=lambda vector: vector["json"][:30])
def test_canonical_numbers(vector: dict[str, str]) -> None:
    assert write_number(vector["json"]) == vector["canonical"]


@pytest.mark.parametrize("vector", CANONICAL["doubles"], ids=lambda vector: vector["ieee754_hex"])
def test_canonical_doubles(vector: dict[str, str]) -> None:
    (value,) = struct.unpack(">d", bytes.fromhex(vector["ieee754_hex"]))
    assert write_number(repr(value)) == vector["canonical"]


@pytest.mark.parametrize("vector", CANONICAL["contents"], ids=lambda vector: vector["name"])
def test_contents(vector: dict[str, Any]) -> None:
    event = {**vector, "occurred_at": vector["occurred_at_us"], "data": vector["data_json"]}
    event["attributes"] = vector.get("attributes_json")
    assert content(event).hex() == vector["canonical_hex"]


@pytest.mark.parametrize("vector", LEDGER["genesis"], ids=lambda vector: vector["workspace"])
def test_genesis(vector: dict[str, str]) -> None:
    assert sha256(b"headgate/ledger/v1\0" + vector["workspace"].encode()).hexdigest() == vector["hash"]


@pytest.mark.parametrize("vector", LEDGER["identities"], ids=lambda vector: f"{vector['scope']}-{vector['key']}")
def test_identities(vector: dict[str, str]) -> None:
    named = identity(vector["receiver"], vector["scope"], vector["key"])
    assert (named.hex(), named[:16].hex()) == (vector["sha256"], vector["dedupe"])


@pytest.mark.parametrize("vector", LEDGER["ids"], ids=lambda vector: str(vector["created_at"]))
def test_ids(vector: dict[str, Any]) -> None:
    assert uuid7(vector["created_at"], bytes.fromhex(vector["random"])).hex() == vector["id"]


@pytest.mark.parametrize("vector", LEDGER["commitments"], ids=lambda vector: vector["content"])
def test_commitments(vector: dict[str, str]) -> None:
    assert sha256(bytes.fromhex(vector["salt"]) + vector["content"].encode()).hexdigest() == vector["commitment"]


def test_the_chain_from_its_genesis_to_its_head() -> None:
    chain = LEDGER["chain"]
    previous = sha256(b"headgate/ledger/v1\0" + chain["workspace"].encode()).digest()
    for sequence, event in enumerate(chain["events"], 1):
        assert event["sequence"] == sequence
        assert event["previous_hash"] == previous.hex()
        assert event["content"] == content(event).decode()
        commitment = sha256(bytes.fromhex(event["salt"]) + content(event)).digest()
        assert event["commitment"] == commitment.hex()
        named = bytes(32) if event["key"] is None else identity(event["receiver"], event["scope"], event["key"])
        framed = frame(previous, event, named, commitment)
        assert event["frame"] == framed.hex()
        previous = sha256(framed).digest()
        assert event["event_hash"] == previous.hex()
        event_id = bytes.fromhex(event["id"])
        assert uuid7(event["created_at"], event_id[8:]) == event_id
    assert chain["head"] == {
        "sequence": len(chain["events"]),
        "hash": previous.hex(),
        "created_at": chain["events"][-1]["created_at"],
    }


@pytest.mark.parametrize(
    "tamper",
    [
        lambda event: event | {"type": "other"},
        lambda event: event | {"data": '{"amount":49.91,"currency":"EUR"}'},
        lambda event: event | {"created_at": event["created_at"] + 1},
        lambda event: event | {"receiver": "other"},
        lambda event: event | {"key": "other"},
    ],
)
def test_a_changed_event_does_not_verify(tamper: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    event = tamper(LEDGER["chain"]["events"][0])
    commitment = sha256(bytes.fromhex(event["salt"]) + content(event)).digest()
    named = identity(event["receiver"], event["scope"], event["key"])
    framed = frame(bytes.fromhex(event["previous_hash"]), event, named, commitment)
    assert sha256(framed).hexdigest() != event["event_hash"]
