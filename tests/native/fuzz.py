"""Draws and damages events and bodies at random, and compares the compiled core with the Python code on each.

    python -m tests.native.fuzz --seconds 1800 [--seed N]

`json_inputs.py` and `proto_inputs.py` draw by the grammars; here seeds are damaged too, also the bodies of vendors and
CloudEvents, whose drafts the core links. It ends with status 1 at the first difference, and prints the input that shows
it. A difference that was mended goes into `found.py`, with which every run begins. `make fuzz` runs it.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from google.api.httpbody_pb2 import HttpBody

from headgate_server.core import timestamps
from headgate_server.core.model import Draft, Mismatch, Problem, StoredEvent
from headgate_server.core.reasons import Reason
from headgate_server.core.types import Salt
from headgate_server.receivers import HttpRequest, Intake, Take
from headgate_server.receivers.registry import RECEIVERS
from headgate_server.rpc import cloudevents
from tests.native import twins
from tests.native.columns import ODD_VALUES
from tests.native.driver import Driver
from tests.native.found import FOUND
from tests.native.proto_inputs import ProtoInputs
from tests.native.shapes import SHAPES, as_json, as_message
from tests.support import poison
from tests.support.vendors import VENDORS, with_payload
from tests.unit.test_specification import CANONICAL

_SMALL = 4_000
"""Bytes of a seed. Larger ones are slow, and no odder."""
_MOMENTS = (twins.NOW, timestamps.month(twins.NOW)[1], 1_000, timestamps.month_start(203001))
"""Clocks: also at the end of a month or a year, and among the first moments that an id can hold."""

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


class Fuzzer:
    """Makes inputs and compares."""

    def __init__(self, seed: int):
        self.chance = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self._inputs = ProtoInputs(self.chance)
        self._proto = [as_message(shape) for shape in SHAPES]
        self._proto += [
            one if isinstance(one, bytes) else one.SerializeToString() for one, _ in poison.PROTO_REJECTED.values()
        ]
        self._json = [as_json(shape) for shape in SHAPES] + [text for text, _ in poison.JSON.values()]
        self._json += [b'{"type":"t","data":{"a":%s}}' % vector["json"].encode() for vector in CANONICAL["values"]]
        self._proto = [one for one in self._proto if len(one) < _SMALL]
        self._json = [one for one in self._json if len(one) < _SMALL]
        self._takes = [
            (receiver.name, path, endpoint)
            for receiver in RECEIVERS.values()
            for (_, path), endpoint in receiver.routes().items()
            if isinstance(endpoint, Take)
        ]
        self._driver = Driver()
        self.last: Any = None

    def close(self) -> None:
        """End its connection."""
        self._driver.close()

    def step(self) -> None:
        """Make one input, and compare. Raises `Different`."""
        self._inputs.turn()
        work: Sequence[Callable[[], Sequence[Draft | Problem]]] = (
            *(self._messages, self._messages, self._body, self._body),
            *(self._damaged_messages, self._damaged_body, self._vendors, self._cloudevents),
        )
        slots = [self._marked(slot) for slot in self.chance.choice(work)()]
        if slots and self.chance.random() < 0.3:
            self._settle(slots)

    def _settle(self, slots: Sequence[Draft | Problem]) -> None:
        groups = [self.chance.choices(slots, k=self.chance.randrange(1, 6)) for _ in range(self.chance.randrange(1, 4))]
        quota = self.chance.choice((None, None, self.chance.randrange(6)))
        atomic = self.chance.random() < 0.3
        now = self.chance.choice(_MOMENTS) + self.chance.randrange(-4, 2)
        self.last = (groups, quota, atomic, now)
        rows = twins.settled(groups, slots[:1] * self.chance.randrange(2), quota=quota, atomic=atomic, now=now)
        self.counts["settled"] += sum(map(len, groups))
        if rows and self.chance.random() < 0.7:
            self._copy(rows)

    def _copy(self, rows: Sequence[StoredEvent]) -> None:
        """Send rows as they are, or with a value that may be of another type than its column."""
        copied = list(rows)
        if self.chance.random() < 0.3:
            at, column = self.chance.randrange(len(copied)), self.chance.choice(StoredEvent._fields)
            copied[at] = copied[at]._replace(**{column: self.chance.choice(ODD_VALUES)})
        self.last = copied
        self.counts["copied"] += len(copied)
        self.counts["copied by the core"] += len(copied) * self._driver.compare(copied)

    def _marked(self, slot: Draft | Problem) -> Draft | Problem:
        """Return a slot as another receiver or a schema would have it, sometimes."""
        if isinstance(slot, Problem) or self.chance.random() < 0.7:
            return slot
        match self.chance.randrange(4):
            case 0:
                return slot._replace(on_mismatch=self.chance.choice(list(Mismatch)))
            case 1:
                return slot._replace(warnings=("w", self._inputs.text()))
            case 2:
                return slot._replace(refused=Problem(Reason.SCHEMA_MISMATCH, "data", self._inputs.text()))
            case _:
                return slot._replace(attributes=b'{"a":1}', receiver="cloudevents")

    def _messages(self) -> Sequence[Draft | Problem]:
        return self._decoded_events([self._inputs.proto_event() for _ in range(self.chance.randrange(1, 4))])

    def _damaged_messages(self) -> Sequence[Draft | Problem]:
        seeds = [*self._proto, self._inputs.proto_event(), self._inputs.proto_event()]
        tokens = PROTO_TOKENS + JSON_TOKENS[:20]
        count = self.chance.randrange(1, 4)
        return self._decoded_events([damaged(self.chance, self._seed(seeds), seeds, tokens) for _ in range(count)])

    def _seed(self, seeds: Sequence[bytes]) -> bytes:
        """Choose a seed: one that was drawn just now as often as one of the others."""
        return self.chance.choice(seeds if self.chance.random() < 0.5 else seeds[-2:])

    def _decoded_events(self, events: Sequence[bytes]) -> Sequence[Draft | Problem]:
        self.last = events
        self.counts["messages"] += len(events)
        if twins.FOUND.core is not None:
            _, left = twins.FOUND.core.decode_events(events, [Salt(bytes(16))] * len(events))
            self.counts["taken"] += len(events) - len(left)
        return self._counted(twins.slots_of(twins.decoded_events(events)))

    def _body(self) -> Sequence[Draft | Problem]:
        count = self.chance.randrange(1, 5)
        body = self._inputs.body([self._inputs.json_event() for _ in range(count)])
        return self._decoded_body(body, count + self.chance.choice((-1, 0, 1, 100)))

    def _damaged_body(self) -> Sequence[Draft | Problem]:
        seeds = [*self._json, self._inputs.json_event(), self._inputs.json_event()]
        events = [damaged(self.chance, self._seed(seeds), seeds, JSON_TOKENS) for _ in range(self.chance.randrange(4))]
        body = self._inputs.body(events)
        if self.chance.random() < 0.2:
            body = damaged(self.chance, body, seeds, JSON_TOKENS)
        return self._decoded_body(body, twins.LIMIT)

    def _decoded_body(self, body: bytes, limit: int) -> Sequence[Draft | Problem]:
        self.last = (body, limit)
        self.counts["bodies"] += 1
        return self._counted(twins.slots_of(twins.decoded_body(body, limit)))

    def _vendors(self) -> Sequence[Draft | Problem]:
        """Read a vendor's body. The core does not read it, but links its drafts, and answers."""
        name, path, endpoint = self.chance.choice(self._takes)
        vendor = VENDORS[name]
        events = [
            with_payload(vendor, vendor.event(self.chance.randrange(3)), self._inputs.object())
            for _ in range(self.chance.randrange(1, 4))
        ]
        if self.chance.random() < 0.3:
            events[0] = damaged(self.chance, events[0], events, JSON_TOKENS)
        body = events[0]
        if endpoint.list_name is not None:
            body = b"[%s]" % b",".join(events)
            body = b'{"%s":%s}' % (endpoint.list_name.encode(), body) if endpoint.list_name else body
        request = HttpRequest("POST", path, {}, body, twins.NOW)
        self.last = request
        self.counts["vendors"] += 1
        self.counts[f"of {name}"] += 1
        read = twins.both(lambda: endpoint.read(request))
        return self._counted(read.slots if isinstance(read, Intake) else ())

    def _cloudevents(self) -> Sequence[Draft | Problem]:
        """Read events in CloudEvents' JSON, as a batch. As with vendors, the core links their drafts."""
        seed = b'{"specversion":"1.0","id":%s,"source":"/s","type":"t","x":%s,"time":%s,"data":%s}'
        drawn = self._inputs
        events = [
            seed % (drawn.json_text(drawn.name()), drawn.number(), drawn.time(), drawn.value())
            for _ in range(self.chance.randrange(1, 4))
        ]
        if self.chance.random() < 0.3:
            events[0] = damaged(self.chance, events[0], events, JSON_TOKENS)
        body = HttpBody(content_type="application/cloudevents-batch+json", data=b"[%s]" % b",".join(events))
        self.last = body
        self.counts["cloudevents"] += 1
        read = twins.both(lambda: cloudevents.received(body, "", twins.LIMIT).slots)
        return self._counted([slot for slot in read if isinstance(slot, Draft | Problem)])

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
    for found in FOUND:
        twins.compare(found)
    until = time.monotonic() + options.seconds
    steps = 0
    with closing(Fuzzer(seed)) as fuzzer:
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
