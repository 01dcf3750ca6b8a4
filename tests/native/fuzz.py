"""Damages events and bodies at random, and compares the compiled core with the Python code on each.

    python -m tests.native.fuzz --seconds 1800 [--seed N]

It ends with status 1 at the first difference, and prints the input that shows it. `make fuzz` runs it.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from headgate.v1.event_pb2 import Event
from headgate_server.core.model import Draft, Mismatch, Problem
from headgate_server.core.reasons import Reason
from tests.native import twins
from tests.native.shapes import SHAPES, as_json, as_message
from tests.support import poison
from tests.unit.test_specification import CANONICAL

_SMALL = 4_000
"""Bytes of a seed. Larger ones are slow, and no odder."""

JSON_TOKENS = (
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u", b"\\u00", b"\\ud83d", b"\\ude00", b"\\u0000", b"\\n",
    b"\\/", b"null", b"true", b"false", b"NaN", b"-", b"-0", b"0", b"1", b".", b"e", b"E+", b"e-400", b"1e21",
    b"1e-7", b"0.1", b"9007199254740993", b"12345678901234567890", b"1.0", b" ", b"\n", b"\t", b"\0", b"\x1f",
    b"\x7f", b"\xff", b"\xc3\xa9", b"\xed\xa0\x80", b"\xf0\x9f\x91\x8d", b"\xef\xbb\xbf", b'"type"', b'"data"',
    b'"source"', b'"occurred_at"', b'"occurredAt"', b'"idempotency_key"', b'"events"', b'"atomic"',
    b'"validateOnly"', b"2026-11-30T12:25:09Z", b"+01:00", b".123456789", b":60Z", b'{"type":"t"}', b'"a":1,',
    b"x" * 256, b"[" * 101, b'{"a":' * 40,
)  # fmt: skip
PROTO_TOKENS = (
    b"\x0a", b"\x12", b"\x1a", b"\x22", b"\x2a", b"\x32", b"\x3a", b"\x08", b"\x10", b"\x11", b"\x20", b"\x0a\x01t",
    b"\x3a\x00", b"\x32\x02{}", b"\x2a\x00", b"\x22\x02\x08\x01", b"\x22\x02\x10\x01", b"\x80\x00",
    b"\xff" * 9 + b"\x01", b"\x0b", b"\x0c", b"\x42\x00", b"\x0a\x04\x0a\x00\x12\x00", b"\x00" * 8,
    b"\x7f\xf0" + b"\x00" * 6, b"\x1a\x01a", b"\x08\x00", b"\x20\x02", b"\xff", b"\0",
)  # fmt: skip


def damaged(chance: random.Random, text: bytes, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """Return a text with a few random changes."""
    changed = bytearray(text)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 6))):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(7):
            case 0 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                del changed[at : at + chance.randrange(1, 9)]
            case 2:
                changed[at:at] = chance.choice(tokens)
            case 3:
                changed[at : at + chance.randrange(1, 5)] = chance.choice(tokens)
            case 4:
                end = at + chance.randrange(1, 40)
                changed[at:at] = changed[at:end]
            case 5:
                other = chance.choice(seeds)
                start = chance.randrange(len(other) + 1)
                changed[at:at] = other[start : start + chance.randrange(1, 60)]
            case _:
                changed[at : at + 1] = bytes((chance.randrange(256),))
    return bytes(changed)


def number(chance: random.Random) -> bytes:
    """Return a number that is spelt in any way."""
    digits = "".join(chance.choice("0123456789") for _ in range(chance.choice((1, 2, 5, 15, 16, 17, 18, 19, 22, 30))))
    token = chance.choice(("", "", "-")) + (digits.lstrip("0") or "0")
    if chance.random() < 0.6:
        token += (
            "." + "0" * chance.choice((0, 0, 1, 5, 6, 7, 20)) + str(chance.randrange(10 ** chance.randrange(1, 20)))
        )
    if chance.random() < 0.4:
        token += chance.choice("eE") + chance.choice(("", "+", "-")) + "0" * chance.randrange(3)
        token += str(chance.randrange(10 ** chance.randrange(1, 4)))
    return token.encode()


def struct_event(chance: random.Random) -> bytes:
    """Return an event with a Struct of random doubles and names."""
    event = Event(type="t")
    for _ in range(chance.randrange(5)):
        name = "".join(chance.choice('ab"\\\n\x01é👍~') for _ in range(chance.randrange(4)))
        match chance.randrange(4):
            case 0:
                event.data[name] = chance.choice((chance.uniform(-1e6, 1e6), 10.0 ** chance.randrange(-320, 309)))
            case 1:
                event.data[name] = float(chance.randrange(-(2**60), 2**60))
            case 2:
                event.data[name] = {name: [None, True, name, {}, []]}
            case _:
                event.data[name] = chance.random() * 10.0 ** chance.randrange(-30, 30)
    return event.SerializeToString()


class Fuzzer:
    """Makes inputs and compares."""

    def __init__(self, seed: int):
        self.chance = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self._proto = [as_message(shape) for shape in SHAPES]
        self._proto += [
            one if isinstance(one, bytes) else one.SerializeToString() for one, _ in poison.PROTO_REJECTED.values()
        ]
        self._json = [as_json(shape) for shape in SHAPES] + [text for text, _ in poison.JSON.values()]
        self._json += [b'{"type":"t","data":{"a":%s}}' % vector["json"].encode() for vector in CANONICAL["values"]]
        self._proto = [one for one in self._proto if len(one) < _SMALL]
        self._json = [one for one in self._json if len(one) < _SMALL]
        self.last: Any = None

    def step(self) -> None:
        """Make one input, and compare. Raises `Different`."""
        work: Callable[[], Sequence[Draft | Problem]] = self.chance.choice(
            (self._messages, self._messages, self._body, self._body, self._numbers, self._structs)
        )
        slots = [self._marked(slot) for slot in work()]
        if slots and self.chance.random() < 0.3:
            chosen = [
                self.chance.choices(slots, k=self.chance.randrange(1, 6)) for _ in range(self.chance.randrange(1, 4))
            ]
            quota = self.chance.choice((None, None, self.chance.randrange(6)))
            atomic = self.chance.random() < 0.3
            self.last = (chosen, quota, atomic)
            twins.settled(chosen, slots[:1] * self.chance.randrange(2), quota=quota, atomic=atomic)
            self.counts["settled"] += sum(map(len, chosen))

    def _marked(self, slot: Draft | Problem) -> Draft | Problem:
        """Return a slot as another receiver or a schema would have it, sometimes."""
        if isinstance(slot, Problem) or self.chance.random() < 0.7:
            return slot
        match self.chance.randrange(4):
            case 0:
                return slot._replace(on_mismatch=self.chance.choice(list(Mismatch)))
            case 1:
                return slot._replace(warnings=("w", "é"))
            case 2:
                return slot._replace(refused=Problem(Reason.SCHEMA_MISMATCH, "data", "No."))
            case _:
                return slot._replace(attributes=b'{"a":1}', receiver="cloudevents")

    def _messages(self) -> Sequence[Draft | Problem]:
        count = self.chance.randrange(1, 4)
        events = [
            damaged(self.chance, self.chance.choice(self._proto), self._proto, PROTO_TOKENS + JSON_TOKENS[:20])
            for _ in range(count)
        ]
        return self._decoded_events(events)

    def _structs(self) -> Sequence[Draft | Problem]:
        event = struct_event(self.chance)
        return self._decoded_events([event, damaged(self.chance, event, self._proto, PROTO_TOKENS)])

    def _decoded_events(self, events: Sequence[bytes]) -> Sequence[Draft | Problem]:
        self.last = events
        self.counts["messages"] += len(events)
        return self._counted(twins.slots_of(twins.decoded_events(events)))

    def _body(self) -> Sequence[Draft | Problem]:
        events = [
            damaged(self.chance, self.chance.choice(self._json), self._json, JSON_TOKENS)
            for _ in range(self.chance.randrange(1, 4))
        ]
        frame = self.chance.choice((b"[%s]", b'{"events":[%s]}', b' {"atomic":true, "events" : [ %s ]}', b"%s"))
        body = frame % b",".join(events)
        if self.chance.random() < 0.2:
            body = damaged(self.chance, body, self._json, JSON_TOKENS)
        return self._decoded_body(body)

    def _numbers(self) -> Sequence[Draft | Problem]:
        numbers = [number(self.chance) for _ in range(4)]
        payload = b'{"b":%s,"a":[%s,%s],"c":{"d":%s}}' % (*numbers,)
        self._decoded_events([Event(type="t", data_json=payload).SerializeToString()])
        return self._decoded_body(b'[{"type":"t","data":%s}]' % payload)

    def _decoded_body(self, body: bytes) -> Sequence[Draft | Problem]:
        self.last = body
        self.counts["bodies"] += 1
        return self._counted(twins.slots_of(twins.decoded_body(body)))

    def _counted(self, slots: Sequence[Draft | Problem]) -> Sequence[Draft | Problem]:
        drafts = sum(isinstance(slot, Draft) for slot in slots)
        self.counts["drafts"] += drafts
        self.counts["problems"] += len(slots) - drafts
        return slots


def main() -> int:
    """Fuzz for a time. Return 1 at the first difference."""
    parser = argparse.ArgumentParser(description="Compare the compiled core with the Python code.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    if twins.FOUND.core is None:
        print(f"nothing to compare: {twins.FOUND.said} (make native)", file=sys.stderr)
        return 1
    seed = time.time_ns() if options.seed is None else options.seed
    fuzzer = Fuzzer(seed)
    until = time.monotonic() + options.seconds
    steps = 0
    while time.monotonic() < until:
        try:
            fuzzer.step()
        except BaseException as error:
            print(f"seed {seed}, step {steps}, input {fuzzer.last!r}", file=sys.stderr)
            if isinstance(error, twins.Different):
                print(error, file=sys.stderr)
                return 1
            raise
        steps += 1
    print(json.dumps({"seed": seed, "steps": steps, "cpu_seconds": round(time.process_time()), **fuzzer.counts}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
